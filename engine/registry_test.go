package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// shelf is a registry as far as sizes of images go.
type shelf struct {
	auth string // "", basic or bearer
	body map[string]string

	mu   sync.Mutex
	seen []string
	url  string
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, q *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, q.URL.RequestURI())
	user, password, _ := q.BasicAuth()
	known := user == "d_1" && password == "secret"
	if q.URL.Path == "/token" {
		if !known {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = fmt.Fprintf(w, `{"token":"pass %s"}`, q.URL.Query().Get("scope"))
		return
	}
	switch s.auth {
	case "basic":
		if !known {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	case "bearer":
		repo, _, _ := strings.Cut(strings.TrimPrefix(q.URL.Path, "/v2/"), "/manifests/")
		repo, _, _ = strings.Cut(repo, "/blobs/")
		if q.Header.Get("Authorization") != "Bearer pass repository:"+repo+":pull" {
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.url+`/token",service="a service"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
	}
	b, ok := s.body[q.URL.Path]
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_, _ = w.Write([]byte(b))
}

func (s *shelf) requests() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.seen)
	s.seen = nil
	return n
}

func stocked(t *testing.T, s *shelf) (*registries, string) {
	t.Helper()
	srv := httptest.NewServer(s)
	s.url = srv.URL
	r := &registries{client: newRegistryClient(), auth: func(string) (string, string, bool) { return "d_1", "secret", true }}
	t.Cleanup(func() { r.client.CloseIdleConnections(); srv.Close() })
	return r, strings.TrimPrefix(srv.URL, "http://")
}

const twoLayers = `{"config":{"digest":"sha256:c"},"layers":[{"size":100},{"size":23}]}`

func TestSizeOfAnImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("1", 64)
	for auth, want := range map[string][]int{"": {1, 1, 0, 1}, "basic": {2, 1, 0, 1}, "bearer": {3, 2, 0, 2}} {
		t.Run("auth "+auth, func(t *testing.T) {
			s := &shelf{auth: auth, body: map[string]string{
				"/v2/a/web/manifests/" + digest: twoLayers, "/v2/b/web/manifests/7": twoLayers, "/v2/a/web/blobs/sha256:c": `{"rootfs":{"diff_ids":["x","y"]}}`}}
			r, host := stocked(t, s)
			var got []int
			for _, ref := range []string{"/a/web@" + digest, "/b/web:7", "/a/web@" + digest, "/b/web:7"} {
				im, err := r.image(t.Context(), host+ref, "amd64", true)
				if err != nil || im.size() != 123 {
					t.Fatalf("%s: %+v %v", ref, im, err)
				}
				got = append(got, s.requests())
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("requests: %s", d)
			}
			ids, err := r.contents(t.Context(), remote{repo: host + "/a/web", config: "sha256:c"}, true)
			if err != nil || !slices.Equal(ids, []string{"x", "y"}) {
				t.Errorf("%v %v", ids, err)
			}
		})
	}
}

func TestSizeOfAnImageForSeveralMachines(t *testing.T) {
	s := &shelf{body: map[string]string{
		"/v2/web/manifests/1": `{"manifests":[{"digest":"sha256:w","platform":{"os":"windows","architecture":"arm64"}},
			{"digest":"sha256:a","platform":{"os":"linux","architecture":"amd64"}},{"digest":"sha256:b","platform":{"os":"linux","architecture":"arm64"}}]}`,
		"/v2/web/manifests/sha256:b": twoLayers,
	}}
	r, host := stocked(t, s)
	if im, err := r.image(t.Context(), host+"/web:1", "arm64", true); err != nil || im.size() != 123 {
		t.Errorf("%+v %v", im, err)
	}
	if _, err := r.image(t.Context(), host+"/web:1", "riscv64", true); err == nil {
		t.Error("a machine that the image is not for")
	}
}

// What a registry says wrong is an error that names no secret, and never a hang.
func TestSizeThatARegistryDoesNotTell(t *testing.T) {
	for name, s := range map[string]*shelf{
		"no such image":  {},
		"garbage":        {body: map[string]string{"/v2/web/manifests/1": "<html>"}},
		"nothing":        {body: map[string]string{"/v2/web/manifests/1": "{}"}},
		"far too long":   {body: map[string]string{"/v2/web/manifests/1": strings.Repeat(" ", mostManifest+1)}},
		"strange sizes":  {body: map[string]string{"/v2/web/manifests/1": `{"layers":[{"size":"big"}]}`}},
		"asks for ever":  {auth: "bearer"},
		"index of index": {body: map[string]string{"/v2/web/manifests/1": `{"manifests":[{"digest":"1","platform":{"os":"linux","architecture":"amd64"}}]}`}},
	} {
		t.Run(name, func(t *testing.T) {
			r, host := stocked(t, s)
			if name == "asks for ever" {
				r.auth = func(string) (string, string, bool) { return "d_1", "wrong secret", true }
			}
			_, err := r.image(t.Context(), host+"/web:1", "amd64", true)
			if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "d_1") {
				t.Errorf("%v", err)
			}
		})
	}
	r, host := stocked(t, &shelf{auth: "bearer"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	if _, err := r.image(ctx, host+"/web:1", "amd64", true); err == nil {
		t.Error("no time, and yet an answer")
	}
	if _, err := r.image(t.Context(), "web:1", "amd64", true); err == nil {
		t.Error("no registry, and yet an answer")
	}
}

// Credentials of a registry go where the engine would send them, and not to
// whoever the registry names without encryption.
func TestTokensComeFromTrustedPlaces(t *testing.T) {
	v := visit{r: &registries{auth: func(string) (string, string, bool) { return "u", "p", true }}, host: "r.example", repo: "web"}
	for _, realm := range []string{"http://other.example/token", "ftp://r.example/token", "://"} {
		if err := v.enter(t.Context(), door{scheme: "https", realm: realm}); err == nil {
			t.Errorf("asked %s", realm)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(twoLayers, `Bearer realm="https://x/token",service="y"`)
	f.Fuzz(func(t *testing.T, body, header string) {
		var m manifest
		_ = json.Unmarshal([]byte(body), &m)
		challenge([]string{header})
	})
}

func TestMegabytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0.0 MB", 1_550_000: "1.6 MB", 512_000_000: "512 MB", 9_999_000_000: "9999 MB", 12_345_000_000: "12.3 GB"} {
		if got := megabytes(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
