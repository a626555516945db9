package locks

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// What of a folder is news. That a file is closed is news only where a flock on it is
// what makes it a lock of somebody else.
const (
	tellNames  = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	tellClosed = unix.IN_CLOSE_WRITE | unix.IN_CLOSE_NOWRITE
	tellFolder = unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_UNMOUNT | unix.IN_Q_OVERFLOW // of the folder itself
)

// bell rings when something happens to the locks in some folders. The kernel tells
// it, so that waiting costs nothing.
type bell struct {
	rings   chan struct{} // holds one ring
	file    *os.File
	conn    rawReader
	reading sync.Mutex     // who has it reads what the kernel told
	folders map[int]uint32 // watch → what of the folder is told
}

// rawReader is the part of syscall.RawConn that a bell needs.
type rawReader interface {
	Read(f func(fd uintptr) (done bool)) error
	Control(f func(fd uintptr)) error
}

// newBell fails when the kernel has no more to give, with EMFILE above all.
func newBell() (*bell, error) {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	file := os.NewFile(uintptr(fd), "inotify")
	conn, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("inotify: %w", err)
	}
	b := &bell{rings: make(chan struct{}, 1), file: file, conn: conn, folders: map[int]uint32{}}
	go b.listen()
	return b, nil
}

func (b *bell) close() { _ = b.file.Close() }

// listen rings until the bell is closed.
func (b *bell) listen() {
	for b.conn.Read(func(fd uintptr) bool {
		b.reading.Lock()
		defer b.reading.Unlock()
		n, relevant := readTold(int(fd), func(told) bool { return true })
		if relevant {
			b.ring()
		}
		return n > 0
	}) == nil {
	}
}

func (b *bell) ring() {
	select {
	case b.rings <- struct{}{}:
	default:
	}
}

// without does something that closes lock files which it only read, and does not
// ring for it. Somebody else who closes one in that very moment is missed.
func (b *bell) without(do func()) {
	b.reading.Lock()
	defer b.reading.Unlock()
	do()
	_ = b.conn.Control(func(fd uintptr) {
		if _, relevant := readTold(int(fd), func(t told) bool { return t.mask&^unix.IN_CLOSE_NOWRITE != 0 }); relevant {
			b.ring()
		}
	})
}

// follow makes the folders of these locks those that the bell rings for, and
// reports whether one is new: what happened in it before is not told.
func (b *bell) follow(root dir, all []UpdateLock, mayBeFlocked func(UpdateLock) bool) (fresh bool, err error) {
	next := map[int]uint32{}
	for _, l := range all {
		mask := uint32(tellNames)
		if mayBeFlocked(l) {
			mask |= tellClosed
		}
		watch, err := b.add(root, l, mask)
		if err != nil {
			return fresh, fmt.Errorf("inotify: %s: %w", filepath.Dir(l.Path), err)
		}
		next[watch] |= mask
		fresh = fresh || b.folders[watch]&mask != mask
	}
	for watch := range b.folders {
		if _, still := next[watch]; !still {
			// The kernel may have forgotten it with the folder.
			_ = b.conn.Control(func(fd uintptr) { _, _ = unix.InotifyRmWatch(int(fd), uint32(watch)) })
		}
	}
	b.folders = next
	return fresh, nil
}

// add goes by the open folder, as everything here: a path may lead elsewhere.
func (b *bell) add(root dir, l UpdateLock, mask uint32) (watch int, err error) {
	app, err := root.sub(strconv.FormatInt(l.AppID, 10), false)
	if err != nil {
		return 0, err
	}
	defer app.close()
	d, err := app.sub(l.Service, false)
	if err != nil {
		return 0, err
	}
	defer d.close()
	path := "/proc/self/fd/" + strconv.Itoa(d.fd())
	failed := b.conn.Control(func(fd uintptr) {
		// Two locks may be in one folder: what is told adds up.
		watch, err = unix.InotifyAddWatch(int(fd), path, mask|unix.IN_ONLYDIR|unix.IN_MASK_ADD)
	})
	if failed != nil {
		return 0, failed
	}
	return watch, err
}

// told is one event of the kernel.
type told struct {
	mask uint32
	name string // empty: the folder itself
}

// readTold takes what the kernel has to tell, some hundred events at most, and
// reports whether something about a lock is among what counts.
func readTold(fd int, counts func(told) bool) (n int, relevant bool) {
	var buf [16 << 10]byte
	n, err := retry(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err != nil {
		return 0, false
	}
	names := lockNames()
	for rest := buf[:n]; len(rest) >= unix.SizeofInotifyEvent; {
		t := told{mask: binary.NativeEndian.Uint32(rest[4:])}
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
		name, _, _ := bytes.Cut(rest[unix.SizeofInotifyEvent:end], []byte{0})
		t.name, rest = string(name), rest[end:]
		if t.name == "" {
			relevant = relevant || t.mask&tellFolder != 0
		} else if slices.Contains(names[:], t.name) && counts(t) {
			relevant = true
		}
	}
	return n, relevant
}
