package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
)

// fake answers what a real engine says only in bad moments.
type fake struct {
	api string // Api-Version header

	mu      sync.Mutex
	answers map[string][]string // "METHOD /path" → status and body, or hangs; the last one again and again
	seen    []string
}

func (f *fake) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	if f.api != "" {
		w.Header().Set("Api-Version", f.api)
	}
	if q.URL.Path == "/_ping" {
		return
	}
	path := q.URL.Path
	if _, rest, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/"); ok {
		path = "/" + rest // without the version
	}
	key := q.Method + " " + path
	body, _ := io.ReadAll(q.Body)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, strings.TrimSpace(q.Method+" "+q.URL.RequestURI()+" "+string(body)))
	list := f.answers[key]
	if len(list) == 0 {
		w.WriteHeader(http.StatusTeapot)
		return
	}
	if len(list) > 1 {
		f.answers[key] = list[1:]
	}
	if list[0] == hangs {
		f.mu.Unlock()
		<-q.Context().Done()
		f.mu.Lock()
		return
	}
	status, answer, _ := strings.Cut(list[0], " ")
	var code int
	_, _ = fmt.Sscan(status, &code)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = fmt.Fprint(w, answer)
}

// hangs is the answer of an engine that waits for ever.
const hangs = "hangs"

func against(t *testing.T, f *fake) *engine.Engine {
	t.Helper()
	srv := httptest.NewServer(f)
	t.Cleanup(srv.Close)
	e, err := engine.New(engine.Config{Host: "tcp://" + strings.TrimPrefix(srv.URL, "http://")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestVersion(t *testing.T) {
	t.Setenv("DOCKER_API_VERSION", "1.24") // meant for other programs
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for api, want := range map[string]string{"": "names no API version", "1.40": "needed is 1.41"} {
		e := against(t, &fake{api: api})
		if _, err := e.Observe(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("API %q: %v", api, err)
		}
		if err := e.Ready(ctx); err == nil {
			t.Errorf("API %q: ready", api)
		}
	}
	for api, want := range map[string]string{"1.41": "/v1.41/", "1.99": "/v1.51/"} {
		f := &fake{api: api, answers: map[string][]string{"GET /version": {`200 {"Version":"20.10.44","Components":[{"Name":"balenaEngine"}]}`}}}
		i, err := against(t, f).Info(t.Context())
		if err != nil || i.Name != "balenaEngine" || i.Version != "20.10.44" || !strings.Contains(f.seen[0], want) {
			t.Errorf("API %q: %+v %v, asked %v", api, i, err, f.seen)
		}
	}
}

func TestBadHost(t *testing.T) {
	for _, host := range []string{"", "docker.sock", "unix://"} {
		if _, err := engine.New(engine.Config{Host: host}); err == nil || !strings.Contains(err.Error(), "unix:///path") {
			t.Errorf("%q: %v", host, err)
		}
	}
}

const (
	inspected = `200 {"Id":"c1","Name":"/web","State":{"Status":"%s","Dead":%t,"Restarting":false},"HostConfig":{},"Config":{}}`
	busy      = `409 {"message":"removal of container c1 is already in progress"}`
	gone      = `404 {"message":"No such container: c1"}`
)

func TestRemovalInProgressIsWaitedFor(t *testing.T) {
	f := &fake{api: "1.41", answers: map[string][]string{
		"DELETE /containers/c1":   {busy},
		"GET /containers/c1/json": {fmt.Sprintf(inspected, "removing", false), gone},
	}}
	if err := against(t, f).Do(t.Context(), reconcile.Remove{Service: "web", Container: "c1"}, nil); err != nil {
		t.Error(err)
	}
	want := []string{"DELETE /v1.41/containers/c1?v=1", "GET /v1.41/containers/c1/json", "GET /v1.41/containers/c1/json"}
	if d := cmp.Diff(want, f.seen); d != "" {
		t.Error(d)
	}
}

// An engine that ended in the middle of a start refuses that container for
// ever: it goes, if it has never run, and another one is made.
func TestStuckContainerIsMadeAnew(t *testing.T) {
	for name, refusal := range map[string]string{
		"task": `task c1: already exists`,
		"shim": `failed to start shim: mkdir /run/containerd/moby/c1: file exists: unknown`,
	} {
		for status, removed := range map[string]bool{"created": true, "exited": false} {
			t.Run(name+" "+status, func(t *testing.T) {
				f := &fake{api: "1.41", answers: map[string][]string{
					"POST /containers/c1/start": {`500 {"message":"` + refusal + `"}`},
					"GET /containers/c1/json":   {`200 {"Id":"c1","Name":"/web","State":{"Status":"` + status + `"},"HostConfig":{},"Config":{}}`},
					"DELETE /containers/c1":     {"204 "},
				}}
				err := against(t, f).Do(t.Context(), reconcile.Start{Service: "web", Container: "c1"}, nil)
				if state.ClassOf(err) != state.ClassEngine || err == nil || !strings.Contains(err.Error(), refusal) {
					t.Errorf("got %v", err)
				}
				got := slices.ContainsFunc(f.seen, func(r string) bool { return strings.HasPrefix(r, "DELETE ") })
				if got != removed {
					t.Errorf("removed: %v, want %v: %v", got, removed, f.seen)
				}
			})
		}
	}
}

func TestDeadContainerIsForced(t *testing.T) {
	f := &fake{api: "1.41", answers: map[string][]string{
		"DELETE /containers/c1":   {`500 {"message":"unable to remove filesystem: device or resource busy"}`, "204 "},
		"GET /containers/c1/json": {fmt.Sprintf(inspected, "dead", true)},
	}}
	if err := against(t, f).Do(t.Context(), reconcile.Remove{Service: "web", Container: "c1"}, nil); err != nil {
		t.Error(err)
	}
	if last := f.seen[len(f.seen)-1]; !strings.Contains(last, "force=1") || !strings.Contains(last, "v=1") {
		t.Errorf("asked %v", f.seen)
	}
}

// What an ended container ended of is asked once for each end, and a container
// that the engine can never start again counts as dead.
func TestRefused(t *testing.T) {
	list := func(text string) string {
		return `200 [{"Id":"c1","Names":["/web_1_2_c"],"State":"exited","Status":"` + text + `","Labels":{"io.balena.supervised":"1","io.balena.app-uuid":"u","io.balena.app-id":"1","io.balena.service-name":"web"}}]`
	}
	ended := func(err string) string {
		return `200 {"Id":"c1","State":{"Status":"exited","Error":"` + err + `"},"HostConfig":{},"Config":{}}`
	}
	const busyPort = "listen tcp4 0.0.0.0:80: bind: address already in use"
	f := &fake{api: "1.41", answers: map[string][]string{
		"GET /containers/json":      {list("Exited (0) 1 second ago"), list("Exited (128) 1 second ago"), list("Exited (128) 2 minutes ago"), list("Exited (137) now")},
		"GET /containers/c1/json":   {`500 {"message":"the description is corrupt"}`, ended(busyPort), ended(""), ended("task c1: already exists")},
		"GET /images/json":          {`200 []`},
		"GET /networks":             {`200 []`},
		"GET /volumes":              {`200 {}`},
		"POST /containers/c1/start": {`204 `},
	}}
	e := against(t, f)
	look := func(want string, phase state.Phase, calls int) {
		t.Helper()
		before := e.Calls()
		w, err := e.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := w.Apps["u"].Containers[0]
		if c.Refused != want || c.Phase != phase || int(e.Calls()-before) != calls {
			t.Errorf("refused %q, %s, after %d calls; want %q, %s, %d", c.Refused, c.Phase, e.Calls()-before, want, phase, calls)
		}
	}
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	look("", state.Exited, 4)       // it did its work
	look("", state.Exited, 5)       // and here nothing is known, but the look goes on
	look(busyPort, state.Exited, 5) // asked again
	look("", state.Exited, 5)       // another end
	look("", state.Exited, 4)
	if err := e.Do(t.Context(), reconcile.Start{Service: "web", Container: "c1"}, nil); err != nil {
		t.Fatal(err)
	}
	look("task c1: already exists", state.Dead, 5)
	look("task c1: already exists", state.Dead, 4)
}

// stubborn is a container that no stop gets to end.
func stubborn(more map[string][]string) *fake {
	f := &fake{api: "1.41", answers: map[string][]string{
		"POST /containers/c1/stop":   {hangs},
		"POST /containers/c1/update": {`200 {}`},
		"POST /containers/c1/kill":   {"204 "},
		"GET /containers/c1/json": {`200 {"Id":"c1","Name":"/web","State":{"Status":"running","Running":true},` +
			`"HostConfig":{"RestartPolicy":{"Name":"on-failure","MaximumRetryCount":4}},"Config":{"StopTimeout":0}}`},
	}}
	maps.Copy(f.answers, more)
	return f
}

// calls are the requests that change something, without the version.
func (f *fake) calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, s := range f.seen {
		method, rest, _ := strings.Cut(s, " ")
		if method != http.MethodGet {
			_, rest, _ = strings.Cut(strings.TrimPrefix(rest, "/"), "/")
			out = append(out, method+" "+rest)
		}
	}
	return out
}

func TestStubbornContainerIsKilled(t *testing.T) {
	f := stubborn(map[string][]string{})
	f.answers["GET /containers/c1/json"] = append(f.answers["GET /containers/c1/json"],
		f.answers["GET /containers/c1/json"][0], `200 {"Id":"c1","State":{"Status":"exited"},"HostConfig":{},"Config":{}}`)
	e := against(t, f)
	e.Impatient(50 * time.Millisecond)
	if err := e.Do(t.Context(), reconcile.Stop{Service: "web", Container: "c1"}, nil); err != nil {
		t.Error(err)
	}
	want := []string{"POST containers/c1/stop", "update no", "POST containers/c1/kill?signal=KILL", "update on-failure"}
	if d := cmp.Diff(want, updates(f.calls())); d != "" {
		t.Error(d)
	}
}

// updates shortens the requests that set a restart policy.
func updates(calls []string) []string {
	for i, c := range calls {
		if strings.HasPrefix(c, "POST containers/c1/update ") {
			_, policy, _ := strings.Cut(c, `"RestartPolicy":{"Name":"`)
			name, _, _ := strings.Cut(policy, `"`)
			calls[i] = "update " + name
		}
	}
	return calls
}

// What not even a kill ends is removed; where that fails too, the container
// keeps its policy, and the error says what to do.
func TestUnkillableContainer(t *testing.T) {
	for name, c := range map[string]struct {
		kill, remove string
		ok           bool
	}{
		"removed":            {kill: "204 ", remove: "204 ", ok: true},
		"kill hangs":         {kill: hangs, remove: "204 ", ok: true},
		"kill is refused":    {kill: `500 {"message":"permission denied"}`, remove: "204 ", ok: true},
		"removal is refused": {kill: "204 ", remove: `500 {"message":"device or resource busy"}`},
		"removal hangs":      {kill: "204 ", remove: hangs},
	} {
		t.Run(name, func(t *testing.T) {
			f := stubborn(map[string][]string{"POST /containers/c1/kill": {c.kill}, "DELETE /containers/c1": {c.remove}})
			e := against(t, f)
			e.Impatient(50 * time.Millisecond)
			err := e.Do(t.Context(), reconcile.Stop{Service: "web", Container: "c1"}, nil)
			if c.ok != (err == nil) {
				t.Errorf("%v", err)
			}
			if err != nil && (state.ClassOf(err) != state.ClassEngine || !strings.Contains(err.Error(), "restart the engine")) {
				t.Errorf("%s: %v", state.ClassOf(err), err)
			}
			want := []string{"POST containers/c1/stop", "update no", "POST containers/c1/kill?signal=KILL", "DELETE containers/c1?force=1", "update on-failure"}
			if d := cmp.Diff(want, updates(f.calls())); d != "" {
				t.Error(d)
			}
		})
	}
}

// Cancelling a stop, or losing the engine in it, must not become a kill.
func TestStopThatIsCancelled(t *testing.T) {
	f := stubborn(nil)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := against(t, f).Do(ctx, reconcile.Stop{Service: "web", Container: "c1"}, nil); err == nil {
		t.Error("no error")
	}
	if d := cmp.Diff([]string{"POST containers/c1/stop"}, f.calls()); d != "" {
		t.Error(d)
	}
}

// Half an answer is an error and never a panic.
func TestIncompleteAnswers(t *testing.T) {
	f := &fake{api: "1.41", answers: map[string][]string{
		"GET /containers/c1/json":    {`200 {}`},
		"GET /containers/json":       {`200 [{}]`},
		"GET /images/json":           {`200 [{}]`},
		"GET /networks":              {`200 [{}]`},
		"GET /volumes":               {`200 {"Volumes":[null,{}]}`},
		"GET /images/i/json":         {`200 {}`},
		"GET /volumes/0_v":           {`200 null`},
		"GET /events":                {`200 {}`},
		"POST /containers/create":    {`200 null`},
		"POST /containers/c1/rename": {`409 {}`},
		"GET /containers/web/json":   {`200 null`},
		"GET /containers/_0_0_/json": {`200 {}`},
		"POST /networks/create":      {`200 []`},
		"DELETE /containers/c1":      {`500 null`},
		"POST /containers/c1/start":  {`500 "`},
	}}
	e := against(t, f)
	if w, err := e.Observe(t.Context()); err != nil || len(w.Apps) != 0 {
		t.Errorf("%+v %v", w, err)
	}
	for _, s := range []reconcile.Step{
		reconcile.Stop{Container: "c1"}, reconcile.Remove{Container: "c1"}, reconcile.Start{Container: "c1"},
		reconcile.Rename{Container: "c1", Name: "web"}, reconcile.Await{Container: "c1", Condition: state.Started},
		reconcile.RemoveImage{ID: "i"}, reconcile.CreateNetwork{}, reconcile.RemoveNetwork{ID: "n"},
	} {
		if err := e.Do(t.Context(), s, nil); err == nil {
			t.Errorf("%T succeeded", s)
		}
	}
	_ = e.Do(t.Context(), reconcile.Create{Service: state.Service{Image: "i"}}, nil)
	_ = e.Do(t.Context(), reconcile.CreateVolume{Volume: state.Volume{Name: "v"}}, nil)
}

func TestCommitIsNotForTheEngine(t *testing.T) {
	err := against(t, &fake{api: "1.41"}).Do(t.Context(), reconcile.Commit{Commit: "c"}, nil)
	if err == nil || !strings.Contains(err.Error(), "not the engine's business") {
		t.Errorf("%v", err)
	}
}

func TestCancelledStepSaysSo(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	e := against(t, &fake{api: "1.41"})
	if err := e.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	cancel()
	err := e.Do(ctx, reconcile.Start{Service: "web", Container: "c1"}, nil)
	if state.ClassOf(err) != state.ClassCancelled || !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// An engine under load forgets to take a container off its networks, and then
// refuses to remove them for ever.
func TestANetworkOfContainersThatAreGoneIsRemoved(t *testing.T) {
	f := &fake{api: "1.41", answers: map[string][]string{
		"DELETE /networks/n1":          {`403 {"message":"network x has active endpoints"}`, `204 `},
		"GET /networks/n1":             {`200 {"Id":"n1","Name":"x","Containers":{"ep-1":{"Name":"gone"},"c2":{"Name":"here"}}}`},
		"GET /containers/gone/json":    {`404 {"message":"no such container"}`},
		"GET /containers/c2/json":      {`200 {"Id":"c2","Name":"/here","State":{},"Config":{}}`},
		"POST /networks/n1/disconnect": {`200 `},
	}}
	if err := against(t, f).Do(t.Context(), reconcile.RemoveNetwork{Name: "x", ID: "n1"}, nil); err != nil {
		t.Error(err)
	}
	if n := len(slices.DeleteFunc(slices.Clone(f.seen), func(s string) bool { return !strings.Contains(s, "/disconnect") })); n != 1 {
		t.Errorf("%d containers were taken off: %q", n, f.seen)
	}
}
