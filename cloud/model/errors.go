package model

import (
	"errors"
	"fmt"
	"strings"

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

// FieldError is a value that breaks a rule: which field, and a sentence for
// the person who sent it.
type FieldError struct{ Field, Reason string }

func (e *FieldError) Error() string { return e.Reason }

// Is makes errors.Is(err, ErrInvalid) true.
func (e *FieldError) Is(target error) bool { return target == ErrInvalid }

func invalid(field, format string, args ...any) error {
	return &FieldError{Field: field, Reason: fmt.Sprintf(format, args...)}
}

// conflictOn turns the database's refusal of a duplicate into a ConflictError
// on the given fields and leaves every other error alone.
func conflictOn(err error, fields ...string) error {
	if isUniqueViolation(err) {
		return &ConflictError{Fields: fields}
	}
	return err
}

func isUniqueViolation(err error) bool {
	e, ok := errors.AsType[*sqlite.Error](err)
	return ok && (e.Code() == sqlitelib.SQLITE_CONSTRAINT_UNIQUE || e.Code() == sqlitelib.SQLITE_CONSTRAINT_PRIMARYKEY)
}

// missingReference turns the database's refusal of a reference to nothing into
// ErrNotFound.
func missingReference(err error, object string) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok && e.Code() == sqlitelib.SQLITE_CONSTRAINT_FOREIGNKEY {
		return fmt.Errorf("%s: %w", object, ErrNotFound)
	}
	return err
}

// openError adds to a failure to open what the operator can do about it.
func openError(path string, err error) error {
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
