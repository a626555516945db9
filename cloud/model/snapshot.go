package model

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Snapshot writes the database file as it is now to a new file, also while a server
// writes to it. It needs as much room as the database.
func (db *DB) Snapshot(ctx context.Context, path string) error {
	if db.Shared() {
		return errors.New("snapshot: PostgreSQL is copied by pg_dump")
	}
	if _, err := db.write.ExecContext(ctx, `VACUUM INTO ?`, path); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	return nil
}

// CheckFile checks a database file that no server uses: that it is whole, and that
// this program knows its schema.
func CheckFile(ctx context.Context, path string) (_ Schema, err error) {
	db, err := connectBeside(ctx, Config{Path: path})
	if err != nil {
		return Schema{}, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if problems, err := db.Integrity(ctx); err != nil || len(problems) > 0 {
		return Schema{}, errors.Join(err, damaged(path, fmt.Errorf("%v", problems)))
	}
	return db.Schema(ctx)
}

// IsEmpty says whether nothing is in a PostgreSQL database.
func IsEmpty(ctx context.Context, database string) (_ bool, err error) {
	db, err := connect(ctx, Config{Database: database})
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	var tables int
	err = db.read.QueryRowContext(ctx, `SELECT count(*) FROM information_schema.tables WHERE table_schema = current_schema()`).Scan(&tables)
	return tables == 0, err
}

// mostProblems is how many problems are looked for.
const mostProblems = 20

// Integrity looks for damage of the file, and for rows that refer to rows which do
// not exist. It reads all of the database. On PostgreSQL, which looks after that
// itself, it looks for rules that were switched off.
func (db *DB) Integrity(ctx context.Context) ([]string, error) {
	if db.Shared() {
		return db.texts(ctx, `SELECT conrelid::regclass || ': constraint ' || conname || ' is not valid' FROM pg_constraint WHERE NOT convalidated LIMIT 20`)
	}
	damage, err := db.texts(ctx, fmt.Sprintf(`PRAGMA integrity_check(%d)`, mostProblems))
	if err != nil {
		return nil, openError(db.name, err)
	}
	if len(damage) == 1 && damage[0] == "ok" {
		damage = nil
	}
	lost, err := db.texts(ctx, fmt.Sprintf(`SELECT "table" || ' ' || coalesce(rowid, '') || ' refers to a missing ' || parent FROM pragma_foreign_key_check LIMIT %d`, mostProblems))
	return append(damage, lost...), openError(db.name, err)
}

func (db *DB) texts(ctx context.Context, query string) ([]string, error) {
	return column[string](db.read.QueryContext(ctx, query))
}

// ClockAhead is by how much the database's clock is ahead of this one's: that of
// PostgreSQL, or the newest time that was written to a file (a negative one says
// nothing).
func (db *DB) ClockAhead(ctx context.Context) (time.Duration, error) {
	query := `SELECT coalesce(max(created_at), 0) FROM audit_log`
	if db.Shared() {
		query = `SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS BIGINT)`
	}
	var ms int64
	if err := db.read.QueryRowContext(ctx, query).Scan(&ms); err != nil {
		return 0, err
	}
	return time.UnixMilli(ms).Sub(db.Now()), nil
}
