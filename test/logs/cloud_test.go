//go:build engine && linux

package logs_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/uplink"
)

// cloud takes lines, says how many it has, and can go away. What it has stored it
// keeps meanwhile, as the real one does.
type cloud struct {
	address string

	mu     sync.Mutex
	server *http.Server
	stored map[string]int64    // by source
	lines  map[string][]string // by source
	total  int
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{address: l.Addr().String(), stored: map[string]int64{}, lines: map[string][]string{}}
	c.serve(l)
	t.Cleanup(c.leave)
	return c
}

func (c *cloud) serve(l net.Listener) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.server = &http.Server{Handler: c, ReadHeaderTimeout: time.Minute}
	go func(s *http.Server) { _ = s.Serve(l) }(c.server)
}

// leave cuts every connection off.
func (c *cloud) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.server.Close()
}

// come is the end of an outage.
func (c *cloud) come(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", c.address)
	if err != nil {
		t.Fatal(err)
	}
	c.serve(l)
}

// ServeHTTP takes a stream of lines.
func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.EnableFullDuplex()
	w.Header().Set(uplink.AcknowledgeHeader, uplink.AcknowledgeLines)
	w.WriteHeader(http.StatusOK)
	_ = control.Flush()
	body, err := gzip.NewReader(r.Body)
	if err != nil {
		return
	}
	in := bufio.NewScanner(body)
	in.Buffer(nil, 1<<20)
	var count atomic.Int64
	defer acknowledge(w, &count)()
	for in.Scan() {
		var l struct{ Message, Mark string }
		if json.Unmarshal(in.Bytes(), &l) != nil {
			return
		}
		c.take(l.Message, l.Mark)
		count.Add(1)
	}
}

// acknowledge says now and then how many lines there are; the function that it
// gives ends that.
func acknowledge(w http.ResponseWriter, count *atomic.Int64) func() {
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for said, open := int64(0), true; open; {
			select {
			case <-tick.C:
			case <-quit:
				open = false
			}
			if n := count.Load(); n > said {
				said = n
				_, _ = fmt.Fprintln(w, n)
				_ = http.NewResponseController(w).Flush()
			}
		}
	}()
	return func() { close(quit); <-done }
}

func (c *cloud) take(message, mark string) {
	source, text, _ := strings.Cut(mark, ":")
	pos, err := strconv.ParseInt(text, 10, 64)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || pos <= c.stored[source] {
		return
	}
	c.stored[source] = pos
	c.lines[source] = append(c.lines[source], message)
	c.total++
}

func (c *cloud) received() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.total
}

// account says how many lines of a source are there and how many are counted as
// dropped; anything else than every line once and in order is an error. Lines are
// numbered from 0.
func (c *cloud) account(source string) (there, dropped int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, m := range c.lines[source] {
		var n int
		if _, err := fmt.Sscanf(m, "Warning: Suppressed %d message(s)", &n); err == nil {
			dropped += n
			continue
		}
		if m != strconv.Itoa(there+dropped) {
			return there, dropped, fmt.Errorf("%q came as number %d, where %d was due", m, i, there+dropped)
		}
		there++
	}
	return there, dropped, nil
}
