package model

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

// ErrNotFound says that the row asked for does not exist.
var ErrNotFound = errors.New("not found")

// ErrConflict says that a row with the same unique fields exists. The error
// returned is a *ConflictError which names the fields.
var ErrConflict = errors.New("must be unique")

// ErrInvalid says that a value breaks a rule. The error returned is a
// *FieldError which names the field and the rule.
var ErrInvalid = errors.New("invalid value")

// ConflictError names the fields whose values are taken. Its text is the one
// API clients look for in a 409.
type ConflictError struct{ Fields []string }

func (e *ConflictError) Error() string {
	quoted := make([]string, len(e.Fields))
	for i, f := range e.Fields {
		quoted[i] = `"` + f + `"`
	}
	return strings.Join(quoted, " and ") + " must be unique."
}

// Is makes errors.Is(err, ErrConflict) true.
func (e *ConflictError) Is(target error) bool { return target == ErrConflict }

// UnavailableError says that the database cannot be reached at the moment, or that
// the connection broke: whether a write happened is not known then.
type UnavailableError struct {
	Err   error
	after time.Duration
}

func (e *UnavailableError) Error() string { return "the database cannot be reached: " + e.Err.Error() }

func (e *UnavailableError) Unwrap() error { return e.Err }

// RetryAfter is when to try again.
func (e *UnavailableError) RetryAfter() time.Duration { return e.after }

// FieldError is a value that breaks a rule: which field, and a sentence for
// the person who sent it.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Reason }

// Is makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// rule is a kind of rule of the schema.
type rule int

const (
	noRule rule = iota
	unique
	foreignKey
	check
	required
)

// brokenRule says which rule of the schema a statement broke, and as far as the
// database says it, on which fields or, for a reference, of which table.
func brokenRule(err error) (rule, []string) {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		return brokenOnSQLite(e)
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		return brokenOnPostgres(e)
	}
	return noRule, nil
}

// brokenOnSQLite reads "UNIQUE constraint failed: service.application, service.service_name (2067)".
func brokenOnSQLite(e *sqlite.Error) (rule, []string) {
	var broken rule
	switch e.Code() {
	case sqlitelib.SQLITE_CONSTRAINT_UNIQUE, sqlitelib.SQLITE_CONSTRAINT_PRIMARYKEY, sqlitelib.SQLITE_CONSTRAINT_ROWID:
		broken = unique
	case sqlitelib.SQLITE_CONSTRAINT_NOTNULL:
		broken = required
	case sqlitelib.SQLITE_CONSTRAINT_FOREIGNKEY:
		return foreignKey, nil
	case sqlitelib.SQLITE_CONSTRAINT_CHECK:
		return check, nil
	default:
		return noRule, nil
	}
	_, list, _ := strings.Cut(e.Error(), "constraint failed: ")
	if _, inner, ok := strings.Cut(list, "constraint failed: "); ok {
		list = inner
	}
	list, _, _ = strings.Cut(list, " (")
	var fields []string
	for column := range strings.SplitSeq(list, ", ") {
		_, field, _ := strings.Cut(column, ".")
		fields = append(fields, field)
	}
	return broken, fields
}

// Codes of broken rules on PostgreSQL.
const (
	postgresNotNull    = "23502"
	postgresForeignKey = "23503"
	postgresUnique     = "23505"
	postgresCheck      = "23514"
)

// brokenOnPostgres reads details like `Key (application, "commit")=(1, a) already
// exists.` and `Key (id)=(3) is still referenced from table "release".`
func brokenOnPostgres(e *pgconn.PgError) (rule, []string) {
	key := strings.TrimPrefix(e.Detail, "Key (")
	key, _, _ = strings.Cut(key, ")=(")
	key = strings.ReplaceAll(key, `"`, "")
	switch e.Code {
	case postgresUnique:
		return unique, strings.Split(key, ", ")
	case postgresNotNull:
		return required, []string{e.ColumnName}
	case postgresCheck:
		return check, nil
	case postgresForeignKey:
		if strings.Contains(e.Detail, "is still referenced") {
			return foreignKey, []string{e.TableName}
		}
		return foreignKey, []string{key}
	}
	return noRule, nil
}

// refusal turns the database's refusal of a statement into a typed error and
// leaves every other error alone.
func refusal(err error) error {
	broken, fields := brokenRule(err)
	switch broken {
	case noRule:
		return err
	case unique:
		return &ConflictError{Fields: fields}
	case foreignKey:
		if fields == nil {
			fields = []string{"another row"} // SQLite does not say which
		}
		return &ReferenceError{By: strings.Join(fields, ", ")}
	case check:
		return invalid("", "Check constraint violated")
	case required:
		return invalid(fields[0], "%q is required.", fields[0])
	}
	return err
}

// conflictOn turns the database's refusal of a duplicate into a ConflictError
// on the given fields and leaves every other error alone.
func conflictOn(err error, fields ...string) error {
	if broken, _ := brokenRule(err); broken == unique {
		return &ConflictError{Fields: fields}
	}
	return err
}

// missingReference turns the database's refusal of a reference to nothing into
// ErrNotFound.
func missingReference(err error, object string) error {
	if broken, _ := brokenRule(err); broken == foreignKey {
		return fmt.Errorf("%s: %w", object, ErrNotFound)
	}
	return err
}

// openError adds to a failure to open what the operator can do about it.
func openError(path string, err error) error {
	if err == nil {
		return nil
	}
	e, ok := errors.AsType[*sqlite.Error](err)
	if !ok {
		return fmt.Errorf("open database %s: %w", path, err)
	}
	switch e.Code() & 0xff {
	case sqlitelib.SQLITE_NOTADB, sqlitelib.SQLITE_CORRUPT:
		return damaged(path, err)
	case sqlitelib.SQLITE_BUSY, sqlitelib.SQLITE_LOCKED:
		return fmt.Errorf("open database %s: another program holds it locked; stop that program (a second deckhand-cloud, a backup, an open sqlite shell) and start again: %w", path, err)
	case sqlitelib.SQLITE_CANTOPEN, sqlitelib.SQLITE_READONLY, sqlitelib.SQLITE_PERM:
		return fmt.Errorf("open database %s: the file or its folder cannot be written; check that the folder exists and belongs to the user that runs the cloud: %w", path, err)
	case sqlitelib.SQLITE_FULL:
		return fmt.Errorf("open database %s: the disk is full; free some space and start again: %w", path, err)
	}
	return fmt.Errorf("open database %s: %w", path, err)
}

func damaged(path string, err error) error {
	return fmt.Errorf("open database %s: the file is damaged; restore it from a backup, or move %s, %s-wal and %s-shm away to start with an empty cloud: %w", path, path, path, path, err)
}
