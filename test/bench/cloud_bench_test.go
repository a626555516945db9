//go:build bench

package bench

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	deviceUUID = "00000000000000000000000000000bee"
	appUUID    = "00000000000000000000000000000abc"
)

// release is what the cloud wants of the device; without services the app is to
// have none.
type release struct {
	commit   string
	services map[string]service
}

// service is one service of a release.
type service struct {
	image       string
	level       string // the value of a variable
	labels      map[string]string
	composition map[string]any
}

// alike is a release of n services, s0 and on, with one image.
func alike(n int, commit, image string) release {
	r := release{commit: commit, services: map[string]service{}}
	for i := range n {
		r.services[name(i)] = service{image: image, level: "info"}
	}
	return r
}

func name(i int) string { return fmt.Sprintf("s%d", i) }

// document is the release as a device gets it.
func (r release) document() ([]byte, error) {
	services := map[string]any{}
	for i, key := range sortedKeys(r.services) {
		s := r.services[key]
		labels, composition := s.labels, s.composition
		if labels == nil {
			labels = map[string]string{}
		}
		if composition == nil {
			composition = map[string]any{}
		}
		services[key] = map[string]any{
			"id": i + 1, "image_id": i + 1, "image": s.image, "labels": labels,
			"environment": map[string]string{"LEVEL": s.level}, "composition": composition,
		}
	}
	app := map[string]any{"id": 1, "name": "bench", "class": "fleet"}
	if r.commit != "" {
		app["releases"] = map[string]any{r.commit: map[string]any{"id": 1, "services": services}}
	}
	return json.Marshal(map[string]any{deviceUUID: map[string]any{
		"name": "bench", "config": map[string]string{}, "apps": map[string]any{appUUID: app},
	}})
}

// cloud serves one target state and lets the device wait for the next, so that
// the time of a poll is not part of any figure.
type cloud struct {
	server *httptest.Server

	mu      sync.Mutex
	body    []byte
	etag    string
	changed chan struct{}
	held    int // requests that wait for a change

	plain    bool         // it holds no question
	wire     *wire        // what passed
	requests atomic.Int64 // of any kind
	question atomic.Int64 // bytes of the last question for the target
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	c := &cloud{changed: make(chan struct{})}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /device/v3/{uuid}/state", c.state)
	mux.HandleFunc("PATCH /device/v3/state", func(_ http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
	})
	mux.HandleFunc("POST /v7/device_config_variable", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusCreated) })
	mux.HandleFunc("POST /device/v2/{uuid}/log-stream", func(_ http.ResponseWriter, r *http.Request) {
		c.requests.Add(1)
		_, _ = io.Copy(io.Discard, r.Body) // as long as the device sends
	})
	c.server = httptest.NewUnstartedServer(mux)
	c.wire = &wire{Listener: c.server.Listener}
	c.server.Listener = c.wire
	c.server.Start()
	t.Cleanup(c.server.Close)
	c.offer(t, release{})
	return c
}

func (c *cloud) state(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	body, etag, changed := c.body, c.etag, c.changed
	c.mu.Unlock()
	c.requests.Add(1)
	if b, err := httputil.DumpRequest(r, false); err == nil {
		c.question.Store(int64(len(b)))
	}
	if c.plain && r.Header.Get("If-None-Match") == etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if r.Header.Get("If-None-Match") == etag {
		w.Header().Set("Preference-Applied", "wait")
		c.hold(1)
		defer c.hold(-1)
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-time.After(asked(r)):
			w.WriteHeader(http.StatusNotModified)
			return
		}
		c.mu.Lock()
		body, etag = c.body, c.etag
		c.mu.Unlock()
	}
	w.Header().Set("ETag", etag)
	_, _ = w.Write(body)
}

// asked is how long a device lets its question be held.
func asked(r *http.Request) time.Duration {
	seconds, err := strconv.Atoi(strings.TrimPrefix(r.Header.Get("Prefer"), "wait="))
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

func (c *cloud) hold(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held += n
}

// listening waits until the device waits for news.
func (c *cloud) listening(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		c.mu.Lock()
		held := c.held
		c.mu.Unlock()
		if held > 0 {
			return
		}
	}
	t.Fatal("the device does not listen")
}

// offer puts a release in force and returns when it did.
func (c *cloud) offer(t *testing.T, r release) time.Time {
	t.Helper()
	body, err := r.document()
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(body)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.body, c.etag = body, `"`+hex.EncodeToString(sum[:8])+`"`
	close(c.changed)
	c.changed = make(chan struct{})
	return time.Now()
}
