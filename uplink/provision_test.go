package uplink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/config"
)

// cloud is a small balena API for registering.
type cloud struct {
	mu      sync.Mutex
	devices map[string]device // by UUID
	story   []string

	// refuse may answer in the place of the cloud; before is its turn before the
	// request has had its effect, after afterwards (an answer that gets lost).
	before, after func(n int, r *http.Request) int
	// mayExchange lets the provisioning key set device keys.
	mayExchange bool
}

type device struct {
	id  int64
	key string
}

func (c *cloud) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	who := "device key"
	if key == "prov" {
		who = "provisioning key"
	}
	c.story = append(c.story, fmt.Sprintf("%s %s with %s", r.Method, r.URL.Path, who))
	n := len(c.story)
	if c.before != nil {
		if s := c.before(n, r); s != 0 {
			w.WriteHeader(s)
			return
		}
	}
	body, _ := io.ReadAll(r.Body)
	status, answer := c.handle(r, key, body)
	if c.after != nil {
		if s := c.after(n, r); s != 0 {
			w.WriteHeader(s)
			return
		}
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, answer)
}

func (c *cloud) handle(r *http.Request, key string, body []byte) (int, string) {
	switch {
	case r.URL.Path == "/device/register":
		return c.register(key, body)
	case r.URL.Path == "/v7/device":
		q := r.URL.Query()
		uuid := strings.TrimSuffix(strings.TrimPrefix(q.Get("$filter"), "uuid eq '"), "'")
		d, ok := c.devices[uuid]
		if !ok || q.Get("$select") != "id" || key != d.key && (key != "prov" || !c.mayExchange) {
			return 200, `{"d":[]}`
		}
		return 200, fmt.Sprintf(`{"d":[{"id":%d}]}`, d.id)
	case strings.HasPrefix(r.URL.Path, "/api-key/device/"):
		if key != "prov" || !c.mayExchange {
			return 401, ""
		}
		var b struct{ APIKey string }
		_ = json.Unmarshal(body, &b)
		for uuid, d := range c.devices {
			if fmt.Sprintf("/api-key/device/%d/device-key", d.id) == r.URL.Path {
				c.devices[uuid] = device{d.id, b.APIKey}
				return 200, fmt.Sprintf("%q", b.APIKey)
			}
		}
	}
	return 404, ""
}

func (c *cloud) register(key string, body []byte) (int, string) {
	var b registration
	if err := json.Unmarshal(body, &b); err != nil {
		return 400, ""
	}
	if key != "prov" {
		return 401, ""
	}
	if _, ok := c.devices[b.UUID]; ok {
		return 409, `"uuid" must be unique.`
	}
	if c.devices == nil {
		c.devices = map[string]device{}
	}
	id := int64(100 + len(c.devices))
	c.devices[b.UUID] = device{id, b.APIKey}
	return 201, fmt.Sprintf(`{"id":%d,"uuid":%q,"api_key":%q}`, id, b.UUID, b.APIKey)
}

// fresh writes the config.json of a device that was never started, with a short
// retry delay.
func fresh(t *testing.T, endpoint, more string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(path, fmt.Appendf(nil, `{"apiEndpoint":%q,"bootstrapRetryDelay":100%s}`, endpoint, more), 0o600))
	return path
}

const provisioning = `,"apiKey":"prov","applicationId":7,"deviceType":"qemux86-64"`

func provision(t *testing.T, path string, n int) (config.Values, []error) {
	t.Helper()
	f, err := config.Load(path)
	must(t, err)
	var failures []error
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	err = Provision(ctx, ProvisionConfig{
		File: f, UserAgent: "Supervisor/1", OSVariant: "debug", Timeout: time.Second,
		OnError: func(err error, _ time.Duration) {
			failures = append(failures, err)
			if len(failures) == n {
				cancel()
			}
		},
	})
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	again, err := config.Load(path)
	must(t, err)
	return again.Values(), failures
}

func TestRegister(t *testing.T) {
	c := &cloud{}
	s := httptest.NewServer(c)
	defer s.Close()
	before := time.Now().UnixMilli()
	v, failures := provision(t, fresh(t, s.URL, provisioning), 0)
	if len(failures) != 0 || !v.Provisioned() || v.APIKey != "" || v.DeviceID != 100 {
		t.Errorf("values %+v, failures %v", v, failures)
	}
	if v.RegisteredAt < before || v.RegisteredAt > time.Now().UnixMilli() {
		t.Errorf("registered at %d, want milliseconds of now", v.RegisteredAt)
	}
	if d := c.devices[v.UUID]; d.key != v.DeviceAPIKey || len(c.devices) != 1 {
		t.Errorf("devices %v", c.devices)
	}
	if diff := cmp.Diff([]string{"POST /device/register with provisioning key"}, c.story); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Until the cloud accepts the device nothing but registering happens, and the
// identity stays the same.
func TestACloudThatIsDown(t *testing.T) {
	c := &cloud{before: func(n int, _ *http.Request) int {
		if n <= 3 {
			return []int{500, 503, 429}[n-1]
		}
		return 0
	}}
	s := httptest.NewServer(c)
	defer s.Close()
	v, failures := provision(t, fresh(t, s.URL, provisioning), 0)
	if len(failures) != 3 || !v.Provisioned() {
		t.Errorf("%d failures: %v", len(failures), failures)
	}
	for _, line := range c.story {
		if line != "POST /device/register with provisioning key" {
			t.Errorf("request %s", line)
		}
	}
}

func TestALostAnswerDoesNotMakeASecondDevice(t *testing.T) {
	c := &cloud{after: func(n int, _ *http.Request) int {
		if n == 1 {
			return 502
		}
		return 0
	}}
	s := httptest.NewServer(c)
	defer s.Close()
	v, _ := provision(t, fresh(t, s.URL, provisioning), 0)
	if len(c.devices) != 1 || c.devices[v.UUID].key != v.DeviceAPIKey || v.DeviceID != 100 || v.APIKey != "" {
		t.Errorf("devices %v, values %+v", c.devices, v)
	}
	want := []string{"POST /device/register with provisioning key", "POST /device/register with provisioning key", "GET /v7/device with device key"}
	if diff := cmp.Diff(want, c.story); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// crashing is a config file whose process dies at the n-th write, before or
// after it has reached the disk.
type crashing struct {
	*config.File
	writes, at int
	after      bool
	die        context.CancelFunc
}

var errCrash = errors.New("crash")

func (c *crashing) Update(change func(*config.Values)) error {
	c.writes++
	if c.writes != c.at {
		return c.File.Update(change)
	}
	c.die()
	if c.after {
		if err := c.File.Update(change); err != nil {
			return err
		}
	}
	return errCrash
}

// A crash before or after any write, or with any answer lost, ends with one
// device under the identity that was written first.
func TestACrashAtAnyMomentKeepsTheIdentity(t *testing.T) {
	for at := 1; at <= 3; at++ {
		for _, after := range []bool{false, true} {
			for lost := 0; lost <= 3; lost++ {
				t.Run(fmt.Sprintf("write %d after=%v, answer %d lost", at, after, lost), func(t *testing.T) {
					t.Parallel()
					crash(t, at, after, lost)
				})
			}
		}
	}
}

func crash(t *testing.T, at int, after bool, lost int) {
	t.Helper()
	c := &cloud{after: func(n int, _ *http.Request) int {
		if n == lost {
			return 500
		}
		return 0
	}}
	s := httptest.NewServer(c)
	defer s.Close()
	path := fresh(t, s.URL, provisioning)
	f, err := config.Load(path)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_ = Provision(ctx, ProvisionConfig{File: &crashing{File: f, at: at, after: after, die: cancel}})

	first, err := config.Load(path)
	must(t, err)
	v, _ := provision(t, path, 0)
	if was := first.Values().UUID; was != "" && was != v.UUID {
		t.Errorf("the UUID changed from %s to %s", was, v.UUID)
	}
	if len(c.devices) != 1 || c.devices[v.UUID].key != v.DeviceAPIKey || !v.Provisioned() || v.APIKey != "" {
		t.Errorf("devices %v, values %+v", c.devices, v)
	}
}

func TestADeviceRegisteredBefore(t *testing.T) {
	const identity = `,"uuid":"` + testUUID + `","deviceApiKey":"own"`
	t.Run("its key is known", func(t *testing.T) {
		c := &cloud{devices: map[string]device{testUUID: {5, "own"}}}
		s := httptest.NewServer(c)
		defer s.Close()
		v, failures := provision(t, fresh(t, s.URL, identity), 0)
		if len(failures) != 0 || v.DeviceID != 5 || v.UUID != testUUID {
			t.Errorf("values %+v, failures %v", v, failures)
		}
	})
	t.Run("key exchange", func(t *testing.T) {
		c := &cloud{devices: map[string]device{testUUID: {5, "other"}}, mayExchange: true}
		s := httptest.NewServer(c)
		defer s.Close()
		v, failures := provision(t, fresh(t, s.URL, provisioning+identity), 0)
		if len(failures) != 0 || v.DeviceID != 5 || v.UUID != testUUID || c.devices[testUUID].key != "own" {
			t.Errorf("values %+v, failures %v", v, failures)
		}
	})
	t.Run("registered, number missing", func(t *testing.T) {
		c := &cloud{devices: map[string]device{testUUID: {5, "own"}}}
		s := httptest.NewServer(c)
		defer s.Close()
		v, _ := provision(t, fresh(t, s.URL, identity+`,"registered_at":12345`), 0)
		if v.DeviceID != 5 || v.RegisteredAt != 12345 {
			t.Errorf("values %+v", v)
		}
	})
	t.Run("registered, provisioning key left over", func(t *testing.T) {
		c := &cloud{devices: map[string]device{testUUID: {5, "own"}}}
		s := httptest.NewServer(c)
		defer s.Close()
		v, _ := provision(t, fresh(t, s.URL, provisioning+identity+`,"registered_at":12345,"deviceId":5`), 0)
		if v.APIKey != "" || v.UUID != testUUID {
			t.Errorf("values %+v", v)
		}
		if diff := cmp.Diff([]string{"GET /v7/device with device key"}, c.story); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("nothing to do", func(t *testing.T) {
		c := &cloud{}
		s := httptest.NewServer(c)
		defer s.Close()
		provision(t, fresh(t, s.URL, identity+`,"registered_at":12345,"deviceId":5`), 0)
		if len(c.story) != 0 {
			t.Errorf("requests %v", c.story)
		}
	})
}

func TestIdentityIsRenewedOnlyOnADefiniteNo(t *testing.T) {
	const identity = `,"uuid":"` + testUUID + `","deviceApiKey":"own"`
	for status, renewed := range map[int]bool{200: true, 401: true, 403: true, 404: true, 400: false, 408: false, 429: false, 500: false, 502: false, 503: false} {
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			t.Parallel()
			c := &cloud{devices: map[string]device{testUUID: {5, "other"}}}
			c.before = func(_ int, r *http.Request) int {
				if r.URL.Path == "/v7/device" && status != 200 {
					return status
				}
				return 0
			}
			s := httptest.NewServer(c)
			defer s.Close()
			v, failures := provision(t, fresh(t, s.URL, provisioning+identity), 1)
			if (v.UUID != testUUID) != renewed || (v.DeviceAPIKey != "own") != renewed {
				t.Errorf("identity %s %s, want renewed %v; %v", v.UUID, v.DeviceAPIKey, renewed, failures)
			}
			if !renewed {
				return
			}
			c.before = nil
			v, _ = provision(t, fresh(t, s.URL, provisioning+`,"uuid":"`+v.UUID+`"`), 0)
			if !v.Provisioned() || len(c.devices) != 2 {
				t.Errorf("with the new identity: %+v, devices %v", v, c.devices)
			}
		})
	}
	t.Run("in use", func(t *testing.T) {
		c := &cloud{}
		s := httptest.NewServer(c)
		defer s.Close()
		v, failures := provision(t, fresh(t, s.URL, provisioning+identity+`,"registered_at":12345,"deviceId":5`), 2)
		if v.UUID != testUUID || v.DeviceAPIKey != "own" || v.APIKey != "prov" || len(failures) == 0 {
			t.Errorf("values %+v, failures %v", v, failures)
		}
	})
}

func TestConfigThatCannotRegister(t *testing.T) {
	c := &cloud{}
	s := httptest.NewServer(c)
	defer s.Close()
	for _, more := range []string{"", `,"apiKey":"prov"`, `,"applicationId":7`} {
		_, failures := provision(t, fresh(t, s.URL, more), 1)
		if len(failures) != 1 || !strings.Contains(failures[0].Error(), "apiKey and applicationId") {
			t.Errorf("%s: %v", more, failures)
		}
	}
	// Unmanaged: nothing to do.
	path := filepath.Join(t.TempDir(), "config.json")
	must(t, os.WriteFile(path, []byte("{}"), 0o600))
	if _, failures := provision(t, path, 0); len(failures) != 0 {
		t.Errorf("unmanaged: %v", failures)
	}
}

func TestStrangeAnswersKeepTheIdentity(t *testing.T) {
	for name, answer := range map[string]string{"empty": "", "page": "<html>", "no id": `{}`, "id text": `{"id":"5"}`, "id zero": `{"id":0}`, "null": "null", "list": "[]"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(http.StatusCreated)
				_, _ = io.WriteString(w, answer)
			}))
			defer s.Close()
			path := fresh(t, s.URL, provisioning+`,"uuid":"`+testUUID+`","deviceApiKey":"own"`)
			v, failures := provision(t, path, 1)
			if len(failures) != 1 || v.UUID != testUUID || v.Provisioned() || v.APIKey != "prov" {
				t.Errorf("values %+v, failures %v", v, failures)
			}
		})
	}
}

func TestProvisionEndsWithItsContext(t *testing.T) {
	c := &cloud{before: func(int, *http.Request) int { return 500 }}
	s := httptest.NewServer(c)
	defer s.Close()
	f, err := config.Load(fresh(t, s.URL, provisioning))
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := Provision(ctx, ProvisionConfig{File: f}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}
