package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/rs/zerolog"

	"deckhand/state"
)

const (
	top         = "files"
	unfinished  = ".new-" // before the name of a folder that is being written
	defaultMode = 0o444
)

// Config says where the files are.
type Config struct {
	RunDir string // the folder on the host that services' folders are below
	Log    zerolog.Logger
}

// Folder is where the files of all services are.
type Folder struct {
	cfg  Config
	warn sync.Once
}

// Open gives the folder; nothing is made before the first Write.
func Open(cfg Config) *Folder { return &Folder{cfg: cfg} }

// Entry is one content that was written for a service.
type Entry struct {
	AppID   int64
	Service string
	Hash    string // see state.FilesHash
}

// Write puts the files of a service in place. Content that is there already
// stays: containers may have it open.
func (f *Folder) Write(appID int64, service, hash string, list []state.File) error {
	if err := f.write(appID, service, hash, list); err != nil {
		return fmt.Errorf("write files of %s: %w", service, classify(err))
	}
	return nil
}

func (f *Folder) write(appID int64, service, hash string, list []state.File) error {
	if got := state.FilesHash(list); got != hash {
		return state.Classify(state.ClassInvalid, fmt.Errorf("their content has the hash %s and not %s", got, hash))
	}
	if err := os.MkdirAll(f.cfg.RunDir, 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(f.cfg.RunDir) // a name can never lead out of it
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	f.checkMemory()
	dir := state.FilesDir(appID, service, hash)
	if _, err := root.Stat(dir); err == nil {
		return nil
	}
	parent, fresh := path.Dir(dir), path.Join(path.Dir(dir), unfinished+path.Base(dir))
	// Containers get the single files; only root walks the folders.
	if err := root.MkdirAll(parent, 0o700); err != nil {
		return err
	}
	if err := root.RemoveAll(fresh); err != nil {
		return err
	}
	if err := root.Mkdir(fresh, 0o700); err != nil {
		return err
	}
	for i, x := range list {
		if err := writeFile(root, path.Join(fresh, state.FileName(i)), x); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", x.Target, err), root.RemoveAll(fresh))
		}
	}
	return root.Rename(fresh, dir)
}

func writeFile(root *os.Root, name string, x state.File) error {
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = w.Write(x.Content)
	if x.UID != 0 || x.GID != 0 {
		err = errors.Join(err, w.Chown(x.UID, x.GID))
	}
	mode := fs.FileMode(x.Mode) & fs.ModePerm
	if x.Mode == 0 {
		mode = defaultMode
	}
	// On a disk a power cut must not leave an empty file under its final name.
	return errors.Join(err, w.Chmod(mode), w.Sync(), w.Close())
}

// Remove deletes one content of a service, and the folders above that nothing
// is left in.
func (f *Folder) Remove(appID int64, service, hash string) error {
	root, err := os.OpenRoot(f.cfg.RunDir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove files of %s: %w", service, classify(err))
	}
	defer func() { _ = root.Close() }()
	dir := state.FilesDir(appID, service, hash)
	half := path.Join(path.Dir(dir), unfinished+path.Base(dir))
	if err := errors.Join(root.RemoveAll(dir), root.RemoveAll(half)); err != nil {
		return fmt.Errorf("remove files of %s: %w", service, classify(err))
	}
	for d := path.Dir(dir); d != "."; d = path.Dir(d) {
		if root.Remove(d) != nil {
			break // something else is in it
		}
	}
	return nil
}

// List says what is there, sorted. What an interrupted Write left is not.
func (f *Folder) List() ([]Entry, error) {
	var out []Entry
	apps, err := names(filepath.Join(f.cfg.RunDir, top))
	for _, app := range apps {
		id, bad := strconv.ParseInt(app, 10, 64)
		if bad != nil {
			continue
		}
		services, e := names(filepath.Join(f.cfg.RunDir, top, app))
		err = errors.Join(err, e)
		for _, service := range services {
			hashes, e := names(filepath.Join(f.cfg.RunDir, top, app, service))
			err = errors.Join(err, e)
			for _, h := range hashes {
				out = append(out, Entry{AppID: id, Service: service, Hash: strings.Replace(h, "-", ":", 1)})
			}
		}
	}
	if err != nil {
		return nil, fmt.Errorf("list files of services: %w", classify(err))
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return int(min(1, max(-1, a.AppID-b.AppID))) })
	return out, nil
}

// names lists the folders below a folder, sorted.
func names(dir string) ([]string, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var out []string
	for _, e := range list {
		if e.IsDir() && !strings.HasPrefix(e.Name(), unfinished) {
			out = append(out, e.Name())
		}
	}
	return out, err
}

// The kernel's numbers for file systems in memory.
const (
	tmpfs = 0x01021994
	ramfs = 0x858458f6
)

// checkMemory says once when secrets are about to reach a disk.
func (f *Folder) checkMemory() {
	f.warn.Do(func() {
		var s syscall.Statfs_t
		if syscall.Statfs(f.cfg.RunDir, &s) != nil {
			return
		}
		if kind := uint32(s.Type); kind != tmpfs && kind != ramfs {
			f.cfg.Log.Warn().Str("folder", f.cfg.RunDir).Msg("the run folder is on a disk: secrets of services stay there after a power cut; mount a tmpfs on it")
		}
	})
}

func classify(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return state.Classify(state.ClassSpace, err)
	}
	return state.Classify(state.ClassEngine, err)
}
