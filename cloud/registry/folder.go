package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	"golang.org/x/sys/unix"
)

// folder is a place in the file system. Servers may share it. The time of a file
// "data" or "link" is when somebody last asked for it. See touching.
type folder struct{ dir string }

func (f folder) String() string { return f.dir }

func (f folder) images() string { return filepath.Join(f.dir, "images") }

// path is where a file is for the operating system.
func (f folder) path(file string) string {
	return filepath.Join(f.images(), filepath.FromSlash(file))
}

func (f folder) driver() (storagedriver.StorageDriver, error) {
	inner, err := filesystem.FromParameters(map[string]any{"rootdirectory": f.images()})
	if err != nil {
		return nil, err
	}
	return &touching{inner, f}, nil
}

func (f folder) within(context.Context, string) (view, error) { return f, nil }

func (f folder) list(_ context.Context, dir string) ([]string, error) { return list(f.path(dir)) }

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
	names, err := f.Readdirnames(-1)
	if errors.Is(err, syscall.ENOTDIR) {
		return nil, nil
	}
	return names, err
}

func (f folder) stat(_ context.Context, file string) (stat, error) {
	info, err := os.Stat(f.path(file))
	if err != nil {
		return stat{}, err
	}
	return stat{info.Size(), info.ModTime()}, nil
}

func (f folder) size(ctx context.Context, file string) (int64, error) {
	s, err := f.stat(ctx, file)
	return s.size, err
}

func (f folder) read(_ context.Context, file string) ([]byte, error) {
	opened, err := os.Open(f.path(file))
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	return io.ReadAll(io.LimitReader(opened, maxManifest))
}

func (f folder) use(_ context.Context, files []string) error {
	for _, file := range files {
		if err := unix.UtimesNanoAt(unix.AT_FDCWD, f.path(file), nil, 0); err != nil {
			return &fs.PathError{Op: "use", Path: file, Err: err}
		}
	}
	return nil
}

func (f folder) young(_ context.Context, dir string, limit time.Time) (bool, error) {
	return trash{f, limit}.anyYoung(f.path(dir), true)
}

func (f folder) clock(_ context.Context, dry bool) (time.Time, error) {
	if dry {
		return time.Now(), nil
	}
	return clock(f.dir)
}

func (f folder) owner(_ context.Context, id string, claim bool) (string, error) {
	path := filepath.Join(f.dir, "cloud-id")
	if _, err := os.Stat(path); !claim && errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	owner, err := once(path, id+"\n")
	return strings.TrimSpace(owner), err
}

func (f folder) restore(context.Context) error { return trash{folder: f}.restore() }

func (f folder) discard(_ context.Context, dir string, limit time.Time) (bool, error) {
	return trash{f, limit}.discard(f.path(dir))
}

func (f folder) tidy(context.Context, view, time.Time) error { return nil }

func (f folder) empty(context.Context) error { return trash{folder: f}.empty() }

// touching is the library's storage in a folder, with one thing more: whoever asks
// for a blob or for a link to one sets its time to now, before he is told that it
// is there. So who clears up sees from the time that somebody counts on it.
type touching struct {
	storagedriver.StorageDriver
	folder folder
}

// touch is about all that can be cleared up; other files stay as they are.
func (t *touching) touch(file string) {
	if !strings.HasSuffix(file, "/data") && !strings.HasSuffix(file, "/link") {
		return
	}
	// The clock is the file system's: several servers share one. A file that is not
	// there is noticed by the caller.
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, t.folder.path(file), nil, 0)
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

// Move is how an upload becomes a blob.
func (t *touching) Move(ctx context.Context, from, to string) error {
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
