package model

import (
	"context"
	"fmt"
	"regexp"
	"strings"
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
)

// VariableKinds are all kinds, in the order of their names.
func VariableKinds() []VariableKind {
	return []VariableKind{FleetConfig, FleetEnvironment, DeviceConfig, DeviceEnvironment, DeviceServiceEnvironment, ServiceEnvironment}
}

// Parent is the field that says what a variable of this kind hangs on.
func (k VariableKind) Parent() string {
	switch k {
	case FleetConfig, FleetEnvironment:
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
	case FleetConfig, FleetEnvironment:
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

var (
	environmentName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	configName      = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_:]*$`)
)

const (
	maxVariableName  = 255
	maxVariableValue = 100_000
)

func (k VariableKind) check(name, value string) error {
	reserved := name == "RESIN" || name == "BALENA" || name == "USER"
	prefixed := strings.HasPrefix(name, "RESIN_") || strings.HasPrefix(name, "BALENA_")
	switch {
	case len(name) > maxVariableName || len(value) > maxVariableValue:
		return invalid("value", "A variable has at most %d characters in its name and %d in its value.", maxVariableName, maxVariableValue)
	case strings.ContainsAny(value, "\r\n"):
		return invalid("value", "Variable values cannot contain line break characters")
	case k.isConfig() && !configName.MatchString(name):
		return invalid("name", "Configuration variable names can only contain alphanumeric characters, underscores or a colon")
	case k.isConfig() && reserved:
		return invalid("name", "Configuration variables RESIN, BALENA, USER are reserved")
	case k.isConfig() && !prefixed:
		return invalid("name", "Configuration variables must be part of one of the following namespaces: RESIN_, BALENA_")
	case k.isConfig():
		return nil
	case !environmentName.MatchString(name):
		return invalid("name", "Environment variable names can only contain alphanumeric characters and underscores.")
	case reserved:
		return invalid("name", "Environment variables RESIN, BALENA, USER are reserved")
	case prefixed:
		return invalid("name", "Environment variables beginning with RESIN_, BALENA_ are reserved.")
	}
	return nil
}

// AddVariable adds a variable; the devices concerned are told. A taken name
// gives ErrConflict.
func (db *DB) AddVariable(ctx context.Context, kind VariableKind, parent int64, name, value string) (int64, error) {
	if err := kind.check(name, value); err != nil {
		return 0, err
	}
	var id int64
	err := db.update(ctx, func(t *txn) error {
		var fleet, device int64
		if err := t.QueryRowContext(ctx, kind.owner(), parent).Scan(&fleet, &device); err != nil {
			return notFound(err, "%s %d", kind.Parent(), parent)
		}
		var err error
		id, err = t.insert(ctx, `INSERT INTO `+string(kind)+` (created_at, `+kind.Parent()+`, name, value) VALUES (?, ?, ?, ?)`, millis(t.now), parent, name, value)
		if err != nil {
			return conflictOn(err, kind.Parent(), "name")
		}
		if device != 0 {
			t.announce(Topic{DeviceTarget, device})
		} else {
			t.announce(Topic{FleetTarget, fleet})
		}
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("add variable %s: %w", name, err)
	}
	return id, nil
}
