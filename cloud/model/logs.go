package model

import (
	"context"
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
}

// AppendLogs stores lines of a device, drops what exceeds LogLimit, and tells
// those who follow the log.
func (db *DB) AppendLogs(ctx context.Context, device int64, lines []LogLine) error {
	if len(lines) == 0 {
		return nil
	}
	if len(lines) > LogLimit {
		lines = lines[len(lines)-LogLimit:]
	}
	return db.update(ctx, func(t *txn) error {
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
