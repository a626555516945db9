package build

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/compose"
	"deckhand/state"
	targetstate "deckhand/target"
)

const everything = "testdata/devices/everything.yml"

// A service means on a device what its owner wrote: nothing gets lost or changes on the
// way through loader and normal form.
func TestWhatDevicesApplyGetsThrough(t *testing.T) {
	file := read(t, everything)
	p, err := loaded(t, map[string]string{"docker-compose.yml": file})
	if err != nil {
		t.Fatal(err)
	}
	// Not of anything that is left out.
	if diff := cmp.Diff([]string{
		`services.web.configs[0].mode on devices: taken as octal, 0440; write "0440"`,
		"services.web.storage_opt.size on devices: works only where the engine keeps containers on XFS with project quotas; elsewhere the service cannot be created",
	}, p.warnings); diff != "" {
		t.Errorf("warnings (-want +got)\n%s", diff)
	}
	var written map[string]any
	if err := yaml.Unmarshal([]byte(file), &written); err != nil {
		t.Fatal(err)
	}
	want := asOnDevice(t, written)
	var stored map[string]any
	if err := json.Unmarshal([]byte(composition(t, p)), &stored); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, asOnDevice(t, stored)); diff != "" {
		t.Errorf("(-as written +as stored)\n%s", diff)
	}
}

// Every attribute of services that devices apply is in the file, so that a new one is not
// forgotten.
func TestEverythingIsEverything(t *testing.T) {
	var written struct{ Services map[string]map[string]any }
	if err := yaml.Unmarshal([]byte(read(t, everything)), &written); err != nil {
		t.Fatal(err)
	}
	// What excludes something else that is in the file, and what is as good as another row.
	elsewhere := "entrypoint ipc cgroup privileged cpu_quota cpu_period cpu_rt_period cpu_rt_runtime"
	for _, a := range compose.Attributes {
		name, ok := strings.CutPrefix(a.Path, "services.*.")
		if !ok || a.Treat != compose.Apply || strings.ContainsAny(name, ".") || strings.Contains(elsewhere, name) {
			continue
		}
		used := false
		for _, s := range written.Services {
			used = used || s[name] != nil
		}
		if !used {
			t.Errorf("%s is not in %s", name, everything)
		}
	}
}

// What a release says of secrets and configs reaches the device, with the values of its own
// variables.
func TestSecretsReachTheDevice(t *testing.T) {
	p, err := loaded(t, map[string]string{"docker-compose.yml": read(t, everything), ".env": "TOKEN=of the builder\n"})
	if err != nil {
		t.Fatal(err)
	}
	w := cloudtest.New(t, nil)
	device.New(device.Config{DB: w.DB, Auth: w.Auth, Failed: func(err error) { t.Error(err) }}).Routes(w.Mux)
	fleet := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(fleet, "a")
	w.Release(fleet, "abc123", composition(t, p))
	document := w.Want(200, "GET", "/device/v3/"+d.UUID+"/state", key, "").Body
	got, _, err := targetstate.DecodeV3(t.Context(), []byte(document), targetstate.Options{Device: d.UUID})
	if err != nil {
		t.Fatal(err)
	}
	app := got.Apps[fleet.UUID]
	if app.Rejected != "" {
		t.Fatalf("rejected: %s", app.Rejected)
	}
	want := []state.File{
		{Target: "/etc/app.conf", Mode: 0o440, Content: []byte("listen = 80\n")},
		{Target: "/etc/typed", UID: 103, GID: 103, Mode: 0o440, Content: []byte("user:pass\n")},
		{Target: "/run/secrets/token", Content: []byte("t")},
	}
	if diff := cmp.Diff(want, app.Services["web"].Spec.Files); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// A variable of the file .env stands for its value in the content of a secret, as everywhere
// else in a compose file.
func TestContentsAreInterpolated(t *testing.T) {
	p, err := loaded(t, map[string]string{".env": "HOST=db\n", "docker-compose.yml": `
services: {web: {image: x, secrets: [s], configs: [c]}}
secrets: {s: {content: "host=${HOST} price=5$$"}}
configs: {c: {content: "host=${HOST} price=5$$"}}
`})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"content": "host=db price=5$"}
	for _, got := range []any{child(p.composition, "secrets")["s"], child(p.composition, "configs")["c"]} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func composition(t *testing.T, p *project) string {
	t.Helper()
	b, err := json.Marshal(p.composition)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// asOnDevice is what a device makes of a composition.
func asOnDevice(t *testing.T, doc map[string]any) compose.Project {
	t.Helper()
	p, problems, err := compose.Load(t.Context(), compose.Options{Release: true, AnyVariable: true}, doc)
	if err != nil {
		t.Fatal(err)
	}
	if err := compose.Refusal(problems); err != nil {
		t.Fatal(err)
	}
	return p
}
