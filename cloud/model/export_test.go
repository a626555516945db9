package model

import "context"

// Exec runs a statement as no rule would: for tests that need a lot of rows.
func (db *DB) Exec(ctx context.Context, statement string) error {
	return db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, statement)
		return err
	})
}

// RenewBuild is what KeepBuild does now and then.
func (db *DB) RenewBuild(ctx context.Context, release int64) error {
	return (&Lease{db: db, name: buildLease(release), holder: db.server, life: buildLife}).extend(ctx)
}

// FallSilent has the database tell other servers nothing any more that is not part
// of a commit, like a process that is killed right after it.
func (db *DB) FallSilent() { db.exchange.close() }
