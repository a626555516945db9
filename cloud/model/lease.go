package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Lease is the right to do something that one server at a time may do. It ends by
// itself when its holder is gone.
type Lease struct {
	db           *DB
	name, holder string
}

// HeldError says that somebody else has the lease.
type HeldError struct {
	Name  string
	Until time.Time // when it ends unless it is renewed
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s: another server is at it; try again after %s", e.Name, e.Until.Format(time.RFC3339))
}

// leaseLife is how long a lease lasts that nobody renews: how long a server that
// was killed keeps the others away, and by how much clocks of servers may differ.
const leaseLife = 2 * time.Minute

// Hold does something while it has the lease. The error is a *HeldError when it
// cannot be had. The context of do ends when the lease is lost. A lease whose do
// succeeded is noted as done.
func (db *DB) Hold(ctx context.Context, name string, do func(context.Context) error) error {
	l := &Lease{db: db, name: name, holder: randomHex(16)}
	if err := l.take(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		if err := l.renew(ctx); err != nil {
			cancel(fmt.Errorf("%s: %w", name, err))
		}
	}()
	err := do(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	cancel(nil)
	<-renewed
	return errors.Join(err, l.end(context.WithoutCancel(ctx), err == nil))
}

func (l *Lease) take(ctx context.Context) error {
	var until int64
	err := l.db.update(ctx, func(t *txn) error {
		until = 0
		result, err := t.ExecContext(ctx, `
			INSERT INTO lease (name, holder, expires_at) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
			WHERE lease.holder = excluded.holder OR lease.expires_at <= ?`,
			l.name, l.holder, t.now.Add(leaseLife).UnixMilli(), t.now.UnixMilli())
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n > 0 {
			return err
		}
		return t.QueryRowContext(ctx, `SELECT expires_at FROM lease WHERE name = ?`, l.name).Scan(&until)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", l.name, err)
	}
	if until != 0 {
		return &HeldError{l.name, time.UnixMilli(until)}
	}
	return nil
}

func (l *Lease) renew(ctx context.Context) error {
	tick := time.NewTicker(leaseLife / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaseLife/4)
		err := l.take(attempt)
		cancel()
		if err != nil {
			return err
		}
	}
}

func (l *Lease) end(ctx context.Context, done bool) error {
	return l.db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, `UPDATE lease SET expires_at = 0, done_at = CASE WHEN ? THEN CAST(? AS BIGINT) ELSE done_at END WHERE name = ? AND holder = ?`,
			done, t.now.UnixMilli(), l.name, l.holder)
		return err
	})
}

// LastDone is when somebody last ended successfully what he held the lease for;
// the zero time: never.
func (db *DB) LastDone(ctx context.Context, name string) (time.Time, error) {
	var done sql.NullInt64
	err := db.read.QueryRowContext(ctx, `SELECT done_at FROM lease WHERE name = ?`, name).Scan(&done)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return fromMillis(done), err
}

// CloudID tells this cloud from others: it stays when the database is moved,
// backed up and restored.
func (db *DB) CloudID(ctx context.Context) (string, error) {
	const query = `SELECT value FROM cloud_setting WHERE name = 'id'`
	var id string
	err := db.read.QueryRowContext(ctx, query).Scan(&id)
	if !errors.Is(err, sql.ErrNoRows) {
		return id, err
	}
	err = db.update(ctx, func(t *txn) error {
		if _, err := t.ExecContext(ctx, `INSERT INTO cloud_setting (name, value) VALUES ('id', ?) ON CONFLICT (name) DO NOTHING`, randomHex(16)); err != nil {
			return err
		}
		return t.QueryRowContext(ctx, query).Scan(&id)
	})
	return id, err
}
