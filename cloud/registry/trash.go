package registry

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// trash is where a folder's things are put before they are removed: first below "aside", from
// where they go back when they are in use after all, then below "gone". After a
// crash what is aside is put back and what is gone is removed.
type trash struct {
	folder
	limit time.Time // what was used later stays
}

func (t trash) aside() string { return filepath.Join(t.dir, "discarded", "aside") }
func (t trash) gone() string  { return filepath.Join(t.dir, "discarded", "gone") }

// anyYoung says whether something in the folder was used or made after the limit, with
// or without the times of folders: those change when a folder is moved.
func (t trash) anyYoung(dir string, folders bool) (bool, error) {
	found := errors.New("found")
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // gone meanwhile
		}
		if err != nil || d.IsDir() && !folders {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && info.ModTime().After(t.limit) {
			return found
		}
		return err
	})
	if err == found { //nolint:errorlint // our own, and WalkDir hands it on as it is
		return true, nil
	}
	return false, err
}

// discard takes a folder away unless something in it is young.
func (t trash) discard(dir string) (bool, error) {
	young, err := t.anyYoung(dir, true)
	if young || err != nil {
		return false, err
	}
	name, err := t.name(dir)
	if err != nil || len(name) > longestName {
		return false, err
	}
	for _, place := range []string{t.aside(), t.gone()} {
		if err := os.MkdirAll(place, 0o700); err != nil {
			return false, err
		}
	}
	aside := filepath.Join(t.aside(), name)
	if err := os.Rename(dir, aside); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return false, err
	}
	if young, err = t.anyYoung(aside, false); err != nil {
		return false, err
	}
	if young {
		return false, t.putBack(name)
	}
	return true, os.Rename(aside, filepath.Join(t.gone(), name))
}

// name is the folder's name in the trash, from which its place can be read.
func (t trash) name(dir string) (string, error) {
	place, err := filepath.Rel(t.path(root), dir)
	if err != nil {
		return "", err
	}
	return url.PathEscape(filepath.ToSlash(place)), nil
}

// longestName is how long the name of a file may be. Repositories of this program
// have short ones.
const longestName = 250

// putBack returns what is aside to its place. What a push has put there meanwhile
// is whole, and stays.
func (t trash) putBack(name string) error {
	aside := filepath.Join(t.aside(), name)
	place, err := url.PathUnescape(name)
	if err != nil || !filepath.IsLocal(filepath.FromSlash(place)) {
		return fmt.Errorf("%s was not put there by this program; move it away", aside)
	}
	to := filepath.Join(t.path(root), filepath.FromSlash(place))
	if _, err := os.Stat(to); err == nil {
		return os.Rename(aside, filepath.Join(t.gone(), name))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil { //nolint:gosec // as the library makes them; the folder above is private
		return err
	}
	err = os.Rename(aside, to)
	if errors.Is(err, fs.ErrExist) { // just now
		return os.Rename(aside, filepath.Join(t.gone(), name))
	}
	return err
}

// restore puts back and removes what an earlier run left when it was killed.
func (t trash) restore() error {
	if err := t.empty(); err != nil {
		return err
	}
	names, err := list(t.aside())
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := t.putBack(name); err != nil {
			return err
		}
	}
	return t.empty()
}

// empty removes what is gone.
func (t trash) empty() error {
	return os.RemoveAll(t.gone())
}
