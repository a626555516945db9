package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
)

// DeviceEdit is what a person, or the device itself, changes about a device.
// What is nil stays as it is.
type DeviceEdit struct {
	Name *string
	// Pin is the release that the device stays on; 0: it follows its fleet.
	Pin *int64
}

// EditDevice changes a device; it is told when its target changes. A release
// that was not built, or is another fleet's, gives ErrInvalid.
func (db *DB) EditDevice(ctx context.Context, device int64, e DeviceEdit) error {
	err := db.update(ctx, func(t *txn) error {
		d, err := scanDevice(t.QueryRowContext(ctx, deviceQuery+` WHERE d.id = ?`, device))
		if err != nil {
			return notFound(err, "device %d", device)
		}
		var values []Value
		if e.Name != nil {
			if *e.Name == "" || len(*e.Name) > 255 || strings.ContainsAny(*e.Name, "\r\n") {
				return invalid("device_name", "A device name is one line of 1 to 255 characters.")
			}
			values = append(values, Value{Column: "device_name", Value: *e.Name})
		}
		if e.Pin != nil {
			if err := t.pinnable(ctx, d, *e.Pin); err != nil {
				return err
			}
			values = append(values, Value{Column: "is_pinned_on__release", Value: ref(*e.Pin)})
		}
		changed, err := t.setDevice(ctx, device, values)
		if changed {
			t.announce(Topic{DeviceTarget, device}, OverviewTopic())
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("change device %d: %w", device, err)
	}
	return nil
}

// pinnable refuses a release that the device could never run.
func (t *txn) pinnable(ctx context.Context, d Device, release int64) error {
	if release == 0 {
		return nil
	}
	var fleet int64
	var status string
	err := t.QueryRowContext(ctx, `SELECT belongs_to__application, status FROM release WHERE id = ?`, release).Scan(&fleet, &status)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (fleet != d.Fleet || status != StatusSuccess) {
		return invalid("is_pinned_on__release", "A device can only be pinned on a successful release of its own fleet.")
	}
	return err
}
