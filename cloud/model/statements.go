package model

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"

	"modernc.org/sqlite"
)

// To compile a statement takes SQLite longer than to run most of ours, so each
// connection keeps those that it has compiled.

// maxKept is how many statements a connection keeps, a few kilobytes each.
const maxKept = 200

// maxKeptText is the length of the longest one that is kept: long ones have lists
// of arguments that do not come again.
const maxKeptText = 4096

// openSQLite makes a pool of connections that keep their statements.
func openSQLite(dsn string) (*sql.DB, error) {
	connector, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(keepingConnector{connector}), nil
}

type keepingConnector struct{ driver.Connector }

func (c keepingConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	inner, ok := conn.(sqliteConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("connection is a %T", conn), conn.Close())
	}
	return &keepingConn{sqliteConn: inner, idle: map[string]sqliteStmt{}}, nil
}

// sqliteConn and sqliteStmt are what the driver has.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// keepingConn is a connection that keeps its statements. One in use is not among
// those that are kept: the same query may run inside of itself.
type keepingConn struct {
	sqliteConn
	idle map[string]sqliteStmt
}

// kept says whether a statement will come again, and means the same then.
func kept(query string) bool {
	if len(query) > maxKeptText {
		return false
	}
	verb := strings.TrimSpace(query)
	if end := strings.IndexAny(verb, " \t\n"); end > 0 {
		verb = verb[:end]
	}
	switch verb {
	case "SELECT", "INSERT", "UPDATE", "DELETE", "WITH", "SAVEPOINT", "RELEASE", "ROLLBACK":
		return true
	}
	return false
}

// take gives a statement to its only user.
func (c *keepingConn) take(ctx context.Context, query string) (sqliteStmt, error) {
	if s, ok := c.idle[query]; ok {
		delete(c.idle, query)
		return s, nil
	}
	prepared, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	s, ok := prepared.(sqliteStmt)
	if !ok {
		return nil, errors.Join(fmt.Errorf("statement is a %T", prepared), prepared.Close())
	}
	return s, nil
}

// put takes it back.
func (c *keepingConn) put(query string, s sqliteStmt) error {
	if _, another := c.idle[query]; another {
		return s.Close()
	}
	for other, old := range c.idle {
		if len(c.idle) < maxKept {
			break
		}
		delete(c.idle, other)
		if err := old.Close(); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	c.idle[query] = s
	return nil
}

func (c *keepingConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if !kept(query) {
		return c.sqliteConn.ExecContext(ctx, query, args)
	}
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.ExecContext(ctx, args)
	if err != nil {
		s.Close() // says again why the statement failed
		return nil, err
	}
	return result, c.put(query, s)
}

func (c *keepingConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if !kept(query) {
		return c.sqliteConn.QueryContext(ctx, query, args)
	}
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args)
	if err != nil {
		s.Close() // says again why the statement failed
		return nil, err
	}
	return &keepingRows{Rows: rows, conn: c, query: query, stmt: s}, nil
}

// Close ends the statements, too.
func (c *keepingConn) Close() error {
	var errs []error
	for _, s := range c.idle {
		errs = append(errs, s.Close())
	}
	clear(c.idle)
	return errors.Join(append(errs, c.sqliteConn.Close())...)
}

// keepingRows gives its statement back when it is closed.
type keepingRows struct {
	driver.Rows
	conn  *keepingConn
	query string
	stmt  sqliteStmt
}

func (r *keepingRows) Close() error {
	if r.stmt == nil {
		return nil
	}
	s := r.stmt
	r.stmt = nil
	if err := r.Rows.Close(); err != nil {
		s.Close() // says again why the statement failed
		return err
	}
	return r.conn.put(r.query, s)
}
