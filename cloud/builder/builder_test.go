package builder_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/build"
	"deckhand/build/event"
	"deckhand/client"
	"deckhand/cloud/builder"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// hanging is an engine whose builds say one line and then wait until they are given up.
type hanging struct {
	began chan struct{} // one for each build
	ended chan struct{}
	die   chan struct{} // closed: builds lose their connection
}

func (h *hanging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", "1.41")
	w.Header().Set("Content-Type", "application/json")
	switch {
	case strings.HasSuffix(r.URL.Path, "/version"):
		_, _ = io.WriteString(w, `{"Arch":"amd64","ApiVersion":"1.41"}`)
	case strings.HasSuffix(r.URL.Path, "/build"):
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"stream":"Step 1/1 : FROM scratch\n"}`+"\n")
		w.(http.Flusher).Flush()
		h.began <- struct{}{}
		defer func() { h.ended <- struct{}{} }()
		select {
		case <-r.Context().Done():
		case <-h.die:
			panic(http.ErrAbortHandler)
		}
	}
}

type world struct {
	*cloudtest.World
	engine  *hanging
	builder *builder.Builder
	fleet   model.Fleet

	engineHost string
}

func newWorld(t *testing.T) *world { return newWorldAt(t, nil) }

func newWorldAt(t *testing.T, now func() time.Time) *world {
	t.Helper()
	w := &world{World: cloudtest.New(t, now), engine: &hanging{
		began: make(chan struct{}, 10), ended: make(chan struct{}, 10), die: make(chan struct{}),
	}}
	engine := httptest.NewServer(w.engine)
	t.Cleanup(engine.Close)
	w.engineHost = strings.Replace(engine.URL, "http://", "tcp://", 1)
	var err error
	w.builder, err = builder.New(builder.Config{
		DB: w.DB, Auth: w.Auth, EngineHost: w.engineHost,
		Dir: filepath.Join(t.TempDir(), "builds"), Log: zerolog.Nop(),
		Limits: build.Limits{Compressed: 1 << 20, Uncompressed: 1 << 20, Entries: 100},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.builder.Close() })
	w.Mux.Handle("/v3/build", w.builder)
	w.fleet = w.Fleet(w.Admin, "gate")
	return w
}

func (w *world) address(extra string) string {
	return "/v3/build?slug=admin%2Fgate&dockerfilePath=&emulated=false&nocache=false&isdraft=false" + extra
}

func tarball(t *testing.T, files ...string) string {
	t.Helper()
	var out bytes.Buffer
	tw := tar.NewWriter(&out)
	for i := 0; i+1 < len(files); i += 2 {
		if err := tw.WriteHeader(&tar.Header{Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(tw, files[i+1]); err != nil {
			t.Fatal(err)
		}
	}
	if err := tw.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	if _, err := io.WriteString(z, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestWhoMayPush(t *testing.T) {
	w := newWorld(t)
	_, deviceKey := w.Device(w.fleet, "a")
	body := tarball(t, "Dockerfile", "FROM scratch")
	for what, c := range map[string]struct {
		credential, path string
		headers          []string
		body             string
		want             int
	}{
		"nobody":         {"", w.address(""), nil, body, http.StatusUnauthorized},
		"a wrong token":  {"nonsense", w.address(""), nil, body, http.StatusUnauthorized},
		"a device":       {deviceKey, w.address(""), nil, body, http.StatusForbidden},
		"another user":   {w.BobSession, w.address(""), nil, body, http.StatusNotFound},
		"no fleet given": {w.AdminSession, "/v3/build", nil, body, http.StatusBadRequest},
		"unknown fleet":  {w.AdminSession, "/v3/build?slug=admin%2Fother", nil, body, http.StatusNotFound},
		"other encoding": {w.AdminSession, w.address(""), []string{"Content-Encoding", "br"}, body, http.StatusUnsupportedMediaType},
		"announced size": {w.AdminSession, w.address(""), nil, strings.Repeat("x", 2<<20), http.StatusRequestEntityTooLarge},
	} {
		if got := w.Do(http.MethodPost, c.path, c.credential, c.body, c.headers...); got.Status != c.want {
			t.Errorf("%s: %d, want %d", what, got.Status, c.want)
		}
	}
	if got := w.Do(http.MethodGet, w.address(""), w.AdminSession, ""); got.Status != http.StatusMethodNotAllowed {
		t.Errorf("GET: %d", got.Status)
	}
}

// forever is a body that must not be waited for.
type forever <-chan struct{}

func (f forever) Read([]byte) (int, error) {
	<-f
	return 0, io.EOF
}

func TestStrangersAreRefusedBeforeTheBody(t *testing.T) {
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL+w.address(""), forever(ctx.Done()))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("no answer without the body: %v", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestAnInvalidProjectMakesNoRelease(t *testing.T) {
	w := newWorld(t)
	got := w.Want(http.StatusOK, http.MethodPost, w.address(""), w.AdminSession,
		tarball(t, "docker-compose.yml", "services: {web: {build: .}}"))
	var elements []struct {
		Message string
		IsError bool
	}
	if err := json.Unmarshal([]byte(got.Body), &elements); err != nil {
		t.Fatalf("%v: %s", err, got.Body)
	}
	if len(elements) != 2 || !elements[0].IsError ||
		!strings.Contains(elements[0].Message, "Could not detect project type: Service web: Could not find a Dockerfile for this service") ||
		!strings.Contains(elements[1].Message, "Not deploying release.") {
		t.Errorf("said %s", got.Body)
	}
	headless := w.Want(http.StatusOK, http.MethodPost, w.address("&headless=true"), w.AdminSession, tarball(t, "readme", "x"))
	if !strings.Contains(headless.Body, `"started":false`) || !strings.Contains(headless.Body, "Could not find a Dockerfile") {
		t.Errorf("headless: %s", headless.Body)
	}
	if got := w.Want(http.StatusOK, http.MethodPost, w.address(""), w.AdminSession, "this is no archive"); !strings.Contains(got.Body, `"isError":true`) {
		t.Errorf("no archive: %s", got.Body)
	}
	if _, err := w.DB.ReleaseByID(t.Context(), 1); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("there is a release: %v", err)
	}
}

func (w *world) push(ctx context.Context, t *testing.T) (event.Event, error) {
	t.Helper()
	return w.pushTo(ctx, t, nil)
}

func (w *world) pushTo(ctx context.Context, t *testing.T, events func(event.Event)) (event.Event, error) {
	t.Helper()
	c, err := client.New(client.Config{URL: w.URL, Token: w.AdminSession})
	if err != nil {
		t.Fatal(err)
	}
	return c.Build(ctx, client.BuildRequest{Slug: "admin/gate", Archive: strings.NewReader(gzipped(t, tarball(t, "Dockerfile", "FROM scratch")))}, events)
}

func (w *world) status(t *testing.T, release int64) (string, string) {
	t.Helper()
	r, err := w.DB.ReleaseByID(context.Background(), release)
	if err != nil {
		t.Fatal(err)
	}
	images, err := w.DB.Images(context.Background(), release)
	if err != nil {
		t.Fatal(err)
	}
	return r.Status, images[0].Status
}

func TestCancelledFromElsewhere(t *testing.T) {
	w := newWorld(t)
	headless := w.Want(http.StatusOK, http.MethodPost, w.address("&headless=true"), w.AdminSession, tarball(t, "Dockerfile", "FROM scratch"))
	if headless.Body != `{"started":true,"releaseId":1}`+"\n" {
		t.Fatalf("headless: %s", headless.Body)
	}
	<-w.engine.began
	if err := w.DB.CancelRelease(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	<-w.engine.ended // the engine's build was given up
	if err := w.builder.Close(); err != nil {
		t.Fatal(err)
	}
	if release, image := w.status(t, 1); release != model.StatusCancelled || image != model.StatusCancelled {
		t.Errorf("release %s, image %s", release, image)
	}
}

// A server that was taken for gone gives up its build, and says so.
func TestABuildThatAnotherServerEnded(t *testing.T) {
	var passed atomic.Int64
	w := newWorldAt(t, func() time.Time { return time.Now().Add(time.Duration(passed.Load())) })
	go func() {
		<-w.engine.began
		passed.Add(int64(time.Minute))
		if n, err := w.DB.EndAbandonedBuilds(context.Background()); n != 1 || err != nil {
			t.Errorf("%d builds were ended, %v", n, err)
		}
	}()
	var said []string
	result, err := w.pushTo(t.Context(), t, func(e event.Event) { said = append(said, e.Message) })
	<-w.engine.ended
	if err != nil || result.Status != event.StatusError || !slices.ContainsFunc(said, func(s string) bool { return strings.HasSuffix(s, "; push again") }) {
		t.Errorf("result %+v, %v; said %q", result, err, said)
	}
	if release, image := w.status(t, 1); release != model.StatusError || image != model.StatusError {
		t.Errorf("release %s, image %s", release, image)
	}
	if r, err := w.DB.ReleaseByID(t.Context(), 1); err != nil || !strings.Contains(r.BuildLog, "is gone") {
		t.Errorf("its log is %q, %v", r.BuildLog, err)
	}
}

func TestStoppedBuilderCutsTheConnection(t *testing.T) {
	w := newWorld(t)
	go func() {
		<-w.engine.began
		_ = w.builder.Close()
	}()
	result, err := w.push(t.Context(), t)
	// The result may still arrive; what must not is a proper end without one.
	if err == nil && result.Status != event.StatusError {
		t.Errorf("result %+v", result)
	}
	if release, image := w.status(t, 1); release != model.StatusError || image != model.StatusError {
		t.Errorf("release %s, image %s", release, image)
	}
	if got := w.Do(http.MethodPost, w.address(""), w.AdminSession, ""); got.Status != http.StatusServiceUnavailable {
		t.Errorf("push to a stopped builder: %d", got.Status)
	}
}

func TestLostEngineIsTheBuildersFault(t *testing.T) {
	w := newWorld(t)
	go func() {
		<-w.engine.began
		close(w.engine.die)
	}()
	result, err := w.push(t.Context(), t)
	if err != nil {
		t.Fatal(err)
	}
	if result.Status != event.StatusError || !strings.Contains(result.Services[0].Error, "connection to the build engine broke") {
		t.Errorf("result %+v", result)
	}
	if release, image := w.status(t, 1); release != model.StatusError || image != model.StatusError {
		t.Errorf("release %s, image %s", release, image)
	}
}
