package localapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/report"
	"deckhand/state"
	"deckhand/test/golden"
)

const key = "0123456789abcdef0123456789abcdef"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// call makes a request; header lines and body are optional.
func call(t *testing.T, method, url, body string, header ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	must(t, err)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	must(t, err)
	return res.StatusCode, string(b), res.Header
}

func TestRouteTable(t *testing.T) {
	var b strings.Builder
	for _, r := range append(new(api).routes(), new(control).routes()...) {
		who := "anybody"
		if r.key {
			who = "key"
		}
		fmt.Fprintf(&b, "%-6s %-42s %-8s body %d\n", r.method, r.path, who, r.limit)
	}
	golden.File(t, "testdata/routes.txt", b.String())
}

func TestOpenRoutes(t *testing.T) {
	d := &device{}
	s := d.serve(t)
	for _, path := range []string{"/ping", "/PING", "/ping/", "/v1/healthy", "/v1/healthy?x=1"} {
		if code, body, _ := call(t, "GET", s.URL+path, ""); code != 200 || body != "OK" {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
	if code, body, _ := call(t, "HEAD", s.URL+"/ping", ""); code != 200 || body != "" {
		t.Errorf("HEAD: %d %q", code, body)
	}
	d.sick = true
	d.story = nil
	if code, body, _ := call(t, "GET", s.URL+"/v1/healthy", ""); code != 500 || body != "Unhealthy" {
		t.Errorf("unhealthy: %d %s", code, body)
	}
	if diff := cmp.Diff([]string{"no poll", "GET /v1/healthy 500"}, d.story); diff != "" {
		t.Errorf("log (-want +got):\n%s", diff)
	}
}

func TestWhoMayEnter(t *testing.T) {
	s := (&device{}).serve(t)
	const path = "/v1/update"
	for _, c := range []struct {
		query  string
		header []string
		want   int
	}{
		{"", nil, 401},
		{"?apikey=" + key, nil, 204},
		{"?apikey=wrong", nil, 401},
		{"?apikey=", []string{"Authorization", "Bearer " + key}, 204},
		{"?apiKey=" + key, nil, 401},
		{"?apikey=" + key + "&apikey=" + key, nil, 401},
		{"?apikey=x&apikey=y", []string{"Authorization", "Bearer " + key}, 204},
		{"?apikey=wrong", []string{"Authorization", "Bearer " + key}, 401},
		{"", []string{"Authorization", "ApiKey " + key}, 204},
		{"", []string{"Authorization", "bEARER " + key}, 204},
		{"", []string{"Authorization", "Bearer  " + key}, 401},
		{"", []string{"Authorization", "Bearer " + key + " x"}, 401},
		{"", []string{"Authorization", "Basic " + key}, 401},
		{"", []string{"Authorization", key}, 401},
		{"", []string{"Authorization", "Bearer " + key[:31]}, 401},
		{"", []string{"Authorization", "Bearer"}, 401},
	} {
		code, body, header := call(t, "POST", s.URL+path+c.query, "", c.header...)
		if code != c.want {
			t.Errorf("%s %v: %d, want %d", c.query, c.header, code, c.want)
		}
		if code == 401 && (body != "Unauthorized" || !strings.HasPrefix(header.Get("Content-Type"), "text/plain")) {
			t.Errorf("%s: body %q, type %s", c.query, body, header.Get("Content-Type"))
		}
	}
	open := (&device{unmanaged: true}).serve(t)
	if code, _, _ := call(t, "POST", open.URL+path, ""); code != 204 {
		t.Errorf("unmanaged: %d", code)
	}
}

func TestNoKeyYetMeansNobodyEnters(t *testing.T) {
	s := (&device{noKey: true}).serve(t)
	if code, _, _ := call(t, "GET", s.URL+"/v2/state/status?apikey=", ""); code != 401 {
		t.Errorf("%d", code)
	}
}

func TestUnknownPaths(t *testing.T) {
	d := &device{}
	s := d.serve(t)
	for _, c := range []struct{ method, path string }{{"GET", "/v1/none"}, {"GET", "/v1/update"}, {"POST", "/ping"}, {"GET", "/"}, {"GET", "/v1/%3Cscript%3E"}, {"GET", "//ping"}, {"PATCH", "/v2/state/status"}} {
		if code, _, _ := call(t, c.method, s.URL+c.path, ""); code != 401 {
			t.Errorf("%s %s without key: %d", c.method, c.path, code)
		}
		code, body, _ := call(t, c.method, s.URL+c.path+"?apikey="+key, "")
		if code != 404 || !strings.Contains(body, "Cannot "+c.method+" /") || strings.Contains(body, "<script>") {
			t.Errorf("%s %s with key: %d %s", c.method, c.path, code, body)
		}
	}
	for _, line := range d.story {
		if strings.Contains(line, key) {
			t.Errorf("the log shows the key: %s", line)
		}
	}
}

func TestUpdate(t *testing.T) {
	const js, form = "application/json", "application/x-www-form-urlencoded"
	for _, c := range []struct{ kind, body, want string }{
		{"", "", "update false false"},
		{js, "", "update false false"},
		{js, "{}", "update false false"},
		{js, "[]", "update false false"},
		{js, `{"force":true,"cancel":"on"}`, "update true true"},
		{js + "; charset=utf-8", `{"force":"TRUE"}`, "update true false"},
		{js, `{"force":1,"cancel":1.0}`, "update true true"},
		{js, `{"force":"yes","cancel":2}`, "update false false"},
		{js, `{"force":null,"cancel":{"a":1}}`, "update false false"},
		{js, `{"force":false,"force":"1"}`, "update true false"},
		{form, "force=true&cancel=1", "update true true"},
		{form, "force=true&force=true", "update false false"},
		{form, "%zz&cancel=on", "update false true"},
		{"text/plain", `{"force":true}`, "update false false"},
		{"nonsense//", `{"force":true}`, "update false false"},
	} {
		d := &device{}
		code, body, _ := call(t, "POST", d.serve(t).URL+"/v1/update?apikey="+key, c.body, "Content-Type", c.kind)
		if code != 204 || body != "" || d.story[0] != c.want {
			t.Errorf("%s %s: %d %q, %v, want %s", c.kind, c.body, code, body, d.story, c.want)
		}
	}
}

func TestUpdateWithoutInstantUpdates(t *testing.T) {
	d := &device{noInstant: true}
	s := d.serve(t)
	if code, body, _ := call(t, "POST", s.URL+"/v1/update?apikey="+key, ""); code != 202 || body != "Accepted" {
		t.Errorf("%d %q", code, body)
	}
	if code, _, _ := call(t, "POST", s.URL+"/v1/update?apikey="+key, `{"force":true}`, "Content-Type", "application/json"); code != 204 {
		t.Errorf("forced: %d", code)
	}
	if diff := cmp.Diff([]string{"POST /v1/update 202", "update true false", "POST /v1/update 204"}, d.story); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The key of a service opens the API, and shows the service's own app only.
func TestServiceKeys(t *testing.T) {
	d := &device{status: Status{
		Containers: []Container{{ServiceName: "a", AppID: 1, Status: "Running"}, {ServiceName: "b", AppID: 2, Status: "Running"}},
		Images:     []Image{{Name: "a", AppID: 1}, {Name: "b", AppID: 2}}, Commits: map[int64]string{1: "c1", 2: "c2"},
	}}
	s := d.serve(t)
	for k, want := range map[string][]string{"serviceone": {`"a"`, "c1"}, "servicetwo": {`"b"`, "c2"}} {
		code, body, _ := call(t, "GET", s.URL+"/v2/state/status", "", "Authorization", "Bearer "+k)
		if code != 200 {
			t.Fatalf("%s: %d", k, code)
		}
		for _, w := range []string{`"a"`, `"b"`, "c1", "c2"} {
			if strings.Contains(body, w) != slices.Contains(want, w) {
				t.Errorf("%s sees %s: %s", k, w, body)
			}
		}
	}
	if code, _, _ := call(t, "POST", s.URL+"/v1/update?apikey=servicetwo", ""); code != 204 {
		t.Errorf("update: %d", code)
	}
	if code, _, _ := call(t, "GET", s.URL+"/v2/state/status?apikey=servicethree", ""); code != 401 {
		t.Errorf("another key: %d", code)
	}
}

func TestBadBodies(t *testing.T) {
	for name, body := range map[string]string{"cut": `{"force":`, "text": `"x"`, "number": "5", "junk": "{} x", "deep": strings.Repeat("[", 100000), "large": `{"a":"` + strings.Repeat("x", bodyLimit) + `"}`} {
		d := &device{}
		code, answer, _ := call(t, "POST", d.serve(t).URL+"/v1/update?apikey="+key, body, "Content-Type", "application/json")
		var b struct{ Status, Message string }
		if err := json.Unmarshal([]byte(answer), &b); err != nil || code != 503 || b.Status != "failed" || b.Message == "" || len(answer) > 300 {
			t.Errorf("%s: %d %s", name, code, answer)
		}
		if len(d.story) != 1 {
			t.Errorf("%s: %v", name, d.story)
		}
	}
}

func TestAPanicIsAnAnswer(t *testing.T) {
	code, body, _ := call(t, "GET", (&device{}).serve(t).URL+"/v2/state/status?apikey="+key, "")
	if code != 503 || body != `{"status":"failed","message":"Unknown error"}`+"\n" {
		t.Errorf("%d %s", code, body)
	}
}

func stateOf(t *testing.T, s Status) string {
	t.Helper()
	code, body, header := call(t, "GET", (&device{status: s}).serve(t).URL+"/v2/state/status?apikey="+key, "")
	if code != 200 || !strings.HasPrefix(header.Get("Content-Type"), "application/json") {
		t.Errorf("%d %v", code, header)
	}
	return body
}

func TestStateStatus(t *testing.T) {
	const ref = "registry.example/v2/%s@sha256:%s"
	svc := func(name string) state.Service {
		return state.Service{Name: name, ID: 11, ImageID: 21, Image: fmt.Sprintf(ref, name, name), Running: true}
	}
	in := report.Input{
		Target: state.Target{Apps: map[string]state.App{
			"app1": {UUID: "app1", ID: 7, Commit: "new", Services: map[string]state.Service{"a": svc("a"), "b": svc("b")}},
			"app2": {UUID: "app2", ID: 8, Commit: "x", Services: map[string]state.Service{"z": svc("z")}},
		}},
		World: state.World{
			Apps: map[string]state.AppNow{"app1": {UUID: "app1", ID: 7, Commit: "old", Containers: []state.Container{
				{ID: "c1", Service: "a", ServiceID: 11, ImageID: 21, Commit: "new", Image: "ia", Phase: state.Running, Created: 1700000000},
			}}},
			Images: map[string]state.Image{"ia": {ID: "ia", Refs: []string{fmt.Sprintf(ref, "a", "a")}}},
		},
		Running: []report.Running{{Step: reconcile.Fetch{Image: fmt.Sprintf(ref, "b", "b")}, Done: 1, Total: 2}},
	}
	golden.File(t, "testdata/state-status.json", stateOf(t, Describe(in, true)))
	golden.File(t, "testdata/state-status-empty.json", stateOf(t, Describe(report.Input{}, false)))
}

// answers is a supervisor for the socket.
type answers struct{ err error }

func (a answers) Status() any { return map[string]string{"is": "<fine>"} }

func (a answers) Plan(_ context.Context, doc []byte) (any, error) {
	return map[string]string{"planned for": string(doc)}, a.err
}

func (a answers) Snapshot(context.Context) (any, error) { return make(chan int), a.err }

func (a answers) Explain(service string) (any, error) { return map[string]string{"of": service}, a.err }

func (a answers) Request(_ context.Context, doc []byte) (any, error) {
	return map[string]string{"asked": string(doc)}, a.err
}

func TestControl(t *testing.T) {
	s := httptest.NewServer(Control(ControlConfig{Supervisor: answers{}}))
	defer s.Close()
	for _, c := range []struct {
		method, path, body string
		code               int
		want               string
	}{
		{"GET", "/v3/status", "", 200, `{"is":"<fine>"}`},
		{"GET", "/v3/plan", "", 200, `{"planned for":""}`},
		{"POST", "/v3/plan", "{doc}", 200, `{"planned for":"{doc}"}`},
		{"POST", "/v3/plan", "", 400, `{"class":"invalid","error":"invalid: the request has no body; it must be a target document"}`},
		{"POST", "/v3/plan", strings.Repeat("x", planLimit+1), 400, `{"class":"invalid","error":"invalid: request entity too large"}`},
		{"GET", "/v3/snapshot", "", 503, `{"status":"failed","message":"the answer cannot be encoded"}`},
		{"GET", "/v3/explain?service=shop%2Fweb", "", 200, `{"of":"shop/web"}`},
		{"GET", "/v3/explain", "", 400, `{"class":"invalid","error":"invalid: name a service: /v3/explain?service=APP/SERVICE"}`},
		{"POST", "/v3/intents", "{wish}", 200, `{"asked":"{wish}"}`},
		{"POST", "/v3/intents", strings.Repeat("x", intentLimit+1), 400, `{"class":"invalid","error":"invalid: request entity too large"}`},
		{"GET", "/v3/intents", "", 404, ""},
		{"GET", "/ping", "", 404, ""},
	} {
		code, body, _ := call(t, c.method, s.URL+c.path, c.body)
		if code != c.code || c.want != "" && strings.TrimSpace(body) != c.want {
			t.Errorf("%s %s: %d %s, want %d %s", c.method, c.path, code, body, c.code, c.want)
		}
	}
	for class, want := range map[state.Class]int{state.ClassInvalid: 400, state.ClassEngine: 500} {
		s := httptest.NewServer(Control(ControlConfig{Supervisor: answers{state.Classify(class, errors.New("why"))}}))
		defer s.Close()
		code, body, _ := call(t, "GET", s.URL+"/v3/snapshot", "")
		var p Problem
		must(t, json.Unmarshal([]byte(body), &p))
		if code != want || p.Class != class || !strings.Contains(p.Error, "why") {
			t.Errorf("%s: %d %s", class, code, body)
		}
	}
}

func TestControlSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "deckhand.sock")
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	// A socket that a killed process left behind.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	stale.SetUnlinkOnClose(false)
	must(t, stale.Close())

	l, err := ListenControl(t.Context(), path)
	must(t, err)
	defer func() { _ = l.Close() }()
	info, err := os.Stat(path)
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	server := &http.Server{Handler: Control(ControlConfig{Supervisor: answers{}})} //nolint:gosec // a test
	go func() { _ = server.Serve(l) }()
	defer func() { _ = server.Close() }()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), "GET", "http://deckhand/v3/status", nil)
	must(t, err)
	res, err := client.Do(r)
	must(t, err)
	must(t, res.Body.Close())
	if res.StatusCode != 200 {
		t.Errorf("%d", res.StatusCode)
	}

	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, []byte("precious"), 0o600))
	if _, err := ListenControl(t.Context(), file); err == nil {
		t.Error("a file was replaced by a socket")
	}
}
