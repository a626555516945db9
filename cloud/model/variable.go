package model

import (
	"context"
	"fmt"
)

// VariableKind is one of the tables of variables; it is the resource's name.
type VariableKind string

// The kinds of variables and what each hangs on.
const (
	FleetConfig              VariableKind = "application_config_variable"
	FleetEnvironment         VariableKind = "application_environment_variable"
	DeviceConfig             VariableKind = "device_config_variable"
	DeviceEnvironment        VariableKind = "device_environment_variable"
	ServiceEnvironment       VariableKind = "service_environment_variable"
	DeviceServiceEnvironment VariableKind = "device_service_environment_variable"
	BuildEnvironment         VariableKind = "build_environment_variable"
)

// VariableKinds are all kinds, in the order of their names.
func VariableKinds() []VariableKind {
	return []VariableKind{FleetConfig, FleetEnvironment, DeviceConfig, DeviceEnvironment, DeviceServiceEnvironment, ServiceEnvironment}
}

// Parent is the field that says what a variable of this kind hangs on.
func (k VariableKind) Parent() string {
	switch k {
	case FleetConfig, FleetEnvironment, BuildEnvironment:
		return "application"
	case DeviceConfig, DeviceEnvironment:
		return "device"
	case ServiceEnvironment:
		return "service"
	case DeviceServiceEnvironment:
		return "service_install"
	}
	return ""
}

func (k VariableKind) isConfig() bool { return k == FleetConfig || k == DeviceConfig }

// owner is how the fleet (a) and device (d) of a variable's parent (v.<parent>) are found.
func (k VariableKind) owner() string {
	switch k {
	case FleetConfig, FleetEnvironment, BuildEnvironment:
		return `SELECT id, 0 FROM application WHERE id = ?`
	case DeviceConfig, DeviceEnvironment:
		return `SELECT coalesce(belongs_to__application, 0), id FROM device WHERE id = ?`
	case ServiceEnvironment:
		return `SELECT application, 0 FROM service WHERE id = ?`
	case DeviceServiceEnvironment:
		return `SELECT coalesce(d.belongs_to__application, 0), d.id FROM service_install i JOIN device d ON d.id = i.device WHERE i.id = ?`
	}
	return ""
}

// VariableOwner is the fleet, and the device if it is one's own, that a
// variable on this parent concerns.
func (db *DB) VariableOwner(ctx context.Context, kind VariableKind, parent int64) (fleet, device int64, err error) {
	err = db.read.QueryRowContext(ctx, kind.owner(), parent).Scan(&fleet, &device)
	return fleet, device, notFound(err, "%s %d", kind.Parent(), parent)
}

// AddVariable adds a variable; the devices concerned are told. A taken name
// gives ErrConflict.
func (db *DB) AddVariable(ctx context.Context, kind VariableKind, parent int64, name, value string) (int64, error) {
	var id int64
	err := db.update(ctx, func(t *txn) error {
		var err error
		id, err = t.create(ctx, itself(), string(kind), Values{kind.Parent(): parent, "name": name, "value": value})
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("add variable %s: %w", name, err)
	}
	return id, nil
}
