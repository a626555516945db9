// Package locks keeps supervisors and users out of each other's way: the lock
// that allows one supervisor for each data folder, and the update locks with
// which users' containers put off being stopped.
package locks

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// Lock is a held lock. It ends with Release or with the process, however that
// ends: a file left behind locks nobody out.
type Lock struct {
	file *flock.Flock
}

// InUseError says who holds the lock.
type InUseError struct {
	Folder string    // what is in use
	PID    int       // 0: not known
	Since  time.Time // zero: not known
}

// Error is the sentence that the second supervisor prints.
func (e *InUseError) Error() string {
	who := "another deckhand"
	switch {
	case e.PID != 0 && !e.Since.IsZero():
		who += fmt.Sprintf(" (pid %d, since %s)", e.PID, e.Since.Local().Format("2006-01-02 15:04:05"))
	case e.PID != 0:
		who += fmt.Sprintf(" (pid %d)", e.PID)
	}
	return fmt.Sprintf("%s is using %s; stop it first or give another --data-dir", who, e.Folder)
}

// Instance takes the lock file at path for this process, or fails with an
// *InUseError when another process has it.
func Instance(path string) (*Lock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("take lock %s: %w", path, err)
	}
	f := flock.New(path, flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	held, err := f.TryLock()
	if err != nil {
		return nil, fmt.Errorf("take lock %s: %w", path, err)
	}
	if !held {
		_ = f.Close()
		return nil, holder(path)
	}
	if err := sign(path); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("take lock %s: %w", path, err)
	}
	return &Lock{file: f}, nil
}

// Release gives the lock up. The file stays: deleting it could take the lock
// away from whoever opened it in the meantime.
func (l *Lock) Release() error {
	return l.file.Close()
}

// sign writes who holds the lock, for the message of others.
func sign(path string) error {
	text := fmt.Sprintf("%d\n%s\n", os.Getpid(), time.Now().UTC().Format(time.RFC3339))
	err := os.WriteFile(path, []byte(text), 0o600)
	if err != nil && !errors.Is(err, os.ErrPermission) {
		// A full disk must not keep the supervisor from starting; the lock
		// itself is held all the same.
		return nil
	}
	return err
}

func holder(path string) error {
	e := &InUseError{Folder: filepath.Dir(path)}
	f, err := os.Open(path)
	if err != nil {
		return e
	}
	defer func() { _ = f.Close() }()
	b, _ := io.ReadAll(io.LimitReader(f, 200))
	pid, since, _ := strings.Cut(string(b), "\n")
	if n, err := strconv.Atoi(strings.TrimSpace(pid)); err == nil && n > 0 {
		e.PID = n
	}
	if t, err := time.Parse(time.RFC3339, strings.TrimSpace(since)); err == nil {
		e.Since = t
	}
	return e
}
