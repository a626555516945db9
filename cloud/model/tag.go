package model

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// SetTags gives a device tags, in place of those with the same keys: all of
// them or, when one breaks a rule, none. The device itself sends them, so they
// are checked like anybody's.
func (db *DB) SetTags(ctx context.Context, device int64, tags map[string]string) error {
	err := db.update(ctx, func(t *txn) error {
		for _, name := range slices.Sorted(maps.Keys(tags)) {
			if err := t.setTag(ctx, device, name, tags[name]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set tags of device %d: %w", device, err)
	}
	return nil
}

func (t *txn) setTag(ctx context.Context, device int64, name, value string) error {
	by, err := t.forDevice(ctx, device)
	if err != nil {
		return err
	}
	id, err := t.found(ctx, `SELECT id FROM device_tag WHERE device = ? AND tag_key = ?`, device, name)
	if err != nil {
		return err
	}
	if id != 0 {
		_, err = t.change(ctx, by, "device_tag", one(id), Values{"value": value})
		return err
	}
	_, err = t.create(ctx, by, "device_tag", Values{"device": device, "tag_key": name, "value": value})
	return err
}
