package model

import "context"

// Exec runs a statement as no rule would: for tests that need a lot of rows.
func (db *DB) Exec(ctx context.Context, statement string) error {
	return db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, statement)
		return err
	})
}
