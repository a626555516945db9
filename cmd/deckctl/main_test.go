package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"

	"deckhand/build/event"
	"deckhand/client"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/cloud/odata"
	"deckhand/test/golden"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"deckctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: golden.Updating(),
		Setup: func(e *testscript.Env) error {
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("NO_COLOR", "1")
			return nil
		},
	})
}

// owner is a person at a terminal with a configuration of their own.
type owner struct {
	t   *testing.T
	env map[string]string
}

// do runs a command line; out is what it printed, on both ways.
func (o *owner) do(stdin string, args ...string) (out string, code int) {
	o.t.Helper()
	var text bytes.Buffer
	s := &session{
		stdin: strings.NewReader(stdin), stdout: &text, stderr: &text,
		env: func(name string) string { return o.env[name] },
	}
	code = run(o.t.Context(), s, args)
	return text.String(), code
}

func (o *owner) must(args ...string) string {
	o.t.Helper()
	out, code := o.do("", args...)
	if code != 0 {
		o.t.Fatalf("deckctl %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

func startCloud(t *testing.T) (*cloudtest.World, *owner) {
	t.Helper()
	w := cloudtest.New(t, nil)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	device.New(device.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	return w, &owner{t: t, env: map[string]string{"XDG_CONFIG_HOME": t.TempDir()}}
}

func TestAnOwnersDay(t *testing.T) {
	w, o := startCloud(t)
	if out, code := o.do("", "fleet", "list"); code != exitAuth || !strings.Contains(out, "not logged in") {
		t.Errorf("before the login: %d %s", code, out)
	}
	if out, code := o.do("wrong\n", "login", w.URL, "--user", "admin"); code != exitAuth || !strings.Contains(out, "does not accept") {
		t.Errorf("wrong password: %d %s", code, out)
	}
	if out, code := o.do(w.AdminPassword+"\n", "login", w.URL, "--user", "admin"); code != 0 || !strings.Contains(out, "as admin.") {
		t.Fatalf("login: %d %s", code, out)
	}
	info, err := os.Stat(filepath.Join(o.env["XDG_CONFIG_HOME"], "deckctl", "settings.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("settings: %v %v", info, err)
	}
	if got := o.must("whoami"); got != "admin at "+w.URL+"\n" {
		t.Errorf("whoami: %q", got)
	}
	if got := o.must("fleet", "create", "gate", "-t", "generic-amd64"); got != "Fleet admin/gate (id 1) is ready for devices of type generic-amd64.\n" {
		t.Errorf("create: %q", got)
	}
	if out, code := o.do("", "fleet", "create", "gate", "-t", "generic-amd64"); code != exitFailed || out != "deckctl: there is a fleet admin/gate already\n" {
		t.Errorf("create twice: %d %s", code, out)
	}
	if out, code := o.do("", "fleet", "create", "other", "-t", "toaster"); code != exitFailed || !strings.Contains(out, "no device type toaster") {
		t.Errorf("unknown type: %d %s", code, out)
	}
	if got := o.must("fleet", "list"); !strings.Contains(got, "1   admin/gate  generic-amd64  -") {
		t.Errorf("list:\n%s", got)
	}
	o.devices(w)
	if got := o.must("release", "list", "admin/gate", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("releases: %s", got)
	}
	fleet, err := w.DB.FleetBySlug(t.Context(), "admin/gate")
	if err != nil {
		t.Fatal(err)
	}
	w.Release(fleet, strings.Repeat("ab", 16), `{"services":{"web":{}}}`)
	if got := o.must("release", "list", "gate"); !strings.Contains(got, "abababa  0.0.0    success  yes") || !strings.Contains(got, "target") {
		t.Errorf("releases:\n%s", got)
	}
	o.must("logout")
	if _, code := o.do("", "whoami"); code != exitAuth {
		t.Errorf("after the logout: %d", code)
	}
}

func (o *owner) devices(w *cloudtest.World) {
	t := o.t
	t.Helper()
	var made struct{ UUID string }
	if err := json.Unmarshal([]byte(o.must("device", "register", "gate", "--json")), &made); err != nil || len(made.UUID) != 32 {
		t.Fatalf("register: %+v %v", made, err)
	}
	if got := o.must("device", "list"); !strings.Contains(got, made.UUID[:7]) || !strings.Contains(got, "admin/gate") {
		t.Errorf("list:\n%s", got)
	}
	if got := o.must("device", "show", made.UUID[:8]); !strings.Contains(got, made.UUID) {
		t.Errorf("show:\n%s", got)
	}
	if out, code := o.do("", "device", "show", "ffff0000"); code != exitFailed || !strings.Contains(out, "no device ffff0000") {
		t.Errorf("no such device: %d %s", code, out)
	}
	key := o.configFile(w, made.UUID)
	w.Want(200, "GET", "/device/v3/"+made.UUID+"/state", key, "")
	if got := o.must("device", "config", "--fleet", "gate"); !strings.Contains(got, `"apiKey": "`) || strings.Contains(got, "uuid") {
		t.Errorf("config of a fleet: %s", got)
	}
	if got := o.must("logs", made.UUID[:8]); !strings.HasPrefix(got, "Device "+made.UUID[:7]+" has not logged anything yet") {
		t.Errorf("no logs: %q", got)
	}
	w.Want(201, "POST", "/device/v2/"+made.UUID+"/logs", key, `[{"message":"hello there","timestamp":1700000000000,"isSystem":true}]`)
	if got := o.must("logs", made.UUID[:8]); !strings.Contains(got, "[system] hello there") {
		t.Errorf("logs: %q", got)
	}
	var out strings.Builder
	s := session{stdout: &out}
	gap := client.LogLine{ServiceID: 7, IsSystem: true, IsStdErr: true, Message: "Warning: Suppressed 12 message(s) due to high load, of web from A to B"}
	if err := s.logLine(gap, map[int64]string{7: "web"}); err != nil || !strings.Contains(out.String(), " [web] Warning: Suppressed 12 message(s)") {
		t.Errorf("where lines are missing: %q, %v", out.String(), err)
	}
}

// configFile writes a device's config.json, reads it and returns the key in it.
func (o *owner) configFile(w *cloudtest.World, uuid string) string {
	t := o.t
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.json")
	o.must("device", "config", uuid[:8], "-o", file, "--poll", "10s")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var cfg map[string]any
	if err := json.Unmarshal(data, &cfg); err != nil {
		t.Fatal(err)
	}
	key, _ := cfg["deviceApiKey"].(string)
	at, _ := cfg["registered_at"].(float64)
	if key == "" || time.Since(time.UnixMilli(int64(at))).Abs() > time.Hour {
		t.Errorf("config: %s", data)
	}
	for _, secret := range []string{"deviceApiKey", "registered_at"} {
		delete(cfg, secret)
	}
	want := map[string]any{
		"apiEndpoint": w.URL, "uuid": uuid, "applicationId": 1.0,
		"deviceType": "generic-amd64", "deviceId": 1.0, "listenPort": 48484.0, "appUpdatePollInterval": 10_000.0,
	}
	if diff := cmp.Diff(want, cfg); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if out, code := o.do("", "device", "config", uuid[:8], "-o", file); code != exitUsage || !strings.Contains(out, "--force") {
		t.Errorf("overwrite: %d %s", code, out)
	}
	return key
}

func TestOtherToolsSettingsAreUsed(t *testing.T) {
	w, o := startCloud(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte(w.AdminSession+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o.env["BALENARC_API_URL"], o.env["BALENARC_DATA_DIRECTORY"] = w.URL, dir
	if got := o.must("whoami"); !strings.HasPrefix(got, "admin at ") {
		t.Errorf("whoami: %q", got)
	}
}

// aBuild is a build of three services of which one fails.
func aBuild() []event.Event {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(seconds int, e event.Event) event.Event {
		e.T = began.Add(time.Duration(seconds) * time.Second)
		return e
	}
	services := []event.Service{
		{Name: "a-service-with-a-rather-long-name", Status: event.StatusSuccess, Steps: 4, CachedSteps: 3, Size: 199229440, ContentHash: "sha256:3f64b6e0ad65aaaa", StartedAt: began, EndedAt: began.Add(31 * time.Second)},
		{Name: "db", Status: event.StatusSuccess, Size: 43200000, ContentHash: "sha256:9b1c00000000bbbb", Unchanged: true, StartedAt: began, EndedAt: began.Add(6 * time.Second)},
		{Name: "web", Status: event.StatusFailed, Steps: 12, Error: "The command '/bin/sh -c make' returned a non-zero code: 2", ExitCode: 2, StartedAt: began, EndedAt: began.Add(98 * time.Second)},
	}
	long := services[0].Name
	return []event.Event{
		at(0, event.Event{Type: event.ReleaseCreated, ReleaseID: 7, Commit: "05a24b5b034c9f95f25d4d74f0593bea"}),
		at(0, event.Event{Type: event.BuildStarted, Fleet: "acme/gate", Arch: "aarch64", Services: services}),
		at(0, event.Event{Type: event.Warning, Message: "service web: service.expose is ignored"}),
		at(1, event.Event{Type: event.ServiceState, Service: "db", State: event.Pulling}),
		at(1, event.Event{Type: event.Step, Service: "web", N: 1, Total: 12, Text: "FROM scratch", State: event.Start}),
		at(1, event.Event{Type: event.Step, Service: "web", N: 1, Total: 12, Text: "FROM scratch", State: event.Done}),
		at(2, event.Event{Type: event.Step, Service: "web", N: 2, Total: 12, Text: "RUN make", State: event.Start}),
		at(2, event.Event{Type: event.Step, Service: long, N: 1, Total: 4, Text: "FROM scratch", State: event.Start}),
		at(2, event.Event{Type: event.Step, Service: long, N: 1, Total: 4, Text: "FROM scratch", State: event.Done, Cached: true}),
		at(3, event.Event{Type: event.Log, Service: "web", Stream: "out", Text: "compiling"}),
		at(3, event.Event{Type: event.Log, Service: "web", Stream: "err", Text: "main.c: no such file"}),
		at(6, event.Event{Type: event.Progress, Service: "db", Op: "push", Percent: 30}),
		at(6, event.Event{Type: event.Progress, Service: "db", Op: "push", Percent: 40}),
		at(6, event.Event{Type: event.ServiceState, Service: "db", State: event.Done}),
		at(70, event.Event{Type: event.Heartbeat, Running: []string{"web"}}),
		at(98, event.Event{Type: event.Step, Service: "web", N: 2, Total: 12, Text: "RUN make", State: event.Failed}),
		at(98, event.Event{Type: event.Error, Service: "web", Message: services[2].Error}),
		at(99, event.Event{Type: event.BuildResult, Status: event.StatusFailed, ReleaseID: 7, Commit: "05a24b5b034c9f95f25d4d74f0593bea", Services: services}),
	}
}

func TestWhatABuildLooksLike(t *testing.T) {
	for name, colours := range map[string]bool{"plain": false, "colour": true} {
		var out bytes.Buffer
		p := newPlain(&out, colours)
		events := aBuild()
		for _, e := range events {
			p.show(e)
		}
		p.summary(events[len(events)-1], 99*time.Second)
		golden.File(t, "testdata/build-"+name+".txt", out.String())
	}
}

func TestWholeLogsAreKept(t *testing.T) {
	root := t.TempDir()
	env := func(name string) string { return map[string]string{"XDG_STATE_HOME": root}[name] }
	for id := range int64(25) {
		r := newRecord(env)
		r.add(event.Event{Type: event.ReleaseCreated, ReleaseID: id + 1})
		r.add(event.Event{Type: event.Log, Service: "../../web", Text: "hello"})
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(r.file("../../web"))
		if err != nil || !strings.HasSuffix(string(data), " hello\n") || !strings.HasPrefix(r.file("../../web"), root) {
			t.Fatalf("%s: %q %v", r.file("../../web"), data, err)
		}
	}
	left, err := os.ReadDir(filepath.Join(root, "deckctl", "builds"))
	if err != nil || len(left) != keptBuilds {
		t.Errorf("%d builds are kept, %v", len(left), err)
	}
	nowhere := newRecord(func(string) string { return "" })
	nowhere.add(event.Event{Type: event.ReleaseCreated, ReleaseID: 1})
	if err := nowhere.close(); err != nil || nowhere.file("web") != "" {
		t.Errorf("without a place: %v", err)
	}
}
