package locks

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Containers of users write into the folders of their services, as root. So
// nothing here follows a link, nothing opens what is no regular file, and what
// was looked at by name is looked at again by its number once it is open.

// What a temporary file of ours is called: never like a lock.
const (
	tempPrefix = ".deckhand-"
	tempSuffix = ".tmp"
)

// A container may fill its folder; we read no more names of it than this.
const maxNames = 4096

// errChanged says that a path leads to something else than a moment ago.
var errChanged = errors.New("it keeps changing")

// fileID is a file whatever it is called.
type fileID struct{ dev, ino uint64 }

// seen is what lstat says.
type seen struct {
	id    fileID
	uid   int
	kind  string
	since time.Time
	mode  uint32 // permissions
}

const (
	kindFile   = "file"
	kindFolder = "folder"
	kindLink   = "symlink"
)

func see(st *unix.Stat_t) seen {
	s := seen{
		id:    fileID{dev: uint64(st.Dev), ino: st.Ino},
		uid:   int(st.Uid),
		since: time.Unix(st.Mtim.Unix()),
		mode:  st.Mode & 0o7777,
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		s.kind = kindFile
	case unix.S_IFDIR:
		s.kind = kindFolder
	case unix.S_IFLNK:
		s.kind = kindLink
	case unix.S_IFIFO:
		s.kind = "pipe"
	case unix.S_IFSOCK:
		s.kind = "socket"
	default:
		s.kind = "device"
	}
	return s
}

// dir is an open folder: what happens to its path afterwards does not matter.
type dir struct{ *os.File }

func (d dir) fd() int { return int(d.Fd()) }

func (d dir) path(name string) string { return filepath.Join(d.Name(), name) }

func (d dir) close() { _ = d.Close() }

// openDir opens a folder whose path is ours alone.
func openDir(path string) (dir, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	return asDir(fd, path, err)
}

// sub opens a folder in d, and makes it first if that is wanted.
func (d dir) sub(name string, create bool) (dir, error) {
	if create {
		if err := unix.Mkdirat(d.fd(), name, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return dir{}, &fs.PathError{Op: "mkdir", Path: d.path(name), Err: err}
		}
	}
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	return asDir(fd, d.path(name), err)
}

// errNoFolder is for what stands where a folder belongs.
var errNoFolder = errors.New("is no folder; remove it")

func asDir(fd int, path string, err error) (dir, error) {
	switch {
	case err == nil:
		return dir{os.NewFile(uintptr(fd), path)}, nil
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return dir{}, fmt.Errorf("%s %w", path, errNoFolder)
	}
	return dir{}, &fs.PathError{Op: "open", Path: path, Err: err}
}

// letAllWrite gives the folder the mode with which a service's process under
// any user can make a lock, and only remove its own.
func (d dir) letAllWrite() error {
	var st unix.Stat_t
	if err := unix.Fstat(d.fd(), &st); err != nil {
		return &fs.PathError{Op: "stat", Path: d.Name(), Err: err}
	}
	if see(&st).mode == 0o1777 {
		return nil
	}
	if err := unix.Fchmod(d.fd(), 0o1777); err != nil {
		return &fs.PathError{Op: "chmod", Path: d.Name(), Err: err}
	}
	return nil
}

// lstat looks at a name in d; fs.ErrNotExist if there is nothing.
func (d dir) lstat(name string) (seen, error) {
	var st unix.Stat_t
	err := ignoringEINTR(func() error { return unix.Fstatat(d.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return seen{}, &fs.PathError{Op: "lstat", Path: d.path(name), Err: err}
	}
	return see(&st), nil
}

// open opens a regular file, and nothing else: to open a device or a pipe that
// a container has put there could do something.
func (d dir) open(name string) (*os.File, seen, error) {
	fail := func(err error) (*os.File, seen, error) {
		return nil, seen{}, &fs.PathError{Op: "open", Path: d.path(name), Err: err}
	}
	pin, err := retry(func() (int, error) {
		return unix.Openat(d.fd(), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fail(err)
	}
	defer func() { _ = unix.Close(pin) }()
	var st unix.Stat_t
	if err := unix.Fstat(pin, &st); err != nil {
		return fail(err)
	}
	s := see(&st)
	if s.kind != kindFile {
		return fail(errChanged)
	}
	fd, err := retry(func() (int, error) {
		return unix.Open("/proc/self/fd/"+strconv.Itoa(pin), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return fail(err)
	}
	return os.NewFile(uintptr(fd), d.path(name)), s, nil
}

// draft makes a file under a temporary name that belongs to uid, carries our
// mark and is flocked by us.
func (d dir) draft(uid int) (*os.File, string, seen, error) {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	name := tempPrefix + hex.EncodeToString(b[:]) + tempSuffix
	fd, err := retry(func() (int, error) {
		return unix.Openat(d.fd(), name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
	})
	if err != nil {
		return nil, "", seen{}, &fs.PathError{Op: "create", Path: d.path(name), Err: err}
	}
	file := os.NewFile(uintptr(fd), d.path(name))
	s, err := dress(file, uid)
	if err != nil {
		_ = unix.Unlinkat(d.fd(), name, 0)
		_ = file.Close()
		return nil, "", seen{}, err
	}
	return file, name, s, nil
}

// dress turns a new file into one of our locks.
func dress(file *os.File, uid int) (seen, error) {
	fd := int(file.Fd())
	if uid != os.Geteuid() {
		err := unix.Fchown(fd, uid, -1)
		if errors.Is(err, unix.EPERM) {
			return seen{}, fmt.Errorf("give %s to uid %d: %w; only root may: run deckhand as root", file.Name(), uid, err)
		}
		if err != nil {
			return seen{}, &fs.PathError{Op: "chown", Path: file.Name(), Err: err}
		}
	}
	mark := fmt.Sprintf("deckhand\npid %d\n%s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	if _, err := file.WriteString(mark); err != nil {
		return seen{}, fmt.Errorf("mark lock: %w", err)
	}
	if held, err := tryFlock(file); err != nil || !held {
		return seen{}, fmt.Errorf("flock %s: %w", file.Name(), errors.Join(err, errIf(!held, errChanged)))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return seen{}, &fs.PathError{Op: "stat", Path: file.Name(), Err: err}
	}
	return see(&st), nil
}

// tryFlock takes an exclusive flock if nobody has one.
func tryFlock(file *os.File) (bool, error) {
	err := ignoringEINTR(func() error { return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB) })
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// link gives the file a second name; fs.ErrExist if there is something.
func (d dir) link(from, to string) error {
	return d.op("link", to, func() error { return unix.Linkat(d.fd(), from, d.fd(), to, 0) })
}

// exchange swaps what two names lead to in one go, whatever it is.
func (d dir) exchange(a, b string) error {
	return d.op("exchange", b, func() error { return unix.Renameat2(d.fd(), a, d.fd(), b, unix.RENAME_EXCHANGE) })
}

// move renames, and never over something.
func (d dir) move(from, to string) error {
	return d.op("rename", from, func() error { return unix.Renameat2(d.fd(), from, d.fd(), to, unix.RENAME_NOREPLACE) })
}

// unlink removes anything but a folder; nothing there is fine.
func (d dir) unlink(name string) error {
	err := d.op("remove", name, func() error { return unix.Unlinkat(d.fd(), name, 0) })
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// rmdir removes an empty folder.
func (d dir) rmdir(name string) error {
	return d.op("remove", name, func() error { return unix.Unlinkat(d.fd(), name, unix.AT_REMOVEDIR) })
}

func (d dir) op(what, name string, do func() error) error {
	if err := ignoringEINTR(do); err != nil {
		return &fs.PathError{Op: what, Path: d.path(name), Err: err}
	}
	return nil
}

func isTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

func ignoringEINTR(do func() error) error {
	for {
		if err := do(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func retry(open func() (int, error)) (fd int, err error) {
	err = ignoringEINTR(func() error {
		fd, err = open()
		return err
	})
	return fd, err
}

func errIf(is bool, err error) error {
	if is {
		return err
	}
	return nil
}
