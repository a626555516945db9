package supervisor

import (
	"os"
	"path/filepath"
	"testing"

	"deckhand/config"
	"deckhand/state"
)

// The device's network reaches the local API as the firewall mode says; without
// a cloud, when whoever runs the device says so.
func TestWhenTheNetworkReachesTheAPI(t *testing.T) {
	const managed, alone, develop = `{"apiEndpoint":"https://api.example"}`, `{}`, `{"developmentMode":true}`
	vars := func(kv ...string) map[string]string {
		out := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			out[kv[i]] = kv[i+1]
		}
		return out
	}
	const mode = "BALENA_HOST_FIREWALL_MODE"
	for name, c := range map[string]struct {
		file, listen string
		config       map[string]string
		host         bool // a service uses the host's network
		want         bool
	}{
		"nothing said":               {file: managed, want: true},
		"on":                         {file: managed, config: vars(mode, "on")},
		"on, in local mode":          {file: managed, config: vars(mode, "on", "BALENA_SUPERVISOR_LOCAL_MODE", "1"), want: true},
		"off":                        {file: managed, config: vars(mode, "off"), host: true, want: true},
		"auto":                       {file: managed, config: vars(mode, "auto"), want: true},
		"auto, an open service":      {file: managed, config: vars(mode, "auto"), host: true},
		"a word that is no mode":     {file: managed, config: vars(mode, "shut"), want: true},
		"no cloud":                   {file: alone},
		"no cloud, for development":  {file: develop, want: true},
		"no cloud, but --listen":     {file: alone, listen: "0.0.0.0:48484", want: true},
		"config.json cannot be read": {},
	} {
		t.Run(name, func(t *testing.T) {
			s, m := supervised(t)
			s.cfg.Listen = c.listen
			if c.file != "" {
				path := filepath.Join(t.TempDir(), "config.json")
				if err := os.WriteFile(path, []byte(c.file), 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := config.Load(path)
				if err != nil {
					t.Fatal(err)
				}
				s.file = f
			}
			want := m.target()
			want.Config = c.config
			if c.host {
				want.Apps["aaaa"].Services["open"] = state.Service{Spec: state.Spec{NetworkMode: "host"}}
			}
			m.use(want)
			if got := s.openToNetwork(); got != c.want {
				t.Errorf("%v", got)
			}
		})
	}
}
