//go:build engine

package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"deckhand/cloud/auth"
	"deckhand/cloud/builder"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
	"deckhand/cloud/registry"
	"deckhand/test/dockerd"
)

// startBuilding is a cloud that can build, with somebody logged in to it.
func startBuilding(t *testing.T) (*dockerd.Engine, *model.DB, *owner) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	engine := dockerd.Start(t)
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	images := http.NewServeMux() // a server of its own: below /v2/ the API has an old version
	registryServer := httptest.NewServer(images)
	t.Cleanup(registryServer.Close)
	host := strings.TrimPrefix(registryServer.URL, "http://")
	db, err := model.Open(t.Context(), model.Config{Path: filepath.Join(t.TempDir(), "cloud.db"), RegistryHost: func() string { return host }})
	must(err)
	t.Cleanup(func() { _ = db.Close() })
	keys, err := auth.New(auth.Config{DB: db, KeyDir: filepath.Join(t.TempDir(), "keys"), PasswordMemory: 64})
	must(err)
	reg, err := registry.New(registry.Config{
		Storage: registry.Storage{Dir: t.TempDir()}, Realm: srv.URL + "/auth/v1/token", Service: keys.RegistryService(),
		Issuer: keys.RegistryIssuer(), JWKS: keys.RegistryJWKS(), Log: zerolog.Nop(),
	})
	must(err)
	t.Cleanup(func() { _ = reg.Close() })
	b, err := builder.New(builder.Config{DB: db, Auth: keys, EngineHost: engine.Host, Dir: t.TempDir(), Log: zerolog.Nop()})
	must(err)
	t.Cleanup(func() { _ = b.Close() })
	keys.Routes(mux)
	odata.New(odata.Config{DB: db, Auth: keys}).Routes(mux)
	images.Handle("/v2/", reg)
	mux.Handle("/v3/build", b)
	name, password, err := keys.FirstLogin(t.Context())
	must(err)
	o := &owner{t: t, env: map[string]string{"XDG_CONFIG_HOME": t.TempDir()}}
	if out, code := o.do(password+"\n", "login", srv.URL, "--user", name); code != 0 {
		t.Fatal(out)
	}
	o.must("fleet", "create", "gate", "-t", "generic-amd64")
	return engine, db, o
}

func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestPushFromTheCommandLine(t *testing.T) {
	engine, _, o := startBuilding(t)
	engine.Busybox(t, "busybox:test")
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"docker-compose.yml": "services:\n  one: {build: one}\n  two: {build: two}\n",
		"one/Dockerfile":     "FROM scratch\nCOPY a /a\n", "one/a": "1",
		"two/Dockerfile": "FROM busybox:test\nRUN echo from two\n",
	})
	out, code := o.do("", "push", "gate", dir)
	if code != 0 {
		t.Fatalf("exit %d\n%s", code, out)
	}
	for _, want := range []string{"two      | from two\n", "one      built", "(id 1): success"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if out, code := o.do("", "push", "gate", dir, "--progress", "quiet"); code != 0 || len(out) != 33 {
		t.Errorf("quiet: %d %q", code, out)
	}
	if got := o.must("fleet", "list"); !strings.Contains(got, "release 2") {
		t.Errorf("after two pushes:\n%s", got)
	}
	write(t, dir, map[string]string{"two/Dockerfile": "FROM busybox:test\nRUN echo the reason && exit 3\n"})
	out, code = o.do("", "push", "gate", dir)
	if i := strings.Index(out, "two: step 2/4 failed with exit status 3"); code != exitFailed || i < 0 || !strings.Contains(out[i:], "│ the reason") {
		t.Errorf("a failing service: exit %d\n%s", code, out)
	}
	write(t, dir, map[string]string{"docker-compose.yml": "services: {one: {build: one, isolation: hyperv}}"})
	if out, code := o.do("", "push", "gate", dir); code != exitUsage || !strings.Contains(out, "isolation") {
		t.Errorf("a refused project: exit %d\n%s", code, out)
	}
	if got := o.must("release", "list", "gate"); strings.Count(got, "success") != 2 || strings.Count(got, "failed") != 1 {
		t.Errorf("releases:\n%s", got)
	}
}

func TestInterruptedPush(t *testing.T) {
	engine, db, o := startBuilding(t)
	engine.Busybox(t, "busybox:test")
	dir := t.TempDir()
	write(t, dir, map[string]string{"Dockerfile": "FROM busybox:test\nRUN echo sleeping; sleep 300\n"})
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	seen := &watcher{want: "| sleeping", found: func() { cancel(&exitError{code: exitInt}) }}
	s := &session{stdin: strings.NewReader(""), stdout: seen, stderr: seen, env: func(name string) string { return o.env[name] }}
	if code := run(ctx, s, []string{"push", "gate", dir}); code != exitInt {
		t.Errorf("exit %d\n%s", code, &seen.Buffer)
	}
	r, err := db.ReleaseByID(context.Background(), 1)
	if err != nil || r.Status != model.StatusCancelled {
		t.Errorf("the release is %s, %v", r.Status, err)
	}
}

// watcher is a screen that somebody watches for a text.
type watcher struct {
	bytes.Buffer
	want  string
	found func()
}

func (w *watcher) Write(p []byte) (int, error) {
	n, err := w.Buffer.Write(p)
	if strings.Contains(w.String(), w.want) {
		w.found()
	}
	return n, err
}
