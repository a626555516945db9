package supervisor

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/config"
	"deckhand/state"
)

// configured is a supervisor with a config.json and a target in force.
func configured(t *testing.T, file string, variables map[string]string) (s *Supervisor, path string, log *bytes.Buffer) {
	t.Helper()
	s, m := supervised(t)
	path = filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.file, err = config.Load(path); err != nil {
		t.Fatal(err)
	}
	log = new(bytes.Buffer)
	s.cfg.Log = zerolog.New(log)
	m.use(state.Target{Config: variables})
	return s, path, log
}

const ofACloud = `{"apiEndpoint":"https://cloud.test"}`

func TestThePollIntervalIsWrittenDown(t *testing.T) {
	for name, c := range map[string]struct {
		file      string
		variables map[string]string
		want      time.Duration
		written   string // in config.json; empty: nothing is
		logged    string
	}{
		"nothing said":  {ofACloud, nil, 15 * time.Minute, "", ""},
		"config.json's": {`{"apiEndpoint":"https://cloud.test","appUpdatePollInterval":120000}`, nil, 2 * time.Minute, "120000", ""},
		"a variable":    {ofACloud, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000"}, 10 * time.Minute, "600000", ""},
		"balena's goes first": {
			ofACloud, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "BALENA_SUPERVISOR_POLL_INTERVAL": "700000"},
			700 * time.Second, "700000", "",
		},
		"no number": {
			`{"apiEndpoint":"https://cloud.test","appUpdatePollInterval":120000}`,
			map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "often"}, 15 * time.Minute, "900000",
			"Warning: Ignoring invalid device configuration value for SUPERVISOR_POLL_INTERVAL, value: often. Falling back to default (900000)",
		},
		"far too short": {ofACloud, map[string]string{"SUPERVISOR_POLL_INTERVAL": "1"}, 100 * time.Millisecond, "100", ""},
		"another one": {
			ofACloud, map[string]string{"RESIN_SUPERVISOR_LOG_CONTROL": "perhaps"}, 15 * time.Minute, "",
			"Warning: Ignoring invalid device configuration value for SUPERVISOR_LOG_CONTROL, value: perhaps. Falling back to default (true)",
		},
		"a time-out": {
			ofACloud, map[string]string{"RESIN_SUPERVISOR_API_REQUEST_TIMEOUT": "0"}, 15 * time.Minute, "",
			"Warning: Ignoring invalid device configuration value for SUPERVISOR_API_REQUEST_TIMEOUT, value: 0. Falling back to default (59000)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, path, log := configured(t, c.file, c.variables)
			s.configure(s.device.target())
			if got := s.pollInterval(); got != c.want {
				t.Errorf("it polls every %v, want %v", got, c.want)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if want := fmt.Sprintf(`"appUpdatePollInterval": %s`, c.written); strings.Contains(string(b), "appUpdatePollInterval") != (c.written != "") ||
				c.written != "" && !strings.Contains(strings.ReplaceAll(string(b), `":1`, `": 1`), want) {
				t.Errorf("config.json is %s, want %q", b, c.written)
			}
			if (log.Len() > 0) != (c.logged != "") || !strings.Contains(log.String(), c.logged) {
				t.Errorf("log %s, want %q", log, c.logged)
			}
		})
	}
}

// A file that cannot be written is no reason not to obey.
func TestThePollIntervalWithoutADisk(t *testing.T) {
	s, path, log := configured(t, ofACloud, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000"})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.configure(s.device.target())
	if got := s.pollInterval(); got != 10*time.Minute || !strings.Contains(log.String(), "cannot write the poll interval") {
		t.Errorf("it polls every %v; log %s", got, log)
	}
}

func TestPatienceWithTheCloud(t *testing.T) {
	for value, want := range map[string]time.Duration{"": 0, "120000": 2 * time.Minute, "1": 5 * time.Second, "x": 0} {
		variables := map[string]string{}
		if value != "" {
			variables["BALENA_SUPERVISOR_API_REQUEST_TIMEOUT"] = value
		}
		s, _, _ := configured(t, ofACloud, variables)
		if got := s.patience(); got != want {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

// What the device has and nobody told the cloud: not what is the default, and
// nothing that would put it out of the cloud's reach.
func TestSettingsThatCameWithTheDevice(t *testing.T) {
	s, _, _ := configured(t, `{"apiEndpoint":"https://cloud.test","appUpdatePollInterval":120000,"persistentLogging":true}`, map[string]string{
		"RESIN_SUPERVISOR_LOG_CONTROL": "off", "SUPERVISOR_HARDWARE_METRICS": "1", "BALENA_SUPERVISOR_LOCAL_MODE": "1",
		"SUPERVISOR_VPN_CONTROL": "0", "RESIN_OVERRIDE_LOCK": "1", "RESIN_HOST_CONFIG_gpu_mem": "16", "SUPERVISOR_CONNECTIVITY_CHECK": "nonsense",
	})
	want := map[string]string{
		"SUPERVISOR_POLL_INTERVAL": "120000", "SUPERVISOR_PERSISTENT_LOGGING": "true", "SUPERVISOR_LOG_CONTROL": "false",
		"SUPERVISOR_LOCAL_MODE": "false", "SUPERVISOR_VPN_CONTROL": "true", "SUPERVISOR_OVERRIDE_LOCK": "true",
	}
	if d := cmp.Diff(want, s.ownSettings()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	s, _, _ = configured(t, ofACloud, nil)
	if got := s.ownSettings(); len(got) != 0 {
		t.Errorf("a device without any: %v", got)
	}
}

// Tags that one cloud has are news to the next.
func TestAnotherCloudIsToldEverything(t *testing.T) {
	s, _, _ := configured(t, ofACloud, nil)
	i := introduction{s.store}
	tags := map[string]string{"color": "blue"}
	for _, place := range []string{"one", "two"} {
		if err := i.KeepTold(place); err != nil {
			t.Fatal(err)
		}
		changed, err := s.store.Tags.Want(tags)
		if err != nil || !changed {
			t.Errorf("%s: the tags are not sent (%v)", place, err)
		}
		if err := s.store.Tags.Confirm(tags); err != nil {
			t.Fatal(err)
		}
		if told, err := i.Told(); told != place || err != nil {
			t.Errorf("told %q, %v", told, err)
		}
	}
	s.leave()
	if told, _ := i.Told(); told != "" {
		t.Errorf("still told %q", told)
	}
}
