package crash

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// place is what a device keeps on its disk and in its run folder.
type place struct{ dir string }

func (p place) database() string { return filepath.Join(p.dir, "data", "deckhand.db") }
func (p place) run() string      { return filepath.Join(p.dir, "run") }

// entry is a file or folder below the run folder.
type entry struct {
	mode     fs.FileMode
	uid, gid int
	content  string // of a file; where a link leads
}

// disk is a copy of a place.
type disk struct {
	store []byte
	run   map[string]entry
	sum   uint64
}

var seed = maphash.MakeSeed()

// copy reads the place as it is between two writes.
func (p place) copy() (disk, error) {
	var d disk
	for same := false; !same; {
		a, err := os.ReadFile(p.database())
		if err != nil {
			return d, err
		}
		b, err := os.ReadFile(p.database())
		if err != nil {
			return d, err
		}
		d.store, same = a, bytes.Equal(a, b)
	}
	var err error
	for range 100 { // files come and go meanwhile
		if d.run, err = tree(p.run()); err == nil || !errors.Is(err, fs.ErrNotExist) {
			break
		}
	}
	if err != nil {
		return d, err
	}
	var h maphash.Hash
	h.SetSeed(seed)
	_, _ = h.Write(d.store)
	for _, name := range slices.Sorted(maps.Keys(d.run)) {
		fmt.Fprint(&h, name, d.run[name])
	}
	d.sum = h.Sum64()
	return d, nil
}

func tree(root string) (map[string]entry, error) {
	out := map[string]entry{}
	err := filepath.WalkDir(root, func(path string, x fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := x.Info()
		if err != nil {
			return err
		}
		e := entry{mode: info.Mode()}
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			e.uid, e.gid = int(st.Uid), int(st.Gid)
		}
		switch {
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			e.content = string(b)
		case info.Mode()&fs.ModeSymlink != 0:
			if e.content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		name, err := filepath.Rel(root, path)
		out[name] = e
		return err
	})
	return out, err
}

// restore makes the place as it was.
func (p place) restore(d disk) error {
	if err := os.RemoveAll(p.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(p.database()), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(p.database(), d.store, 0o600); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(d.run)) {
		if err := d.run[name].restore(filepath.Join(p.run(), name)); err != nil {
			return err
		}
	}
	return nil
}

func (e entry) restore(path string) error {
	var err error
	switch {
	case e.mode.IsDir():
		err = os.Mkdir(path, 0o700)
	case e.mode&fs.ModeSymlink != 0:
		return os.Symlink(e.content, path)
	default:
		err = os.WriteFile(path, []byte(e.content), 0o600)
	}
	if err != nil {
		return err
	}
	if e.uid != os.Geteuid() || e.gid != os.Getegid() {
		if err := os.Chown(path, e.uid, e.gid); err != nil {
			return err
		}
	}
	return os.Chmod(path, e.mode)
}

// reboot takes away what is in memory only.
func (p place) reboot() error {
	if err := os.RemoveAll(p.run()); err != nil {
		return err
	}
	return os.Mkdir(p.run(), 0o755)
}
