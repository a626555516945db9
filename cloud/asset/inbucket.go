package asset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"deckhand/cloud/bucket"
)

// inBucket is a shelf in a bucket. Servers may share it. Nothing is renamed there, so a
// file is a document that names its parts, which stay where they were received:
//
//	/assets/files/<id>/<uuid>           the document: []bucketPart
//	/assets/parts/<uuid>/00001-<sha256> a part
//	/assets/parts/<uuid>/commit         its time is when the document was to be written
type inBucket struct {
	store *bucket.Store
	dir   string // of this server, for what is being received
}

const (
	documents  = "/assets/files"
	parts      = "/assets/parts"
	commitMark = "commit"
	ownerFile  = "/assets-cloud-id"
)

type bucketPart struct {
	Name string `json:"name"`
	Size int64  `json:"size"` // bytes
}

func (b inBucket) String() string { return b.store.String() }

func (b inBucket) begin(string) error { return nil }

func (b inBucket) put(ctx context.Context, uuid, part string, got received) (err error) {
	from, err := os.Open(got.path)
	if err != nil {
		return err
	}
	defer from.Close()
	w, err := b.store.Writer(ctx, path.Join(parts, uuid, part), false)
	if err != nil {
		return err
	}
	if _, err = io.Copy(w, from); err != nil {
		return errors.Join(err, w.Cancel(context.WithoutCancel(ctx)), w.Close())
	}
	return errors.Join(w.Commit(ctx), w.Close())
}

func (b inBucket) whole(ctx context.Context, id, part string, got received) error {
	if err := b.put(ctx, id, part, got); err != nil {
		return err
	}
	return b.document(ctx, id, id, []bucketPart{{part, got.size}})
}

func (b inBucket) document(ctx context.Context, uuid, id string, list []bucketPart) error {
	text, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return b.store.PutContent(ctx, path.Join(documents, id, uuid), text)
}

func (b inBucket) commit(ctx context.Context, uuid, id string, names []string) (undo func() error, err error) {
	// Nothing clears up what was touched just now.
	if err := b.store.PutContent(ctx, path.Join(parts, uuid, commitMark), nil); err != nil {
		return nil, err
	}
	found, err := b.store.Objects(ctx, path.Join(parts, uuid))
	if err != nil {
		return nil, err
	}
	sizes := map[string]int64{}
	for _, o := range found {
		sizes[path.Base(o.Path)] = o.Size
	}
	var list []bucketPart
	for i, name := range names {
		size, ok := sizes[name]
		if !ok {
			return nil, missingPart(i)
		}
		list = append(list, bucketPart{name, size})
	}
	undo = func() error { return b.discard(context.WithoutCancel(ctx), id) }
	return undo, b.document(ctx, uuid, id, list)
}

func (b inBucket) removeAll(ctx context.Context, dir string) error {
	found, err := b.store.Objects(ctx, dir)
	for _, o := range found {
		err = errors.Join(err, b.store.Remove(ctx, o.Path))
	}
	return err
}

func (b inBucket) cancel(ctx context.Context, uuid string) error {
	return b.removeAll(ctx, path.Join(parts, uuid))
}

// discard leaves the parts, which then belong to nothing.
func (b inBucket) discard(ctx context.Context, id string) error {
	return b.removeAll(ctx, path.Join(documents, id))
}

func (b inBucket) open(ctx context.Context, id string) (*content, error) {
	found, err := b.store.Objects(ctx, path.Join(documents, id))
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("open file %s: %w", id, os.ErrNotExist)
	}
	text, err := b.store.GetContent(ctx, found[0].Path)
	if bucket.Missing(err) {
		err = os.ErrNotExist
	}
	var list []bucketPart
	if err == nil {
		err = json.Unmarshal(text, &list)
	}
	if err != nil {
		return nil, fmt.Errorf("open file %s: %w", id, err)
	}
	c := &content{from: func(path string, offset int64) (io.ReadCloser, error) { return b.store.Reader(ctx, path, offset) }}
	for _, p := range list {
		c.add(path.Join(parts, path.Base(found[0].Path), p.Name), p.Size)
	}
	return c, nil
}

func (b inBucket) owner(ctx context.Context, id string) (string, error) {
	return b.store.Claim(ctx, ownerFile, id)
}

// group are the objects of one upload or file.
type group struct {
	names  []string
	latest time.Time
}

// groups are the objects below a folder, by the name of the next folder.
func (b inBucket) groups(ctx context.Context, dir string) (map[string]group, error) {
	found, err := b.store.Objects(ctx, dir)
	all := map[string]group{}
	for _, o := range found {
		name, rest, _ := strings.Cut(strings.TrimPrefix(o.Path, dir+"/"), "/")
		g := all[name]
		g.names = append(g.names, rest)
		if o.Changed.After(g.latest) {
			g.latest = o.Changed
		}
		all[name] = g
	}
	return all, err
}

func (b inBucket) collect(ctx context.Context, grace time.Duration, needed func() (map[string]bool, error)) (removed int, err error) {
	if err := removeIdle(path.Join(b.dir, partial), time.Now().Add(-grace)); err != nil {
		return 0, err
	}
	now, err := b.store.Clock(ctx)
	if err != nil {
		return 0, err
	}
	limit := now.Add(-grace - time.Second) // times are cut to seconds
	stored, err := b.groups(ctx, documents)
	if err != nil {
		return 0, err
	}
	sent, err := b.groups(ctx, parts)
	if err != nil {
		return 0, err
	}
	keep, err := needed() // what comes after the look has its row by then
	if err != nil {
		return 0, err
	}
	files, err := b.collectFiles(ctx, stored, keep, limit)
	if err != nil {
		return files, err
	}
	for uuid, upload := range sent {
		if keep[uuid] || upload.latest.After(limit) {
			continue
		}
		gone, err := b.removeParts(ctx, uuid, limit)
		if err != nil {
			return files + removed, err
		}
		if gone && len(stored[uuid].names) == 0 { // else it was counted
			removed++
		}
	}
	return files + removed, nil
}

// collectFiles removes documents that are not to be kept, and adds to keep the uploads
// of the others.
func (b inBucket) collectFiles(ctx context.Context, stored map[string]group, keep map[string]bool, limit time.Time) (removed int, err error) {
	for id, file := range stored {
		if keep[id] || file.latest.After(limit) {
			for _, uuid := range file.names {
				keep[uuid] = true
			}
			continue
		}
		if err := b.discard(ctx, id); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// removeParts removes parts unless they are committed just now: who does has marked
// them before the database did not need them as an upload any more.
func (b inBucket) removeParts(ctx context.Context, uuid string, limit time.Time) (bool, error) {
	found, err := b.store.Objects(ctx, path.Join(parts, uuid))
	if err != nil {
		return false, err
	}
	for _, o := range found {
		if o.Changed.After(limit) {
			return false, nil
		}
	}
	return true, b.cancel(ctx, uuid)
}

func removeIdle(dir string, limit time.Time) error {
	idle, err := idleIn(dir, limit)
	for _, name := range idle {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}
