package model

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"

	"github.com/gofrs/flock"
)

// quickCheckLimit is the size in bytes up to which the whole file is checked
// for damage when opened (about a second per 200 MB).
const quickCheckLimit = 256 << 20

// lockFile takes the lock file. Two clouds on one file would each miss the
// changes the other makes, because the change feed lives in the process.
func (db *DB) lockFile() error {
	db.lock = flock.New(db.name+".lock", flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := db.lock.TryLock()
	if err != nil {
		return fmt.Errorf("open database %s: lock it: %w; check that the folder exists and can be written", db.name, err)
	}
	if !ok {
		return fmt.Errorf("open database %s: another deckhand-cloud is using it (it holds %s.lock); stop that one first", db.name, db.name)
	}
	return nil
}

// connectSQLite opens the file, which must be locked, and checks it.
func (db *DB) connectSQLite(ctx context.Context) error {
	// Made first so that it never exists with wider permissions: it holds
	// password hashes.
	f, err := os.OpenFile(db.name, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if db.write, err = openSQLite(dsn(db.name, "_txlock=immediate")); err != nil {
		return openError(db.name, err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = openSQLite(dsn(db.name, "_pragma=query_only(1)")); err != nil {
		return openError(db.name, err)
	}
	db.read.SetMaxOpenConns(4)
	db.read.SetMaxIdleConns(4)
	return db.check(ctx)
}

func (db *DB) check(ctx context.Context) error {
	info, err := os.Stat(db.name)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if info.Size() > quickCheckLimit {
		return nil
	}
	var answer string
	if err := db.write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&answer); err != nil {
		return openError(db.name, err)
	}
	if answer != "ok" {
		return damaged(db.name, errors.New(answer))
	}
	return nil
}

func dsn(path string, extra ...string) string {
	options := append([]string{
		"_pragma=busy_timeout(5000)",
		"_pragma=journal_mode(WAL)",
		// A commit is on the disk before it is acknowledged.
		"_pragma=synchronous(FULL)",
		"_pragma=foreign_keys(1)",
	}, extra...)
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String() + "?" + strings.Join(options, "&")
}
