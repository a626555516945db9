package builder_test

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"deckhand/build"
	"deckhand/cloud/builder"
	"deckhand/cloud/model"
)

const fromURL = "/v3/buildFromUrl?headless=true&owner=admin&app=gate"

// fetches adds the route to the world, and a web server that the builder may reach
// when it is allowed to.
func (w *world) fetches(t *testing.T, allowed ...netip.Prefix) (*http.ServeMux, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "fetched")
	b, err := builder.New(builder.Config{
		DB: w.DB, Auth: w.Auth, EngineHost: w.engineHost, Dir: dir, Log: zerolog.Nop(), FetchFrom: allowed,
		Limits: build.Limits{Compressed: 1 << 20, Uncompressed: 1 << 20, Entries: 100},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = b.Close()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v %v", left, err)
		}
	})
	w.Mux.HandleFunc("/v3/buildFromUrl", b.FromURL)
	site := http.NewServeMux()
	server := httptest.NewServer(site)
	t.Cleanup(server.Close)
	return site, server.URL
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func loopback() netip.Prefix { return netip.MustParsePrefix("127.0.0.0/8") }

type started struct {
	Started   bool
	ReleaseID int64 `json:"releaseId"`
	Message   string
}

// ask has a project built from an address.
func (w *world) ask(address string, flatten bool) started {
	w.T.Helper()
	got := w.Want(http.StatusOK, http.MethodPost, fromURL, w.AdminSession, fmt.Sprintf(`{"url":%q,"shouldFlatten":%t}`, address, flatten))
	var s started
	if err := json.Unmarshal([]byte(got.Body), &s); err != nil {
		w.T.Fatalf("%v: %s", err, got.Body)
	}
	return s
}

func TestBuildFromURL(t *testing.T) {
	w := newWorld(t)
	site, url := w.fetches(t, loopback())
	project := gzipped(t, tarball(t, "project-1.0/Dockerfile", "FROM scratch"))
	site.HandleFunc("/project.tar.gz", func(rw http.ResponseWriter, r *http.Request) {
		if _, key, _ := r.BasicAuth(); key != "secret" {
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = rw.Write([]byte(project))
	})
	site.Handle("/moved", http.RedirectHandler("/project.tar.gz", http.StatusFound))
	got := w.ask(strings.Replace(url, "://", "://me:secret@", 1)+"/moved", true)
	if !got.Started || got.ReleaseID == 0 {
		t.Fatalf("%+v", got)
	}
	<-w.engine.began
	if err := w.DB.CancelRelease(t.Context(), got.ReleaseID); err != nil {
		t.Fatal(err)
	}
	<-w.engine.ended
	r, err := w.DB.ReleaseByID(t.Context(), got.ReleaseID)
	if err != nil || r.Fleet != w.fleet.ID || r.Status != model.StatusCancelled {
		t.Errorf("%+v %v", r, err)
	}
	// Without flattening the Dockerfile is not where it should be.
	if got := w.ask(strings.Replace(url, "://", "://me:secret@", 1)+"/project.tar.gz", false); got.Started || !strings.Contains(got.Message, "Could not find a Dockerfile") {
		t.Errorf("%+v", got)
	}
}

func TestWhatIsNoArchive(t *testing.T) {
	w := newWorld(t)
	site, url := w.fetches(t, loopback())
	site.HandleFunc("/page", func(rw http.ResponseWriter, _ *http.Request) {
		_, _ = rw.Write([]byte(strings.Repeat("<html>no archive</html>", 100)))
	})
	site.HandleFunc("/announced", func(rw http.ResponseWriter, _ *http.Request) { rw.Header().Set("Content-Length", fmt.Sprint(2<<20)) })
	site.HandleFunc("/endless", func(rw http.ResponseWriter, _ *http.Request) {
		// The start of a file that is much larger than the limit, and then more and more.
		_, _ = rw.Write([]byte(tarball(t, "large", strings.Repeat("x", 900<<10)))[:512])
		for {
			if _, err := rw.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	site.HandleFunc("/cut", func(rw http.ResponseWriter, _ *http.Request) {
		whole := gzipped(t, tarball(t, "Dockerfile", "FROM scratch"))
		_, _ = rw.Write([]byte(whole[:len(whole)-20]))
	})
	site.HandleFunc("/round", func(rw http.ResponseWriter, r *http.Request) { http.Redirect(rw, r, "/round", http.StatusFound) })
	site.HandleFunc("/file", func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, "file:///etc/passwd", http.StatusFound)
	})
	for address, want := range map[string]string{
		"":                               "url must be the http or https address",
		"::":                             "url must be the http or https address",
		"ftp://example.test/p.tar":       `only http and https are fetched, not "ftp"`,
		"file:///etc/passwd":             `only http and https are fetched, not "file"`,
		"http:///p.tar":                  "has no host",
		"https://no-such-host.invalid/p": "the name no-such-host.invalid cannot be resolved",
		url + "/nothing?token=secret":    "the answer is 404 Not Found",
		url + "/page":                    "must be that of a tar archive",
		url + "/announced":               "larger than 1 MB",
		url + "/endless":                 "larger than 1 MB",
		url + "/cut":                     "unexpected EOF",
		url + "/round":                   "more than 5 redirects",
		url + "/file":                    `only http and https are fetched, not "file"`,
	} {
		got := w.ask(address, true)
		if got.Started || !strings.Contains(got.Message, want) || strings.Contains(got.Message, "secret") {
			t.Errorf("%s: %+v, want %q", address, got, want)
		}
	}
	w.Want(http.StatusBadRequest, http.MethodPost, fromURL, w.AdminSession, "url=http://example.test")
}

// The cloud fetches nothing for its users that they could not reach themselves.
func TestPrivateAddressesAreNotFetched(t *testing.T) {
	w := newWorld(t)
	inner, private := w.fetches(t, netip.MustParsePrefix("127.0.0.2/32"))
	touched := false
	inner.HandleFunc("/", func(http.ResponseWriter, *http.Request) { touched = true })
	port := private[strings.LastIndex(private, ":"):]
	// A server that may be fetched from sends on to one that may not.
	allowed := httptest.NewUnstartedServer(http.RedirectHandler(private+"/p.tar", http.StatusTemporaryRedirect))
	if err := allowed.Listener.Close(); err != nil {
		t.Fatal(err)
	}
	allowed.Listener = listen(t, "127.0.0.2:0")
	allowed.Start()
	defer allowed.Close()
	for _, address := range []string{private, "http://localhost" + port, "http://[::ffff:127.0.0.1]" + port, "http://2130706433" + port, "http://0.0.0.0" + port, allowed.URL, "http://169.254.169.254/latest"} {
		got := w.ask(address+"/p.tar", true)
		if got.Started || !strings.Contains(got.Message, "--fetch-from") && !strings.Contains(got.Message, "cannot be resolved") {
			t.Errorf("%s: %+v", address, got)
		}
		if strings.Contains(strings.TrimPrefix(got.Message, "fetch the project from 127.0.0."), "127.0.0.1") && strings.Contains(address, "localhost") {
			t.Errorf("it says what is behind the name: %s", got.Message)
		}
	}
	if touched {
		t.Error("the private server was asked")
	}
}

func TestWhoMayBuildFromURL(t *testing.T) {
	w := newWorld(t)
	_, _ = w.fetches(t)
	_, deviceKey := w.Device(w.fleet, "a")
	for what, c := range map[string]struct {
		credential, path string
		want             int
	}{
		"nobody":        {"", fromURL, http.StatusUnauthorized},
		"a device":      {deviceKey, fromURL, http.StatusForbidden},
		"another user":  {w.BobSession, fromURL, http.StatusNotFound},
		"no fleet":      {w.AdminSession, "/v3/buildFromUrl?owner=admin", http.StatusBadRequest},
		"unknown fleet": {w.AdminSession, "/v3/buildFromUrl?owner=admin&app=other", http.StatusNotFound},
	} {
		if got := w.Do(http.MethodPost, c.path, c.credential, `{"url":"http://example.test/p.tar"}`); got.Status != c.want {
			t.Errorf("%s: %d, want %d", what, got.Status, c.want)
		}
	}
}
