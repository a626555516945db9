package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/factory"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/sys/unix"
)

// The library's layout on disk, below "images/docker/registry/v2":
//
//	blobs/sha256/<2>/<64>/data                              content by digest
//	repositories/<name>/_layers/sha256/<64>/link            who may read which blob
//	repositories/<name>/_manifests/revisions/sha256/<64>/link
//	repositories/<name>/_manifests/tags/<tag>/current/link
//	repositories/<name>/_manifests/tags/<tag>/index/sha256/<64>/link
//	repositories/<name>/_uploads/<id>/{data,startedat,…}
//
// The time of a file "data" or "link" is when somebody last asked for it. See touching.

// layout finds things in that folder.
type layout struct{ dir string }

func (l layout) root() string { return filepath.Join(l.dir, "images", "docker", "registry", "v2") }

func (l layout) repository(name string) string {
	return filepath.Join(l.root(), "repositories", filepath.FromSlash(name))
}

func (l layout) blobs() string { return filepath.Join(l.root(), "blobs", "sha256") }

// blob is the folder of a blob; digest is 64 hex.
func (l layout) blob(digest string) string {
	return filepath.Join(l.blobs(), digest[:2], digest)
}

func (l layout) layers(name string) string {
	return filepath.Join(l.repository(name), "_layers", "sha256")
}

func (l layout) revisions(name string) string {
	return filepath.Join(l.repository(name), "_manifests", "revisions", "sha256")
}

func (l layout) tags(name string) string {
	return filepath.Join(l.repository(name), "_manifests", "tags")
}

func (l layout) uploads(name string) string { return filepath.Join(l.repository(name), "_uploads") }

var (
	hexRule = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// imageRule is an image's repository, and what belongs to it: its build cache.
	imageRule = regexp.MustCompile(`^(v2/[0-9a-f]{32})(-[0-9]{1,4})?$`)
)

// hexOf is a digest without its algorithm; ok is false for what this registry does
// not store.
func hexOf(digest string) (hex string, ok bool) {
	hex, ok = strings.CutPrefix(digest, "sha256:")
	return hex, ok && hexRule.MatchString(hex)
}

// list is the names in a folder, none when there is no folder.
func list(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// digests are the names in a folder that are digests.
func digests(dir string) ([]string, error) {
	names, err := list(dir)
	found := names[:0]
	for _, name := range names {
		if hexRule.MatchString(name) {
			found = append(found, name)
		}
	}
	return found, err
}

// repositories are the names of all repositories.
func (l layout) repositories(ctx context.Context) ([]string, error) {
	var all []string
	top := filepath.Join(l.root(), "repositories")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // removed meanwhile
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case !d.IsDir() || !strings.HasPrefix(d.Name(), "_"):
			return nil
		}
		name, err := filepath.Rel(top, filepath.Dir(path))
		if err != nil {
			return err
		}
		name = filepath.ToSlash(name)
		if len(all) == 0 || all[len(all)-1] != name {
			all = append(all, name)
		}
		return fs.SkipDir
	})
	return all, err
}

// allBlobs calls visit with the digest of each blob.
func (l layout) allBlobs(ctx context.Context, visit func(digest string) error) error {
	prefixes, err := list(l.blobs())
	if err != nil {
		return err
	}
	for _, prefix := range prefixes {
		found, err := digests(filepath.Join(l.blobs(), prefix))
		if err != nil {
			return err
		}
		for _, digest := range found {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			if err := visit(digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// driverName is what the library knows the storage of this package by.
const driverName = "deckhand"

// register makes the storage known to the library, once for the process.
var register = sync.OnceFunc(func() { factory.Register(driverName, touchingFactory{}) })

type touchingFactory struct{}

// Create is called by the library with its configuration.
func (touchingFactory) Create(_ context.Context, parameters map[string]any) (storagedriver.StorageDriver, error) {
	dir, ok := parameters["rootdirectory"].(string)
	if !ok {
		return nil, errors.New("no rootdirectory")
	}
	inner, err := filesystem.FromParameters(parameters)
	if err != nil {
		return nil, err
	}
	quota, _ := parameters["quota"].(*quota)
	return &touching{inner, dir, quota}, nil
}

// touching is the library's storage in a folder, with one thing more: whoever asks
// for a blob or for a link to one sets its time to now, before he is told that it
// is there. So who clears up sees from the time that somebody counts on it.
type touching struct {
	storagedriver.StorageDriver
	dir   string
	quota *quota
}

// touch is about all that can be cleared up; other files stay as they are.
func (t *touching) touch(file string) {
	if !strings.HasSuffix(file, "/data") && !strings.HasSuffix(file, "/link") {
		return
	}
	// The clock is the file system's: several servers share one. A file that is not
	// there is noticed by the caller.
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(t.dir, file), nil, 0)
}

// GetContent is how links and manifests are read.
func (t *touching) GetContent(ctx context.Context, file string) ([]byte, error) {
	t.touch(file)
	return t.StorageDriver.GetContent(ctx, file)
}

// Reader is how blobs are read.
func (t *touching) Reader(ctx context.Context, file string, offset int64) (io.ReadCloser, error) {
	t.touch(file)
	return t.StorageDriver.Reader(ctx, file, offset)
}

// Stat is how the library finds out whether a blob is there.
func (t *touching) Stat(ctx context.Context, file string) (storagedriver.FileInfo, error) {
	t.touch(file)
	return t.StorageDriver.Stat(ctx, file)
}

// Move is how an upload becomes a blob, and where it is known how large that is.
func (t *touching) Move(ctx context.Context, from, to string) error {
	if err := t.quota.admitMove(ctx, t.dir, from, to); err != nil {
		_ = t.Delete(ctx, path.Dir(from)) // else it goes with other old uploads
		return err
	}
	t.touch(from)
	return t.StorageDriver.Move(ctx, from, to)
}

// clock is the time as the files in dir get it.
func clock(dir string) (time.Time, error) {
	f, err := os.CreateTemp(dir, ".clock-*")
	if err != nil {
		return time.Time{}, fmt.Errorf("read the clock of the file system: %w", err)
	}
	info, err := f.Stat()
	if err = errors.Join(err, f.Close(), os.Remove(f.Name())); err != nil {
		return time.Time{}, fmt.Errorf("read the clock of the file system: %w", err)
	}
	return info.ModTime(), nil
}
