package model

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

//go:embed migrations/*.sql
var migrationFiles embed.FS

// versionTable is where the library keeps which migrations have run.
const versionTable = "goose_db_version"

// step is one migration: its statements forward and back, and what must be true
// before it goes back.
type step struct {
	version  int64
	name     string
	up, down string
	before   func(context.Context, *sql.Tx) error
}

// steps are all migrations, oldest first, in the words of the dialect. A released
// file is never edited; a change is a new file.
func (d dialect) steps() ([]step, error) {
	names, err := fs.Glob(migrationFiles, "migrations/*.up.sql")
	if err != nil {
		return nil, err
	}
	all := map[int64]step{}
	for _, name := range names {
		base := strings.TrimSuffix(path.Base(name), ".up.sql")
		digits, title, _ := strings.Cut(base, "_")
		version, err := strconv.ParseInt(digits, 10, 64)
		if err != nil || all[version].name != "" {
			return nil, fmt.Errorf("migration %s: a number of its own and an underscore come first", base)
		}
		up, err := migrationFiles.ReadFile(name)
		if err != nil {
			return nil, err
		}
		down, err := migrationFiles.ReadFile("migrations/" + base + ".down.sql")
		if err != nil {
			return nil, err
		}
		all[version] = step{version: version, name: title, up: d.render(string(up)), down: d.render(string(down)), before: losses()[version]}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b step) int { return int(a.version - b.version) }), nil
}

var textColumn = regexp.MustCompile(`(?m)^(\s*"?\w+"?|ALTER TABLE .* ADD COLUMN "?\w+"?) TEXT\b`)

// sequence stands behind rows that were inserted with their ids: the next id is a new one.
var sequence = regexp.MustCompile(`\{\{sequence (\w+)\}\}`)

// render puts the dialect's words into a migration.
func (d dialect) render(script string) string {
	script = strings.NewReplacer("{{id}}", d.idColumn, "{{cascade}}", d.cascade, "{{uuid}}", d.randomUUID).Replace(script)
	script = sequence.ReplaceAllString(script, d.sequence)
	return textColumn.ReplaceAllString(script, "${1} TEXT"+d.binaryText)
}

// goMigration is the step as the library runs it: in one transaction.
func (s step) goMigration() *goose.Migration {
	run := func(script string, before func(context.Context, *sql.Tx) error) *goose.GoFunc {
		return &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			if before != nil {
				if err := before(ctx, tx); err != nil {
					return err
				}
			}
			_, err := tx.ExecContext(ctx, script)
			return err
		}}
	}
	return goose.NewGoMigration(s.version, run(s.up, nil), run(s.down, s.before))
}

// Migrator moves the schema of a database that no server uses, by hand.
type Migrator struct {
	db       *DB
	pool     *sql.DB // without the limits of a server's
	provider *goose.Provider
	steps    []step
}

// Migration is one step of the schema.
type Migration struct {
	Version int64
	Name    string
	Applied bool
}

// OpenMigrator opens the database as it is. A database file must not be in use.
func OpenMigrator(ctx context.Context, cfg Config) (*Migrator, error) {
	db, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m, err := db.migrator(ctx)
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return m, nil
}

// Close ends the use of the database.
func (m *Migrator) Close() error { return errors.Join(m.release(), m.db.Close()) }

func (m *Migrator) release() error {
	if m.pool == m.db.write {
		return nil
	}
	return m.pool.Close()
}

func (db *DB) migrator(ctx context.Context) (*Migrator, error) {
	m := &Migrator{db: db, pool: db.write}
	var err error
	if m.steps, err = db.dialect.steps(); err != nil {
		return nil, err
	}
	options := []goose.ProviderOption{goose.WithDisableGlobalRegistry(true), goose.WithTableName(versionTable), goose.WithLogger(goose.NopLogger())}
	for _, s := range m.steps {
		options = append(options, goose.WithGoMigrations(s.goMigration()))
	}
	if db.Shared() {
		// Two servers that start together: the second one waits, and finds nothing to do.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 1800))
		if err != nil {
			return nil, err
		}
		options = append(options, goose.WithSessionLocker(locker))
		if m.pool, err = db.connectPostgres(ctx, false); err != nil {
			return nil, err
		}
	}
	if m.provider, err = goose.NewProvider(db.dialect.migrations, m.pool, nil, options...); err != nil {
		return nil, errors.Join(err, m.release())
	}
	return m, nil
}

// refuseForeign refuses a database that this program must not touch: one of a
// newer program, or one from before there were migrations back.
func (m *Migrator) refuseForeign(ctx context.Context) error {
	if !m.db.Shared() {
		var version int
		if err := m.pool.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
			return fmt.Errorf("read schema version: %w", err)
		}
		if version != 0 {
			return fmt.Errorf("the database was made by a development version of deckhand-cloud (schema %d of its old numbering) that was never released; move it away to start with an empty cloud", version)
		}
	}
	current, newest, err := m.provider.GetVersions(ctx)
	if err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if current > newest {
		return fmt.Errorf("the schema has version %d and this program knows %d: it was written by a newer deckhand-cloud; run that one, let it go back with \"deckhand-cloud migrate down\", or restore an older backup", current, newest)
	}
	return nil
}

// Up brings the schema to the newest version and says which steps that took. What
// was interrupted begins again at the step in which it was.
func (m *Migrator) Up(ctx context.Context) ([]Migration, error) {
	if err := m.refuseForeign(ctx); err != nil {
		return nil, err
	}
	results, err := m.provider.Up(ctx)
	if err != nil {
		if partial, ok := errors.AsType[*goose.PartialError](err); ok {
			return m.named(partial.Applied), fmt.Errorf("bring schema to version %d: %w", partial.Failed.Source.Version, partial.Err)
		}
		return nil, fmt.Errorf("bring schema up to date: %w", err)
	}
	return m.named(results), nil
}

// UpTo is Up as far as the given version.
func (m *Migrator) UpTo(ctx context.Context, version int64) ([]Migration, error) {
	if err := m.refuseForeign(ctx); err != nil {
		return nil, err
	}
	results, err := m.provider.UpTo(ctx, version)
	return m.named(results), err
}

// Down takes the newest step back. It refuses when data would be lost.
func (m *Migrator) Down(ctx context.Context) (Migration, error) {
	if err := m.refuseForeign(ctx); err != nil {
		return Migration{}, err
	}
	result, err := m.provider.Down(ctx)
	if errors.Is(err, goose.ErrNoNextVersion) {
		return Migration{}, errors.New("go back: the database is empty already")
	}
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		err = partial.Err
	}
	if err != nil {
		return Migration{}, fmt.Errorf("go back: %w", err)
	}
	return m.named([]*goose.MigrationResult{result})[0], nil
}

// Status lists all steps that this program knows.
func (m *Migrator) Status(ctx context.Context) ([]Migration, error) {
	if err := m.refuseForeign(ctx); err != nil {
		return nil, err
	}
	states, err := m.provider.Status(ctx)
	if err != nil {
		return nil, err
	}
	var all []Migration
	for _, s := range states {
		all = append(all, Migration{s.Source.Version, m.name(s.Source.Version), s.State == goose.StateApplied})
	}
	return all, nil
}

func (m *Migrator) named(results []*goose.MigrationResult) []Migration {
	var all []Migration
	for _, r := range results {
		all = append(all, Migration{r.Source.Version, m.name(r.Source.Version), r.Direction == "up"})
	}
	return all
}

func (m *Migrator) name(version int64) string {
	for _, s := range m.steps {
		if s.version == version {
			return strings.ReplaceAll(s.name, "_", " ")
		}
	}
	return ""
}

// migrate brings the schema of a database that is being opened up to date.
func (db *DB) migrate(ctx context.Context) error {
	m, err := db.migrator(ctx)
	if err != nil {
		return openError(db.name, err)
	}
	_, err = m.Up(ctx)
	return openError(db.name, errors.Join(err, m.release()))
}
