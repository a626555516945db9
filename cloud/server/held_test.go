package server_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/cloud/server"
)

// holder is a cloud with a device that waits.
type holder struct {
	*testing.T
	*server.Server
	stop   func()
	client *http.Client
	token  string
	state  string // its URL
	tag    string
}

const heldKey = "device-key-device-key"

// holding starts a cloud, and registers a device.
func holding(t *testing.T, cfg server.Config, client *http.Client) *holder {
	t.Helper()
	s, stop := run(t, cfg)
	t.Cleanup(client.CloseIdleConnections)
	h := &holder{T: t, Server: s, stop: stop, client: client}
	first := s.FirstLogin()
	status, token, _ := do(t, client, "POST", s.URL()+"/login_", "", fmt.Sprintf(`{"username":%q,"password":%q}`, first.Username, first.Password))
	if h.token = token; status != 200 {
		t.Fatalf("log in: %d %s", status, token)
	}
	h.want(201, "POST", "/v7/application", token, `{"app_name":"kitchen","device_type":"generic-amd64"}`)
	key := h.want(200, "POST", "/api-key/application/1/provisioning", token, "")
	uuid := strings.Repeat("a", 32)
	h.want(201, "POST", "/device/register", strings.Trim(key, `"`), `{"application":1,"uuid":"`+uuid+`","device_type":"generic-amd64","api_key":"`+heldKey+`"}`)
	h.state = s.URL() + "/device/v3/" + uuid + "/state"
	_, _, header := do(t, client, "GET", h.state, heldKey, "")
	h.tag = header.Get("ETag")
	return h
}

func (h *holder) want(want int, method, path, credential, body string) string {
	h.Helper()
	status, answer, _ := do(h.T, h.client, method, h.URL()+path, credential, body)
	if status != want {
		h.Fatalf("%s %s: %d %s", method, path, status, answer)
	}
	return answer
}

// figure waits until the figures have a line.
func (h *holder) figure(line string) {
	h.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(5 * time.Millisecond) {
		_, figures, _ := do(h.T, http.DefaultClient, "GET", h.MetricsURL(), "", "")
		if strings.Contains(figures, line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			h.Fatalf("no %s in the figures: %s", line, figures)
		}
	}
}

type reply struct {
	status int
	proto  string
	header http.Header
}

// ask asks for the state, and waits for news.
func (h *holder) ask(seconds int) reply {
	req, err := http.NewRequestWithContext(h.Context(), "GET", h.state, nil)
	if err != nil {
		h.Error(err)
		return reply{}
	}
	req.Header.Set("Authorization", "Bearer "+heldKey)
	req.Header.Set("If-None-Match", h.tag)
	req.Header.Set("Prefer", fmt.Sprintf("wait=%d", seconds))
	res, err := h.client.Do(req)
	if err != nil {
		h.Error(err)
		return reply{}
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		h.Error(err)
	}
	return reply{res.StatusCode, res.Proto, res.Header}
}

// What waits is told over HTTP/1.1, over TLS and over HTTP/2 alike; figures and log
// have the request once, with all of its time.
func TestHeldRequestsInFiguresAndLog(t *testing.T) {
	for name, c := range map[string]struct{ secure, two bool }{"HTTP/1.1": {}, "TLS": {secure: true}, "HTTP/2": {secure: true, two: true}} {
		t.Run(name, func(t *testing.T) {
			var log buffer
			dir := t.TempDir()
			cfg := config(filepath.Join(dir, "data"), &log)
			cfg.Log, cfg.MetricsListen = cfg.Log.Level(zerolog.DebugLevel), "127.0.0.1:0"
			transport, other := &http.Transport{MaxConnsPerHost: 1}, &http.Transport{}
			if c.secure {
				var pool *x509.CertPool
				cfg.TLSCert, cfg.TLSKey, pool = certificate(t, dir)
				transport.TLSClientConfig, transport.ForceAttemptHTTP2 = &tls.Config{RootCAs: pool}, c.two
				other.TLSClientConfig = &tls.Config{RootCAs: pool}
			}
			defer other.CloseIdleConnections()
			h := holding(t, cfg, &http.Client{Transport: transport})
			h.waits(&http.Client{Transport: other}, c.two)
			h.stop()
			if n := strings.Count(log.String(), `"route":"GET /device/v3/{uuid}/state"`); n != 5 {
				t.Errorf("%d log lines: %s", n, log.String())
			}
		})
	}
}

// waits has a device wait three times for nothing, and then for news. The owner has
// another connection: the device has its own for itself.
func (h *holder) waits(owner *http.Client, two bool) {
	h.Helper()
	const count = `deckhand_cloud_http_requests_total{code="%d",method="GET",route="GET /device/v3/{uuid}/state",server="api"} %d`
	for i := range 3 {
		if got := h.ask(1); got.status != 304 || got.header.Get("Preference-Applied") != "wait" || (got.proto == "HTTP/2.0") != two {
			h.Errorf("%+v", got)
		}
		h.figure(fmt.Sprintf(count, 304, i+1))
	}
	h.figure(`deckhand_cloud_http_request_duration_seconds_bucket{route="GET /device/v3/{uuid}/state",server="api",le="1"} 1`)
	h.figure(`deckhand_cloud_http_requests_running{server="api"} 0`)
	told := make(chan reply, 1)
	go func() { told <- h.ask(60) }()
	h.figure(`deckhand_cloud_held_requests 1`)
	h.figure(`deckhand_cloud_http_requests_running{server="api"} 1`)
	if status, body, _ := do(h.T, owner, "POST", h.URL()+"/v7/application_config_variable", h.token, `{"application":1,"name":"BALENA_X","value":"1"}`); status != 201 {
		h.Fatalf("%d %s", status, body)
	}
	if got := <-told; got.status != 200 || got.header.Get("Preference-Applied") != "wait" || got.header.Get("ETag") == h.tag {
		h.Errorf("%+v", got)
	}
	h.figure(fmt.Sprintf(count, 200, 2))
	h.figure(`deckhand_cloud_held_requests 0`)
	h.figure(`deckhand_cloud_http_requests_running{server="api"} 0`)
}

// A stop answers all that wait, and ends what was asked meanwhile.
func TestAStopAnswersAllThatWait(t *testing.T) {
	cfg := config(t.TempDir(), io.Discard)
	cfg.MetricsListen = "127.0.0.1:0"
	const n = 300
	h := holding(t, cfg, &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}})
	var waiting sync.WaitGroup
	for range n {
		waiting.Go(func() {
			if got := h.ask(240); got.status != 304 || got.header.Get("Preference-Applied") != "wait" {
				t.Errorf("%+v", got)
			}
		})
	}
	h.figure(fmt.Sprintf(`deckhand_cloud_held_requests %d`, n))
	began := time.Now()
	h.stop()
	waiting.Wait()
	if took := time.Since(began); took > 9*time.Second {
		t.Errorf("it took %s", took)
	}
}

// A credential that is taken away while its request waits opens nothing more.
func TestAKeyIsTakenAwayWhileItsRequestWaits(t *testing.T) {
	cfg := config(t.TempDir(), io.Discard)
	cfg.MetricsListen = "127.0.0.1:0"
	h := holding(t, cfg, &http.Client{Transport: &http.Transport{}})
	told := make(chan reply, 1)
	go func() { told <- h.ask(240) }()
	h.figure(`deckhand_cloud_held_requests 1`)
	h.want(200, "DELETE", "/v7/api_key?$filter=is_of__actor%20ne%201%20and%20description%20eq%20null", h.token, "")
	h.want(201, "POST", "/v7/application_config_variable", h.token, `{"application":1,"name":"BALENA_X","value":"1"}`)
	if got := <-told; got.status != 401 {
		t.Errorf("%+v", got)
	}
	h.figure(`deckhand_cloud_held_requests 0`)
	h.figure(`deckhand_cloud_http_requests_running{server="api"} 0`)
}
