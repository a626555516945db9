package localapi

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"deckhand/report"
)

// callers are who may make a request, as the tests see it.
type whose struct {
	name, key string
	open      bool // the device asks for no key
}

func callers() []whose {
	return []whose{
		{name: "nobody"}, {name: "wrong", key: "0000"}, {name: "own", key: "serviceone"},
		{name: "other", key: "servicetwo"}, {name: "global", key: key}, {name: "open", open: true},
	}
}

// input is what a request says.
type input struct {
	query, body string
	bad         int  // status, before anybody looks at the app; 0: it is fine
	missing     int  // status, after the scope was checked; 0: it is there
	force       bool // locks do not matter
}

// line is a route with what the contract says about it.
type line struct {
	method, path string // as in openapi.yaml
	call         string // the path to call; empty: path
	good         int
	other        int    // status for the key of another app; 0: as for anybody
	locks        bool   // an update lock is in the way
	keyed        bool   // it makes no sense without a key
	engine       int    // status without the engine; 0: it does not matter
	story        string // what happened to the device on success; empty: nothing
	inputs       []input
}

// lines are all routes of v1 and v2 that this package decides on alone. App 1 has
// one service, a, which the key serviceone belongs to.
func lines() []line {
	plain := []input{{}}
	junk := input{body: `{"a":`, bad: 503}
	force := []input{{}, {body: `{}`}, {body: `{"force":true}`, force: true}, {body: `{"force":"On"}`, force: true}, {body: `{"force":"yes"}`}, junk}
	app := []input{
		{body: `{"appId":1}`}, {body: `{"appId":"1.0"}`}, {body: `{"appId":1,"force":"TRUE"}`, force: true},
		{body: ``, bad: 400}, {body: `{"appId":"x"}`, bad: 400}, {body: `{"appId":null}`, bad: 400}, {body: `{"appId":1.5}`, bad: 400}, junk,
	}
	service := []input{
		{body: `{"serviceName":"a"}`}, {body: `{"imageId":"21"}`}, {body: `{"imageId":21,"force":1}`, force: true}, {body: `{"serviceName":"whatever"}`},
		{body: `{}`, missing: 400}, {body: `{"serviceName":"null"}`, missing: 400}, {body: `{"serviceName":5,"imageId":"x"}`, missing: 400}, junk,
	}
	const v2 = "/v2/applications/{app}/"
	return []line{
		{method: "GET", path: "/ping", good: 200, inputs: plain},
		{method: "GET", path: "/v1/healthy", good: 200, inputs: plain},
		{method: "POST", path: "/v1/blink", good: 200, story: "blink", inputs: []input{{}, {body: `{"a":`}}},
		{method: "POST", path: "/v1/regenerate-api-key", good: 200, keyed: true, story: "renew", inputs: plain},
		{method: "POST", path: "/v1/update", good: 204, story: "update", inputs: force},
		{method: "POST", path: "/v1/reboot", good: 202, locks: true, engine: 500, story: "reboot", inputs: force},
		{method: "POST", path: "/v1/shutdown", good: 202, locks: true, engine: 500, story: "shutdown", inputs: force},
		{method: "GET", path: "/v1/device/host-config", good: 200, engine: 503, inputs: plain},
		{method: "PATCH", path: "/v1/device/host-config", good: 200, locks: true, engine: 503, story: "host", inputs: hostInputs()},
		{method: "GET", path: "/v1/device", good: 200, engine: 503, inputs: plain},
		{method: "GET", path: "/v2/version", good: 200, inputs: plain},
		{method: "GET", path: "/v2/device/name", good: 200, inputs: plain},
		{method: "GET", path: "/v2/device/vpn", good: 200, inputs: plain},
		{method: "POST", path: "/v1/restart", good: 200, other: 401, locks: true, engine: 503, story: "restart 1  ", inputs: app},
		{method: "POST", path: "/v1/purge", good: 200, other: 401, locks: true, engine: 503, story: "purge 1  ", inputs: app},
		{method: "POST", path: "/v1/apps/{app}/stop", call: "/v1/apps/1/stop", good: 200, other: 401, locks: true, engine: 503, story: "stop 1 a ", inputs: force},
		{method: "POST", path: "/v1/apps/{app}/stop", call: "/v1/apps/x/stop", inputs: []input{{bad: 400}}},
		{method: "POST", path: "/v1/apps/{app}/start", call: "/v1/apps/1./start", good: 200, other: 401, engine: 503, story: "start 1 a force=false", inputs: force},
		{method: "POST", path: v2 + "restart", call: "/v2/applications/1/restart", good: 200, other: 401, locks: true, engine: 503, story: "restart 1  ", inputs: force},
		{method: "POST", path: v2 + "restart", call: "/v2/applications/0/restart", inputs: []input{{bad: 400}}},
		{method: "POST", path: v2 + "purge", call: "/v2/applications/1/purge", good: 200, other: 401, locks: true, engine: 503, story: "purge 1  ", inputs: force},
		{method: "POST", path: v2 + "purge", call: "/v2/applications/one/purge", inputs: []input{{bad: 400}}},
		{method: "POST", path: v2 + "restart-service", call: "/v2/applications/1/restart-service", good: 200, other: 401, locks: true, engine: 503, story: "restart 1 a ", inputs: service},
		{method: "POST", path: v2 + "restart-service", call: "/v2/applications/1.5/restart-service", inputs: []input{{bad: 400}}},
		{method: "POST", path: v2 + "stop-service", call: "/v2/applications/1/stop-service", good: 200, other: 401, locks: true, engine: 503, story: "stop 1 a ", inputs: service},
		{method: "POST", path: v2 + "start-service", call: "/v2/applications/1/start-service", good: 200, other: 401, engine: 503, story: "start 1 a ", inputs: service},
		{method: "GET", path: "/v2/cleanup-volumes", good: 200, engine: 503, story: "clean", inputs: plain},
		{method: "GET", path: "/v1/apps/{app}", call: "/v1/apps/1", good: 200, other: 401, engine: 503, inputs: plain},
		{method: "GET", path: "/v1/apps/{app}", call: "/v1/apps/x", inputs: []input{{bad: 400}}},
		{method: "GET", path: "/v2/applications/state", good: 200, engine: 503, inputs: plain},
		{method: "GET", path: "/v2/applications/{app}/state", call: "/v2/applications/1/state", good: 200, other: 409, engine: 503, inputs: plain},
		{method: "GET", path: "/v2/applications/{app}/state", call: "/v2/applications/x/state", inputs: []input{{bad: 400}}},
		{method: "GET", path: "/v2/containerId", good: 200, engine: 503, inputs: []input{{}, {query: "serviceName=null"}}},
		{method: "GET", path: "/v2/containerId", good: 200, other: 503, engine: 503, inputs: []input{{query: "service=a"}, {query: "serviceName=a&service=x"}}},
		{method: "GET", path: "/v2/state/status", good: 200, engine: 503, inputs: plain},
	}
}

// situations are what the device may be in.
func situations() []string { return []string{"free", "locked", "no engine"} }

// runs is a device with two apps: one has one service, the other has two, of
// which one is not in the wanted release.
func runs() Status {
	id := "sha256:1"
	row := Service{Status: "Running", Image: "registry/a@sha256:1", ImageID: 21, ReleaseID: 31}
	return Status{
		Containers: []Container{
			{Status: "Running", ServiceName: "a", AppID: 1, ImageID: 21, ServiceID: 11, ContainerID: "c1", CreatedAt: "2026-01-02T03:04:05.000Z", Up: true, Image: row.Image, ReleaseID: 31},
			{Status: "Running", ServiceName: "b", AppID: 2, ImageID: 22, ServiceID: 12, ContainerID: "c2", CreatedAt: "2026-01-02T03:04:05.000Z", Up: true},
			{Status: "exited", ServiceName: "old", AppID: 2, ImageID: 23, ServiceID: 13, ContainerID: "c3", CreatedAt: "2026-01-02T03:04:05.000Z"},
		},
		Images:  []Image{{Name: "registry/a@sha256:1", AppID: 1, ServiceName: "a", ImageID: 21, DockerImageID: &id, Status: "Downloaded"}},
		Commits: map[int64]string{1: "c0ffee", 2: "beef"},
		Apps: []App{
			{ID: 1, UUID: "app1", Name: "shop", Here: true, Wanted: true, Commit: "c0ffee", ReleaseID: 31, Update: report.Done, Services: map[string]Service{"a": row}, Rows: []Service{row}},
			{ID: 2, UUID: "app2", Name: "tool", Here: true, Wanted: true, Commit: "cafe", ReleaseID: 32, Update: report.ApplyingChanges, Services: map[string]Service{"b": {Status: "Running"}}, Rows: []Service{{Status: "Running", ImageID: 22}, {Status: "exited", ImageID: 23}}},
			{ID: 3, UUID: "app3", Name: "empty", Wanted: true, Update: report.Done},
		},
	}
}

// Every route, for everybody, in every situation, with every input: the status is
// as written here, the answer as in openapi.yaml, and the device was touched only
// if the answer says so.
func TestContract(t *testing.T) {
	c := readContract(t)
	cases := 0
	for _, l := range append(lines(), localLines()...) {
		for _, who := range callers() {
			for _, situation := range situations() {
				for _, in := range l.inputs {
					cases++
					l.try(t, c, who, situation, in)
				}
			}
		}
	}
	t.Logf("%d contract cases of %d routes", cases, len(lines()))
}

func (l line) try(t *testing.T, c *contract, who whose, situation string, in input) {
	t.Helper()
	d := &device{status: runs(), unmanaged: who.open}
	if situation == "locked" {
		d.locked = map[int64]string{1: "a"}
	}
	if situation == "no engine" {
		d.down = errors.New("the engine does not answer")
	}
	path := l.path
	if l.call != "" {
		path = l.call
	}
	r := httptest.NewRequestWithContext(t.Context(), l.method, path+"?"+in.query, strings.NewReader(in.body))
	r.Header.Set("Content-Type", "application/json")
	if who.key != "" {
		r.Header.Set("Authorization", "Bearer "+who.key)
	}
	w := httptest.NewRecorder()
	New(d.config()).ServeHTTP(w, r)
	name := fmt.Sprintf("%s %s?%s %s as %s, %s", l.method, path, in.query, in.body, who.name, situation)
	want := l.want(who, situation, in)
	if w.Code != want {
		t.Errorf("%s: %d %s, want %d", name, w.Code, w.Body, want)
	}
	if err := c.Check(l.method, l.path, w.Code, w.Header().Get("Content-Type"), w.Body.String()); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	touched := slices.ContainsFunc(d.story, func(s string) bool { return l.story != "" && strings.HasPrefix(s, l.story) })
	if done := want == l.good; done && l.story != "" && !touched || !done && touched {
		t.Errorf("%s: %d, and %q", name, w.Code, d.story)
	}
	for _, s := range d.story {
		if who.key != "" && strings.Contains(s, who.key) {
			t.Errorf("%s: the log has the key: %s", name, s)
		}
	}
}

// want is the status that the contract says.
func (l line) want(who whose, situation string, in input) int {
	open := l.path == "/ping" || l.path == "/v1/healthy"
	switch {
	case !open && (who.name == "nobody" || who.name == "wrong"):
		return 401
	case in.bad != 0:
		return in.bad
	case who.open && l.keyed:
		return 503
	case who.name == "other" && l.other != 0 && (situation != "no engine" || l.other != 409):
		return l.other
	case in.missing != 0:
		return in.missing
	case situation == "no engine" && l.engine != 0:
		return l.engine
	case situation == "locked" && l.locks && !in.force:
		return 423
	}
	return l.good
}

// What the table of the contract has no column for.
func TestContractBesides(t *testing.T) {
	c := readContract(t)
	const form = "application/x-www-form-urlencoded"
	for _, x := range []struct {
		name, method, path, call, kind, body string
		device                               device
		want                                 int
		text                                 string
		empty                                bool // there is no body
	}{
		{name: "an app with two services", method: "POST", path: "/v1/apps/{app}/stop", call: "/v1/apps/2/stop", want: 400, text: useV2},
		{name: "no such app", method: "POST", path: "/v1/apps/{app}/start", call: "/v1/apps/9/start", want: 400, text: noApp},
		{name: "an app that is not here", method: "POST", path: "/v1/restart", body: `{"appId":9}`, want: 503, text: "Application with ID 9 is not in the current state"},
		{name: "number zero", method: "POST", path: "/v1/restart", body: `{"appId":0}`, want: 503, text: "Application with ID 0 is not"},
		{name: "no such app for a service", method: "POST", path: "/v2/applications/{app}/stop-service", call: "/v2/applications/9/stop-service", body: `{"serviceName":"a"}`, want: 404, text: noApp},
		{name: "no such service", method: "POST", path: "/v2/applications/{app}/stop-service", call: "/v2/applications/2/stop-service", body: `{"serviceName":"x"}`, want: 404, text: noService},
		{name: "a service of an old release", method: "POST", path: "/v2/applications/{app}/restart-service", call: "/v2/applications/2/restart-service", body: `{"serviceName":"old"}`, want: 404, text: notWanted},
		{name: "by the image", method: "POST", path: "/v2/applications/{app}/restart-service", call: "/v2/applications/2/restart-service", body: `{"imageId":22}`, want: 200, text: "OK"},
		{name: "a container that vanishes", method: "POST", path: "/v2/applications/{app}/stop-service", call: "/v2/applications/1/stop-service", body: `{"serviceName":"a"}`, device: device{gone: true}, want: 404, empty: true},
		{name: "a container that vanishes, in version 1", method: "POST", path: "/v1/apps/{app}/stop", call: "/v1/apps/1/stop", device: device{gone: true}, want: 200, text: `"containerId":`},
		{name: "a form", method: "POST", path: "/v1/restart", kind: form, body: "appId=1&force=on", device: device{locked: map[int64]string{1: "a"}}, want: 200, text: "OK"},
		{name: "another kind of body", method: "POST", path: "/v1/restart", kind: "text/plain", body: `{"appId":1}`, want: 400, text: "Missing app id"},
		{name: "a lock says whose", method: "POST", path: "/v1/purge", body: `{"appId":1}`, device: device{locked: map[int64]string{1: "a"}}, want: 423, text: "Lockfile exists for { appId: 1, service: a }"},
		{name: "a reboot says whose", method: "POST", path: "/v1/reboot", device: device{locked: map[int64]string{1: "a"}}, want: 423, text: `{"Data":"","Error":"Lockfile exists for { appId: 1, service: a }"}`},
		{name: "a new host OS", method: "POST", path: "/v1/reboot", device: device{trial: true}, want: 423, text: "Waiting for Host OS update to finish"},
		{name: "a new host OS, forced", method: "POST", path: "/v1/shutdown", body: `{"force":true}`, device: device{trial: true}, want: 202, text: `{"Data":"OK","Error":null}`},
		{name: "no lamp that may be used", method: "POST", path: "/v1/blink", device: device{noLED: true}, want: 503, text: "blink: not allowed"},
		{name: "a new key", method: "POST", path: "/v1/regenerate-api-key", want: 200, text: strings.Repeat("f", 32)},
		{name: "a new key where none is needed", method: "POST", path: "/v1/regenerate-api-key", device: device{unmanaged: true}, want: 503, text: "none to replace"},
		{name: "nobody may make it poll", method: "POST", path: "/v1/update", device: device{noInstant: true}, want: 202, text: "Accepted"},
		{name: "unhealthy", method: "GET", path: "/v1/healthy", device: device{sick: true}, want: 500, text: "Unhealthy"},
		{name: "an app with two services, shown", method: "GET", path: "/v1/apps/{app}", call: "/v1/apps/2", want: 400, text: singleOnly},
		{name: "no app to show", method: "GET", path: "/v1/apps/{app}", call: "/v1/apps/9", want: 400, text: "App not found"},
		{name: "no keys in the environment", method: "GET", path: "/v1/apps/{app}", call: "/v1/apps/1", want: 200, text: `"env":{"OF":"c1"}`},
		{name: "no state of an unknown app", method: "GET", path: "/v2/applications/{app}/state", call: "/v2/applications/9/state", want: 409, text: "Application ID does not exist: 9"},
		{name: "no state of what is no number", method: "GET", path: "/v2/applications/{app}/state", call: "/v2/applications/x/state", want: 400, text: "Invalid application ID: x"},
		{name: "no such container", method: "GET", path: "/v2/containerId", call: "/v2/containerid?service=x", want: 503, text: "Could not find service with that name"},
		{name: "the first app", method: "GET", path: "/v1/device", want: 200, text: `"commit":"c0ffee","status":"Idle"`},
		{name: "the name", method: "GET", path: "/v2/device/name", want: 200, text: `{"deviceName":"kitchen","status":"success"}`},
	} {
		t.Run(x.name, func(t *testing.T) {
			d := x.device
			d.status = runs()
			call, kind := x.path, "application/json"
			if x.call != "" {
				call = x.call
			}
			if x.kind != "" {
				kind = x.kind
			}
			r := httptest.NewRequestWithContext(t.Context(), x.method, call, strings.NewReader(x.body))
			r.Header.Set("Content-Type", kind)
			r.Header.Set("Authorization", "ApiKey "+key)
			w := httptest.NewRecorder()
			New(d.config()).ServeHTTP(w, r)
			if w.Code != x.want || !strings.Contains(w.Body.String(), x.text) || x.empty != (w.Body.Len() == 0) && x.want != 204 {
				t.Errorf("%d %s, want %d %s", w.Code, w.Body, x.want, x.text)
			}
			if err := c.Check(x.method, x.path, w.Code, w.Header().Get("Content-Type"), w.Body.String()); err != nil {
				t.Error(err)
			}
		})
	}
}
