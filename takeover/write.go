package takeover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"deckhand/locks"
	"deckhand/state/store"
)

// Config says what to take over, and where to.
type Config struct {
	Database string // of balena's supervisor
	Config   string // config.json
	DataDir  string // deckhand's
	Without  []string
	DryRun   bool // only say what there is
	Force    bool // although deckhand has a memory of its own
}

// ErrNotEmpty means that deckhand has a memory already.
var ErrNotEmpty = errors.New("deckhand has run or imported here before; --force writes over what it remembers")

// Run takes an earlier supervisor's memory over. All of it is written, or nothing.
func Run(ctx context.Context, c Config) (Found, error) {
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return Found{}, fmt.Errorf("use data folder: %w", err)
	}
	lock, err := locks.Instance(filepath.Join(c.DataDir, "lock"))
	if err != nil {
		return Found{}, err
	}
	defer func() { _ = lock.Release() }()
	from := Source{Database: c.Database, Config: c.Config, Scratch: c.DataDir, Without: c.Without}
	if c.DryRun {
		return Read(ctx, from)
	}
	s, err := store.Open(filepath.Join(c.DataDir, "deckhand.db"), store.Options{})
	if err != nil {
		return Found{}, err
	}
	f, err := into(ctx, s, from, c.Force)
	return f, errors.Join(err, s.Close())
}

func into(ctx context.Context, s *store.Store, from Source, force bool) (Found, error) {
	if s.Recovered() == "" && !force {
		if err := untouched(s); err != nil {
			return Found{}, err
		}
	}
	f, err := Read(ctx, from)
	if err != nil {
		return f, err
	}
	if err := s.Import(f.Import); err != nil {
		return f, fmt.Errorf("write what was read: %w", err)
	}
	return f, nil
}

// untouched fails when deckhand remembers something that an import would change.
func untouched(s *store.Store) error {
	if last, ok, err := s.Imports.Last(); err != nil {
		return err
	} else if ok {
		return fmt.Errorf("%w (imported %s from %s)", ErrNotEmpty, last.At.Local().Format("2006-01-02 15:04:05"), last.From)
	}
	_, target, err := s.Targets.Last()
	if err != nil {
		return err
	}
	commits, err := s.Commits.All()
	if err != nil {
		return err
	}
	keys, err := s.Keys.All()
	if err != nil {
		return err
	}
	if target || len(commits)+len(keys) > 0 {
		return ErrNotEmpty
	}
	return nil
}
