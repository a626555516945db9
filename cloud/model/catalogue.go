package model

import (
	"context"
	"fmt"
	"slices"
)

// DeviceType is a type of device.
type DeviceType struct {
	ID         int64
	Slug, Name string
	Arch       string   // slug of its processor architecture
	Aliases    []string // names by which it is found, sorted
	// Instructions are how a host OS gets onto it; none for types that somebody else
	// brought.
	Instructions []string
}

// DeviceTypes lists all types, by slug.
func (db *DB) DeviceTypes(ctx context.Context) ([]DeviceType, error) {
	rows, err := db.read.QueryContext(ctx, `
		SELECT t.id, t.slug, t.name, c.slug, coalesce(a.is_referenced_by__alias, '')
		FROM device_type t JOIN cpu_architecture c ON c.id = t.is_of__cpu_architecture
		LEFT JOIN device_type_alias a ON a.device_type = t.id
		ORDER BY t.slug, a.is_referenced_by__alias`)
	if err != nil {
		return nil, fmt.Errorf("read device types: %w", err)
	}
	defer rows.Close()
	instructions := map[string][]string{}
	_, known := catalogue()
	for _, k := range known {
		instructions[k.slug] = k.instructions()
	}
	var all []DeviceType
	for rows.Next() {
		var t DeviceType
		var alias string
		if err := rows.Scan(&t.ID, &t.Slug, &t.Name, &t.Arch, &alias); err != nil {
			return nil, fmt.Errorf("read device types: %w", err)
		}
		t.Instructions = instructions[t.Slug]
		if n := len(all); n == 0 || all[n-1].ID != t.ID {
			all = append(all, t)
		}
		if last := &all[len(all)-1]; alias != "" && !slices.Contains(last.Aliases, alias) {
			last.Aliases = append(last.Aliases, alias)
		}
	}
	return all, rows.Err()
}
