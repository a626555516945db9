package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
func (l layout) readManifest(digest string) (manifest, error) {
	f, err := os.Open(filepath.Join(l.blob(digest), "data"))
	if err != nil {
		return manifest{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxManifest))
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

// use calls visit with the files that stand for a manifest of a repository and all
// that it refers to: first the manifest. The error of visit ends it. Parts of an
// index may be left out by those who push it, and are passed over.
func (l layout) use(name, digest string, visit func(file string) error) error {
	return l.useWithin(name, digest, visit, 0)
}

// deepest is how many indexes may be nested.
const deepest = 4

func (l layout) useWithin(name, digest string, visit func(file string) error, depth int) error {
	if err := visit(filepath.Join(l.revisions(name), digest, "link")); err != nil {
		return err
	}
	if err := visit(filepath.Join(l.blob(digest), "data")); err != nil {
		return err
	}
	m, err := l.readManifest(digest)
	if err != nil {
		return err
	}
	for _, blob := range m.blobs {
		if err := visit(filepath.Join(l.layers(name), blob, "link")); err != nil {
			return err
		}
		if err := visit(filepath.Join(l.blob(blob), "data")); err != nil {
			return err
		}
	}
	for _, part := range m.manifests {
		if _, err := os.Stat(filepath.Join(l.revisions(name), part, "link")); errors.Is(err, fs.ErrNotExist) || depth == deepest {
			continue
		}
		if err := l.useWithin(name, part, visit, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// Complete says whether an image can be pulled: its manifest, named by its digest
// "sha256:…", and all layers are there. The error is a *IncompleteError when not.
func Complete(dir, repository, digest string) error {
	l := layout{dir}
	hex, ok := hexOf(digest)
	if !ok {
		return &IncompleteError{repository, "manifest " + digest}
	}
	err := l.use(repository, hex, func(file string) error {
		_, err := os.Stat(file)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		missing := "manifest " + digest
		if path, ok := errors.AsType[*fs.PathError](err); ok {
			missing = "blob sha256:" + filepath.Base(filepath.Dir(path.Path))
		}
		return &IncompleteError{repository, missing}
	}
	return err
}
