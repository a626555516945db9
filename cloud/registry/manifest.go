package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
)

// maxManifest is the size in bytes of the longest manifest that the library takes.
const maxManifest = 4 << 20

// manifest is what a manifest or index refers to, as digests without algorithm.
type manifest struct {
	blobs     []string // config and layers
	manifests []string // of an index
}

// readManifest reads a stored manifest. The error is fs.ErrNotExist when it is not
// there.
func readManifest(ctx context.Context, v view, digest string) (manifest, error) {
	b, err := v.read(ctx, blobFile(digest))
	if err != nil {
		return manifest{}, err
	}
	m, err := parseManifest(b)
	if err != nil {
		return manifest{}, fmt.Errorf("manifest sha256:%s: %w", digest, err)
	}
	return m, nil
}

func parseManifest(b []byte) (manifest, error) {
	type descriptor struct {
		Digest string   `json:"digest"`
		URLs   []string `json:"urls"`
	}
	var doc struct {
		Config    *descriptor  `json:"config"`
		Layers    []descriptor `json:"layers"`
		Manifests []descriptor `json:"manifests"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return manifest{}, err
	}
	var m manifest
	if doc.Config != nil {
		doc.Layers = append(doc.Layers, *doc.Config)
	}
	for _, d := range doc.Layers {
		if hex, ok := hexOf(d.Digest); ok && len(d.URLs) == 0 { // else it is fetched from elsewhere
			m.blobs = append(m.blobs, hex)
		}
	}
	for _, d := range doc.Manifests {
		if hex, ok := hexOf(d.Digest); ok {
			m.manifests = append(m.manifests, hex)
		}
	}
	if len(m.blobs)+len(m.manifests) == 0 {
		return m, errors.New("it refers to nothing")
	}
	return m, nil
}

// IncompleteError names an image's part that is not in the registry.
type IncompleteError struct{ Repository, Part string }

func (e *IncompleteError) Error() string {
	return fmt.Sprintf("%s: %s is missing in the registry", e.Repository, e.Part)
}

// deepest is how many indexes may be nested.
const deepest = 4

// partsOf are the files that stand for a manifest of a repository and all that it
// refers to: first the manifest. Parts of an index may be left out by those who push
// it, and are passed over. The error is fs.ErrNotExist when a manifest is not there.
func partsOf(ctx context.Context, v view, name, digest string, depth int) ([]string, error) {
	parts := []string{linkIn(revisionsDir(name), digest), blobFile(digest)}
	m, err := readManifest(ctx, v, digest)
	if err != nil {
		return nil, err
	}
	for _, blob := range m.blobs {
		parts = append(parts, linkIn(layersDir(name), blob), blobFile(blob))
	}
	for _, below := range m.manifests {
		if _, err := v.stat(ctx, linkIn(revisionsDir(name), below)); errors.Is(err, fs.ErrNotExist) || depth == deepest {
			continue
		}
		more, err := partsOf(ctx, v, name, below, depth+1)
		if err != nil {
			return nil, err
		}
		parts = append(parts, more...)
	}
	return parts, nil
}

// Images are those that are stored, as they were when they were looked at or are.
type Images struct{ view view }

// Look looks at the images of a storage.
func Look(ctx context.Context, s Storage) (*Images, error) {
	v, err := s.open(0).within(ctx, root)
	return &Images{v}, err
}

// Complete says whether an image can be pulled: its manifest, named by its digest
// "sha256:…", and all layers are there. The error is a *IncompleteError when not.
func (i *Images) Complete(ctx context.Context, repository, digest string) error {
	hex, ok := hexOf(digest)
	if !ok {
		return &IncompleteError{repository, "manifest " + digest}
	}
	parts, err := partsOf(ctx, i.view, repository, hex, 0)
	for _, file := range parts {
		if _, err = i.view.stat(ctx, file); err != nil {
			break
		}
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	missing := "manifest " + digest
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		missing = "blob sha256:" + filepath.Base(filepath.Dir(path.Path))
	}
	return &IncompleteError{repository, missing}
}
