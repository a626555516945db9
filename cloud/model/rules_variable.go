package model

import (
	"context"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

const (
	maxVariableName  = 255     // characters
	maxVariableValue = 100_000 // characters
)

// variableRules are those of one kind of variables. Every value counts as a
// secret: it is never in the audit log.
func variableRules(kind VariableKind) rules {
	check := func(_ context.Context, _ *txn, w *write) error { return kind.check(w) }
	return rules{
		required: kind.Parent() + " name value",
		fixed:    kind.Parent(),
		lengths:  map[string][2]int{"name": {0, maxVariableName}, "value": {0, maxVariableValue}},
		secret:   "value",
		create:   check,
		update:   check,
		after:    kind.tell,
		together: true,
	}
}

var (
	badEnvironmentName = regexp.MustCompile(`^\d|\W`)
	badConfigName      = regexp.MustCompile(`^[\d:]|[^A-Za-z0-9_:]`)
)

func (k VariableKind) check(w *write) error {
	if w.is("name") == nil || w.is("value") == nil {
		return nil // refused as missing
	}
	if strings.ContainsAny(w.text("value"), "\r\n") {
		return invalid("value", "Variable values cannot contain line break characters")
	}
	name := w.text("name")
	reserved := name == "RESIN" || name == "BALENA" || name == "USER"
	prefixed := strings.HasPrefix(name, "RESIN_") || strings.HasPrefix(name, "BALENA_")
	switch {
	case name == "":
		return invalid("name", "name has at least 1 character.")
	case k.isConfig() && badConfigName.MatchString(name):
		return invalid("name", "Configuration variable names can only contain alphanumeric characters, underscores or a colon")
	case k.isConfig() && reserved:
		return invalid("name", "Configuration variables RESIN, BALENA, USER are reserved")
	case k.isConfig() && !prefixed:
		return invalid("name", "Configuration variables must be part of one of the following namespaces: RESIN_, BALENA_")
	case k.isConfig():
		return nil
	case badEnvironmentName.MatchString(name):
		return invalid("name", "Environment variable names can only contain alphanumeric characters and underscores.")
	case reserved:
		return invalid("name", "Environment variables RESIN, BALENA, USER are reserved")
	case prefixed:
		return invalid("name", "Environment variables beginning with RESIN_, BALENA_ are reserved.")
	}
	return nil
}

// tell announces the variables to the devices that get them.
func (k VariableKind) tell(ctx context.Context, t *txn, rows []*write) error {
	rows = slices.DeleteFunc(slices.Clone(rows), (*write).idle)
	parents := refsOf(rows, k.Parent())
	if k == DeviceServiceEnvironment {
		installs := t.among("id", parents)
		return t.tellDevices(ctx, `SELECT device FROM service_install WHERE `+installs.SQL, installs.Args...)
	}
	for _, parent := range parents {
		if err := k.tellOf(ctx, t, parent); err != nil {
			return err
		}
	}
	return nil
}

// tellOf announces variables of a fleet, a service or a device.
func (k VariableKind) tellOf(ctx context.Context, t *txn, parent int64) error {
	switch k {
	case FleetConfig:
		t.announce(Topic{FleetTarget, parent})
	case FleetEnvironment:
		return t.tellFleet(ctx, parent)
	case ServiceEnvironment:
		return t.tellService(ctx, parent)
	case DeviceConfig, DeviceEnvironment:
		t.announce(Topic{DeviceTarget, parent})
	case DeviceServiceEnvironment, BuildEnvironment: // of installs; only builds read it
	}
	return nil
}

const (
	maxTagName  = 100    // characters, of a device
	maxTagValue = 10_000 // characters, of a device
)

// tagRules are those of the tags of fleets, devices or releases. Tags decide
// nothing, so nobody is told.
func tagRules(parent string, longestKey, longestValue int) rules {
	check := func(_ context.Context, _ *txn, w *write) error {
		if !w.sets("tag_key") {
			return nil
		}
		return checkTagKey(w.text("tag_key"))
	}
	return rules{
		required: parent + " tag_key value",
		fixed:    parent,
		lengths:  map[string][2]int{"tag_key": {1, longestKey}, "value": {0, longestValue}},
		create:   check,
		update:   check,
		together: true,
	}
}

func checkTagKey(name string) error {
	if strings.ContainsFunc(name, unicode.IsSpace) {
		return invalid("tag_key", "Tag keys cannot contain whitespace.")
	}
	for _, prefix := range []string{"io.resin.", "io.balena."} {
		if strings.HasPrefix(name, prefix) {
			return invalid("tag_key", "Tag keys beginning with %s are reserved.", prefix)
		}
	}
	return nil
}
