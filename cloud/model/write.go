package model

import (
	"context"
	"errors"
	"fmt"

	"deckhand/cloud/access"
)

// Values are fields of a row to be: field name → nil, bool, int64, float64,
// string, time.Time or json.RawMessage, each of the field's kind already.
type Values map[string]any

// Selection is which rows a write concerns: SQL over the alias t, with a ? for
// each argument. The permission of the caller is part of it.
type Selection struct {
	SQL  string
	Args []any
}

// ErrForbidden says that the caller may not write such a row: answer 401.
var ErrForbidden = errors.New("forbidden")

// Create adds a row for the caller, with all that follows from it, and returns
// its id. Errors: ErrForbidden, ErrInvalid, ErrConflict, ErrReferenced.
func (db *DB) Create(ctx context.Context, by access.Caller, resource string, v Values) (int64, error) {
	return 0, fmt.Errorf("create %s: not built yet", resource)
}

// Update changes the rows selected for the caller and says how many there were.
func (db *DB) Update(ctx context.Context, by access.Caller, resource string, where Selection, v Values) (int, error) {
	return 0, fmt.Errorf("change %s: not built yet", resource)
}

// Delete removes the rows selected, with what hangs on them, and says how many
// there were.
func (db *DB) Delete(ctx context.Context, by access.Caller, resource string, where Selection) (int, error) {
	return 0, fmt.Errorf("delete %s: not built yet", resource)
}

// ErrReferenced says that a row is in use, or that one referred to does not
// exist. The error returned is a *ReferenceError.
var ErrReferenced = errors.New("data is referenced")

// ReferenceError names what refers: the field written, or the resource whose
// rows are in the way of a deletion.
type ReferenceError struct{ By string }

func (e *ReferenceError) Error() string { return "Data is referenced by " + e.By + "." }

// Is makes errors.Is(err, ErrReferenced) true.
func (e *ReferenceError) Is(target error) bool { return target == ErrReferenced }
