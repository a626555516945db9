package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
)

// batchLimit is how many writes share one commit at most: who came first should
// not wait for a thousand others.
const batchLimit = 256

// batcher runs the writes of a database file, which takes one transaction at a
// time. What comes while the disk is busy with a commit is committed together, so
// that the disk's wait is paid once for many. Each write is all or nothing by
// itself, and acknowledged when it is on the disk.
type batcher struct {
	db   *DB
	jobs chan *job
	stop chan struct{}
	done chan struct{}

	writes, commits atomic.Int64
}

// job is one write.
type job struct {
	ctx      context.Context //nolint:containedctx // crosses to the goroutine that writes
	do       func(*txn) error
	t        *txn
	err      error
	panicked any
	done     chan struct{}
}

var errClosed = errors.New("the database is closed")

func newBatcher(db *DB) *batcher {
	b := &batcher{db: db, jobs: make(chan *job), stop: make(chan struct{}), done: make(chan struct{})}
	go b.run()
	return b
}

// write runs one write and waits until it is on the disk. A context that ends
// takes back what has not begun.
func (b *batcher) write(ctx context.Context, do func(*txn) error) error {
	j := &job{ctx: ctx, do: do, done: make(chan struct{})}
	select {
	case b.jobs <- j:
	case <-ctx.Done():
		return ctx.Err()
	case <-b.stop:
		return errClosed
	}
	<-j.done
	if j.panicked != nil {
		panic(j.panicked)
	}
	return j.err
}

// close waits for the batch that is being written.
func (b *batcher) close() {
	close(b.stop)
	<-b.done
}

func (b *batcher) run() {
	defer close(b.done)
	for {
		select {
		case first := <-b.jobs:
			b.batch(first)
		case <-b.stop:
			return
		}
	}
}

// batch writes the first job and those that wait behind it.
func (b *batcher) batch(first *job) {
	var jobs []*job
	err := b.inTransaction(func(tx *sql.Tx) error {
		for next := first; next != nil; next = b.waiting(len(jobs)) {
			jobs = append(jobs, next)
			if err := b.runJob(tx, next); err != nil {
				return err
			}
		}
		return nil
	})
	if len(jobs) == 0 {
		jobs = []*job{first}
	}
	var topics []Topic
	for _, j := range jobs {
		switch {
		case err != nil:
			j.err = errors.Join(j.err, err)
		case j.err == nil && j.t != nil:
			topics = append(topics, j.t.topics...)
		}
	}
	b.writes.Add(int64(len(jobs)))
	b.commits.Add(1)
	b.db.feed.publish(topics...)
	for _, j := range jobs {
		close(j.done)
	}
}

func (b *batcher) waiting(already int) *job {
	if already >= batchLimit {
		return nil
	}
	select {
	case j := <-b.jobs:
		return j
	default:
		return nil
	}
}

func (b *batcher) inTransaction(do func(*sql.Tx) error) error {
	tx, err := b.db.write.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, tx.Rollback())
	}
	return tx.Commit()
}

// runJob runs one job under a savepoint. The error is about the whole batch: a
// full disk, for example, ends the transaction of all.
func (b *batcher) runJob(tx *sql.Tx, j *job) error {
	if j.err = j.ctx.Err(); j.err != nil {
		return nil
	}
	const begin, undo, end = "SAVEPOINT job", "ROLLBACK TO job", "RELEASE job"
	ctx := context.Background()
	if _, err := tx.ExecContext(ctx, begin); err != nil {
		return fmt.Errorf("begin write: %w", err)
	}
	j.t = &txn{Tx: tx, now: b.db.Now(), dialect: sqliteDialect}
	j.run()
	if j.err != nil || j.panicked != nil {
		if _, err := tx.ExecContext(ctx, undo); err != nil {
			return fmt.Errorf("undo write: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, end); err != nil {
		return fmt.Errorf("end write: %w", err)
	}
	return nil
}

func (j *job) run() {
	defer func() { j.panicked = recover() }()
	j.err = j.do(j.t)
}
