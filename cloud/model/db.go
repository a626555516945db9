package model

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/gofrs/flock"
	_ "modernc.org/sqlite" // registers the "sqlite" driver
)

// Config says where the data is.
type Config struct {
	// Path is the database file; it is created when missing. Its folder must exist.
	Path string
	// RegistryHost is the host[:port] put in front of image locations. It is
	// a function because the registry may be listening on a port that is
	// known only later. Nil means "registry.invalid".
	RegistryHost func() string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// DB is the open database. Its methods may be called from several goroutines.
type DB struct {
	path  string
	host  func() string
	now   func() time.Time
	write *sql.DB // one connection: writers queue here and not in SQLite's busy loop
	read  *sql.DB
	lock  *flock.Flock
	feed  *Feed
}

// quickCheckLimit is the size in bytes up to which the whole file is checked
// for damage when opened (about a second per 200 MB).
const quickCheckLimit = 256 << 20

// Open opens the database file, checks it, and brings its schema up to date.
// The error of a damaged, locked or unwritable file says what to do.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Path == "" {
		return nil, errors.New("open database: no path given")
	}
	db := &DB{path: cfg.Path, host: cfg.RegistryHost, now: cfg.Now, feed: newFeed()}
	if db.host == nil {
		db.host = func() string { return "registry.invalid" }
	}
	if db.now == nil {
		db.now = time.Now
	}
	if err := db.acquire(); err != nil {
		return nil, err
	}
	if err := db.start(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// acquire takes the lock file. Two clouds on one file would each miss the
// changes the other makes, because the change feed lives in the process.
func (db *DB) acquire() error {
	db.lock = flock.New(db.path+".lock", flock.SetFlag(os.O_CREATE|os.O_RDWR), flock.SetPermissions(0o600))
	ok, err := db.lock.TryLock()
	if err != nil {
		return fmt.Errorf("open database %s: lock it: %w; check that the folder exists and can be written", db.path, err)
	}
	if !ok {
		return fmt.Errorf("open database %s: another deckhand-cloud is using it (it holds %s.lock); stop that one first", db.path, db.path)
	}
	return nil
}

func (db *DB) start(ctx context.Context) error {
	// Made first so that it never exists with wider permissions: it holds
	// password hashes.
	f, err := os.OpenFile(db.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if db.write, err = sql.Open("sqlite", dsn(db.path, "_txlock=immediate")); err != nil {
		return openError(db.path, err)
	}
	db.write.SetMaxOpenConns(1)
	if db.read, err = sql.Open("sqlite", dsn(db.path, "_pragma=query_only(1)")); err != nil {
		return openError(db.path, err)
	}
	db.read.SetMaxOpenConns(4)
	db.read.SetMaxIdleConns(4)
	if err := db.check(ctx); err != nil {
		return err
	}
	if err := migrate(ctx, db.write); err != nil {
		return openError(db.path, err)
	}
	if err := db.seed(ctx); err != nil {
		return openError(db.path, err)
	}
	return nil
}

func (db *DB) check(ctx context.Context) error {
	info, err := os.Stat(db.path)
	if err != nil {
		return fmt.Errorf("open database: %w", err)
	}
	if info.Size() > quickCheckLimit {
		return nil
	}
	var answer string
	if err := db.write.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&answer); err != nil {
		return openError(db.path, err)
	}
	if answer != "ok" {
		return damaged(db.path, errors.New(answer))
	}
	return nil
}

func dsn(path string, extra ...string) string {
	options := append([]string{
		"_pragma=busy_timeout(5000)",
		"_pragma=journal_mode(WAL)",
		"_pragma=synchronous(NORMAL)",
		"_pragma=foreign_keys(1)",
	}, extra...)
	return (&url.URL{Scheme: "file", Opaque: url.PathEscape(path)}).String() + "?" + strings.Join(options, "&")
}

// Close ends all use of the file and releases it to another process.
func (db *DB) Close() error {
	var errs []error
	for _, pool := range []*sql.DB{db.read, db.write} {
		if pool != nil {
			errs = append(errs, pool.Close())
		}
	}
	return errors.Join(append(errs, db.lock.Unlock())...)
}

// Changes is the feed of what changes in this database.
func (db *DB) Changes() *Feed { return db.feed }

// Now is the database's clock.
func (db *DB) Now() time.Time { return db.now().UTC() }

// txn is one write transaction and what to announce once it is committed.
type txn struct {
	*sql.Tx
	topics []Topic
	now    time.Time
}

// announce notes that the topics changed; watchers are told after the commit.
func (t *txn) announce(topics ...Topic) { t.topics = append(t.topics, topics...) }

// insert runs an INSERT … and returns the new row's id.
func (t *txn) insert(ctx context.Context, query string, args ...any) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, query+" RETURNING id", args...).Scan(&id)
	return id, err
}

// update runs one write transaction: all of do happens, or nothing.
func (db *DB) update(ctx context.Context, do func(*txn) error) error {
	tx, err := db.write.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	t := &txn{Tx: tx, now: db.Now()}
	if err := do(t); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	db.feed.publish(t.topics...)
	return nil
}

// location is the full name of an image repository: host of the registry in
// use now and the stored path. Only the path is stored, so that a cloud which
// moves to another host keeps its images.
func (db *DB) location(repository string) string { return db.host() + "/" + repository }

// Repository is the path of an image location without host, tag and digest,
// as stored: "v2/<32 hex>".
func Repository(location string) string {
	location, _, _ = strings.Cut(location, "@")
	if i := strings.Index(location, "/v2/"); i >= 0 {
		return location[i+1:]
	}
	return location
}

// millis is how a time is stored; the zero time is stored as NULL.
func millis(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.UnixMilli()
}

func fromMillis(v sql.NullInt64) time.Time {
	if !v.Valid {
		return time.Time{}
	}
	return time.UnixMilli(v.Int64).UTC()
}

// text is how an optional string is stored; "" is stored as NULL.
func text(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// ref is how an optional reference is stored; 0 is stored as NULL.
func ref(id int64) any {
	if id == 0 {
		return nil
	}
	return id
}

func notFound(err error, format string, args ...any) error {
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf(format+": %w", append(args, ErrNotFound)...)
	}
	return err
}

// randomHex is n random bytes in hex.
func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}
