package device_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/cloud/model"
	"deckhand/test/golden"
)

const composition = `{"services":{
	"web":{"build":{"context":"."},"restart":"always","command":null,"ports":["80:80"],"networks":["front","back"]},
	"db":{"image":"x","volumes":["data:/data"]}},
	"networks":{"front":{},"back":{"internal":true}},"volumes":{"data":{}}}`

func start(t *testing.T) (*cloudtest.World, *device.Device) {
	t.Helper()
	w := cloudtest.New(t, nil)
	d := device.New(device.Config{DB: w.DB, Auth: w.Auth, RefusalDelay: time.Millisecond, Failed: func(err error) { t.Error(err) }})
	d.Routes(w.Mux)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w, d
}

// heard waits until the cloud has written down that the device is there.
func heard(t *testing.T, w *cloudtest.World, d model.Device, want string) {
	t.Helper()
	changes := w.DB.Changes().Watch(model.OverviewTopic())
	defer changes.Stop()
	deadline := time.After(20 * time.Second)
	for {
		got, err := w.DB.DeviceByID(t.Context(), d.ID)
		if err != nil {
			t.Fatal(err)
		}
		if got.Heartbeat == want {
			return
		}
		select {
		case <-changes.C():
		case <-deadline:
			t.Fatalf("the device is %s, want %s", got.Heartbeat, want)
		}
	}
}

func statePath(d model.Device) string { return "/device/v3/" + d.UUID + "/state" }

// stable replaces what is random in a state.
func stable(f model.Fleet, body string) string {
	body = strings.ReplaceAll(body, f.UUID, "<fleet uuid>")
	body = regexp.MustCompile(`/v2/[0-9a-f]{32}`).ReplaceAllString(body, "/v2/<hash>")
	var b bytes.Buffer
	if err := json.Indent(&b, []byte(body), "", "  "); err != nil {
		return body
	}
	return b.String() + "\n"
}

func set(t *testing.T, w *cloudtest.World, kind model.VariableKind, parent int64, name, value string) {
	t.Helper()
	if _, err := w.DB.AddVariable(t.Context(), kind, parent, name, value); err != nil {
		t.Fatal(err)
	}
}

func TestStateOfADevice(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	golden.File(t, "testdata/state-no-release.json", stable(f, w.Want(200, "GET", statePath(d), key, "").Body))

	_, images := w.Release(f, "abc123", composition)
	set(t, w, model.FleetConfig, f.ID, "RESIN_SUPERVISOR_UPDATE_STRATEGY", "hand-over")
	set(t, w, model.FleetConfig, f.ID, "BALENA_UI_ENABLE", "1")
	set(t, w, model.FleetConfig, f.ID, "BALENA_HOST_CONFIG_gpu_mem", "16")
	set(t, w, model.FleetEnvironment, f.ID, "B", "fleet <&>")
	set(t, w, model.FleetEnvironment, f.ID, "C", "fleet")
	set(t, w, model.ServiceEnvironment, images[1].ServiceID, "C", "service web")
	set(t, w, model.DeviceEnvironment, d.ID, "D", "device")
	set(t, w, model.DeviceConfig, d.ID, "BALENA_HOST_CONFIG_gpu_mem", "32")
	set(t, w, model.DeviceConfig, d.ID, "BALENA_SUPERVISOR_POLL_INTERVAL", "junk")
	answered := w.Want(200, "GET", statePath(d), key, "")
	golden.File(t, "testdata/state.json", stable(f, answered.Body))

	tag := answered.Header.Get("ETag")
	if !strings.HasPrefix(tag, `"`) {
		t.Errorf("ETag %q is not a strong one", tag)
	}
	for _, header := range []string{tag, "W/" + tag, `"x", ` + tag, "*"} {
		if a := w.Want(304, "GET", statePath(d), key, "", "If-None-Match", header); a.Body != "" {
			t.Errorf("304 with a body: %q", a.Body)
		}
	}
	w.Want(200, "GET", statePath(d), key, "", "If-None-Match", `W/"other"`)

	// The same state is the same bytes, also for a cloud that just started.
	again := device.New(device.Config{DB: w.DB, Auth: w.Auth})
	mux := http.NewServeMux()
	again.Routes(mux)
	fresh := *w
	fresh.Mux.Handle("/again/", http.StripPrefix("/again", mux))
	if a := fresh.Want(200, "GET", "/again"+statePath(d), key, ""); a.Body != answered.Body || a.Header.Get("ETag") != tag {
		t.Error("another process gives other bytes")
	}
}

func TestWhoMayReadAState(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	_, otherKey := w.Device(f, "b")
	w.Want(200, "GET", statePath(d), key, "")
	w.Want(200, "GET", statePath(d)+"?apikey="+key, "", "")
	w.Want(200, "GET", statePath(d), w.AdminSession, "")
	for name, credential := range map[string]string{
		"nobody": "", "another device": otherKey, "another user": w.BobSession,
		"provisioning key": w.Key(f.Actor, model.RoleProvisioning), "junk": "junk",
	} {
		if a := w.Do("GET", statePath(d), credential, ""); a.Status != 401 || a.Body != "" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	// A deleted device must keep running what it has, with or without its key.
	w.Want(304, "GET", "/device/v3/"+strings.Repeat("f", 32)+"/state", key, "")
	w.Want(304, "GET", "/device/v3/"+strings.Repeat("f", 32)+"/state", "", "")
}

func TestHeldRequestAnswersWhenTheTargetChanges(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	tag := w.Want(200, "GET", statePath(d), key, "").Header.Get("ETag")
	answers := make(chan cloudtest.Answer, 1)
	go func() {
		answers <- w.Do("GET", statePath(d), key, "", "If-None-Match", tag, "Prefer", "wait=30")
	}()
	// A change elsewhere does not end the hold.
	w.Release(w.Fleet(w.Admin, "other"), "bbb", composition)
	select {
	case a := <-answers:
		t.Fatalf("not held: %d %s", a.Status, a.Body)
	case <-time.After(50 * time.Millisecond):
	}
	w.Release(f, "abc123", composition)
	select {
	case a := <-answers:
		if a.Status != 200 || !strings.Contains(a.Body, "abc123") || a.Header.Get("Preference-Applied") != "wait" {
			t.Errorf("%d %s %v", a.Status, a.Body, a.Header)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the device was not told")
	}
}

func TestHeldRequestEnds(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	tag := w.Want(200, "GET", statePath(d), key, "").Header.Get("ETag")
	began := time.Now()
	a := w.Want(304, "GET", statePath(d), key, "", "If-None-Match", tag, "Prefer", "return=minimal, wait=1")
	if took := time.Since(began); took < time.Second || a.Header.Get("Preference-Applied") != "wait" {
		t.Errorf("after %s: %v", took, a.Header)
	}
	for _, prefer := range []string{"wait=x", "wait=-1", "wait", "respond-async"} {
		if a := w.Want(304, "GET", statePath(d), key, "", "If-None-Match", tag, "Prefer", prefer); a.Header.Get("Preference-Applied") != "" {
			t.Errorf("%s was applied", prefer)
		}
	}
	// Nothing to compare with, or something else: no hold.
	w.Want(200, "GET", statePath(d), key, "", "Prefer", "wait=30")
	w.Want(200, "GET", statePath(d), key, "", "Prefer", "wait=30", "If-None-Match", `"x"`)
}

func TestRegister(t *testing.T) {
	w, _ := start(t)
	f, his := w.Fleet(w.Admin, "kitchen"), w.Fleet(w.Bob, "cellar")
	provisioning := w.Key(f.Actor, model.RoleProvisioning)
	body := func(change ...string) string {
		m := map[string]any{"application": f.ID, "uuid": strings.Repeat("a", 32), "device_type": "generic-amd64", "api_key": "own-key-own-key-own-key"}
		for i := 0; i < len(change); i += 2 {
			var v any
			if err := json.Unmarshal([]byte(change[i+1]), &v); err != nil {
				t.Fatal(err)
			}
			m[change[i]] = v
		}
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for name, c := range map[string]struct {
		credential, body string
		status           int
		text             string
	}{
		"session":            {w.AdminSession, body(), 401, "API key required"},
		"nobody":             {"", body(), 401, "API key required"},
		"foreign fleet":      {provisioning, body("application", fmt.Sprint(his.ID)), 401, ""},
		"foreign user":       {w.Key(w.Bob.Actor, model.RoleUser), body(), 401, ""},
		"no application":     {provisioning, body("application", `"x"`), 400, "Application ID must be a valid integer"},
		"null application":   {provisioning, body("application", `null`), 400, "Application ID must be a valid integer"},
		"no uuid":            {provisioning, body("uuid", `""`), 400, "UUID must be specified"},
		"bad uuid":           {provisioning, body("uuid", `"A-1"`), 400, "lower case hex"},
		"uuid of wrong type": {provisioning, body("uuid", `7`), 400, "uuid: got a JSON number"},
		"no type":            {provisioning, body("device_type", `""`), 400, "Device type must be specified"},
		"unknown type":       {provisioning, body("device_type", `"toaster"`), 404, "Unknown device type toaster"},
		"short key":          {provisioning, body("api_key", `"x"`), 400, "api_key"},
		"not JSON":           {provisioning, `{"application":`, 400, "not valid JSON"},
	} {
		if a := w.Do("POST", "/device/register", c.credential, c.body); a.Status != c.status || !strings.Contains(a.Body, c.text) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	first := w.Want(201, "POST", "/device/register", provisioning, body())
	if want := fmt.Sprintf(`{"id":1,"uuid":"%s","api_key":"own-key-own-key-own-key"}`, strings.Repeat("a", 32)); first.Body != want {
		t.Errorf("got %s", first.Body)
	}
	if a := w.Want(201, "POST", "/device/register", provisioning, body()); a.Body != first.Body {
		t.Errorf("a repeat after a lost answer: %s", a.Body)
	}
	if a := w.Want(409, "POST", "/device/register", provisioning, body("api_key", `"another-key-another-key"`)); a.Body != `"uuid" must be unique.` {
		t.Errorf("conflict text %q", a.Body)
	}
	if a := w.Want(409, "POST", "/device/register", provisioning, body("uuid", `"`+strings.Repeat("b", 32)+`"`)); a.Body != `"\"key\" must be unique."` {
		t.Errorf("conflict text %q", a.Body)
	}
	var made struct {
		APIKey string `json:"api_key"`
	}
	a := w.Want(201, "POST", "/device/register?apikey="+provisioning, "", body("uuid", `"`+strings.Repeat("c", 32)+`"`, "api_key", `""`, "application", fmt.Sprintf(`"%d"`, f.ID)))
	if err := json.Unmarshal([]byte(a.Body), &made); err != nil || len(made.APIKey) != 32 {
		t.Errorf("%s %v", a.Body, err)
	}
	w.Want(200, "GET", "/device/v3/"+strings.Repeat("c", 32)+"/state", made.APIKey, "")
	w.Want(201, "POST", "/device/register", "", body("uuid", `"`+strings.Repeat("d", 32)+`"`, "api_key", `""`, "apikey", `"`+provisioning+`"`))
}

// installs is what the cloud believes is on the device: "service status progress".
func installs(t *testing.T, w *cloudtest.World, d model.Device) []string {
	t.Helper()
	fleets, err := w.DB.Overview(t.Context(), w.Admin.ID)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, f := range fleets {
		for _, od := range f.Devices {
			if od.ID != d.ID {
				continue
			}
			for _, s := range od.Services {
				line := s.Service + " " + s.Status + " " + s.Commit
				if s.Progress != nil {
					line += fmt.Sprintf(" %d%%", *s.Progress)
				}
				all = append(all, line)
			}
		}
	}
	return all
}

func TestReports(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	r, images := w.Release(f, "abc123", composition) // db, web
	report := func(s string, args ...any) string { return `{"` + d.UUID + `":` + fmt.Sprintf(s, args...) + `}` }

	w.Want(200, "PATCH", "/device/v3/state", key, report(`{"status":"Idle","os_version":"deckhand 1","api_port":48484,"ip_address":"10.0.0.1 %s","cpu_id":"ABC","memory_usage":1e300,"unknown":[1],
		"apps":{%q:{"release_uuid":"abc123","releases":{"abc123":{"update_status":"downloading","services":{
			"web":{"image":%q,"status":"Downloading","download_progress":41.6},
			"db":{"image":%q,"status":"Running"}}}}}}}`,
		strings.Repeat("x", 2000), f.UUID, images[1].Location+"@sha256:abc", images[0].Location))
	if diff := cmp.Diff([]string{"db Running abc123", "web Downloading abc123 42%"}, installs(t, w, d)); diff != "" {
		t.Error(diff)
	}
	got, err := w.DB.DeviceByID(t.Context(), d.ID)
	if err != nil || got.RunningRelease != r.ID || got.OSVersion != "deckhand 1" {
		t.Errorf("%+v %v", got, err)
	}
	heard(t, w, d, "online") // a report is a sign of life too

	// What the cloud does not know is dropped, the rest counts.
	w.Want(200, "PATCH", "/device/v3/state", key, report(`{"apps":{%q:{"release_uuid":"gone","releases":{
		"gone":{"services":{"web":{"image":"registry.test:5000/v2/gone","status":"Running"}}},
		"abc123":{"services":{"web":{"image":%q,"status":"Running"},"db":{"image":%q,"status":"Dancing"},"x":{"image":"nonsense","status":"Running"}}}}},
		"ffffffffffff4fff8fffffffffffffff":{"releases":{}}}}`, f.UUID, images[1].Location, images[0].Location))
	if diff := cmp.Diff([]string{"db Running abc123", "web Running abc123"}, installs(t, w, d)); diff != "" {
		t.Error(diff)
	}
	if got, err = w.DB.DeviceByID(t.Context(), d.ID); err != nil || got.RunningRelease != r.ID {
		t.Errorf("an unknown release changed what runs: %+v %v", got, err)
	}

	// Absent apps touch nothing; an app without services clears.
	w.Want(200, "PATCH", "/device/v3/state", key, report(`{"status":"Idle"}`))
	if got := installs(t, w, d); len(got) != 2 {
		t.Error(got)
	}
	w.Want(200, "PATCH", "/device/v3/state", key, report(`{"apps":{%q:{"releases":{"abc123":{"services":{"web":{"image":%q,"status":"Running"}}}}}}}`, f.UUID, images[1].Location))
	if diff := cmp.Diff([]string{"web Running abc123"}, installs(t, w, d)); diff != "" {
		t.Error(diff)
	}
	w.Want(200, "PATCH", "/device/v3/state", key, report(`{"apps":{}}`))
	if got := installs(t, w, d); len(got) != 0 {
		t.Error(got)
	}
}

func TestAReportThatSaysNothingNewWakesNobody(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	_, images := w.Release(f, "abc123", composition)
	body := fmt.Sprintf(`{%q:{"status":"Idle","apps":{%q:{"release_uuid":"abc123","releases":{"abc123":{"update_status":"done","services":{"web":{"image":%q,"status":"Running"}}}}}}}}`,
		d.UUID, f.UUID, images[1].Location)
	w.Want(200, "PATCH", "/device/v3/state", key, body)
	heard(t, w, d, "online")
	before := w.DB.Changes().Version(model.OverviewTopic())
	w.Want(200, "PATCH", "/device/v3/state", key, body)
	if after := w.DB.Changes().Version(model.OverviewTopic()); after != before {
		t.Error("an identical report counted as a change")
	}
}

func TestBadReports(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	other, otherKey := w.Device(f, "b")
	of := func(d model.Device, s string) string { return `{"` + d.UUID + `":` + s + `}` }
	for name, c := range map[string]struct {
		credential, body string
		status           int
		text             string
	}{
		"session":               {w.AdminSession, of(d, `{}`), 401, "API key required"},
		"nobody":                {"", of(d, `{}`), 401, ""},
		"another device":        {otherKey, of(d, `{"status":"x"}`), 401, ""},
		"two devices, one own":  {key, `{"` + d.UUID + `":{},"` + other.UUID + `":{}}`, 401, ""},
		"unknown device":        {key, `{"` + strings.Repeat("f", 32) + `":{}}`, 401, ""},
		"provisioning key":      {w.Key(f.Actor, model.RoleProvisioning), of(d, `{}`), 401, ""},
		"empty":                 {key, `{}`, 401, ""},
		"array":                 {key, `[]`, 401, ""},
		"null":                  {key, `null`, 401, ""},
		"no object":             {key, of(d, `7`), 401, ""},
		"truncated":             {key, `{"` + d.UUID, 400, "not valid JSON"},
		"wrong type":            {key, of(d, `{"status":7}`), 400, "status: got a JSON number, want a string."},
		"wrong type deep":       {key, of(d, `{"apps":{"x":{"releases":{"y":{"services":{"web":{"download_progress":"a lot"}}}}}}}`), 400, "download_progress"},
		"unknown update status": {key, of(d, `{"apps":{"x":{"releases":{"y":{"update_status":"dancing"}}}}}`), 400, `update_status: \"dancing\" is not one of`},
		"too long":              {key, of(d, `{"status":"`+strings.Repeat("x", 9<<20)+`"}`), 413, "longer than"},
	} {
		a := w.Do("PATCH", "/device/v3/state", c.credential, c.body)
		if a.Status != c.status || !strings.Contains(a.Body, c.text) {
			t.Errorf("%s: %d %.300s", name, a.Status, a.Body)
		}
	}
}

func zipped(t *testing.T, s string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := io.WriteString(z, s); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func messages(t *testing.T, body string) []string {
	t.Helper()
	var lines []struct{ Message string }
	if err := json.Unmarshal([]byte(body), &lines); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	all := []string{}
	for _, l := range lines {
		all = append(all, l.Message)
	}
	return all
}

func TestLogs(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	logs, stream := "/device/v2/"+d.UUID+"/logs", "/device/v2/"+d.UUID+"/log-stream"
	w.Want(201, "POST", stream, key, `{"message":"one","timestamp":1000}`+"\n\n"+`{"message":"two","timestamp":2000,"isStdErr":true,"serviceId":7}`+"\n"+`{"uuid":"x","message":"of another"}`+"\n", "Content-Type", "application/x-ndjson")
	w.Want(201, "POST", stream, key, zipped(t, `{"message":"three <&>"}`), "Content-Type", "application/x-ndjson", "Content-Encoding", "gzip")
	w.Want(201, "POST", logs, key, `[{"message":"four","isSystem":true}]`)
	a := w.Want(200, "GET", logs, w.AdminSession, "")
	if diff := cmp.Diff([]string{"one", "two", "three <&>", "four"}, messages(t, a.Body)); diff != "" {
		t.Error(diff)
	}
	if !strings.Contains(a.Body, `"timestamp":2000,"isSystem":false,"isStdErr":true,"serviceId":7,"message":"two"`) {
		t.Error(a.Body)
	}
	for query, want := range map[string][]string{"?count=2": {"three <&>", "four"}, "?count=0": {}, "?count=x": {"one", "two", "three <&>", "four"}, "?start=9999999999999": {}, "?": {"one", "two", "three <&>", "four"}} {
		if diff := cmp.Diff(want, messages(t, w.Want(200, "GET", logs+query, w.AdminSession, "").Body)); diff != "" {
			t.Errorf("%s: %s", query, diff)
		}
	}
	for name, c := range map[string]struct {
		method, path, credential, body, kind string
		status                               int
		text                                 string
	}{
		"read by nobody":        {"GET", logs, "", "", "", 401, ""},
		"read by the device":    {"GET", logs, key, "", "", 401, ""},
		"read by a stranger":    {"GET", logs, w.BobSession, "", "", 404, "No device with uuid"},
		"read of nothing":       {"GET", "/device/v2/ff/logs", w.AdminSession, "", "", 404, "No device with uuid ff"},
		"wrong type":            {"POST", stream, key, "{}", "application/json", 415, "Streaming requests require Content-Type"},
		"bad row":               {"POST", stream, key, "{\"message\":\"ok\"}\nnonsense\n", "application/x-ndjson", 400, "Could not parse row nonsense"},
		"row of the wrong type": {"POST", stream, key, `{"message":7}`, "application/x-ndjson", 400, "Could not parse row"},
		"endless row":           {"POST", stream, key, strings.Repeat("x", 2<<20), "application/x-ndjson", 400, "Could not parse row"},
		"written by the owner":  {"POST", stream, w.AdminSession, "{}", "application/x-ndjson", 401, ""},
		"unknown device":        {"POST", "/device/v2/ff/log-stream", key, "{}", "application/x-ndjson", 401, ""},
		"batch too long":        {"POST", logs, key, "[" + strings.Repeat("{},", 10) + "{}]", "", 400, "more than 10"},
		"batch is no array":     {"POST", logs, key, "{}", "", 400, "want an array"},
	} {
		if a := w.Do(c.method, c.path, c.credential, c.body, "Content-Type", c.kind); a.Status != c.status || !strings.Contains(a.Body, c.text) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}

func TestLogKeepsTheLastThousandLines(t *testing.T) {
	w, _ := start(t)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	var b strings.Builder
	for i := range 900 {
		fmt.Fprintf(&b, `{"message":"%d"}`+"\n", i)
	}
	for range 2 {
		w.Want(201, "POST", "/device/v2/"+d.UUID+"/log-stream", key, b.String(), "Content-Type", "application/x-ndjson")
	}
	got := messages(t, w.Want(200, "GET", "/device/v2/"+d.UUID+"/logs", w.AdminSession, "").Body)
	if len(got) != 1000 || got[0] != "800" || got[999] != "899" {
		t.Errorf("%d lines, first %q, last %q", len(got), got[0], got[len(got)-1])
	}
}

func TestFollowingALog(t *testing.T) {
	w, _ := start(t)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	logs := "/device/v2/" + d.UUID + "/logs"
	send := func(s string) { w.Want(201, "POST", logs, key, `[{"message":"`+s+`"}]`) }
	send("old")
	send("newer")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", w.URL+logs+"?stream=1&count=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+w.AdminSession)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	send("live")
	decoder := json.NewDecoder(res.Body)
	for _, want := range []string{"newer", "live"} {
		var l struct{ Message string }
		if err := decoder.Decode(&l); err != nil || l.Message != want {
			t.Fatalf("got %q %v, want %q", l.Message, err, want)
		}
	}
}
