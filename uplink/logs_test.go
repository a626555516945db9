package uplink

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/logs"
)

// logCloud is a cloud that takes logs.
type logCloud struct {
	t    *testing.T
	acks bool
	// refuse answers the nth request at once; 0: it does not.
	refuse func(n int) int
	// cut breaks the nth connection after so many lines, before it says that it
	// has them; 0: never.
	cut func(n int) int

	mu      sync.Mutex
	began   []time.Time
	lines   []sentLine
	stored  map[string]int64
	headers []http.Header
	ended   int // in good order
}

func (c *logCloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	c.began, c.headers = append(c.began, time.Now()), append(c.headers, r.Header)
	n := len(c.began)
	c.mu.Unlock()
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex() // or it would wait for the body before it answers
	if c.refuse != nil {
		if status := c.refuse(n); status != 0 {
			w.WriteHeader(status)
			return
		}
	}
	if c.acks {
		w.Header().Set(AcknowledgeHeader, AcknowledgeLines)
		w.WriteHeader(http.StatusOK)
		_ = control.Flush()
	}
	body, err := gzip.NewReader(r.Body)
	if err != nil {
		return
	}
	lines := bufio.NewScanner(body)
	count := 0
	for lines.Scan() {
		var l sentLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			c.t.Errorf("line %q: %v", lines.Text(), err)
		}
		c.take(l)
		count++
		if c.cut != nil && c.cut(n) == count {
			panic(http.ErrAbortHandler)
		}
		if c.acks {
			_, _ = fmt.Fprintln(w, count)
			_ = control.Flush()
		}
	}
	if lines.Err() == nil {
		c.mu.Lock()
		c.ended++
		c.mu.Unlock()
		if !c.acks {
			w.WriteHeader(http.StatusCreated)
		}
	}
}

func (c *logCloud) take(l sentLine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.Mark != "" {
		var pos int64
		source, text, _ := strings.Cut(l.Mark, ":")
		_, _ = fmt.Sscan(text, &pos)
		if pos <= c.stored[source] {
			return
		}
		c.stored[source] = pos
	}
	c.lines = append(c.lines, l)
}

func (c *logCloud) messages() (out []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.lines {
		out = append(out, l.Message)
	}
	return out
}

// hurry are times for tests.
func hurry() logTimes {
	return logTimes{grace: 400 * time.Millisecond, flush: 5 * time.Millisecond, idle: 150 * time.Millisecond,
		retryFirst: 10 * time.Millisecond, retryMost: 50 * time.Millisecond, sure: 100 * time.Millisecond, probe: 200 * time.Millisecond, farewell: 2 * time.Second}
}

// logRig is an outbox that is sent to a cloud.
type logRig struct {
	*logs.Outbox
	n    int
	mu   sync.Mutex
	errs []error
	stop func()
}

func sendLogs(t *testing.T, c *logCloud, times logTimes) *logRig {
	t.Helper()
	c.t, c.stored = t, map[string]int64{}
	srv := httptest.NewServer(c)
	transport := &http.Transport{}
	client, err := New(Config{Endpoint: srv.URL, UUID: "abc", Key: func() string { return "secret" }, UserAgent: "Supervisor/1", Timeout: 300 * time.Millisecond, Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	r := &logRig{Outbox: logs.OpenOutbox(logs.OutboxConfig{Log: zerolog.Nop()})}
	l, err := NewLogs(LogsConfig{Client: client, Outbox: r.Outbox, OnError: func(err error, _ time.Time) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.errs = append(r.errs, err)
	}})
	if err != nil {
		t.Fatal(err)
	}
	l.times = times
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	r.stop = sync.OnceFunc(func() { cancel(); <-done; transport.CloseIdleConnections(); srv.Close() })
	t.Cleanup(r.stop)
	return r
}

func (r *logRig) write(t *testing.T, n int) {
	t.Helper()
	for range n {
		r.n++
		if !r.Put(t.Context(), "c1", logs.Line{Message: fmt.Sprint("line ", r.n), At: int64(r.n), ServiceID: 5}, logs.Cursor{At: int64(r.n), Count: 1, Pos: int64(r.n)}) {
			t.Fatal("not taken")
		}
	}
}

func expected(n int) (out []string) {
	for i := range n {
		out = append(out, fmt.Sprint("line ", i+1))
	}
	return out
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

func (r *logRig) settled() bool { c, _ := r.Resume("c1"); return int(c.Pos) == r.n }

func TestLinesReachTheCloud(t *testing.T) {
	t.Parallel()
	for _, acks := range []bool{false, true} {
		c := &logCloud{acks: acks}
		r := sendLogs(t, c, hurry())
		r.write(t, 500)
		r.Put(t.Context(), "system-1", logs.Line{Message: "<&>", At: 7, System: true, Stderr: true}, logs.Cursor{Pos: 1})
		waitFor(t, "lines", func() bool { return len(c.messages()) == 501 && r.settled() })
		h := c.headers[0]
		want := http.Header{"Authorization": {"Bearer secret"}, "Content-Type": {"application/x-ndjson"}, "Content-Encoding": {"gzip"}, "Deckhand-Acknowledge": {"lines"}}
		h.Del("Accept-Encoding")
		if diff := cmp.Diff(want, h); diff != "" {
			t.Errorf("headers: %s", diff)
		}
		for _, l := range c.lines {
			if l.Message == "<&>" && (l.ServiceID != 0 || !l.IsSystem || !l.IsStdErr || l.Timestamp != 7 || (l.Mark != "") != acks) {
				t.Errorf("a line of the supervisor: %+v", l)
			}
		}
		waitFor(t, "the end of a quiet connection", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.ended == 1 })
		r.write(t, 1)
		waitFor(t, "a line later", func() bool { return len(c.messages()) == 502 })
		if len(r.errs) != 0 || len(c.began) != 2 {
			t.Errorf("acks %v: %d connections, errors %v", acks, len(c.began), r.errs)
		}
		r.stop()
	}
}

func TestARefusalLosesNothing(t *testing.T) {
	t.Parallel()
	c := &logCloud{refuse: func(n int) int { return map[int]int{1: 401, 2: 503}[n] }}
	r := sendLogs(t, c, hurry())
	r.write(t, 20)
	waitFor(t, "lines", r.settled)
	if diff := cmp.Diff(expected(20), c.messages()); diff != "" {
		t.Error(diff)
	}
	if len(r.errs) != 2 || !strings.Contains(r.errs[0].Error(), "401") {
		t.Errorf("errors %v", r.errs)
	}
	if pause := c.began[2].Sub(c.began[1]); pause < 40*time.Millisecond {
		t.Errorf("the third attempt came after %s, the pause does not grow", pause)
	}
}

func TestEveryLineOnceOverBrokenConnections(t *testing.T) {
	t.Parallel()
	c := &logCloud{acks: true, cut: func(n int) int { return []int{0, 7, 13, 1, 100}[min(n, 5)%5] }}
	r := sendLogs(t, c, hurry())
	r.write(t, 1000)
	waitFor(t, "lines", r.settled)
	if diff := cmp.Diff(expected(1000), c.messages()); diff != "" {
		t.Error(diff)
	}
}

func TestACloudWithoutAcknowledgementsLosesNothing(t *testing.T) {
	t.Parallel()
	c := &logCloud{cut: func(n int) int { return []int{0, 7, 13}[min(n, 3)%3] }}
	r := sendLogs(t, c, hurry())
	r.write(t, 100)
	waitFor(t, "lines", r.settled)
	seen, last := map[string]bool{}, 0
	for _, m := range c.messages() {
		seen[m] = true
		_, _ = fmt.Sscanf(m, "line %d", &last)
	}
	if len(seen) != 100 || last != 100 {
		t.Errorf("%d of 100 lines came, the last is %d; %d connections, errors %v", len(seen), last, len(c.began), r.errs)
	}
}

func TestTheLastWordsAreSentAtTheEnd(t *testing.T) {
	t.Parallel()
	for _, acks := range []bool{false, true} {
		times := hurry()
		times.sure, times.flush, times.idle = time.Hour, time.Hour, time.Hour
		c := &logCloud{acks: acks}
		r := sendLogs(t, c, times)
		r.write(t, 50)
		waitFor(t, "a connection", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.began) == 1 })
		waitFor(t, "the lines to be taken", func() bool { return !r.Waiting() })
		r.stop()
		if diff := cmp.Diff(expected(50), c.messages()); diff != "" || !r.settled() {
			t.Errorf("acks %v, settled %v: %s", acks, r.settled(), diff)
		}
	}
}

// A cloud that swallows lines and says nothing is left for a new connection.
func TestASilentConnectionIsGivenUp(t *testing.T) {
	t.Parallel()
	silent := make(chan struct{})
	c := &logCloud{acks: true}
	var once sync.Once
	hang := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		first := false
		once.Do(func() { first = true })
		if !first {
			c.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		_ = control.EnableFullDuplex()
		w.Header().Set(AcknowledgeHeader, AcknowledgeLines)
		w.WriteHeader(http.StatusOK)
		_ = control.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
		close(silent)
	})
	srv := httptest.NewServer(hang)
	defer srv.Close()
	r := sendLogs(t, c, hurry())
	r.stop()
	client, err := New(Config{Endpoint: srv.URL, UUID: "abc", Timeout: 300 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := NewLogs(LogsConfig{Client: client, Outbox: r.Outbox})
	if err != nil {
		t.Fatal(err)
	}
	l.times = hurry()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	r.write(t, 10)
	waitFor(t, "the end of the silent connection", func() bool {
		select {
		case <-silent:
			return true
		default:
			return false
		}
	})
	waitFor(t, "lines", r.settled)
	if diff := cmp.Diff(expected(10), c.messages()); diff != "" {
		t.Error(diff)
	}
	cancel()
	<-done
}
