package model

import (
	"context"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"time"
)

// LogLimit is how many lines of a device's log are kept.
const LogLimit = 1000

// LogLine is one line of a device's log.
type LogLine struct {
	ID        int64 // grows with every line, over all devices
	CreatedAt time.Time
	Timestamp time.Time // the device's own clock
	System    bool
	Stderr    bool
	Service   int64 // 0: none
	Message   string

	// Source and Position tell a line that comes twice from a new one: positions
	// grow within a source. They are not read back. No source: it cannot be told.
	Source   string
	Position int64
}

// markLimit is how many sources of a device are remembered; containers come and go.
const markLimit = 500

// AppendLogs stores lines of a device that are not stored yet, drops what exceeds
// LogLimit, and tells those who follow the log.
func (db *DB) AppendLogs(ctx context.Context, device int64, lines []LogLine) error {
	if len(lines) == 0 {
		return nil
	}
	return db.update(ctx, func(t *txn) error {
		if err := t.lockRow(ctx, "device", device); err != nil {
			return err
		}
		lines, err := newLines(ctx, t, device, lines)
		if err != nil || len(lines) == 0 {
			return err
		}
		if len(lines) > LogLimit {
			lines = lines[len(lines)-LogLimit:]
		}
		insert, err := t.PrepareContext(ctx, `
			INSERT INTO device_log (device, created_at, "timestamp", is_system, is_stderr, service, message) VALUES (?, ?, ?, ?, ?, ?, ?)`)
		if err != nil {
			return err
		}
		defer insert.Close()
		for _, l := range lines {
			if _, err := insert.ExecContext(ctx, device, millis(t.now), l.Timestamp.UnixMilli(), l.System, l.Stderr, ref(l.Service), l.Message); err != nil {
				return missingReference(err, "device")
			}
		}
		_, err = t.ExecContext(ctx, `
			DELETE FROM device_log WHERE device = ? AND id <=
				(SELECT id FROM device_log WHERE device = ? ORDER BY id DESC LIMIT 1 OFFSET ?)`, device, device, LogLimit)
		t.announce(Topic{DeviceLog, device})
		return err
	})
}

// newLines leaves out what is stored already, and notes how far each source is now.
func newLines(ctx context.Context, t *txn, device int64, lines []LogLine) ([]LogLine, error) {
	known, moved := map[string]int64{}, map[string]int64{}
	var out []LogLine
	for _, l := range lines {
		if l.Source == "" {
			out = append(out, l)
			continue
		}
		last, ok := known[l.Source]
		if !ok {
			err := t.QueryRowContext(ctx, `SELECT position FROM device_log_mark WHERE device = ? AND source = ?`, device, l.Source).Scan(&last)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return nil, err
			}
		}
		if l.Position > last {
			out = append(out, l)
			last = l.Position
			moved[l.Source] = last
		}
		known[l.Source] = last
	}
	for _, source := range slices.Sorted(maps.Keys(moved)) {
		_, err := t.ExecContext(ctx, `
			INSERT INTO device_log_mark (device, source, position, seen_at) VALUES (?, ?, ?, ?)
			ON CONFLICT (device, source) DO UPDATE SET position = excluded.position, seen_at = excluded.seen_at`,
			device, source, moved[source], millis(t.now))
		if err != nil {
			return nil, missingReference(err, "device")
		}
	}
	if len(moved) == 0 {
		return out, nil
	}
	_, err := t.ExecContext(ctx, `
		DELETE FROM device_log_mark WHERE device = ? AND source IN
			(SELECT source FROM device_log_mark WHERE device = ? ORDER BY seen_at DESC, source LIMIT 1000000 OFFSET ?)`, device, device, markLimit)
	return out, err
}

// Logs lists the newest lines of a device's log that were received at or
// after since and have an id above after: at most count, oldest first.
func (db *DB) Logs(ctx context.Context, device, after int64, since time.Time, count int) ([]LogLine, error) {
	rows, err := db.read.QueryContext(ctx, `
		SELECT id, created_at, "timestamp", is_system, is_stderr, coalesce(service, 0), message FROM device_log
		WHERE device = ? AND id > ? AND created_at >= ? ORDER BY id DESC LIMIT ?`, device, after, since.UnixMilli(), count)
	if err != nil {
		return nil, err
	}
	lines, err := collect(rows, func(row interface{ Scan(...any) error }) (LogLine, error) {
		var l LogLine
		var created, stamp int64
		err := row.Scan(&l.ID, &created, &stamp, &l.System, &l.Stderr, &l.Service, &l.Message)
		l.CreatedAt, l.Timestamp = time.UnixMilli(created).UTC(), time.UnixMilli(stamp).UTC()
		return l, err
	})
	slices.Reverse(lines)
	return lines, err
}

// LastLog is the id of the newest line of a device's log, 0 when it is empty.
func (db *DB) LastLog(ctx context.Context, device int64) (int64, error) {
	var id int64
	err := db.read.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) FROM device_log WHERE device = ?`, device).Scan(&id)
	return id, err
}
