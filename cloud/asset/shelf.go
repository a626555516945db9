package asset

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// shelf is where the files are: a folder, or a bucket. What is not there is
// os.ErrNotExist.
type shelf interface {
	fmt.Stringer // for people
	// begin makes room for an upload's parts, and put keeps one of them.
	begin(uuid string) error
	put(ctx context.Context, uuid, part string, got received) error
	// whole keeps a file of one part.
	whole(ctx context.Context, id, part string, got received) error
	// commit makes a file of the parts of an upload and of nothing else. A part that is
	// not there is a *missingPart. undo makes an upload of it again.
	commit(ctx context.Context, uuid, id string, parts []string) (undo func() error, err error)
	// cancel removes an upload, and discard a file.
	cancel(ctx context.Context, uuid string) error
	discard(ctx context.Context, id string) error
	open(ctx context.Context, id string) (*content, error)
	// owner is whose the files are; when they are nobody's, they are id's.
	owner(ctx context.Context, id string) (string, error)
	// collect removes the files and uploads that are not needed and that nobody wrote to
	// for as long as grace. It asks what is needed after it has looked.
	collect(ctx context.Context, grace time.Duration, needed func() (map[string]bool, error)) (removed int, err error)
}

// missingPart is the place of a part that is not there, from 0.
type missingPart int

func (missingPart) Error() string { return "a part is missing" }

// folder is a shelf in the file system. Servers may share it.
type folder struct{ dir string }

// The folders of a folder.
const (
	files   = "files"
	uploads = "uploads"
)

func (f folder) String() string { return f.dir }

func (f folder) path(parts ...string) string {
	return filepath.Join(append([]string{f.dir}, parts...)...)
}

func (f folder) begin(uuid string) error { return os.Mkdir(f.path(uploads, uuid), 0o700) }

func (f folder) put(_ context.Context, uuid, part string, got received) error {
	return os.Rename(got.path, f.path(uploads, uuid, part))
}

func (f folder) whole(_ context.Context, id, part string, got received) error {
	if err := os.Mkdir(f.path(files, id), 0o700); err != nil {
		return err
	}
	return os.Rename(got.path, f.path(files, id, part))
}

func (f folder) commit(_ context.Context, uuid, id string, parts []string) (undo func() error, err error) {
	from, to := f.path(uploads, uuid), f.path(files, id)
	now := time.Now()
	// Nothing clears up what was touched just now.
	if err := os.Chtimes(from, now, now); err != nil {
		return nil, err
	}
	if err := os.Rename(from, to); err != nil { // from here on no part arrives
		return nil, err
	}
	undo = func() error { return os.Rename(to, from) }
	if err := keepParts(to, parts); err != nil {
		return nil, errors.Join(err, undo())
	}
	return undo, nil
}

// keepParts checks that all parts of an upload are in a folder, and removes what a
// client sent again with another content.
func keepParts(dir string, parts []string) error {
	kept := map[string]bool{}
	for i, name := range parts {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil { // the size was right when it arrived
			return missingPart(i)
		}
		kept[name] = true
	}
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if !kept[e.Name()] {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

func (f folder) cancel(_ context.Context, uuid string) error {
	return os.RemoveAll(f.path(uploads, uuid))
}

func (f folder) discard(_ context.Context, id string) error { return os.RemoveAll(f.path(files, id)) }

func (f folder) open(_ context.Context, id string) (*content, error) {
	dir := f.path(files, id)
	entries, err := os.ReadDir(dir) // by name, so in order
	if err != nil {
		return nil, err
	}
	c := &content{from: func(path string, offset int64) (io.ReadCloser, error) {
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		if _, err := file.Seek(offset, io.SeekStart); err != nil {
			return nil, errors.Join(err, file.Close())
		}
		return file, nil
	}}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		c.add(filepath.Join(dir, e.Name()), info.Size())
	}
	return c, nil
}

func (f folder) owner(_ context.Context, id string) (string, error) {
	path := f.path("cloud-id")
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return id, os.WriteFile(path, []byte(id+"\n"), 0o600)
	}
	return strings.TrimSpace(string(b)), err
}

func (f folder) collect(_ context.Context, grace time.Duration, needed func() (map[string]bool, error)) (removed int, err error) {
	limit := time.Now().Add(-grace)
	var idle []string // listed before the database is asked: what comes later has its row by then
	for _, sub := range []string{files, uploads, partial} {
		names, err := idleIn(f.path(sub), limit)
		if err != nil {
			return 0, err
		}
		idle = append(idle, names...)
	}
	keep, err := needed()
	if err != nil {
		return 0, err
	}
	for _, path := range idle {
		if keep[filepath.Base(path)] {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// idleIn are the paths in a folder that nobody wrote to after the limit.
func idleIn(dir string, limit time.Time) ([]string, error) {
	entries, err := os.ReadDir(dir)
	var idle []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil && !info.ModTime().After(limit) {
			idle = append(idle, filepath.Join(dir, e.Name()))
		}
	}
	return idle, err
}
