package localapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// v3 is a supervisor for the routes below /v3/.
type v3 struct {
	story []string
	err   error
}

func (d *v3) say(format string, args ...any) { d.story = append(d.story, fmt.Sprintf(format, args...)) }

// What StatusOf answers.
const (
	statusOfAll = `{"apps":[],"name":"all","state":"settled","version":"1.0.0"}`
	statusOfOwn = `{"apps":[],"name":"app 1","state":"settled","version":"1.0.0"}`
)

func (d *v3) StatusOf(s Scope) any {
	name := "all"
	if !s.All {
		name = fmt.Sprint("app ", s.App)
	}
	return map[string]any{"version": "1.0.0", "name": name, "state": "settled", "apps": []any{}}
}

func (d *v3) PlanOf(s Scope) (Plan, error) {
	return Plan{Text: fmt.Sprint("plan of ", s.App), DOT: "digraph plan {}", JSON: map[string]any{"steps": []int{}}}, d.err
}

func (d *v3) ExplainOf(s Scope, service string) (any, error) {
	d.say("explain %s for %d", service, s.App)
	return map[string]any{"app": "shop", "uuid": "u", "service": service, "asked": time.Time{}, "verdict": "It runs.", "past": []any{}}, d.err
}

func (d *v3) HistoryOf(s Scope, q HistoryQuery) (any, error) {
	d.say("history of %d: app %q service %q since %s after %q limit %d", s.App, q.App, q.Service, q.Since.Format(time.RFC3339), q.After, q.Limit)
	return map[string]any{"entries": []any{}, "next": "0.0", "more": false}, d.err
}

func (d *v3) LeasesOf(s Scope) []Lease {
	if !s.All {
		return nil
	}
	return []Lease{{ID: "l1", Holder: "me"}}
}

func (d *v3) TakeLease(_ context.Context, s Scope, r LeaseRequest) (Lease, error) {
	d.say("take for %d %q: %q %q %q %s", s.App, s.Service, r.Service, r.Holder, r.Reason, r.For)
	return Lease{ID: "l1"}, d.err
}

func (d *v3) RenewLease(s Scope, id string, length time.Duration) (Lease, error) {
	d.say("renew %s for %d: %s", id, s.App, length)
	return Lease{ID: id}, d.err
}

func (d *v3) ReleaseLease(s Scope, id string) error {
	d.say("release %s for %d", id, s.App)
	return d.err
}

func (d *v3) WriteMetrics(w io.Writer) { _, _ = io.WriteString(w, "up 1\n") }

// keyring are the keys of a managed device.
type keyring struct{ Keys }

func (keyring) Open() bool                      { return false }
func (keyring) Global() string                  { return key }
func (keyring) Services() ([]ServiceKey, error) { return []ServiceKey{{"serviceone", 1, "web"}}, nil }

func (d *v3) serve(t *testing.T, e *Events) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(New(Config{Keys: keyring{}, V3: d, Events: e}))
	t.Cleanup(s.Close)
	return s
}

func TestRoutesBeyondBalenas(t *testing.T) {
	const whole, own = "global", "own app"
	contract := readContract(t)
	for _, c := range []struct {
		method, path, body string
		who                string
		code               int
		want               string // the answer, or what the supervisor was asked
	}{
		{"GET", "/v3/status", "", whole, 200, statusOfAll},
		{"GET", "/v3/status", "", own, 200, statusOfOwn},
		{"GET", "/v3/explain?service=web", "", own, 200, `explain web for 1`},
		{"GET", "/v3/explain", "", own, 200, `explain web for 1`},
		{"GET", "/v3/explain", "", whole, 400, `{"class":"invalid","error":"name a service: /v3/explain?service=APP/SERVICE"}`},
		{"GET", "/v3/history", "", own, 200, `history of 1: app "" service "" since 0001-01-01T00:00:00Z after "" limit 200`},
		{"GET", "/v3/history?app=shop&service=web&since=2026-01-02T03:04:05Z&limit=5&after=7.1", "", whole, 200, `history of 0: app "shop" service "web" since 2026-01-02T03:04:05Z after "7.1" limit 5`},
		{"GET", "/v3/history?since=yesterday", "", whole, 400, `{"class":"invalid","error":"since: \"yesterday\" is no time like 2026-01-31T12:00:00Z"}`},
		{"GET", "/v3/history?limit=0", "", whole, 400, `{"class":"invalid","error":"limit: \"0\" is no number from 1 to 1000"}`},
		{"GET", "/v3/history?limit=1001", "", whole, 400, ""},
		{"GET", "/v3/locks", "", whole, 200, `{"locks":[{"id":"l1","app":"","appId":0,"service":"","holder":"me","since":"0001-01-01T00:00:00Z","until":"0001-01-01T00:00:00Z"}]}`},
		{"GET", "/v3/locks", "", own, 200, `{"locks":[]}`},
		{"POST", "/v3/locks", `{"holder":"backup","reason":"nightly","for":"90s"}`, own, 201, `take for 1 "web": "" "backup" "nightly" 1m30s`},
		{"POST", "/v3/locks", `{"service":"shop/web","holder":"x","for":2.5}`, whole, 201, `take for 0 "": "shop/web" "x" "" 2.5s`},
		{"POST", "/v3/locks", "", own, 201, `take for 1 "web": "" "" "" 0s`},
		{"POST", "/v3/locks", `{"for":1e300}`, own, 201, fmt.Sprintf(`take for 1 "web": "" "" "" %s`, time.Duration(1<<32)*time.Second)},
		{"POST", "/v3/locks", `{"for":"soon"}`, own, 400, `{"class":"invalid","error":"read the request: for: \"soon\" is no time like \"90s\" or \"5m\""}`},
		{"POST", "/v3/locks", `{"for":[]}`, own, 400, ""},
		{"POST", "/v3/locks", `{"holdr":"x"}`, own, 400, ""},
		{"POST", "/v3/locks", `{"holder":5}`, own, 400, ""},
		{"POST", "/v3/locks", `{"holder":"x"} {}`, own, 400, ""},
		{"POST", "/v3/locks", `{"holder":`, own, 400, ""},
		{"POST", "/v3/locks", `[]`, own, 400, ""},
		{"POST", "/v3/locks", strings.Repeat("x", leaseLimit+1), own, 400, `{"class":"invalid","error":"read the request: request entity too large"}`},
		{"PUT", "/v3/locks/ABC", `{"for":"1h"}`, own, 200, `renew abc for 1: 1h0m0s`},
		{"PUT", "/v3/locks/abc", "", whole, 200, `renew abc for 0: 0s`},
		{"PUT", "/v3/locks/abc", `{"holder":"other"}`, own, 400, ""},
		{"DELETE", "/v3/locks/abc", "", own, 204, `release abc for 1`},
		{"DELETE", "/v3/locks", "", own, 404, ""},
		{"POST", "/v3/plan", "{}", whole, 404, ""},
		{"GET", "/v3/snapshot", "", whole, 404, ""},
		{"POST", "/v3/intents", "{}", whole, 404, ""},
		{"GET", "/metrics", "", whole, 200, "up 1"},
	} {
		d := &v3{}
		with := map[string]string{whole: key, own: "serviceone"}[c.who]
		s := d.serve(t, nil)
		code, body, header := call(t, c.method, s.URL+c.path, c.body, "Authorization", "Bearer "+with)
		path, _, _ := strings.Cut(c.path, "?")
		if strings.HasPrefix(path, "/v3/locks/") {
			path = "/v3/locks/{id}"
		}
		if err := contract.Check(c.method, path, code, header.Get("Content-Type"), body); code != 404 && err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
		}
		got := strings.TrimSpace(body)
		if c.code < 300 && len(d.story) > 0 {
			got = d.story[0]
		}
		if code != c.code || c.want != "" && got != c.want {
			t.Errorf("%s %s %.60s: %d %s, want %d %s", c.method, c.path, c.body, code, got, c.code, c.want)
		}
		if code >= 400 && len(d.story) > 0 {
			t.Errorf("%s %s %.60s: refused, and the supervisor was asked: %s", c.method, c.path, c.body, d.story)
		}
		if c.path == "/metrics" {
			continue
		}
		if code, _, _ := call(t, c.method, s.URL+c.path, c.body); code != 401 {
			t.Errorf("%s %s without a key: %d", c.method, c.path, code)
		}
	}
}

func TestTheClassOfAFailureIsItsStatus(t *testing.T) {
	for class, want := range map[state.Class]int{
		state.ClassInvalid: 400, state.ClassAuth: 403, state.ClassNotFound: 404, state.ClassLocked: 409, state.ClassRateLimit: 429,
		state.ClassSpace: 507, state.ClassEngine: 503,
	} {
		s := (&v3{err: state.Classify(class, errors.New("why"))}).serve(t, nil)
		for _, c := range [][2]string{{"POST", "/v3/locks"}, {"PUT", "/v3/locks/x"}, {"DELETE", "/v3/locks/x"}, {"GET", "/v3/plan"}, {"GET", "/v3/explain?service=a"}, {"GET", "/v3/history"}} {
			code, body, _ := call(t, c[0], s.URL+c[1]+"", "", "Authorization", "Bearer "+key)
			if p := fmt.Sprintf(`{"class":%q,"error":"why"}`, class); code != want || strings.TrimSpace(body) != p {
				t.Errorf("%s %s: %d %s, want %d %s", c[0], c[1], code, body, want, p)
			}
		}
	}
}

func TestAPlanComesInTheFormAsked(t *testing.T) {
	s := (&v3{}).serve(t, nil)
	for accept, want := range map[string]string{
		"":                                       "application/json; charset=utf-8 {\"steps\":[]}\n",
		"*/*":                                    "application/json; charset=utf-8 {\"steps\":[]}\n",
		"text/*":                                 "text/plain; charset=utf-8 plan of 1",
		"text/plain":                             "text/plain; charset=utf-8 plan of 1",
		"TEXT/VND.graphviz":                      "text/vnd.graphviz; charset=utf-8 digraph plan {}",
		"text/plain;q=0.5, text/vnd.graphviz":    "text/vnd.graphviz; charset=utf-8 digraph plan {}",
		"text/html, application/json;q=0, */*":   "text/plain; charset=utf-8 plan of 1",
		"text/html, */*;q=0.1, text/plain;q=0.9": "text/plain; charset=utf-8 plan of 1",
		"image/png":                              "406",
	} {
		code, body, header := call(t, "GET", s.URL+"/v3/plan", "", "Authorization", "Bearer serviceone", "Accept", accept)
		got := header.Get("Content-Type") + " " + body
		if code != 200 {
			got = fmt.Sprint(code)
		}
		if got != want {
			t.Errorf("%q: %q, want %q", accept, got, want)
		}
	}
}

// Figures are for the owner, and for programs on the device itself.
func TestWhoSeesMetrics(t *testing.T) {
	h := New(Config{Keys: keyring{}, V3: &v3{}})
	for _, c := range []struct {
		from, key string
		want      int
	}{
		{"127.0.0.1:5", "", 200},
		{"[::1]:5", "", 200},
		{"[::ffff:127.0.0.1]:5", "", 200},
		{"127.0.0.1:5", "wrong", 200},
		{"10.0.0.7:5", "", 401},
		{"10.0.0.7:5", "wrong", 401},
		{"10.0.0.7:5", "serviceone", 401},
		{"10.0.0.7:5", key, 200},
		{"@", "", 401},
		{"", "", 401},
	} {
		r := httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil)
		r.RemoteAddr = c.from
		if c.key != "" {
			r.Header.Set("Authorization", "Bearer "+c.key)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != c.want {
			t.Errorf("%s with %q: %d, want %d", c.from, c.key, w.Code, c.want)
		}
	}
}

// ear is a client that follows the events.
type ear struct {
	testing.TB
	res   *http.Response
	lines *bufio.Scanner
}

func listen(t *testing.T, url, who, lastID string) *ear {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url+"/v3/events", nil)
	must(t, err)
	r.Header.Set("Authorization", "Bearer "+who)
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	res, err := http.DefaultClient.Do(r)
	must(t, err)
	t.Cleanup(func() { _ = res.Body.Close() })
	return &ear{t, res, bufio.NewScanner(res.Body)}
}

// hear reads an event or a comment: its kind, data and ID.
func (e *ear) hear() (kind, data, id string) {
	e.Helper()
	for e.lines.Scan() {
		line := e.lines.Text()
		name, value, _ := strings.Cut(line, ": ")
		switch {
		case line == "":
			return kind, data, id
		case name == "event":
			kind = value
		case name == "data":
			data = value
		case name == "id":
			id = value
		default:
			kind = line
		}
	}
	return "end", fmt.Sprint(e.lines.Err()), ""
}

func (e *ear) expect(kind, data string) (id string) {
	e.Helper()
	k, d, id := e.hear()
	if k != kind || d != data {
		e.Fatalf("heard %s %s, want %s %s", k, d, kind, data)
	}
	return id
}

// clients waits until the stream has so many.
func clients(t *testing.T, e *Events, want int) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		e.mu.Lock()
		n := len(e.clients)
		e.mu.Unlock()
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the stream has %d clients, want %d", n, want)
		}
		runtime.Gosched()
	}
}

func TestEvents(t *testing.T) {
	e := NewEvents(EventsConfig{Keep: 3}, time.UnixMilli(1000))
	s := (&v3{}).serve(t, e)
	e.Publish(0, "state", "before")
	all, own := listen(t, s.URL, key, ""), listen(t, s.URL, "serviceone", "")
	if got := all.res.Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
		t.Errorf("type %s", got)
	}
	// Whoever comes for the first time gets everything at once.
	all.expect("status", statusOfAll)
	own.expect("status", statusOfOwn)
	e.Publish(1, "service", "one")
	e.Publish(2, "service", "two")
	e.Publish(0, "state", "three")
	first := all.expect("service", `"one"`)
	all.expect("service", `"two"`)
	last := all.expect("state", `"three"`)
	own.expect("service", `"one"`)
	own.expect("state", `"three"`)

	// Whoever comes back gets what it has missed, and nothing else.
	back := listen(t, s.URL, key, first)
	back.expect("service", `"two"`)
	back.expect("state", `"three"`)
	back = listen(t, s.URL, "serviceone", first)
	back.expect("state", `"three"`)
	current := listen(t, s.URL, key, last)
	e.Publish(1, "service", "four")
	e.Publish(1, "service", "five")
	current.expect("service", `"four"`)

	// What it has missed may be gone, or it heard that of another process.
	for _, id := range []string{first, "other-3", last + "9", "nonsense", "-1"} {
		listen(t, s.URL, key, id).expect("status", statusOfAll)
	}

	e.Close()
	current.expect("service", `"five"`)
	current.expect("end", "<nil>")
	clients(t, e, 0)
	if code, _, _ := call(t, "GET", s.URL+"/v3/events?apikey="+key, ""); code != 503 {
		t.Errorf("after the end: %d", code)
	}
}

func TestAQuietStreamIsKeptOpen(t *testing.T) {
	e := NewEvents(EventsConfig{KeepAlive: 10 * time.Millisecond}, time.Now())
	c := listen(t, (&v3{}).serve(t, e).URL, key, "")
	c.expect("status", statusOfAll)
	c.expect(": still here", "")
	c.expect(": still here", "")
}

func TestTooManyListeners(t *testing.T) {
	e := NewEvents(EventsConfig{Clients: 3, Each: 1}, time.Now())
	s := (&v3{}).serve(t, e)
	listen(t, s.URL, "serviceone", "").expect("status", statusOfOwn)
	if code, body, header := call(t, "GET", s.URL+"/v3/events?apikey=serviceone", ""); code != 429 || header.Get("Retry-After") == "" {
		t.Errorf("a second one of a service: %d %s", code, body)
	}
	first := listen(t, s.URL, key, "")
	listen(t, s.URL, key, "")
	if code, _, _ := call(t, "GET", s.URL+"/v3/events?apikey="+key, ""); code != 429 {
		t.Errorf("a fourth one: %d", code)
	}
	if code, _, _ := call(t, "HEAD", s.URL+"/v3/events?apikey="+key, ""); code != 200 {
		t.Errorf("HEAD: %d", code)
	}
	must(t, first.res.Body.Close())
	clients(t, e, 2) // its place is free again
	listen(t, s.URL, key, "").expect("status", statusOfAll)
}

// A client that does not read holds nobody up, and is gone soon.
func TestASlowListenerIsDropped(t *testing.T) {
	e := NewEvents(EventsConfig{Buffer: 4, Patience: 100 * time.Millisecond}, time.Now())
	s := (&v3{}).serve(t, e)
	before := runtime.NumGoroutine()
	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", s.Listener.Addr().String())
	must(t, err)
	defer func() { _ = c.Close() }()
	must(t, c.(*net.TCPConn).SetReadBuffer(4096))
	_, err = fmt.Fprintf(c, "GET /v3/events?apikey=%s HTTP/1.1\r\nHost: x\r\n\r\n", key)
	must(t, err)
	clients(t, e, 1)
	other := listen(t, s.URL, "serviceone", "")
	other.expect("status", statusOfOwn)
	large := strings.Repeat("x", 1<<20)
	for range 40 { // more than any socket's buffer
		e.Publish(2, "large", large)
		e.Publish(1, "small", 1)
		other.expect("small", "1")
	}
	clients(t, e, 1)
	must(t, other.res.Body.Close())
	clients(t, e, 0)
	s.CloseClientConnections()
	http.DefaultClient.CloseIdleConnections()
	deadline := time.Now().Add(10 * time.Second)
	for runtime.NumGoroutine() > before && time.Now().Before(deadline) {
		runtime.Gosched()
	}
	if n := runtime.NumGoroutine(); n > before {
		b := make([]byte, 1<<16)
		t.Errorf("%d goroutines are left, %d before:\n%s", n, before, b[:runtime.Stack(b, true)])
	}
}

func TestEventsAreJSONInOneLine(t *testing.T) {
	e := NewEvents(EventsConfig{}, time.Now())
	c := listen(t, (&v3{}).serve(t, e).URL, key, "")
	c.hear()
	want := map[string]string{"text": "two\nlines\r\n\nevent: fake"}
	e.Publish(0, "x", want)
	_, data, _ := c.hear()
	var got map[string]string
	must(t, json.Unmarshal([]byte(data), &got))
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
