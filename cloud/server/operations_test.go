package server_test

import (
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/server"
)

func TestFiguresRoutesAndReadiness(t *testing.T) {
	var log buffer
	cfg := config(t.TempDir(), &log)
	cfg.MetricsListen = "127.0.0.1:0"
	cfg.MetricsToken = "figures-secret"
	s, stop := run(t, cfg)
	token := login(t, s, *s.FirstLogin())
	if status, body, _ := do(t, http.DefaultClient, "GET", s.URL()+"/ready", "", ""); status != 200 || body != "ready" {
		t.Errorf("ready: %d %s", status, body)
	}
	_, _, header := do(t, http.DefaultClient, "POST", s.URL()+"/v7/application?apikey=not-in-the-log", token, `{"app_name":"kitchen","device_type":"generic-amd64"}`, "X-Request-Id", "from-the-proxy")
	if id := header.Get("X-Request-Id"); id != "from-the-proxy" {
		t.Errorf("request ID %q", id)
	}
	_, _, header = do(t, http.DefaultClient, "GET", s.URL()+"/device/v3/"+strings.Repeat("a", 32)+"/state", token, "", "X-Request-Id", "two\tlines or \"quotes\"")
	if id := header.Get("X-Request-Id"); !regexp.MustCompile(`^[A-Z0-9]{16}$`).MatchString(id) {
		t.Errorf("request ID %q", id)
	}
	do(t, http.DefaultClient, "GET", "http://"+s.RegistryHost()+"/v2/", "", "")

	for _, credential := range []string{"", "wrong", token} {
		if status, body, _ := do(t, http.DefaultClient, "GET", s.MetricsURL(), credential, ""); status != 401 || strings.Contains(body, "deckhand_cloud") {
			t.Errorf("figures with %q: %d", credential, status)
		}
	}
	if status, body, _ := do(t, http.DefaultClient, "GET", s.URL()+"/metrics", token, ""); status != 404 {
		t.Errorf("figures below the API: %d %s", status, body)
	}
	status, figures, _ := do(t, http.DefaultClient, "GET", s.MetricsURL(), "figures-secret", "")
	if status != 200 {
		t.Fatalf("figures: %d %s", status, figures)
	}
	for _, want := range []string{
		`deckhand_cloud_http_requests_total{code="200",method="GET",route="GET /ready",server="api"} 1`,
		`deckhand_cloud_http_requests_total{code="401",method="GET",route="/v2/",server="registry"} 1`,
		`route="GET /device/v3/{uuid}/state"`,
		`deckhand_cloud_held_requests 0`,
		`deckhand_cloud_state_cache_misses_total`,
		`deckhand_cloud_database_connections_max`,
		`deckhand_cloud_builds_running 0`,
		`deckhand_cloud_registry_bytes`,
		`go_goroutines`,
	} {
		if !strings.Contains(figures, want) {
			t.Errorf("no %s in the figures", want)
		}
	}
	if strings.Contains(figures, strings.Repeat("a", 32)) {
		t.Error("the figures name a device")
	}
	stop()
	if text := log.String(); !strings.Contains(text, `"request_id":"from-the-proxy"`) || strings.Contains(text, "not-in-the-log") || strings.Contains(text, "figures-secret") || strings.Contains(text, token) {
		t.Errorf("log: %s", text)
	}
}

func TestFiguresThatOthersReachNeedAToken(t *testing.T) {
	cfg := config(t.TempDir(), io.Discard)
	cfg.MetricsListen = "0.0.0.0:0"
	if _, err := server.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "--metrics-token") {
		t.Errorf("got %v", err)
	}
}

func TestClearingUpBesideARunningCloud(t *testing.T) {
	dir := t.TempDir()
	s, _ := run(t, config(dir, io.Discard))
	place := server.Place{DataDir: dir}
	for _, dry := range []bool{true, false} {
		done, err := server.Collect(t.Context(), place, time.Hour, dry)
		if err != nil || !done.Empty() {
			t.Errorf("dry %v: %+v %v", dry, done, err)
		}
	}
	if status, _, _ := do(t, http.DefaultClient, "GET", s.URL()+"/ready", "", ""); status != 200 {
		t.Errorf("afterwards: %d", status)
	}
	if _, err := server.Collect(t.Context(), server.Place{DataDir: filepath.Join(dir, "none")}, time.Hour, true); err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("no cloud: %v", err)
	}
}

// A bucket that cannot be used ends the start, and names the setting.
func TestABucketThatCannotBeUsed(t *testing.T) {
	t.Setenv("AWS_ACCESS_KEY_ID", "somebody")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "hunter2")
	for address, want := range map[string]string{
		"s3://images?endpoint=http://127.0.0.1:1": "check its endpoint",
		"s3://images?endpoint=127.0.0.1":          "its endpoint has to be a URL",
		"s3://somebody:hunter2@images":            "AWS_SECRET_ACCESS_KEY",
	} {
		var log buffer
		cfg := config(t.TempDir(), &log)
		cfg.RegistryStorage = address
		_, err := server.New(t.Context(), cfg)
		if err == nil || !strings.Contains(err.Error(), "--registry-storage") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error()+log.String(), "hunter2") {
			t.Errorf("%s: %v", address, err)
		}
	}
}
