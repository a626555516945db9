package localapi

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/logs"
	"deckhand/state"
)

// logSource is a device with logs.
type logSource struct {
	logs.Stream
	journal func(ctx context.Context, q JournalQuery) (io.ReadCloser, error)
}

func (s *logSource) Journal(ctx context.Context, q JournalQuery) (io.ReadCloser, error) {
	return s.journal(ctx, q)
}

// logKeys is who may read logs.
type logKeys struct{ Keys }

func (logKeys) Open() bool     { return false }
func (logKeys) Global() string { return key }
func (logKeys) Services() ([]ServiceKey, error) {
	return []ServiceKey{{Key: "serviceone", AppID: 1}}, nil
}

func serveLogs(t *testing.T) (*logSource, string) {
	t.Helper()
	s := &logSource{}
	srv := httptest.NewServer(New(Config{Keys: logKeys{}, Logs: s}))
	t.Cleanup(srv.Close)
	return s, srv.URL
}

// follow opens the stream of lines.
func follow(t *testing.T, url, key string) (next func() string, leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "GET", url+"/v2/local/logs?apikey="+key, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(r) //nolint:bodyclose // by leave
	must(t, err)
	lines := bufio.NewScanner(res.Body)
	return func() string {
			if !lines.Scan() {
				t.Fatalf("the stream ended: %v", lines.Err())
			}
			return lines.Text()
		}, func() {
			cancel()
			_ = res.Body.Close()
		}
}

func TestStreamedLogs(t *testing.T) {
	s, url := serveLogs(t)
	all, leave := follow(t, url, key)
	defer leave()
	own, leaveOwn := follow(t, url, "serviceone")
	defer leaveOwn()
	for _, next := range []func() string{all, own} {
		if got := next(); got != `{"message":"Streaming logs","isSystem":true}` {
			t.Errorf("the first line is %s", got)
		}
	}
	s.Send(logs.Line{Message: "secret", At: 1, AppID: 2, ServiceID: 7, Service: "other"})
	s.Send(logs.Line{Message: "<oops>", At: 2, AppID: 1, ServiceID: 5, Service: "web", Stderr: true})
	s.Send(logs.Line{Message: "Killing service 'web'", At: 3, AppID: 1, System: true})
	want := []string{
		`{"message":"secret","timestamp":1,"serviceId":7,"serviceName":"other"}`,
		`{"message":"<oops>","timestamp":2,"isStdErr":true,"serviceId":5,"serviceName":"web"}`,
		`{"message":"Killing service 'web'","timestamp":3,"isSystem":true}`,
	}
	if diff := cmp.Diff(want, []string{all(), all(), all()}); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want[1:], []string{own(), own()}); diff != "" {
		t.Errorf("with the key of a service: %s", diff)
	}
	if status, _, _ := call(t, "GET", url+"/v2/local/logs", ""); status != 401 {
		t.Errorf("without a key: %d", status)
	}
	if status, _, _ := call(t, "HEAD", url+"/v2/local/logs?apikey="+key, ""); status != 200 {
		t.Errorf("head: %d", status)
	}
}

func TestListenersWhoLeaveLeaveNothing(t *testing.T) {
	s, url := serveLogs(t)
	settled := func() bool { http.DefaultClient.CloseIdleConnections(); return s.Listeners() == 0 }
	before := 0
	for i := range 120 {
		next, leave := follow(t, url, key)
		next()
		leave()
		if i == 20 {
			eventually(t, "listeners to go", settled)
			before = runtime.NumGoroutine()
		}
	}
	eventually(t, "listeners to go", settled)
	eventually(t, "goroutines to go", func() bool { return runtime.NumGoroutine() <= before+2 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// closing is a reader that notes that it was closed.
type closing struct {
	io.Reader
	closed chan struct{}
}

func (c closing) Close() error { close(c.closed); return nil }

func TestJournalLogs(t *testing.T) {
	s, url := serveLogs(t)
	var asked JournalQuery
	s.journal = func(_ context.Context, q JournalQuery) (io.ReadCloser, error) {
		asked = q
		return io.NopCloser(strings.NewReader("one\ntwo\n")), nil
	}
	ask := func(body, key string) (int, string) {
		status, got, _ := call(t, "POST", url+"/v2/journal-logs?apikey="+key, body, "Content-Type", "application/json")
		return status, got
	}
	if status, got := ask(`{"all":true,"follow":"1","unit":"a.service","containerId":"abc","count":"10","since":"-1h","until":"now","format":"json"}`, key); status != 200 || got != "one\ntwo\n" {
		t.Errorf("%d %q", status, got)
	}
	if diff := cmp.Diff(JournalQuery{All: true, Follow: true, Unit: "a.service", Container: "abc", Count: 10, Since: "-1h", Until: "now", Format: "json"}, asked); diff != "" {
		t.Error(diff)
	}
	if _, _ = ask(`{"count":-3}`, "serviceone"); asked != (JournalQuery{Format: "short", App: 1}) {
		t.Errorf("with the key of a service: %+v", asked)
	}
	for _, bad := range []string{`{"format":"xml"}`, `{"since":"a\nb"}`, `{"unit":"` + strings.Repeat("x", 300) + `"}`, `{`} {
		if status, got := ask(bad, key); status != 400 || got == "" {
			t.Errorf("%s: %d %q", bad, status, got)
		}
	}
	for want, err := range map[int]error{400: state.Classify(state.ClassInvalid, errors.New("no such time")), 503: state.Classify(state.ClassEngine, errors.New("away"))} {
		s.journal = func(context.Context, JournalQuery) (io.ReadCloser, error) { return nil, err }
		if status, got := ask(`{}`, key); status != want || strings.Contains(got, ":") {
			t.Errorf("%v: %d %q", err, status, got)
		}
		from, to := io.Pipe()
		_ = to.CloseWithError(err)
		s.journal = func(context.Context, JournalQuery) (io.ReadCloser, error) { return from, nil }
		if status, _ := ask(`{}`, key); status != want {
			t.Errorf("%v, a little later: %d", err, status)
		}
	}
}

func TestAJournalThatIsFollowedEndsWithItsReader(t *testing.T) {
	s, url := serveLogs(t)
	from, to := io.Pipe()
	ended, closed := make(chan struct{}), make(chan struct{})
	s.journal = func(ctx context.Context, _ JournalQuery) (io.ReadCloser, error) {
		context.AfterFunc(ctx, func() { close(ended); _ = to.Close() })
		return closing{from, closed}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	r, err := http.NewRequestWithContext(ctx, "POST", url+"/v2/journal-logs?apikey="+key, nil)
	must(t, err)
	res, err := http.DefaultClient.Do(r) // answered although there is no line yet
	must(t, err)
	_, err = io.WriteString(to, "a line\n")
	must(t, err)
	if got, err := bufio.NewReader(res.Body).ReadString('\n'); got != "a line\n" {
		t.Errorf("%q, %v", got, err)
	}
	cancel()
	_ = res.Body.Close()
	<-ended
	<-closed
}
