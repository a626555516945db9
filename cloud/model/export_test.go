package model

import "context"

// Exec runs a statement as no rule would: for tests that need a lot of rows.
func (db *DB) Exec(ctx context.Context, statement string) error {
	return db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, statement)
		return err
	})
}

// FallSilent has the database tell other servers nothing any more that is not part
// of a commit, like a process that is killed right after it.
func (db *DB) FallSilent() { db.exchange.close() }
