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
