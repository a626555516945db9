//go:build engine && linux

package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"deckhand/state"
	"deckhand/supervisor"
)

// A config.json that cannot be used is named with file and field, and the last
// target goes on all the same.
func TestBadConfigFile(t *testing.T) {
	s := begin(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	good, err := os.ReadFile(s.unit.ConfigFile)
	s.must(err)
	change := func(key string, value any) []byte {
		values := p.values()
		values[key] = value
		b, err := json.Marshal(values)
		s.must(err)
		return b
	}
	for _, bad := range []struct {
		name    string
		content []byte
		says    string
	}{
		{"truncated", good[:len(good)/2], ""},
		{"empty", nil, ""},
		{"no JSON", []byte("apiEndpoint=https://example.com"), ""},
		{"a list", []byte(`[1]`), ""},
		{"zeroes, as after a power cut", make([]byte, 4096), ""},
		{"oversized", bytes.Join([][]byte{[]byte(`{"a":"`), bytes.Repeat([]byte("x"), 20<<20), []byte(`"}`)}, nil), "large"},
		{"port is an object", change("listenPort", map[string]any{}), "listenPort"},
		{"endpoint is a number", change("apiEndpoint", 5), "apiEndpoint"},
		{"endpoint of a strange kind", change("apiEndpoint", "ftp://example.com"), "apiEndpoint"},
		{"uuid is a path", change("uuid", "../../etc/passwd"), "uuid"},
		{"poll interval is a word", change("appUpdatePollInterval", "soon"), "appUpdatePollInterval"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			s := s.in(t)
			s.shutDown()
			s.must(os.WriteFile(s.unit.ConfigFile, bad.content, 0o600))
			gone := s.service("main")
			s.remove(gone)
			mark := s.unit.Log.Len()
			s.boot()
			s.logged(mark, `"level":"error"`, "config.json", bad.says)
			s.back(gone, "main")
			s.settlesAt(a.commit)
		})
	}
	s.shutDown()
	s.must(os.WriteFile(s.unit.ConfigFile, good, 0o600))
	s.boot()
	next := app("1", "b", map[string]any{"main": with(runsImage("hello:1"), "environment", map[string]string{"A": "1"})})
	p.offer(next)
	s.settlesAt(next.commit)
}

// A target state that cannot be used is refused whole, with the place and the
// reason; the last good one stays in force, and the next good one is taken.
func TestBadTargetState(t *testing.T) {
	s := begin(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	good := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	p.offer(good)
	p.device()
	s.settlesAt(good.commit)
	before := s.service("main")
	whole, err := json.Marshal(document(good))
	s.must(err)
	one := func(service map[string]any) []byte {
		b, err := json.Marshal(document(app("1", "b", map[string]any{"main": service})))
		s.must(err)
		return b
	}
	for _, bad := range []struct {
		name     string
		document []byte
		says     string
	}{
		{"truncated", whole[:len(whole)*2/3], ""},
		{"empty", nil, ""},
		{"null", []byte("null"), ""},
		{"a web page", []byte("<html>log in first</html>"), ""},
		{"another device's", bytes.ReplaceAll(whole, []byte(paperUUID), []byte(strings.Repeat("f", 32))), ""},
		{"apps is a list", []byte(`{"` + paperUUID + `":{"name":"x","config":{},"apps":[]}}`), "apps"},
		{"image is a number", one(with(runsImage("hello:1"), "image", 5)), "image"},
		{"image_id is a word", one(with(runsImage("hello:1"), "image_id", "one")), "image_id"},
		{"a variable is an object", one(with(runsImage("hello:1"), "environment", map[string]any{"A": map[string]any{}})), "environment"},
		{"a service name that leaves its folder", bytes.ReplaceAll(whole, []byte(`"main"`), []byte(`"../../main"`)), "services"},
		{"nested too deep", []byte(`{"` + paperUUID + `":{"name":"x","config":{},"apps":` + strings.Repeat(`{"a":`, 100_000) + `1` + strings.Repeat(`}`, 100_000) + `}}`), ""},
		{"endless", bytes.Join([][]byte{[]byte(`{"` + paperUUID + `":{"name":"`), bytes.Repeat([]byte("x"), 40<<20), []byte(`"}}`)}, nil), ""},
	} {
		t.Run(bad.name, func(t *testing.T) {
			s := s.in(t)
			s.shutDown() // after a failure it would take its time to ask again
			p.say(bad.document)
			mark := s.unit.Log.Len()
			s.boot()
			s.logged(mark, "target state", bad.says)
			s.status("it says so", func(v supervisor.View) error {
				if v.Cloud == nil || v.Cloud.Problem == "" {
					return fmt.Errorf("cloud: %+v", v.Cloud)
				}
				return nil
			})
			s.same(before, s.service("main"))
			if !s.unit.Process().Running() {
				t.Fatal("the supervisor ended")
			}
		})
	}
	next := app("1", "c", map[string]any{"main": with(runsImage("hello:1"), "environment", map[string]string{"A": "1"})})
	p.offer(next)
	s.must(s.unit.Restart())
	s.settlesAt(next.commit)
}

// A registry that answers nonsense is a failure with a class and a next try;
// the other app goes on.
func TestBadRegistry(t *testing.T) {
	s := begin(t)
	s.engine.Busybox(t, "hello:1")
	registry := httptest.NewServer(badRegistry())
	t.Cleanup(registry.Close)
	host := strings.TrimPrefix(registry.URL, "http://")
	at := func(repository string) map[string]any {
		return runsImage(fmt.Sprintf("%s/%s@sha256:%x", host, repository, sha256.Sum256([]byte(repository))))
	}
	p := s.paperCloud()
	good := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	bad := app("2", "b", map[string]any{
		"garbage": at("garbage"), "digest": at("digest"), "secret": at("secret"), "broken": at("broken"),
		"circle": at("circle"), "page": at("page"), "gone": at("gone"), "busy": at("busy"),
	})
	p.offer(good, bad)
	p.device()
	s.appAt(good, good.commit, "")
	for repository, classes := range map[string][]state.Class{
		"secret": {state.ClassAuth}, "broken": {state.ClassNetwork}, "gone": {state.ClassNotFound}, "busy": {state.ClassRateLimit},
		"garbage": {state.ClassNetwork}, "digest": {state.ClassNetwork}, "circle": {state.ClassNetwork}, "page": {state.ClassNetwork},
	} {
		w := s.waits("app2/"+repository, classes...)
		if w.Tries < 1 || w.Text == "" || w.Class == "" || w.Advice == "" || w.Until.IsZero() {
			t.Errorf("%s: the status does not tell enough: %+v", repository, w)
		}
	}
	next := app("1", "c", map[string]any{"main": with(runsImage("hello:1"), "environment", map[string]string{"A": "1"})})
	p.offer(next, bad)
	s.appAt(next, next.commit, "")
	s.within("only the good app runs", func(context.Context) error {
		if list := s.all(""); len(list) != 1 || list[0].State != container.StateRunning {
			return errors.New("there are other containers")
		}
		return nil
	})
}

// badRegistry answers by the name of the repository.
func badRegistry() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v2/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	})
	mux.HandleFunc("/v2/{repository}/manifests/{reference}", func(w http.ResponseWriter, r *http.Request) {
		const manifest = "application/vnd.docker.distribution.manifest.v2+json"
		switch r.PathValue("repository") {
		case "garbage":
			w.Header().Set("Content-Type", manifest)
			_, _ = w.Write([]byte("\x00\x01{\"schemaVersion\": [[["))
		case "digest": // a good manifest, of another image
			w.Header().Set("Content-Type", manifest)
			_, _ = fmt.Fprintf(w, `{"schemaVersion":2,"mediaType":%q,"config":{"mediaType":"application/vnd.docker.container.image.v1+json","size":2,"digest":"sha256:%s"},"layers":[]}`, manifest, strings.Repeat("1", 64))
		case "secret":
			w.WriteHeader(http.StatusUnauthorized)
		case "broken":
			w.WriteHeader(http.StatusInternalServerError)
		case "circle":
			http.Redirect(w, r, r.URL.Path, http.StatusTemporaryRedirect)
		case "page":
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>Welcome to our hotel</html>"))
		case "busy":
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			http.NotFound(w, r)
		}
	})
	return mux
}
