package model

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

func decimal(n int) string { return strconv.Itoa(n) }

// Limits of the connections to a PostgreSQL server. One statement that takes
// longer than the limit is a mistake, or waits for a lock that nobody returns.
const (
	postgresPool         = 16
	postgresIdle         = 5 * time.Minute
	postgresConnect      = 10 * time.Second
	postgresStatementMax = "60s"
	postgresLockMax      = "30s"
)

// applicationName is what connections are called in PostgreSQL, before the name of
// the server that has them.
const applicationName = "deckhand-cloud "

// parsePostgres reads a URL postgres://…. name is the URL without its password.
func parsePostgres(url string) (cfg *pgx.ConnConfig, name string, err error) {
	cfg, err = pgx.ParseConfig(url)
	if err != nil {
		// The error repeats the URL with its password hidden.
		return nil, "", fmt.Errorf("read database URL: %w; it looks like postgres://user:password@host:5432/name?sslmode=verify-full", err)
	}
	name = fmt.Sprintf("postgres://%s@%s:%d/%s", cfg.User, cfg.Host, cfg.Port, cfg.Database)
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = postgresConnect
	}
	return cfg, name, nil
}

// openPostgres makes a pool of connections; limited ones end statements that
// take too long, which a migration may.
func openPostgres(cfg *pgx.ConnConfig, limited bool) *sql.DB {
	cfg = cfg.Copy()
	// Compiling a query takes longer than any of ours runs.
	cfg.RuntimeParams["jit"] = "off"
	if limited {
		cfg.RuntimeParams["statement_timeout"] = postgresStatementMax
		cfg.RuntimeParams["lock_timeout"] = postgresLockMax
		cfg.RuntimeParams["idle_in_transaction_session_timeout"] = postgresStatementMax
	}
	pool := sql.OpenDB(&numberingConnector{Connector: stdlib.GetConnector(*cfg)})
	pool.SetMaxOpenConns(postgresPool)
	pool.SetMaxIdleConns(postgresPool)
	pool.SetConnMaxIdleTime(postgresIdle)
	return pool
}

// numberingConnector makes connections which take ? for arguments.
type numberingConnector struct {
	driver.Connector
	since atomic.Int64 // when connecting began to fail, in milliseconds since 1970; 0: it works
}

func (c *numberingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		c.since.CompareAndSwap(0, time.Now().UnixMilli())
		return nil, c.unavailable(err)
	}
	c.since.Store(0)
	inner, ok := conn.(*stdlib.Conn)
	if !ok {
		return nil, fmt.Errorf("connection is a %T", conn)
	}
	return &numberingConn{Conn: inner, from: c}, nil
}

// How long those who asked are told to wait: for as long again as the database has
// been away, within these bounds.
const shortestAway, longestAway = 5 * time.Second, time.Minute

func (c *numberingConnector) unavailable(err error) error {
	e := &UnavailableError{Err: err, after: shortestAway}
	if since := c.since.Load(); since != 0 {
		e.after = min(max(time.Since(time.UnixMilli(since)), shortestAway), longestAway)
	}
	return e
}

// numberingConn is a connection which takes ? for arguments.
type numberingConn struct {
	*stdlib.Conn
	from *numberingConnector
}

// lost tells errors of a connection that is gone from those of a statement.
func (c *numberingConn) lost(err error) error {
	if err == nil || !c.Conn.Conn().IsClosed() {
		return err
	}
	return c.from.unavailable(err)
}

func (c *numberingConn) Prepare(query string) (driver.Stmt, error) {
	return c.PrepareContext(context.Background(), query)
}

func (c *numberingConn) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	stmt, err := c.Conn.PrepareContext(ctx, statements.get(query))
	return stmt, c.lost(err)
}

func (c *numberingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	result, err := c.Conn.ExecContext(ctx, statements.get(query), args)
	return result, c.lost(err)
}

func (c *numberingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	rows, err := c.Conn.QueryContext(ctx, statements.get(query), args)
	return rows, c.lost(err)
}

// BeginTx gives a transaction that only reads one moment for all its queries,
// as it has on SQLite.
func (c *numberingConn) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	if opts.ReadOnly && opts.Isolation == driver.IsolationLevel(sql.LevelDefault) {
		opts.Isolation = driver.IsolationLevel(sql.LevelRepeatableRead)
	}
	tx, err := c.Conn.BeginTx(ctx, opts)
	if err != nil {
		return nil, c.lost(err)
	}
	return numberingTx{tx, c}, nil
}

// numberingTx is a transaction on such a connection.
type numberingTx struct {
	driver.Tx
	conn *numberingConn
}

func (t numberingTx) Commit() error { return t.conn.lost(t.Tx.Commit()) }

// CheckNamedValue makes texts storable: devices send what they like, and
// PostgreSQL takes neither zero bytes nor broken UTF-8.
func (c *numberingConn) CheckNamedValue(v *driver.NamedValue) error {
	if s, ok := v.Value.(string); ok {
		v.Value = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	}
	return c.Conn.CheckNamedValue(v)
}

// statements remembers numbered statements. Queries of the API come in endless
// forms, so it begins anew when full.
var statements = statementCache{known: map[string]string{}}

const maxStatements = 4096

type statementCache struct {
	mu    sync.RWMutex
	known map[string]string
}

func (c *statementCache) get(query string) string {
	c.mu.RLock()
	done, ok := c.known[query]
	c.mu.RUnlock()
	if ok {
		return done
	}
	done = numbered(query)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.known) >= maxStatements {
		clear(c.known)
	}
	c.known[query] = done
	return done
}

// connectPostgres opens the pool of a PostgreSQL database and asks it something.
func (db *DB) connectPostgres(ctx context.Context, limited bool) (*sql.DB, error) {
	pool := openPostgres(db.postgres, limited)
	if err := pool.PingContext(ctx); err != nil {
		return nil, errors.Join(postgresError(db.name, err), pool.Close())
	}
	return pool, nil
}

// postgresError adds to a failure to open what the operator can do about it.
func postgresError(name string, err error) error {
	advice := ""
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "28P01", "28000":
			advice = "; check user and password, and pg_hba.conf of the server"
		case "3D000":
			advice = "; create it first: createdb " + strings.TrimPrefix(name[strings.LastIndexByte(name, '/'):], "/")
		case "42501":
			advice = "; the user must own the database's public schema"
		case "53300":
			advice = "; the server has no connection left: raise max_connections"
		}
	} else if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		advice = "; check that the server runs and listens there"
	}
	return fmt.Errorf("open database %s: %w%s", name, err, advice)
}

// Codes of a transaction that another one got in the way of: it has to be run again.
func inTheWay(err error) bool {
	e, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (e.Code == "40001" || e.Code == "40P01")
}

// transactTries is how often a transaction is tried that others got in the way of.
const transactTries = 5

// transact runs one write transaction on PostgreSQL. Those who listen on other
// servers are told by the commit itself.
func (db *DB) transact(ctx context.Context, do func(*txn) error) error {
	for try := 1; ; try++ {
		err := db.transactOnce(ctx, do)
		if try == transactTries || !inTheWay(err) {
			return err
		}
	}
}

func (db *DB) transactOnce(ctx context.Context, do func(*txn) error) (err error) {
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	// What has begun is brought to its end: who asked would not know how it ended.
	tx, err := conn.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	t := &txn{Tx: tx, now: db.Now(), dialect: postgresDialect}
	defer func() {
		if r := recover(); r != nil {
			tx.Rollback() //nolint:errcheck // the panic says more
			panic(r)
		}
	}()
	if err := do(t); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	if err := db.exchange.announce(t); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	err = tx.Commit()
	// Also after an error: a commit whose answer was lost may have happened.
	db.feed.publish(t.topics...)
	if err == nil {
		db.exchange.later(t.topics)
	}
	return err
}
