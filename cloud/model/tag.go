package model

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxTagName  = 100    // characters
	maxTagValue = 10_000 // characters
)

func checkTag(name, value string) error {
	switch {
	case name == "" || utf8.RuneCountInString(name) > maxTagName:
		return invalid("tag_key", "A tag key has 1 to %d characters.", maxTagName)
	case strings.ContainsFunc(name, unicode.IsSpace):
		return invalid("tag_key", "Tag keys cannot contain whitespace.")
	case strings.HasPrefix(name, "io.resin.") || strings.HasPrefix(name, "io.balena."):
		return invalid("tag_key", "Tag keys beginning with io.resin. or io.balena. are reserved.")
	case utf8.RuneCountInString(value) > maxTagValue:
		return invalid("value", "A tag's value has at most %d characters.", maxTagValue)
	}
	return nil
}

// SetTags gives a device tags, in place of those with the same keys: all of
// them or, when one breaks a rule, none.
func (db *DB) SetTags(ctx context.Context, device int64, tags map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		if err := checkTag(name, tags[name]); err != nil {
			return err
		}
	}
	err := db.update(ctx, func(t *txn) error {
		for _, name := range slices.Sorted(maps.Keys(tags)) {
			_, err := t.ExecContext(ctx, `INSERT INTO device_tag (created_at, device, tag_key, value) VALUES (?, ?, ?, ?)
				ON CONFLICT (device, tag_key) DO UPDATE SET value = excluded.value`, millis(t.now), device, name, tags[name])
			if err != nil {
				return missingReference(err, fmt.Sprintf("device %d", device))
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set tags of device %d: %w", device, err)
	}
	return nil
}
