package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"deckhand/cloud/access"
)

const (
	// DeviceCall: somebody wants something of a device, now; ID is the device.
	DeviceCall TopicKind = "device call"
	// DeviceAnswer: a device has answered; ID is the device.
	DeviceAnswer TopicKind = "device answer"
)

// The way of an action.
const (
	actionWaiting  = "waiting"  // for the device to fetch it
	actionTaken    = "taken"    // the device has it
	actionAnswered = "answered" // the device has said how it went
)

// Action is a call of a device's own API that somebody made through the cloud.
type Action struct {
	ID, Device   int64
	Method, Path string // path with query
	Body         string // JSON; "": none
	Taken        bool   // the device has it
	AnswerStatus int    // HTTP status of the answer; 0: none yet
	AnswerType   string // its content type
	Answer       string
}

// NewAction is a call of the API of devices.
type NewAction struct {
	Method, Path, Body string
	Expires            time.Time // a device does not begin it after this
}

// CreateActions asks devices for something, and gives the ids of the actions in the
// order of the devices.
func (db *DB) CreateActions(ctx context.Context, devices []int64, n NewAction) ([]int64, error) {
	ids := make([]int64, 0, len(devices))
	err := db.update(ctx, func(t *txn) error {
		ids = ids[:0]
		for _, device := range devices {
			id, err := t.insert(ctx, `INSERT INTO device_action (created_at, device, method, path, body, expires_at, status) VALUES (?, ?, ?, ?, ?, ?, ?)`,
				millis(t.now), device, n.Method, n.Path, text(n.Body), millis(n.Expires), actionWaiting)
			if err != nil {
				return missingReference(err, fmt.Sprintf("device %d", device))
			}
			ids = append(ids, id)
			t.announce(Topic{DeviceCall, device})
		}
		return nil
	})
	return ids, err
}

// CallDevices tells whoever holds a request of these devices that they shall ask
// again.
func (db *DB) CallDevices(ctx context.Context, devices []int64) error {
	return db.update(ctx, func(t *txn) error {
		for _, device := range devices {
			t.announce(Topic{DeviceCall, device})
		}
		return nil
	})
}

// WaitingActions is how many actions wait for a device.
func (db *DB) WaitingActions(ctx context.Context, device int64) (int, error) {
	var n int
	err := db.read.QueryRowContext(ctx, `SELECT count(*) FROM device_action WHERE device = ? AND status = 'waiting' AND expires_at > ?`,
		device, millis(db.Now())).Scan(&n)
	return n, err
}

// TakeActions hands out the actions that wait for a device, oldest first. Each is
// handed out once: a restart that was carried out already must not be repeated
// because an answer was lost.
func (db *DB) TakeActions(ctx context.Context, device int64) ([]Action, error) {
	var taken []Action
	err := db.update(ctx, func(t *txn) error {
		rows, err := t.QueryContext(ctx, actionQuery+` WHERE device = ? AND status = 'waiting' AND expires_at > ? ORDER BY id`, device, millis(t.now))
		if err != nil {
			return err
		}
		if taken, err = collect(rows, scanAction); err != nil || len(taken) == 0 {
			return err
		}
		t.announce(Topic{DeviceAnswer, device})
		_, err = t.ExecContext(ctx, `UPDATE device_action SET status = 'taken' WHERE device = ? AND status = 'waiting' AND id <= ?`, device, taken[len(taken)-1].ID)
		return err
	})
	return taken, err
}

// AnswerAction stores what a device answered. An action that is not its own, or has
// an answer, is left alone.
func (db *DB) AnswerAction(ctx context.Context, device int64, a Action) error {
	return db.update(ctx, func(t *txn) error {
		n, err := t.affected(ctx, `
			UPDATE device_action SET status = 'answered', answer_status = ?, answer_type = ?, answer = ?, answered_at = ?
			WHERE id = ? AND device = ? AND status = 'taken'`,
			a.AnswerStatus, text(a.AnswerType), text(a.Answer), millis(t.now), a.ID, device)
		if n > 0 {
			t.announce(Topic{DeviceAnswer, device})
		}
		return err
	})
}

const actionQuery = `
	SELECT id, device, method, path, coalesce(body, ''), status, coalesce(answer_status, 0), coalesce(answer_type, ''), coalesce(answer, '')
	FROM device_action`

func scanAction(row interface{ Scan(...any) error }) (Action, error) {
	var a Action
	var status string
	err := row.Scan(&a.ID, &a.Device, &a.Method, &a.Path, &a.Body, &status, &a.AnswerStatus, &a.AnswerType, &a.Answer)
	a.Taken = status != actionWaiting
	return a, err
}

// Actions reads actions by their ids, which grow; those of deleted devices are gone.
func (db *DB) Actions(ctx context.Context, ids []int64) (map[int64]Action, error) {
	rows, err := db.read.QueryContext(ctx, actionQuery+` WHERE id BETWEEN ? AND ?`, ids[0], ids[len(ids)-1])
	if err != nil {
		return nil, err
	}
	all, err := collect(rows, scanAction)
	byID := make(map[int64]Action, len(all))
	for _, a := range all {
		byID[a.ID] = a
	}
	return byID, err
}

// DropActions forgets actions that expired before a time.
func (db *DB) DropActions(ctx context.Context, before time.Time) error {
	var one int
	err := db.read.QueryRowContext(ctx, `SELECT 1 FROM device_action WHERE expires_at < ? LIMIT 1`, millis(before)).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	return db.update(ctx, func(t *txn) error {
		_, err := t.ExecContext(ctx, `DELETE FROM device_action WHERE expires_at < ?`, millis(before))
		return err
	})
}

// Reach says which devices somebody means; what is zero is not asked for.
type Reach struct {
	Device, Fleet int64
	UUID          string
}

// Reachable is a device that is there now.
type Reachable struct {
	ID   int64
	UUID string
	Acts bool // it fetches what it is asked to do
}

// ReachableDevices lists the devices meant which the caller can see and which are
// there.
func (db *DB) ReachableDevices(ctx context.Context, by access.Caller, r Reach) ([]Reachable, error) {
	where, args, ok := access.Rows(by, "device", access.Read)
	if !ok {
		return nil, nil
	}
	conditions := []string{"(" + where + ")", "t.is_connected_to_vpn = TRUE", "t.is_frozen = FALSE"}
	for _, c := range []struct {
		column string
		value  any
		asked  bool
	}{{"t.id", r.Device, r.Device != 0}, {"t.belongs_to__application", r.Fleet, r.Fleet != 0}, {"t.uuid", r.UUID, r.UUID != ""}} {
		if c.asked {
			conditions, args = append(conditions, c.column+" = ?"), append(args, c.value)
		}
	}
	rows, err := db.read.QueryContext(ctx, `SELECT t.id, t.uuid, t.takes_actions FROM device t WHERE `+strings.Join(conditions, " AND ")+` ORDER BY t.id`, args...)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (Reachable, error) {
		var d Reachable
		err := row.Scan(&d.ID, &d.UUID, &d.Acts)
		return d, err
	})
}
