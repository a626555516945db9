//go:build engine && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"deckhand/test/system"
)

// A device comes with a release in its image and the wish to stay on it. It
// registers, is pinned, and never touches what it came with, although its fleet
// has moved on.
func TestPreloadedAndPinned(t *testing.T) {
	s := begin(t)
	f := s.fleet()
	first := s.push(f, system.Compose("web"), map[string]string{"web": "one"})

	// The factory: a device of the same fleet fetches the release, and what it
	// is asked for becomes apps.json.
	s.device(f)
	s.settles(first)
	preloaded := s.appsFile()
	s.shutDown()
	for _, c := range s.services() {
		s.remove(c)
	}
	second := s.push(f, system.Compose("web"), map[string]string{"web": "two"})

	values, err := s.cloud.Unregistered(s.Context(), f)
	s.must(err)
	values["initialDeviceName"] = "porch"
	dir := filepath.Join(s.dir, "new")
	s.must(os.MkdirAll(dir, 0o755))
	apps := filepath.Join(dir, "apps.json")
	s.must(os.WriteFile(apps, preloaded, 0o600))
	s.unit, err = system.NewDevice(system.DeviceConfig{
		Program: s.programs.Deckhand, Dir: dir, Engine: s.engine.Host, Values: values, Args: []string{"--apps", apps},
	})
	s.must(err)
	s.boot()
	s.settles(first)
	s.uuid = s.identity()
	s.cloudShows(first, "web")
	if got := s.mark(s.service("web")); got != "one" {
		t.Errorf("web runs %q", got)
	}
	for _, step := range s.steps(0) {
		if step != "create network "+f.Name+"/default" && step != "create "+f.Name+"/web" && step != "start "+f.Name+"/web" &&
			step != fmt.Sprintf("commit %s %.12s", f.Name, first.commit) {
			t.Errorf("step %s: the preloaded release needed nothing else", step)
		}
	}
	var pinned struct {
		Release struct {
			ID int64 `json:"__id"`
		} `json:"is_pinned_on__release"`
		Name string `json:"device_name"`
	}
	s.read("device?$select=is_pinned_on__release,device_name&$filter=uuid%20eq%20'"+s.uuid+"'", &pinned)
	if pinned.Release.ID != first.id || pinned.Name != "porch" {
		t.Errorf("the cloud has %+v, want release %d and not %d", pinned, first.id, second.id)
	}
}

// appsFile is apps.json for the release that the device was asked for, as a tool
// that makes disk images writes it.
func (s *scene) appsFile() []byte {
	s.Helper()
	b, err := os.ReadFile(s.unit.ConfigFile)
	s.must(err)
	var config struct{ DeviceAPIKey string }
	s.must(json.Unmarshal(b, &config))
	var state map[string]map[string]any
	s.must(json.Unmarshal(s.get("/device/v3/"+s.uuid+"/state", config.DeviceAPIKey), &state))
	target := state[s.uuid]
	out, err := json.Marshal(map[string]any{"config": target["config"], "apps": target["apps"], "pinDevice": true})
	s.must(err)
	return out
}

// identity is the UUID that the device has given itself.
func (s *scene) identity() string {
	s.Helper()
	b, err := os.ReadFile(s.unit.ConfigFile)
	s.must(err)
	var config struct{ UUID string }
	s.must(json.Unmarshal(b, &config))
	return config.UUID
}

// read reads the only row that a query of the owner gives.
func (s *scene) read(query string, row any) {
	s.Helper()
	token, err := s.cloud.Client.Login(s.Context(), s.cloud.User, s.cloud.Password)
	s.must(err)
	var answer struct{ D []json.RawMessage }
	s.must(json.Unmarshal(s.get("/v7/"+query, token), &answer))
	if len(answer.D) != 1 {
		s.Fatalf("%s: %d rows", query, len(answer.D))
	}
	s.must(json.Unmarshal(answer.D[0], row))
}

func (s *scene) get(path, credential string) []byte {
	s.Helper()
	req, err := http.NewRequestWithContext(s.Context(), http.MethodGet, s.cloud.URL+path, nil)
	s.must(err)
	req.Header.Set("Authorization", "Bearer "+credential)
	resp, err := http.DefaultClient.Do(req)
	s.must(err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	s.must(err)
	if resp.StatusCode != http.StatusOK {
		s.Fatalf("GET %s: %s %s", path, resp.Status, b)
	}
	return b
}
