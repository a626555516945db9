package model

import (
	"context"
	"database/sql"
)

// losses are the checks before a step back, by version: they refuse when data
// would be lost.
func losses() map[int64]func(context.Context, *sql.Tx) error {
	return nil
}
