package model

import (
	"context"
	"fmt"
)

// DeviceEdit is what a device changes about itself.
// What is nil stays as it is.
type DeviceEdit struct {
	Name *string
	// Pin is the release that the device stays on; 0: it follows its fleet.
	Pin *int64
}

// EditDevice changes a device; it is told when its target changes. A release
// that was not built, or is another fleet's, gives ErrInvalid.
func (db *DB) EditDevice(ctx context.Context, device int64, e DeviceEdit) error {
	v := Values{}
	if e.Name != nil {
		v["device_name"] = *e.Name
	}
	if e.Pin != nil {
		v["is_pinned_on__release"] = ref(*e.Pin)
	}
	err := db.update(ctx, func(t *txn) error {
		by, err := t.forDevice(ctx, device)
		if err != nil {
			return err
		}
		_, err = t.change(ctx, by, "device", one(device), v)
		return err
	})
	if err != nil {
		return fmt.Errorf("change device %d: %w", device, err)
	}
	return nil
}
