package model

import (
	"context"
	"fmt"
	"time"
)

// A build has a lease from its first row to its end. The server that builds renews
// it; when that server is gone another one ends the build.

// buildLife is how long a build may go without a sign of life of its server.
const buildLife = 45 * time.Second

// oldestBuild is how long a build can take at most that has no lease: one that an
// older deckhand-cloud began.
const oldestBuild = 24 * time.Hour

func buildLease(release int64) string { return fmt.Sprint("build ", release) }

// leaseBuild begins the lease of a build on this server.
func (t *txn) leaseBuild(ctx context.Context, release int64, server string) error {
	_, err := t.ExecContext(ctx, `INSERT INTO lease (name, holder, expires_at) VALUES (?, ?, ?)`,
		buildLease(release), server, t.now.Add(buildLife).UnixMilli())
	return err
}

// endBuildLease ends the lease of a build that ended, or was ended.
func (t *txn) endBuildLease(ctx context.Context, release int64) error {
	_, err := t.ExecContext(ctx, `DELETE FROM lease WHERE name = ?`, buildLease(release))
	return err
}

// KeepBuild says that this server works on the build of a release which it made
// with CreateRelease, until the function returned is called. The context ends with
// a *LostError when the build is another server's affair by now: it was ended.
func (db *DB) KeepBuild(ctx context.Context, release int64) (context.Context, func()) {
	l := &Lease{db: db, name: buildLease(release), holder: db.server, life: buildLife}
	return l.keep(ctx)
}

// abandoned is a build whose server is gone.
type abandoned struct {
	release int64
	leased  bool
}

// EndAbandonedBuilds gives status error to builds whose servers are gone, and says
// how many it ended: of several servers that look one ends each.
func (db *DB) EndAbandonedBuilds(ctx context.Context) (int, error) {
	now := db.Now()
	rows, err := db.read.QueryContext(ctx, `
		SELECT r.id, l.name IS NOT NULL FROM release r LEFT JOIN lease l ON l.name = 'build ' || CAST(r.id AS TEXT)
		WHERE r.status = 'running' AND r.source = 'cloud' AND (l.expires_at <= ? OR l.name IS NULL AND r.start_timestamp < ?)
		ORDER BY r.id`, now.UnixMilli(), now.Add(-oldestBuild).UnixMilli())
	if err != nil {
		return 0, err
	}
	found, err := collect(rows, func(row interface{ Scan(...any) error }) (abandoned, error) {
		var a abandoned
		err := row.Scan(&a.release, &a.leased)
		return a, err
	})
	if err != nil {
		return 0, err
	}
	ended := 0
	for _, a := range found {
		var n int
		err := db.update(ctx, func(t *txn) error {
			var err error
			n, err = t.endAbandoned(ctx, a)
			return err
		})
		if err != nil {
			return ended, fmt.Errorf("end the build of release %d: %w", a.release, err)
		}
		ended += n
	}
	return ended, nil
}

func (t *txn) endAbandoned(ctx context.Context, a abandoned) (int, error) {
	if a.leased {
		// Who takes the lease away ends the build; its server may have renewed it.
		n, err := t.affected(ctx, `DELETE FROM lease WHERE name = ? AND expires_at <= ?`, buildLease(a.release), t.now.UnixMilli())
		if err != nil || n == 0 {
			return 0, err
		}
	}
	return t.breakOff(ctx, "The server that built this release is gone; push again.", Selection{SQL: `t.id = ?`, Args: []any{a.release}})
}

// breakOff ends builds that nobody works on.
func (t *txn) breakOff(ctx context.Context, reason string, builds Selection) (int, error) {
	running := Selection{SQL: `t.status = 'running' AND t.source = 'cloud' AND ` + builds.SQL, Args: builds.Args}
	if _, err := t.change(ctx, itself(), "image", Selection{
		SQL:  `t.status = 'running' AND t.id IN (SELECT p.image FROM image__is_part_of__release p WHERE p.is_part_of__release IN (SELECT t.id FROM release t WHERE ` + running.SQL + `))`,
		Args: running.Args,
	}, Values{"status": StatusError, "end_timestamp": t.now, "error_message": reason}); err != nil {
		return 0, err
	}
	return t.change(ctx, itself(), "release", running, Values{"status": StatusError, "end_timestamp": t.now, "build_log": reason})
}

// EndInterruptedBuilds ends the builds that a stop of the cloud left behind, and says
// how many there were. Call it before builds can start. On a shared database other
// servers may be building, so only those of servers that are gone count.
func (db *DB) EndInterruptedBuilds(ctx context.Context) (n int, err error) {
	if db.Shared() {
		return db.EndAbandonedBuilds(ctx)
	}
	err = db.update(ctx, func(t *txn) error {
		n, err = t.breakOff(ctx, "The cloud stopped during the build; push again.", Selection{SQL: "TRUE"})
		return err
	})
	return n, err
}
