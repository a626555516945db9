package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/client"
)

func TestWhatIsADevice(t *testing.T) {
	for word, want := range map[string]bool{
		"192.168.1.5": true, "192.168.1.5:48484": true, "fd00::5": true, "[fd00::5]:48484": true, "kitchen.local": true, "Kitchen.LOCAL:1": true,
		"myfleet": false, "org/fleet": false, "fleet-192.168.1.5": false, "192.168.1.5x": false, "local": false, "localfleet": false, "": false,
	} {
		if got := client.IsDevice(word); got != want {
			t.Errorf("%q: %v", word, got)
		}
	}
}

// neighbour is a device in the network.
type neighbour struct {
	closed bool // not in local mode
	target string
	lines  string
}

func (n *neighbour) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if n.closed {
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
		return
	}
	switch r.Method + " " + r.URL.Path {
	case "GET /v2/version":
		_, _ = io.WriteString(w, `{"status":"success","version":"19.0.5"}`)
	case "GET /v2/local/device-info":
		_, _ = io.WriteString(w, `{"status":"success","info":{"arch":"amd64","deviceType":"generic-amd64"}}`)
	case "GET /v2/local/target-state":
		_, _ = io.WriteString(w, `{"status":"success","state":{"local":{"name":"kitchen","config":{"A":"1"},"apps":{"9":{}}}}}`)
	case "POST /v2/local/target-state":
		b, _ := io.ReadAll(r.Body)
		n.target = string(b)
		_, _ = io.WriteString(w, `{"status":"success","message":"OK"}`)
	case "GET /v2/local/logs":
		_, _ = io.WriteString(w, n.lines)
	default:
		http.NotFound(w, r)
	}
}

// see runs deckctl against the device.
func (n *neighbour) see(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	srv := httptest.NewServer(n)
	defer srv.Close()
	for i := range args {
		args[i] = strings.ReplaceAll(args[i], "DEVICE", strings.TrimPrefix(srv.URL, "http://"))
	}
	var out, bad bytes.Buffer
	code = run(t.Context(), &session{stdin: strings.NewReader(""), stdout: &out, stderr: &bad, env: func(string) string { return "" }}, args)
	return code, out.String(), bad.String()
}

func TestLogsOfADeviceInTheNetwork(t *testing.T) {
	n := &neighbour{lines: `{"message":"Streaming logs","isSystem":true}` + "\nnonsense\n" + `{"message":"hello\n","timestamp":1000,"serviceName":"web"}` + "\n"}
	code, out, bad := n.see(t, "logs", "DEVICE")
	if code != exitNetwork || !strings.Contains(out, "[system] Streaming logs\n") || !strings.Contains(out, "[web] hello\n") || !strings.Contains(bad, "broke") {
		t.Errorf("%d\n%s%s", code, out, bad)
	}
}

func TestADeviceThatIsNotInLocalModeSaysHowToGetThere(t *testing.T) {
	for _, command := range []string{"logs", "push"} {
		code, _, bad := (&neighbour{closed: true}).see(t, command, "DEVICE")
		if code != exitAuth || !strings.Contains(bad, "BALENA_SUPERVISOR_LOCAL_MODE") {
			t.Errorf("%s: %d %s", command, code, bad)
		}
	}
	var out, bad bytes.Buffer
	code := run(t.Context(), &session{stdout: &out, stderr: &bad, env: func(string) string { return "" }}, []string{"push", "127.0.0.1:1"})
	if code != exitNetwork || !strings.Contains(bad.String(), "local mode") {
		t.Errorf("%d %s", code, bad.String())
	}
}

func TestAppsForADevice(t *testing.T) {
	got := deviceApps(map[string]any{
		"services": map[string]any{
			"web": map[string]any{"image": "local_image_web:latest", "environment": map[string]any{"A": "1"}, "ports": []any{"80:80"}, "command": nil},
			"db":  map[string]any{"image": "local_image_db:latest"},
		},
		"volumes": map[string]any{"data": map[string]any{}},
	})
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"1":{"commit":"10ca12e1ea5e","name":"localapp","networks":{},"releaseId":"1","services":{` +
		`"1":{"environment":{},"image":"local_image_db:latest","imageId":1,"labels":{},"running":true,"serviceId":1,"serviceName":"db"},` +
		`"2":{"environment":{"A":"1"},"image":"local_image_web:latest","imageId":2,"labels":{},"ports":["80:80"],"running":true,"serviceId":2,"serviceName":"web"}},` +
		`"volumes":{"data":{}}}}`
	if diff := cmp.Diff(want, string(text)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestAPushKeepsNameAndConfiguration(t *testing.T) {
	n := &neighbour{}
	srv := httptest.NewServer(n)
	defer srv.Close()
	d, err := client.DialDevice(t.Context(), strings.TrimPrefix(srv.URL, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Run(t.Context(), map[string]any{"1": map[string]any{}}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"local":{"apps":{"1":{}},"config":{"A":"1"},"name":"kitchen"}}`, n.target); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
