package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"deckhand/cloud/access"
)

// Device is one registered device.
type Device struct {
	ID, Actor         int64
	UUID, Name        string
	Fleet             int64 // 0: none
	DeviceType        string
	RunningRelease    int64 // as the device reported; 0: none
	PinnedRelease     int64 // 0: follows the fleet
	OSVersion         string
	SupervisorVersion string
	Heartbeat         string // online, timeout, offline or unknown (never seen)
	LastSeen          time.Time
	Frozen            bool
	CreatedAt         time.Time
}

const deviceQuery = `
	SELECT d.id, d.actor, d.uuid, d.device_name, coalesce(d.belongs_to__application, 0), dt.slug,
	       coalesce(d.is_running__release, 0), coalesce(d.is_pinned_on__release, 0),
	       coalesce(d.os_version, ''), coalesce(d.supervisor_version, ''), d.api_heartbeat_state, d.last_seen, d.is_frozen, d.created_at
	FROM device d JOIN device_type dt ON dt.id = d.is_of__device_type`

func scanDevice(row interface{ Scan(...any) error }) (Device, error) {
	var d Device
	var seen, created sql.NullInt64
	err := row.Scan(&d.ID, &d.Actor, &d.UUID, &d.Name, &d.Fleet, &d.DeviceType, &d.RunningRelease, &d.PinnedRelease,
		&d.OSVersion, &d.SupervisorVersion, &d.Heartbeat, &seen, &d.Frozen, &created)
	d.LastSeen, d.CreatedAt = fromMillis(seen), fromMillis(created)
	return d, err
}

// DeviceByUUID finds a device by its whole uuid.
func (db *DB) DeviceByUUID(ctx context.Context, uuid string) (Device, error) {
	d, err := scanDevice(db.read.QueryRowContext(ctx, deviceQuery+` WHERE d.uuid = ?`, uuid))
	return d, notFound(err, "device %s", uuid)
}

// DeviceByID finds a device by id.
func (db *DB) DeviceByID(ctx context.Context, id int64) (Device, error) {
	d, err := scanDevice(db.read.QueryRowContext(ctx, deviceQuery+` WHERE d.id = ?`, id))
	return d, notFound(err, "device %d", id)
}

// NewDevice describes a device to register. All but Fleet, DeviceType and Key
// may be left out.
type NewDevice struct {
	Fleet             int64
	UUID              string // generated when empty
	Name              string // generated when empty
	DeviceType        string // slug
	Key               string // the device's own key, clear text
	SupervisorVersion string
	OSVersion         string
	OSVariant         string
	MACAddress        string
	// By is who registers it, for the audit log.
	By access.Caller
}

// RegisterDevice adds a device with its key in one transaction. A taken uuid
// or key gives ErrConflict, an unknown device type or fleet ErrNotFound.
func (db *DB) RegisterDevice(ctx context.Context, n NewDevice) (Device, error) {
	var d Device
	err := db.update(ctx, func(t *txn) error {
		id, err := t.registerDevice(ctx, n)
		if err != nil {
			return err
		}
		d, err = scanDevice(t.QueryRowContext(ctx, deviceQuery+` WHERE d.id = ?`, id))
		return err
	})
	return d, err
}

func (t *txn) registerDevice(ctx context.Context, n NewDevice) (int64, error) {
	deviceType, err := t.deviceType(ctx, n.DeviceType)
	if err != nil {
		return 0, err
	}
	by := writer{Caller: n.By, cloud: true}
	if n.By == (access.Caller{}) {
		by = itself()
	}
	v := Values{"uuid": n.UUID, "device_name": n.Name, "is_of__device_type": deviceType, "belongs_to__application": ref(n.Fleet)}
	for field, value := range map[string]string{
		"supervisor_version": cut(n.SupervisorVersion, 20), "os_version": cut(n.OSVersion, 70), "os_variant": n.OSVariant, "mac_address": cut(n.MACAddress, 900),
	} {
		if value != "" && (field != "os_variant" || value == "dev" || value == "prod") {
			v[field] = value
		}
	}
	id, err := t.create(ctx, by, "device", v)
	if errors.Is(err, ErrReferenced) {
		err = fmt.Errorf("fleet %d: %w", n.Fleet, ErrNotFound)
	}
	if err != nil {
		return 0, err
	}
	var actor int64
	if err := t.QueryRowContext(ctx, `SELECT actor FROM device WHERE id = ?`, id).Scan(&actor); err != nil {
		return 0, err
	}
	return id, t.addKey(ctx, NewKey{Key: n.Key, Actor: actor, Role: RoleDevice, By: by.Caller})
}

// cut keeps the first n bytes of s, cut at a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// randomName is a name people can say on the phone.
func randomName() string {
	first := [...]string{"amber", "bold", "brisk", "calm", "clear", "cold", "crisp", "dry", "early", "fair", "gentle", "green", "hidden", "icy",
		"late", "lively", "misty", "morning", "northern", "old", "patient", "quiet", "red", "rough", "silent", "small", "snowy", "spring", "still", "summer", "weathered", "winter"}
	second := [...]string{"bay", "bird", "breeze", "brook", "cloud", "dawn", "dew", "dune", "field", "fire", "fog", "forest", "frost", "glade", "harbor", "hill",
		"lake", "leaf", "meadow", "moon", "pine", "rain", "reef", "river", "sea", "shore", "sky", "star", "stone", "surf", "tide", "wind"}
	return first[rand.IntN(len(first))] + "-" + second[rand.IntN(len(second))] //nolint:gosec // a name, not a secret
}

// UserMayReadDevice says whether the device's fleet belongs to an
// organization of the user.
func (db *DB) UserMayReadDevice(ctx context.Context, user, device int64) (bool, error) {
	d, err := db.DeviceByID(ctx, device)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return db.UserMayUseFleet(ctx, user, d.Fleet)
}
