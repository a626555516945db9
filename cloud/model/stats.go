package model

import (
	"context"
	"database/sql"
	"fmt"
)

// Stats are figures of this server's use of the database since its start.
type Stats struct {
	Pools map[string]sql.DBStats // "read" and "write" of a file, "all" of PostgreSQL
	// Writes and Commits count what went through the shared commits of a file;
	// both are 0 on PostgreSQL.
	Writes, Commits int64
}

// Stats are the figures now.
func (db *DB) Stats() Stats {
	if db.Shared() {
		return Stats{Pools: map[string]sql.DBStats{"all": db.write.Stats()}}
	}
	s := Stats{Pools: map[string]sql.DBStats{"read": db.read.Stats(), "write": db.write.Stats()}}
	if db.batcher != nil {
		s.Writes, s.Commits = db.batcher.writes.Load(), db.batcher.commits.Load()
	}
	return s
}

// DeviceCounts are how many devices there are by the state of their heartbeat.
func (db *DB) DeviceCounts(ctx context.Context) (map[string]int, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT api_heartbeat_state, count(*) FROM device GROUP BY api_heartbeat_state`)
	if err != nil {
		return nil, err
	}
	counts := map[string]int{}
	_, err = collect(rows, func(row interface{ Scan(...any) error }) (struct{}, error) {
		var state string
		var n int
		err := row.Scan(&state, &n)
		counts[state] = n
		return struct{}{}, err
	})
	return counts, err
}

// Ping says whether the database answers.
func (db *DB) Ping(ctx context.Context) error {
	var one int
	if err := db.read.QueryRowContext(ctx, `SELECT 1`).Scan(&one); err != nil {
		return fmt.Errorf("the database does not answer: %w", err)
	}
	return nil
}
