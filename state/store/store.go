package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"

	"deckhand/state"
)

// mapped is how much address space the file gets, far more than it ever holds: to
// map it anew when it grows fails on a file system that has become read-only, and
// then not even what is there can be read any more. growBy is the step, in bytes.
const (
	mapped = 64 << 20
	growBy = 64 << 10
)

// keepDamaged is how many damaged files stay beside the store for inspection.
const keepDamaged = 3

// Options tune Open. The zero value is ready for use.
type Options struct {
	// Timeout is how long to wait for another process to let go of the file;
	// 0 means one second.
	Timeout time.Duration
	// Report is told about every value or bucket that was dropped or set
	// aside, in one sentence without the value itself. Nil: nobody is told.
	Report func(problem error)
	// Write carries out each write. Nil: it is just done. Tests let a disk be
	// full here, or a process end.
	Write func(write func() error) error

	layout layout // zero: the one of this code; tests bring others
}

// Store is an open store. Its fields are the owners of the buckets. All methods
// may be called from several goroutines; each write is on the disk when it
// returns.
type Store struct {
	Targets  Targets
	Commits  Commits
	Specs    Specs
	Images   Images
	Halted   Halted
	Failures Failures
	Reports  Reports
	Identity Identity

	Intents   Intents
	Overrides Overrides
	Handovers Handovers
	Reboots   Reboots
	Adopted   Adopted
	History   History
	Keys      Keys
	Imports   Imports
	Pins      Pins
	Initial   Initial
	Tags      Tags
	Leases    Leases
	Clock     Clock
	Local     Local
	Cursors   Cursors

	db        *bbolt.DB
	path      string
	recovered string
	report    func(error)
	write     func(func() error) error
	layout    layout
	newer     map[string]bool // buckets that a newer deckhand wrote
	told      sync.Map        // what was reported and need not be again
}

// Open opens the store at path and creates it, with its folder, when there is
// none. A damaged file is set aside and replaced, see Recovered. It fails only
// when the disk or another process is in the way.
func Open(path string, o Options) (*Store, error) {
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	if o.Report == nil {
		o.Report = func(error) {}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if o.Write == nil {
		o.Write = func(write func() error) error { return write() }
	}
	if o.layout.versions == nil {
		o.layout = layout{versions: buckets(), migrations: migrations()}
	}
	write := func(do func() error) error { return disk(o.Write(do)) }
	s := &Store{path: path, report: o.Report, write: write, layout: o.layout}
	damage, err := s.inspect(o.Timeout)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", path, err)
	}
	if damage == nil {
		damage, err = s.open(o.Timeout)
		if err != nil {
			return nil, fmt.Errorf("open store %s: %w", path, err)
		}
	}
	if damage != nil {
		if err := s.replace(damage, o.Timeout); err != nil {
			return nil, fmt.Errorf("open store %s: %w", path, err)
		}
	}
	return s, nil
}

// Close lets go of the file.
func (s *Store) Close() error {
	return guard(s.db.Close)
}

// Recovered is the name under which a damaged file was set aside when the store
// was opened; empty when it was sound.
func (s *Store) Recovered() string { return s.recovered }

// inspect verifies an existing file under its lock, so that a file which another
// process is writing to is not taken for damaged.
func (s *Store) inspect(timeout time.Duration) (damage, err error) {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return errors.New("it is not a regular file"), nil
	}
	lock := flock.New(s.path, flock.SetFlag(os.O_RDONLY))
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	if _, err := lock.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			return nil, errInUse
		}
		return nil, err
	}
	defer func() { _ = lock.Close() }()
	return verify(s.path), nil
}

var errInUse = state.Classify(state.ClassTimeout, errors.New("another process uses the file; stop the other deckhand first"))

// open opens the file and prepares the buckets. What another run could not cure
// is damage; what the owner of the machine can cure is err.
func (s *Store) open(timeout time.Duration) (damage, err error) {
	err = guard(func() error {
		db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{
			Timeout: timeout, FreelistType: bbolt.FreelistMapType, NoStatistics: true, InitialMmapSize: mapped,
		})
		if err != nil {
			return err
		}
		db.AllocSize = growBy
		s.db = db
		return s.prepare()
	})
	if err == nil {
		s.own()
		return nil, nil
	}
	if s.db != nil {
		// After a fault inside bbolt its locks may be held; a close that hangs
		// would hang the start, so the mapping is left to the kernel.
		if !errors.Is(err, errFault) {
			_ = guard(s.db.Close)
		}
		s.db = nil
	}
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, errInUse
	case isAny(err, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS):
		return nil, disk(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), isAny(err, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM):
		return nil, err
	}
	return err, nil
}

// replace sets the file aside and opens an empty one.
func (s *Store) replace(damage error, timeout time.Duration) error {
	aside := fmt.Sprintf("%s.damaged-%d", s.path, time.Now().Unix())
	if err := os.Rename(s.path, aside); err != nil {
		return fmt.Errorf("set the damaged file aside: %w", err)
	}
	s.recovered = aside
	s.report(fmt.Errorf("store %s was damaged (%w); it is kept as %s and an empty one is used", s.path, damage, aside))
	s.forgetOldDamage()
	again, err := s.open(timeout)
	if err == nil && again != nil {
		err = again
	}
	return err
}

func (s *Store) forgetOldDamage() {
	files, err := filepath.Glob(s.path + ".damaged-*")
	if err != nil || len(files) <= keepDamaged {
		return
	}
	slices.Sort(files)
	for _, f := range files[:len(files)-keepDamaged] {
		_ = os.RemoveAll(f)
	}
}

var errFault = errors.New("the store file is damaged; restart deckhand to replace it")

// guard turns a panic or a memory fault inside bbolt into an error: the file is
// mapped, so bad bytes and bad disks show up as faults.
func guard(do func() error) (err error) {
	was := debug.SetPanicOnFault(true)
	defer debug.SetPanicOnFault(was)
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w (%v)", errFault, p)
		}
	}()
	return do()
}
