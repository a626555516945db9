package model

import (
	"errors"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlitelib "modernc.org/sqlite/lib"
)

var (
	// "UNIQUE constraint failed: device_tag.device, device_tag.tag_key (2067)"
	sqliteColumns = regexp.MustCompile(`constraint failed: ([\w.", ]+?) \(`)
	// "Key (device, tag_key)=(1, k) already exists."
	postgresColumns = regexp.MustCompile(`\(([\w", ]+)\)=`)
)

// refused turns the database's refusal of a row into what the caller can act on:
// the rules say most of it first, and in better words.
func refused(err error) error {
	if e, ok := errors.AsType[*sqlite.Error](err); ok {
		columns := columnsIn(sqliteColumns, e.Error())
		switch e.Code() {
		case sqlitelib.SQLITE_CONSTRAINT_UNIQUE, sqlitelib.SQLITE_CONSTRAINT_PRIMARYKEY:
			return &ConflictError{Fields: columns}
		case sqlitelib.SQLITE_CONSTRAINT_FOREIGNKEY:
			return &ReferenceError{By: "another resource"}
		case sqlitelib.SQLITE_CONSTRAINT_CHECK:
			return &FieldError{Reason: "Check constraint violated"}
		case sqlitelib.SQLITE_CONSTRAINT_NOTNULL:
			return mustNotBeEmpty(columns)
		}
	}
	if e, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch e.Code {
		case "23505":
			return &ConflictError{Fields: columnsIn(postgresColumns, e.Detail)}
		case "23503":
			return &ReferenceError{By: e.TableName}
		case "23514":
			return &FieldError{Reason: "Check constraint violated"}
		case "23502":
			return mustNotBeEmpty([]string{e.ColumnName})
		}
	}
	return err
}

func mustNotBeEmpty(columns []string) error {
	name := strings.Join(columns, ", ")
	return invalid(name, "%s must be given.", name)
}

// columnsIn finds the columns that a message of the database names.
func columnsIn(list *regexp.Regexp, message string) []string {
	m := list.FindStringSubmatch(message)
	if m == nil {
		return []string{"id"}
	}
	var columns []string
	for column := range strings.SplitSeq(m[1], ",") {
		column = strings.Trim(column, ` "`)
		if i := strings.LastIndexByte(column, '.'); i >= 0 {
			column = strings.Trim(column[i+1:], `"`)
		}
		columns = append(columns, column)
	}
	return columns
}
