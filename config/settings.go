package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Settings are what the owner may change about the supervisor from the cloud, by
// configuration variables.
type Settings struct {
	PollInterval      time.Duration // of the target; 0: that of config.json
	RequestTimeout    time.Duration // silence of the cloud; 0: the usual
	LocalMode         bool          // the device is open to its own network, see docs
	LogControl        bool          // logs of containers go to the cloud
	InstantUpdates    bool          // others may make the device poll
	ConnectivityCheck bool          // an unreachable cloud counts against the health
	HardwareMetrics   bool          // the report has load, memory, disk and temperature
	Discoverability   bool          // the device announces itself in its network
	OverrideLock      bool          // update locks are broken
	PersistentLogging bool          // the journal survives a reboot
	VPN               bool          // the host keeps its VPN up
	Firewall          Firewall      // who in the device's network may connect
}

// Firewall is how open the device is to its network.
type Firewall string

// The modes.
const (
	FirewallOff  Firewall = "off"  // open
	FirewallOn   Firewall = "on"   // closed
	FirewallAuto Firewall = "auto" // closed while a service uses the host's network
)

// setting ties the name of a variable, without prefix, to a field.
type setting struct {
	name  string
	field func(*Settings) any
}

// settings is the table of all variables. To add one: a field and a row.
func settings() []setting {
	return []setting{
		{"SUPERVISOR_POLL_INTERVAL", func(s *Settings) any { return &s.PollInterval }},
		{"SUPERVISOR_API_REQUEST_TIMEOUT", func(s *Settings) any { return &s.RequestTimeout }},
		{"SUPERVISOR_LOCAL_MODE", func(s *Settings) any { return &s.LocalMode }},
		{"SUPERVISOR_LOG_CONTROL", func(s *Settings) any { return &s.LogControl }},
		{"SUPERVISOR_INSTANT_UPDATE_TRIGGER", func(s *Settings) any { return &s.InstantUpdates }},
		{"SUPERVISOR_CONNECTIVITY_CHECK", func(s *Settings) any { return &s.ConnectivityCheck }},
		{"SUPERVISOR_HARDWARE_METRICS", func(s *Settings) any { return &s.HardwareMetrics }},
		{"HOST_DISCOVERABILITY", func(s *Settings) any { return &s.Discoverability }},
		{"SUPERVISOR_OVERRIDE_LOCK", func(s *Settings) any { return &s.OverrideLock }},
		{"OVERRIDE_LOCK", func(s *Settings) any { return &s.OverrideLock }}, // the old name wins
		{"SUPERVISOR_PERSISTENT_LOGGING", func(s *Settings) any { return &s.PersistentLogging }},
		{"SUPERVISOR_VPN_CONTROL", func(s *Settings) any { return &s.VPN }},
		{"HOST_FIREWALL_MODE", func(s *Settings) any { return &s.Firewall }},
	}
}

// DefaultSettings are those of a device about which nothing is said.
func DefaultSettings() Settings {
	return Settings{
		LogControl: true, InstantUpdates: true, ConnectivityCheck: true, HardwareMetrics: true, Discoverability: true, VPN: true,
		Firewall: FirewallOff,
	}
}

// ReadSettings reads configuration variables. A name may have the prefix BALENA_,
// RESIN_ or none; the first of these that is there counts. A value that does not
// fit is left out, and the default stays; problems says which. Variables of other
// kinds are not its business.
func ReadSettings(variables map[string]string) (s Settings, problems []error) {
	s = DefaultSettings()
	for _, row := range settings() {
		name, value, ok := lookup(variables, row.name)
		if !ok {
			continue
		}
		if err := row.read(&s, value); err != nil {
			problems = append(problems, fmt.Errorf("configuration variable %s: %w; the default is used", name, err))
		}
	}
	return s, problems
}

// SettingNames lists the names of all variables, without prefix, sorted.
func SettingNames() []string {
	all := map[string]bool{}
	for _, row := range settings() {
		all[row.name] = true
	}
	return slices.Sorted(maps.Keys(all))
}

func lookup(variables map[string]string, name string) (full, value string, ok bool) {
	for _, prefix := range []string{"BALENA_", "RESIN_", ""} {
		if value, ok = variables[prefix+name]; ok {
			return prefix + name, value, true
		}
	}
	return "", "", false
}

func (row setting) read(s *Settings, value string) error {
	switch p := row.field(s).(type) {
	case *bool:
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "1", "true", "on":
			*p = true
		case "0", "false", "off", "":
			*p = false
		default:
			return fmt.Errorf("%q is neither true nor false", value)
		}
	case *Firewall:
		mode := Firewall(strings.ToLower(strings.TrimSpace(value)))
		if mode != FirewallOff && mode != FirewallOn && mode != FirewallAuto {
			return fmt.Errorf("%q is none of on, off and auto", value)
		}
		*p = mode
	case *time.Duration:
		ms, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
		if err != nil || ms <= 0 || ms > int64((1<<31-1)) {
			return fmt.Errorf("%q is no number of milliseconds", value)
		}
		*p = time.Duration(ms) * time.Millisecond
	}
	return nil
}
