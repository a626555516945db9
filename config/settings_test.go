package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestReadSettings(t *testing.T) {
	with := func(change func(*Settings)) Settings {
		s := DefaultSettings()
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		variables map[string]string
		want      Settings
		problem   string
	}{
		"nothing": {want: DefaultSettings()},
		"every prefix": {
			variables: map[string]string{"BALENA_SUPERVISOR_LOCAL_MODE": "1", "RESIN_SUPERVISOR_LOG_CONTROL": "FALSE", "HOST_DISCOVERABILITY": "off"},
			want:      with(func(s *Settings) { s.LocalMode, s.LogControl, s.Discoverability = true, false, false }),
		},
		"balena's prefix counts first": {
			variables: map[string]string{"SUPERVISOR_LOCAL_MODE": "1", "RESIN_SUPERVISOR_LOCAL_MODE": "1", "BALENA_SUPERVISOR_LOCAL_MODE": "0"},
			want:      DefaultSettings(),
		},
		"milliseconds": {
			variables: map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "SUPERVISOR_API_REQUEST_TIMEOUT": " 1500 "},
			want:      with(func(s *Settings) { s.PollInterval, s.RequestTimeout = 10*time.Minute, 1500*time.Millisecond }),
		},
		"the old name of the lock's override wins": {
			variables: map[string]string{"RESIN_SUPERVISOR_OVERRIDE_LOCK": "0", "RESIN_OVERRIDE_LOCK": "1"},
			want:      with(func(s *Settings) { s.OverrideLock = true }),
		},
		"no truth":     {variables: map[string]string{"SUPERVISOR_LOCAL_MODE": "maybe"}, want: DefaultSettings(), problem: `SUPERVISOR_LOCAL_MODE: "maybe"`},
		"no number":    {variables: map[string]string{"SUPERVISOR_POLL_INTERVAL": "10m"}, want: DefaultSettings(), problem: "milliseconds"},
		"not positive": {variables: map[string]string{"SUPERVISOR_POLL_INTERVAL": "-1"}, want: DefaultSettings(), problem: "milliseconds"},
		"a mode":       {variables: map[string]string{"RESIN_HOST_FIREWALL_MODE": "Auto"}, want: with(func(s *Settings) { s.Firewall = FirewallAuto })},
		"no mode":      {variables: map[string]string{"HOST_FIREWALL_MODE": "shut"}, want: DefaultSettings(), problem: "none of on, off and auto"},
		"other kinds":  {variables: map[string]string{"RESIN_HOST_CONFIG_gpu_mem": "16"}, want: DefaultSettings()},
	} {
		t.Run(name, func(t *testing.T) {
			got, problems := ReadSettings(c.variables)
			if d := cmp.Diff(c.want, got); d != "" {
				t.Error(d)
			}
			if (c.problem == "") != (len(problems) == 0) || c.problem != "" && !strings.Contains(problems[0].Error(), c.problem) {
				t.Errorf("problems %v, want one about %q", problems, c.problem)
			}
		})
	}
}
