package model

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Heartbeat is a sign of life of a device.
type Heartbeat struct {
	Device int64
	Seen   time.Time
	Until  time.Time // the device is silent when it is not heard again until then
	Acts   *bool     // it fetches what it is asked to do; nil: not known
}

// Heartbeats notes signs of life. Devices that were not online are now; people who
// look are told of these.
func (db *DB) Heartbeats(ctx context.Context, beats []Heartbeat) error {
	if len(beats) == 0 {
		return nil
	}
	return db.update(ctx, func(t *txn) error {
		for _, b := range beats {
			appeared, err := t.heartbeat(ctx, b)
			if err != nil {
				return fmt.Errorf("device %d: %w", b.Device, err)
			}
			if appeared {
				t.announce(OverviewTopic())
			}
		}
		return nil
	})
}

func (t *txn) heartbeat(ctx context.Context, b Heartbeat) (appeared bool, err error) {
	acts := sql.NullBool{}
	if b.Acts != nil {
		acts = sql.NullBool{Bool: *b.Acts, Valid: true}
	}
	n, err := t.affected(ctx, `
		UPDATE device SET last_seen = ?, heartbeat_until = ?, takes_actions = coalesce(CAST(? AS BOOLEAN), takes_actions)
		WHERE id = ? AND api_heartbeat_state = 'online'`, millis(b.Seen), millis(b.Until), acts, b.Device)
	if err != nil || n > 0 {
		return false, err
	}
	n, err = t.affected(ctx, `
		UPDATE device SET last_seen = ?, heartbeat_until = ?, takes_actions = coalesce(CAST(? AS BOOLEAN), takes_actions),
			api_heartbeat_state = 'online', changed_api_heartbeat_state_on__date = ?,
			last_connectivity_event = CASE WHEN is_online THEN last_connectivity_event ELSE CAST(? AS BIGINT) END,
			last_vpn_event = CASE WHEN is_connected_to_vpn THEN last_vpn_event ELSE CAST(? AS BIGINT) END,
			is_online = TRUE, is_connected_to_vpn = TRUE
		WHERE id = ?`, millis(b.Seen), millis(b.Until), acts, millis(t.now), millis(t.now), millis(t.now), b.Device)
	return n > 0, err
}

// affected runs a write and says how many rows it changed.
func (t *txn) affected(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

// SilentDevices finds devices that were not heard in time: they are late (timeout),
// and after another grace offline.
func (db *DB) SilentDevices(ctx context.Context, grace time.Duration) error {
	now := db.Now()
	rows, err := db.read.QueryContext(ctx, `
		SELECT id, api_heartbeat_state, heartbeat_until FROM device
		WHERE api_heartbeat_state IN ('online', 'timeout') AND heartbeat_until < ?`, millis(now))
	if err != nil {
		return err
	}
	type late struct {
		device, until int64
		state         string
	}
	found, err := collect(rows, func(row interface{ Scan(...any) error }) (late, error) {
		var l late
		err := row.Scan(&l.device, &l.state, &l.until)
		return l, err
	})
	if err != nil {
		return err
	}
	var changes []late
	for _, l := range found {
		state := "timeout"
		if now.Sub(time.UnixMilli(l.until)) > grace {
			state = "offline"
		}
		if state != l.state {
			changes = append(changes, late{l.device, l.until, state})
		}
	}
	if len(changes) == 0 {
		return nil
	}
	return db.update(ctx, func(t *txn) error {
		for _, c := range changes {
			// Whoever was heard meanwhile has another time by now.
			n, err := t.affected(ctx, silence+` WHERE id = ? AND heartbeat_until = ? AND api_heartbeat_state <> ?`,
				append(silenceArgs(c.state, t.now), c.device, c.until, c.state)...)
			if err != nil {
				return err
			}
			if n > 0 {
				t.announce(OverviewTopic())
			}
		}
		return nil
	})
}

// A device that a VPN server says it has is there, heard or not.
const silence = `
	UPDATE device SET api_heartbeat_state = ?, changed_api_heartbeat_state_on__date = ?,
		last_connectivity_event = CASE WHEN is_online AND is_managed_by__service_instance IS NULL THEN CAST(? AS BIGINT) ELSE last_connectivity_event END,
		last_vpn_event = CASE WHEN is_connected_to_vpn AND is_managed_by__service_instance IS NULL THEN CAST(? AS BIGINT) ELSE last_vpn_event END,
		is_online = (is_managed_by__service_instance IS NOT NULL), is_connected_to_vpn = (is_managed_by__service_instance IS NOT NULL)`

func silenceArgs(state string, now time.Time) []any {
	return []any{state, millis(now), millis(now), millis(now)}
}

// ExtendHeartbeats gives devices that counted as heard a full interval more: call it
// at a start, since the silence may have been the cloud's.
func (db *DB) ExtendHeartbeats(ctx context.Context) error {
	return db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, `
			UPDATE device SET heartbeat_until = CAST(? AS BIGINT) + heartbeat_until - last_seen
			WHERE api_heartbeat_state IN ('online', 'timeout') AND heartbeat_until - last_seen > 0
				AND heartbeat_until < CAST(? AS BIGINT) + heartbeat_until - last_seen`, millis(t.now), millis(t.now))
		return err
	})
}

// SetHeartbeat changes at once whether a device counts as online ("online",
// "timeout", "offline"). Without a change nothing is written.
func (db *DB) SetHeartbeat(ctx context.Context, device int64, state string, seen time.Time) error {
	return db.update(ctx, func(t *txn) error {
		if state == "online" {
			appeared, err := t.heartbeat(ctx, Heartbeat{Device: device, Seen: seen})
			if appeared {
				t.announce(OverviewTopic())
			}
			return err
		}
		n, err := t.affected(ctx, silence+` WHERE id = ? AND api_heartbeat_state <> ?`, append(silenceArgs(state, t.now), device, state)...)
		if n > 0 {
			t.announce(OverviewTopic())
		}
		return err
	})
}
