package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"deckhand/engine/enginetest"
	"deckhand/uplink"
)

const (
	dayUUID = "0123456789abcdef0123456789abcdef"
	dayApp  = "fedcba9876543210fedcba9876543210"
)

// dayCloud is a cloud that changes one service every hour and is away at night.
type dayCloud struct {
	mu      sync.Mutex
	version int
	away    bool
	polls   int
	reports int
	last    map[string]json.RawMessage // what it was told, by field
}

func (c *dayCloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.away:
		panic(http.ErrAbortHandler) // the connection ends without an answer
	case r.Method == http.MethodGet && r.URL.Path == "/device/v3/"+dayUUID+"/state":
		c.polls++
		doc := c.document()
		sum := sha256.Sum256(doc)
		w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:8])+`"`)
		if r.Header.Get("If-None-Match") == w.Header().Get("ETag") {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(doc)
	case r.Method == http.MethodPatch && r.URL.Path == "/device/v3/state":
		c.reports++
		var patch map[string]map[string]json.RawMessage
		if err := json.NewDecoder(r.Body).Decode(&patch); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		maps.Copy(c.last, patch[dayUUID])
	default:
		_, _ = io.WriteString(w, `{"d":[]}`)
	}
}

// pipes is a network inside of the process.
type pipes struct {
	calls chan net.Conn
	ended chan struct{}
}

func (p pipes) Dial(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case p.calls <- there:
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept implements net.Listener.
func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.calls:
		return c, nil
	case <-p.ended:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (p pipes) Close() error { close(p.ended); return nil }

// Addr implements net.Listener.
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

func (c *dayCloud) document() []byte {
	services := map[string]any{}
	for i := range 20 {
		level := 0
		if i == c.version%20 {
			level = c.version
		}
		services[fmt.Sprintf("s%d", i)] = map[string]any{
			"id": i + 1, "image_id": i + 1, "image": fmt.Sprintf("registry.test/s%d:%d", i, c.version/20), "labels": map[string]string{},
			"environment": map[string]string{"LEVEL": fmt.Sprint(level)}, "composition": map[string]any{},
		}
	}
	doc, _ := json.Marshal(map[string]any{dayUUID: map[string]any{
		"name": "day", "config": map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000"},
		"apps": map[string]any{dayApp: map[string]any{
			"id": 1, "name": "shop", "class": "fleet",
			"releases": map[string]any{fmt.Sprintf("c%d", c.version): map[string]any{"id": c.version + 1, "services": services}},
		}},
	}})
	return doc
}

func (c *dayCloud) set(change func(*dayCloud)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// size is what a process holds.
type size struct {
	Heap       float64 // MiB
	Resident   float64 // MiB
	Goroutines int
	Files      int
}

func sizeNow(t *testing.T, s *Supervisor) size {
	t.Helper()
	s.transport.CloseIdleConnections() // whether one is open is chance
	synctest.Wait()
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var pages, resident int64
	statm, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(statm), &pages, &resident)
	}
	if err != nil {
		t.Fatal(err)
	}
	return size{
		Heap: float64(m.HeapAlloc) / (1 << 20), Resident: float64(resident*int64(os.Getpagesize())) / (1 << 20),
		Goroutines: runtime.NumGoroutine(), Files: len(files),
	}
}

// live lets a day pass.
func live(t *testing.T, s *Supervisor, cloud *dayCloud) (morning, evening size) {
	t.Helper()
	for hour := range 24 {
		cloud.set(func(c *dayCloud) { c.version++; c.away = hour >= 8 && hour < 12 })
		<-time.After(time.Hour)
		synctest.Wait()
		if hour == 4 {
			morning = sizeNow(t, s)
		}
	}
	return morning, sizeNow(t, s)
}

// A day on a device: the release changes every hour, and the cloud is away for
// some hours. What the process holds in the evening is what it held in
// the morning, and the cloud knows how the device is.
func TestADay(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "config.json")
	conf := fmt.Sprintf(`{"uuid":%q,"apiEndpoint":"http://api.test","deviceApiKey":"k","deviceId":7,"registered_at":1,"deviceType":"generic-amd64"}`, dayUUID)
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		fake := enginetest.NewFake(enginetest.Config{})
		defer fake.Close()
		cloud := &dayCloud{last: map[string]json.RawMessage{}}
		net := pipes{make(chan net.Conn), make(chan struct{})}
		server := &http.Server{Handler: cloud, ErrorLog: log.New(io.Discard, "", 0)}
		served := make(chan error, 1)
		go func() { served <- server.Serve(net) }()
		s, err := open(Config{ConfigFile: file, Engine: "tcp://simulated:1", DataDir: filepath.Join(dir, "data"), HostRoot: dir, Log: zerolog.Nop(), wire: fake})
		if err != nil {
			t.Fatal(err)
		}
		s.transport = uplink.NewTransport(uplink.TransportConfig{
			Dial: net.Dial,
			Resolve: func(context.Context, string) ([]netip.Addr, error) {
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, nil
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		s.begin(ctx)
		done := make(chan error, 1)
		go func() { done <- s.work(ctx) }()
		morning, evening := live(t, s, cloud)
		t.Logf("morning %+v, evening %+v, %d polls, %d reports", morning, evening, cloud.polls, cloud.reports)
		if evening.Goroutines > morning.Goroutines || evening.Files > morning.Files || evening.Heap > morning.Heap+0.5 || evening.Resident > morning.Resident+5 {
			t.Errorf("it has grown from %+v to %+v", morning, evening)
		}
		if st := s.runner.Status(); !st.Settled || st.World.Apps[dayApp].Commit != "c24" {
			t.Errorf("settled %t at %s", st.Settled, st.World.Apps[dayApp].Commit)
		}
		if apps := string(cloud.last["apps"]); !strings.Contains(apps, `"release_uuid":"c24"`) {
			t.Errorf("the cloud was told %s", apps)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.close()
		s.transport.CloseIdleConnections()
		_ = server.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}
