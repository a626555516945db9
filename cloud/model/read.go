package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Query is one SELECT that reads fields of rows.
type Query struct {
	SQL  string // with a ? for each argument
	Args []any
	// Kinds are those of the columns. Values are nil, int64, string, bool, time.Time, or
	// the map of a Version; a Location and the href of a File are complete.
	Kinds []FieldKind
}

// Budget is what a request may still read. A request that wants more is told
// so, instead of filling the memory.
type Budget struct{ Rows, Bytes int }

// TooMuchError says that an answer would be larger than allowed.
type TooMuchError struct{ What string }

func (e *TooMuchError) Error() string {
	return "The answer would have more than " + e.What + "; narrow it with $filter and $select, or read it in parts with $top and $skip."
}

// The most that one request may read.
const (
	MaxRows  = 200_000
	MaxBytes = 64 << 20
)

// NewBudget is that of one request.
func NewBudget() *Budget { return &Budget{Rows: MaxRows, Bytes: MaxBytes} }

// take counts a row.
func (b *Budget) take(values []any) error {
	if b.Rows--; b.Rows < 0 {
		return &TooMuchError{fmt.Sprintf("%d rows", MaxRows)}
	}
	for _, v := range values {
		b.Bytes -= 16
		if s, ok := v.(string); ok {
			b.Bytes -= len(s)
		}
	}
	return b.Take(0)
}

// Take counts bytes that are made of what was read.
func (b *Budget) Take(bytes int) error {
	if b.Bytes -= bytes; b.Bytes < 0 {
		return &TooMuchError{fmt.Sprintf("%d MiB", MaxBytes>>20)}
	}
	return nil
}

// Postgres says which dialect a Query must be in where the two differ.
func (db *DB) Postgres() bool { return db.dialect.name == postgresDialect.name }

// Reader runs queries.
type Reader interface {
	// Read runs a query. The error is a *TooMuchError when the budget is used up.
	Read(ctx context.Context, q Query, budget *Budget) ([][]any, error)
}

// Read runs a query by itself: see Reader.
func (db *DB) Read(ctx context.Context, q Query, budget *Budget) ([][]any, error) {
	return db.run(ctx, db.read, q, budget)
}

// Moment runs queries that all see the rows of one moment, whatever is written
// meanwhile.
func (db *DB) Moment(ctx context.Context, do func(Reader) error) error {
	tx, err := db.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	// There is nothing to commit.
	return errors.Join(do(moment{db, tx}), tx.Rollback())
}

type moment struct {
	db *DB
	tx *sql.Tx
}

func (m moment) Read(ctx context.Context, q Query, budget *Budget) ([][]any, error) {
	return m.db.run(ctx, m.tx, q, budget)
}

type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

func (db *DB) run(ctx context.Context, on querier, q Query, budget *Budget) ([][]any, error) {
	rows, err := on.QueryContext(ctx, q.SQL, q.Args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) ([]any, error) {
		values, err := db.scan(row, q.Kinds)
		if err != nil {
			return nil, err
		}
		return values, budget.take(values)
	})
}

// Rows reads the given fields of a resource's rows. The condition is SQL over
// the alias t; it must come from Resource and Field, with values as arguments.
func (db *DB) Rows(ctx context.Context, resource Resource, fields []Field, condition string, args ...any) ([][]any, error) {
	list, kinds := make([]string, len(fields)), make([]FieldKind, len(fields))
	for i, f := range fields {
		list[i], kinds[i] = f.SQL(), f.Kind
	}
	return db.Read(ctx, Query{`SELECT ` + strings.Join(list, ", ") + ` FROM "` + resource.Name + `" t ` + condition, args, kinds}, NewBudget())
}

// Count counts a resource's rows.
func (db *DB) Count(ctx context.Context, resource Resource, condition string, args ...any) (int64, error) {
	var n int64
	err := db.read.QueryRowContext(ctx, `SELECT count(*) FROM "`+resource.Name+`" t `+condition, args...).Scan(&n)
	return n, err
}

func (db *DB) scan(row interface{ Scan(...any) error }, kinds []FieldKind) ([]any, error) {
	targets := make([]any, len(kinds))
	for i, kind := range kinds {
		switch kind {
		case Integer, BigInteger, Date, Reference:
			targets[i] = new(sql.NullInt64)
		case Boolean:
			targets[i] = new(sql.NullBool)
		case Text, JSON, Location, Version, File:
			targets[i] = new(sql.NullString)
		}
	}
	if err := row.Scan(targets...); err != nil {
		return nil, err
	}
	values := make([]any, len(kinds))
	for i, kind := range kinds {
		values[i] = db.value(kind, targets[i])
	}
	return values, nil
}

func (db *DB) value(kind FieldKind, scanned any) any {
	switch v := scanned.(type) {
	case *sql.NullInt64:
		if v.Valid && kind == Date {
			return time.UnixMilli(v.Int64).UTC()
		}
		if v.Valid {
			return v.Int64
		}
	case *sql.NullBool:
		if v.Valid {
			return v.Bool
		}
	case *sql.NullString:
		if v.Valid {
			return db.textual(kind, v.String)
		}
	}
	return nil
}

func (db *DB) textual(kind FieldKind, s string) any {
	switch kind {
	case Location:
		return db.location(s)
	case Version:
		return versionOf(s)
	case File:
		return db.fileDocument(s)
	default:
		return s
	}
}
