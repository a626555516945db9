package model

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Schema says how a database's schema relates to this program.
type Schema struct {
	Version int64 // of the database; 0: empty
	Newest  int64 // that this program knows
}

// OpenBeside opens the database of a cloud that may be running, for commands that
// look after it. Changes that are made through it are not told to a server on the
// same file, so it is for what no server remembers. The schema must be the one of
// this program.
func OpenBeside(ctx context.Context, cfg Config) (*DB, error) {
	db, err := connectBeside(ctx, cfg)
	if err != nil {
		return nil, err
	}
	schema, err := db.Schema(ctx)
	if err == nil && schema.Version != schema.Newest {
		err = fmt.Errorf("the schema of %s has version %d and this program knows %d: use the program that the cloud runs, or start the cloud with this one first", db.name, schema.Version, schema.Newest)
	}
	if err == nil {
		err = db.begin(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// connectBeside is connect without the lock of a database file, which must exist.
func connectBeside(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Database != "" {
		return connect(ctx, cfg)
	}
	if _, err := os.Stat(cfg.Path); err != nil {
		return nil, fmt.Errorf("open database: %w; give the folder of the cloud with --data-dir", err)
	}
	db := newDB(cfg)
	err := db.connectSQLite(ctx)
	if err == nil {
		// A server that writes all the time leaves few gaps.
		_, err = db.write.ExecContext(ctx, `PRAGMA busy_timeout = 60000`)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// Schema reads the version of the schema. It is an error when this program must not
// touch the database.
func (db *DB) Schema(ctx context.Context) (s Schema, err error) {
	m, err := db.migrator(ctx)
	if err != nil {
		return s, openError(db.name, err)
	}
	defer func() { err = errors.Join(err, m.release()) }()
	if s.Version, s.Newest, err = m.provider.GetVersions(ctx); err != nil {
		return s, fmt.Errorf("read schema version of %s: %w", db.name, err)
	}
	return s, openError(db.name, m.refuseForeign(ctx))
}

// NewestSchema is the version of the schema that this program knows.
func NewestSchema() (int64, error) {
	steps, err := sqliteDialect.steps()
	if err != nil {
		return 0, err
	}
	return steps[len(steps)-1].version, nil
}
