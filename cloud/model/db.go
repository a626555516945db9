package model

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
)

// Config says where the data is.
type Config struct {
	// Path is the database file of SQLite; it is created when missing. Its folder
	// must exist. Not used with Database.
	Path string
	// Database is the URL of a PostgreSQL database, postgres://…; several servers
	// may share it. Empty: the file at Path, which one server has for itself.
	Database string
	// RegistryHost is the host[:port] put in front of image locations. It is
	// a function because the registry may be listening on a port that is
	// known only later. Nil means "registry.invalid".
	RegistryHost func() string
	// URL is where the API is, put in front of the addresses of files. Nil means
	// "http://api.invalid".
	URL func() string
	// Now is the clock; time.Now when nil.
	Now func() time.Time
}

// DB is the open database. Its methods may be called from several goroutines.
type DB struct {
	name    string // path or URL, for people
	server  string // tells this server from others on the database
	dialect dialect
	host    func() string
	url     func() string
	now     func() time.Time
	write   *sql.DB
	read    *sql.DB
	feed    *Feed

	// SQLite: the file's lock, and who writes.
	lock    *flock.Flock
	batcher *batcher

	// PostgreSQL: where it is, and what the servers tell each other.
	postgres *pgx.ConnConfig
	exchange *exchange
}

// Open opens the database, checks it, and brings its schema up to date. The error
// of a damaged, locked, unwritable or unreachable database says what to do.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	db, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := db.start(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func newDB(cfg Config) *DB {
	db := &DB{name: cfg.Path, server: randomHex(8), dialect: sqliteDialect, host: cfg.RegistryHost, url: cfg.URL, now: cfg.Now, feed: newFeed()}
	if db.host == nil {
		db.host = func() string { return "registry.invalid" }
	}
	if db.url == nil {
		db.url = func() string { return "http://api.invalid" }
	}
	if db.now == nil {
		db.now = time.Now
	}
	return db
}

// connect opens the database without looking at its schema.
func connect(ctx context.Context, cfg Config) (_ *DB, err error) {
	db := newDB(cfg)
	if cfg.Database == "" && cfg.Path == "" {
		return nil, errors.New("open database: no path given")
	}
	if cfg.Database != "" {
		db.dialect = postgresDialect
		if db.postgres, db.name, err = parsePostgres(cfg.Database); err != nil {
			return nil, err
		}
		db.postgres.RuntimeParams["application_name"] = applicationName + db.server
		if db.write, err = db.connectPostgres(ctx, true); err != nil {
			return nil, err
		}
		db.read = db.write
		return db, nil
	}
	if err := db.lockFile(); err != nil {
		return nil, err
	}
	if err := db.connectSQLite(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

func (db *DB) start(ctx context.Context) error {
	if err := db.migrate(ctx); err != nil {
		return err
	}
	if err := db.begin(ctx); err != nil {
		return err
	}
	return openError(db.name, db.seed(ctx))
}

// begin makes writes possible.
func (db *DB) begin(ctx context.Context) (err error) {
	if !db.Shared() {
		db.batcher = newBatcher(db)
		return nil
	}
	if db.exchange, err = newExchange(ctx, db); err != nil {
		return postgresError(db.name, err)
	}
	return nil
}

// Shared says whether other servers may be on the same database: then nothing
// may be kept in this process or on its disk only.
func (db *DB) Shared() bool { return db.postgres != nil }

// Close ends all use of the database, and releases a file to another process.
func (db *DB) Close() error {
	if db.batcher != nil {
		db.batcher.close()
	}
	if db.exchange != nil {
		db.exchange.close()
	}
	var errs []error
	if db.read != nil && db.read != db.write {
		errs = append(errs, db.read.Close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	if db.lock != nil {
		errs = append(errs, db.lock.Unlock())
	}
	return errors.Join(errs...)
}

// Changes is the feed of what changes in this database.
func (db *DB) Changes() *Feed { return db.feed }

// Now is the database's clock.
func (db *DB) Now() time.Time { return db.now().UTC() }

// txn is one write transaction and what to announce once it is committed.
type txn struct {
	*sql.Tx
	dialect dialect
	topics  []Topic
	notes   []any // entries of the audit log that are not written yet
	now     time.Time
}

// A statement that has begun runs to its end, also when who asked has gone: to
// break one off would end the transaction of everyone who shares the commit.

// ExecContext is that of sql.Tx.
func (t *txn) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return t.Tx.ExecContext(context.WithoutCancel(ctx), query, args...)
}

// QueryContext is that of sql.Tx. Read all rows before the next statement.
func (t *txn) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return t.Tx.QueryContext(context.WithoutCancel(ctx), query, args...)
}

// QueryRowContext is that of sql.Tx.
func (t *txn) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return t.Tx.QueryRowContext(context.WithoutCancel(ctx), query, args...)
}

// PrepareContext is that of sql.Tx.
func (t *txn) PrepareContext(ctx context.Context, query string) (*sql.Stmt, error) {
	return t.Tx.PrepareContext(context.WithoutCancel(ctx), query)
}

// announce notes that the topics changed; watchers are told after the commit.
func (t *txn) announce(topics ...Topic) { t.topics = append(t.topics, topics...) }

// insert runs an INSERT … and returns the new row's id.
func (t *txn) insert(ctx context.Context, query string, args ...any) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, query+" RETURNING id", args...).Scan(&id)
	return id, err
}

// lockRow keeps other transactions from writing what hangs on a row until this
// one ends: the revisions of a fleet, the log of a device. It says nothing when
// there is no such row. A fleet is locked before a device.
func (t *txn) lockRow(ctx context.Context, table string, id int64) error {
	if !t.dialect.rowLocks {
		return nil // one transaction writes at a time
	}
	_, err := t.ExecContext(ctx, `SELECT 1 FROM "`+table+`" t WHERE id = ?`+t.locking(), id)
	return err
}

// update runs one write transaction: all of do happens, or nothing. do runs again
// from its beginning when another server's transaction got in its way, so it must
// not add to what it left outside. A rule of the schema that it breaks comes back
// as a typed error.
func (db *DB) update(ctx context.Context, do func(*txn) error) error {
	whole := func(t *txn) error {
		if err := do(t); err != nil {
			return err
		}
		return t.writeNotes(ctx)
	}
	if db.Shared() {
		return refusal(db.transact(ctx, whole))
	}
	return refusal(db.batcher.write(ctx, whole))
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
