package supervisor

import (
	"cmp"
	"fmt"
	"time"

	"deckhand/config"
	"deckhand/state"
)

const (
	// defaultPoll is the interval of a device about which nothing is said.
	defaultPoll = 15 * time.Minute
	// leastPoll is what config.json accepts.
	leastPoll = 100 * time.Millisecond
	// leastPatience keeps a device within reach: with less, it might never again
	// get the target that corrects the setting.
	leastPatience = 5 * time.Second
)

// pollInterval is how often the cloud is asked for news.
func (s *Supervisor) pollInterval() time.Duration {
	return max(cmp.Or(s.settings().PollInterval, s.values().PollInterval, defaultPoll), leastPoll)
}

// patience is how long the cloud may be silent in a request.
func (s *Supervisor) patience() time.Duration {
	if d := s.settings().RequestTimeout; d > 0 {
		return max(d, leastPatience)
	}
	return 0
}

// instant reports whether the cloud may make the device poll.
func (s *Supervisor) instant() bool { return s.settings().InstantUpdates }

// configure carries out the settings of a target that are more than an answer to
// a question. Those that make no sense are named, and have their default.
func (s *Supervisor) configure(t state.Target) {
	for _, name := range config.SettingNames() {
		variable, value, ok := settingOf(t.Config, name)
		if !ok {
			continue
		}
		read, problems := config.ReadSettings(map[string]string{variable: value})
		if len(problems) > 0 {
			// The words are what people and their tools look for.
			text := fmt.Sprintf("Warning: Ignoring invalid device configuration value for %s, value: %s. Falling back to default (%s)",
				name, value, defaultOf(name))
			s.cfg.Log.Warn().Msg(text)
			if s.logs != nil {
				s.logs.system.Say(text)
			}
		}
		if name == pollVariable {
			s.keepPollInterval(max(cmp.Or(read.PollInterval, defaultPoll), leastPoll))
		}
	}
}

const (
	pollVariable     = "SUPERVISOR_POLL_INTERVAL"
	timeoutVariable  = "SUPERVISOR_API_REQUEST_TIMEOUT"
	firewallVariable = "HOST_FIREWALL_MODE"
)

// keepPollInterval writes the interval where the host OS reads it too.
func (s *Supervisor) keepPollInterval(d time.Duration) {
	file := s.configFile()
	if file == nil || file.Values().PollInterval == d {
		return
	}
	if err := file.Update(func(v *config.Values) { v.PollInterval = d }); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot write the poll interval to config.json; it counts all the same")
	}
}

// settingOf finds a setting under one of its names. The first that is there
// counts, as in config.ReadSettings.
func settingOf(variables map[string]string, name string) (variable, value string, ok bool) {
	for _, prefix := range []string{"BALENA_", "RESIN_", ""} {
		if value, ok = variables[prefix+name]; ok {
			return prefix + name, value, true
		}
	}
	return "", "", false
}

// defaultOf writes the default of a setting as its variable would.
func defaultOf(name string) string {
	switch name {
	case pollVariable:
		return "900000"
	case timeoutVariable:
		return "59000"
	case firewallVariable:
		return "off"
	}
	return cmp.Or(config.DefaultSettings().Variables()[name], "false")
}
