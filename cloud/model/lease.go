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
	life         time.Duration
}

// HeldError says that somebody else has the lease.
type HeldError struct {
	Name  string
	Until time.Time // when it ends unless it is renewed
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("%s: another server is at it; try again after %s", e.Name, e.Until.Format(time.RFC3339))
}

// LostError says that a lease was not renewed in time, and ended or was taken by
// another server.
type LostError struct{ Name string }

func (e *LostError) Error() string {
	return e.Name + ": this server did not renew its lease in time, and another one took over"
}

// leaseLife is how long a lease lasts that nobody renews: how long a server that
// was killed keeps the others away, and by how much clocks of servers may differ.
const leaseLife = 2 * time.Minute

// Hold does something while it has the lease. The error is a *HeldError when it
// cannot be had. The context of do ends with a *LostError when the lease is lost. A
// lease whose do succeeded is noted as done.
func (db *DB) Hold(ctx context.Context, name string, do func(context.Context) error) error {
	l := &Lease{db: db, name: name, holder: randomHex(16), life: leaseLife}
	if err := l.take(ctx); err != nil {
		return err
	}
	ctx, release := l.keep(ctx)
	err := do(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	release()
	return errors.Join(err, l.end(context.WithoutCancel(ctx), err == nil))
}

// keep renews the lease until the function returned is called. The context ends
// with a *LostError when it is lost.
func (l *Lease) keep(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	renewed := make(chan struct{})
	go func() {
		defer close(renewed)
		cancel(l.renew(ctx))
	}()
	return ctx, func() {
		cancel(nil)
		<-renewed
	}
}

func (l *Lease) take(ctx context.Context) error {
	var until int64
	err := l.db.update(ctx, func(t *txn) error {
		until = 0
		n, err := t.affected(ctx, `
			INSERT INTO lease (name, holder, expires_at) VALUES (?, ?, ?)
			ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, expires_at = excluded.expires_at
			WHERE lease.expires_at <= ?`,
			l.name, l.holder, t.now.Add(l.life).UnixMilli(), t.now.UnixMilli())
		if err != nil || n > 0 {
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

// renew renews the lease until the context ends, or the lease is somebody else's.
// A database that is away is so for the others, too: when it is back the lease may
// still be there.
func (l *Lease) renew(ctx context.Context) error {
	tick := time.NewTicker(l.life / 6)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		attempt, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.life/4)
		err := l.extend(attempt)
		cancel()
		if _, lost := errors.AsType[*LostError](err); lost {
			return err
		}
	}
}

func (l *Lease) extend(ctx context.Context) error {
	return l.db.update(ctx, func(t *txn) error {
		n, err := t.affected(ctx, `UPDATE lease SET expires_at = ? WHERE name = ? AND holder = ?`, t.now.Add(l.life).UnixMilli(), l.name, l.holder)
		if err == nil && n == 0 {
			err = &LostError{l.name}
		}
		return err
	})
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
