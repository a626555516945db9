package model

import (
	"context"
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"
)

// keeping is a pool of one connection with a table of three rows.
func keeping(t *testing.T) *sql.DB {
	t.Helper()
	db, err := openSQLite(dsn(filepath.Join(t.TempDir(), "test.db")))
	if err != nil {
		t.Fatal(err)
	}
	db.SetMaxOpenConns(1)
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, query := range []string{`CREATE TABLE a (id INTEGER PRIMARY KEY, v TEXT UNIQUE)`, `INSERT INTO a (v) VALUES ('x'), ('y'), ('z')`} {
		if _, err := db.ExecContext(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	return db
}

// The same query may run while its rows are being read.
func TestKeptStatementInsideOfItself(t *testing.T) {
	tx, err := keeping(t).BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it only read
	for range 3 {
		if n := pairsOf(t, tx); n != 9 {
			t.Fatalf("%d pairs, want 9", n)
		}
	}
}

func pairsOf(t *testing.T, tx *sql.Tx) (pairs int) {
	t.Helper()
	const query = `SELECT v FROM a WHERE id > ?`
	outer, err := tx.QueryContext(t.Context(), query, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer outer.Close()
	for outer.Next() {
		inner, err := tx.QueryContext(t.Context(), query, 0)
		if err != nil {
			t.Fatal(err)
		}
		for inner.Next() {
			pairs++
		}
		if err := inner.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := outer.Err(); err != nil {
		t.Fatal(err)
	}
	return pairs
}

// A statement that failed, and one from before a change of the schema, work again.
func TestKeptStatementAfterFailureAndChange(t *testing.T) {
	db, ctx := keeping(t), t.Context()
	const insert = `INSERT INTO a (v) VALUES (?)`
	for i := range 3 {
		if _, err := db.ExecContext(ctx, insert, "x"); err == nil {
			t.Fatal("a value that is there already was taken")
		}
		if _, err := db.ExecContext(ctx, insert, fmt.Sprint("new", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i, change := range []string{"", `ALTER TABLE a ADD COLUMN b TEXT DEFAULT 'more'`, `ALTER TABLE a DROP COLUMN b`} {
		if _, err := db.ExecContext(ctx, change); err != nil {
			t.Fatal(err)
		}
		if got, want := columnsOf(ctx, t, db), []int{2, 3, 2}[i]; got != want {
			t.Errorf("after %q there are %d columns, want %d", change, got, want)
		}
	}
}

func columnsOf(ctx context.Context, t *testing.T, db *sql.DB) int {
	t.Helper()
	rows, err := db.QueryContext(ctx, `SELECT * FROM a`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		values := make([]any, len(columns))
		for i := range values {
			values[i] = new(any)
		}
		if err := rows.Scan(values...); err != nil {
			t.Fatal(err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return len(columns)
}

// However many statements there are, a connection keeps few.
func TestKeptStatementsAreBounded(t *testing.T) {
	db := keeping(t)
	for i := range 2*maxKept + 10 {
		var n int
		if err := db.QueryRowContext(t.Context(), fmt.Sprintf(`SELECT %d FROM a WHERE id = ?`, i), 1).Scan(&n); err != nil || n != i {
			t.Fatalf("statement %d: %d, %v", i, n, err)
		}
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Raw(func(c any) error {
		if kept, ok := c.(*keepingConn); !ok || len(kept.idle) != maxKept {
			return fmt.Errorf("%T keeps other than %d statements", c, maxKept)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}
