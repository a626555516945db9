//go:build engine

package builder_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/build/event"
	"deckhand/client"
	"deckhand/cloud/auth"
	"deckhand/cloud/builder"
	"deckhand/cloud/model"
	"deckhand/cloud/registry"
	"deckhand/test/dockerd"
)

// cloud is as much of a cloud as a push needs, on a real engine, registry and database.
type cloud struct {
	url    string
	db     *model.DB
	engine *dockerd.Engine
	keys   *auth.Auth
	owner  *client.Client
	token  string // of the owner
	fleet  model.Fleet

	denials atomic.Int64 // answers of the registry that something is not allowed
}

// watched counts answers that something is not allowed.
type watched struct {
	http.ResponseWriter
	denials *atomic.Int64
}

func (w *watched) WriteHeader(status int) {
	if status == http.StatusForbidden {
		w.denials.Add(1)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func startCloud(t *testing.T) *cloud {
	t.Helper()
	return startCloudWith(t, 0)
}

// startCloudWith is startCloud with a quota of bytes for each organization; 0: none.
func startCloudWith(t *testing.T, quota int64) *cloud {
	t.Helper()
	c := &cloud{engine: dockerd.Start(t)}
	mux := http.NewServeMux()
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	c.url = srv.URL
	host := strings.TrimPrefix(srv.URL, "http://")
	var err error
	c.db, err = model.Open(t.Context(), model.Config{
		Path: filepath.Join(t.TempDir(), "cloud.db"), RegistryHost: func() string { return host },
	})
	must(t, err)
	t.Cleanup(func() { _ = c.db.Close() })
	c.keys, err = auth.New(auth.Config{DB: c.db, KeyDir: filepath.Join(t.TempDir(), "keys"), PasswordMemory: 64})
	must(t, err)
	reg, err := registry.New(registry.Config{
		Storage: registry.Storage{Dir: t.TempDir()}, Realm: srv.URL + "/auth/v1/token", Service: c.keys.RegistryService(),
		Issuer: c.keys.RegistryIssuer(), JWKS: c.keys.RegistryJWKS(), Quota: registry.Quota{Bytes: quota, Owners: c.db}, Log: zerolog.Nop(),
	})
	must(t, err)
	t.Cleanup(func() { _ = reg.Close() })
	b, err := builder.New(builder.Config{
		DB: c.db, Auth: c.keys, EngineHost: c.engine.Host, Dir: filepath.Join(t.TempDir(), "builds"),
		Log: zerolog.New(zerolog.NewTestWriter(t)),
	})
	must(t, err)
	t.Cleanup(func() { _ = b.Close() })
	c.keys.Routes(mux)
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, r *http.Request) {
		reg.ServeHTTP(&watched{w, &c.denials}, r)
	})
	mux.Handle("/v3/build", b)

	name, password, err := c.keys.FirstLogin(t.Context())
	must(t, err)
	c.owner, err = client.New(client.Config{URL: srv.URL})
	must(t, err)
	c.token, err = c.owner.Login(t.Context(), name, password)
	must(t, err)
	c.owner = c.owner.As(c.token)
	who, err := c.owner.Whoami(t.Context())
	must(t, err)
	c.fleet, err = c.db.CreateFleet(t.Context(), model.NewFleet{Name: "hello", DeviceType: "generic-amd64", User: who.ID})
	must(t, err)
	return c
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const threeServices = `
services:
  front:
    build: front
    ports: ["80:8080"]
    depends_on:
      back: {condition: service_healthy}
  back:
    build: ./back
    volumes: ["data:/data"]
    healthcheck: {test: ["CMD", "/app", "check"], interval: 5s}
  cache:
    build: {context: ., dockerfile: cache.Dockerfile}
volumes:
  data:
`

func project(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

func hello() map[string]string {
	dockerfile := "FROM scratch\nCOPY app /app\nCMD [\"/app\"]\n"
	return map[string]string{
		"docker-compose.yml": threeServices,
		"front/Dockerfile":   dockerfile,
		"front/app":          "front 1",
		"back/Dockerfile":    dockerfile,
		"back/app":           "back 1",
		"cache.Dockerfile":   "FROM scratch\nCOPY cache.txt /app\nCMD [\"/app\"]\n",
		"cache.txt":          "cache 1",
	}
}

// push builds and gives the last event, all events, and the services by name.
func (c *cloud) push(t *testing.T, dir string) (event.Event, []event.Event, map[string]event.Service) {
	t.Helper()
	var all []event.Event
	result, err := c.owner.Build(t.Context(), client.BuildRequest{Slug: c.fleet.Slug, Source: dir},
		func(e event.Event) { all = append(all, e) })
	must(t, err)
	services := map[string]event.Service{}
	for _, s := range result.Services {
		services[s.Name] = s
	}
	for i, e := range all {
		if e.Seq != i+1 {
			t.Fatalf("event %d has number %d", i+1, e.Seq)
		}
	}
	return result, all, services
}

func TestPush(t *testing.T) {
	c := startCloud(t)
	dir := project(t, hello())

	first, events, services := c.push(t, dir)
	if first.Status != event.StatusSuccess {
		t.Fatalf("the push ended as %s: %s", first.Status, dump(events))
	}
	c.checkPullable(t, services)
	fleet, err := c.db.FleetByID(t.Context(), c.fleet.ID)
	must(t, err)
	if fleet.TargetRelease != first.ReleaseID {
		t.Errorf("the fleet's target is release %d, want %d", fleet.TargetRelease, first.ReleaseID)
	}
	c.checkRows(t, first.ReleaseID)
	c.checkNothingLeft(t)

	t.Run("unchanged", func(t *testing.T) { c.unchanged(t, dir, services) })
	t.Run("unchanged on a fresh engine", func(t *testing.T) {
		c.wipe(t)
		c.unchanged(t, dir, services)
	})
	t.Run("one service changed", func(t *testing.T) {
		must(t, os.WriteFile(filepath.Join(dir, "back/app"), []byte("back 2"), 0o644))
		_, _, changed := c.push(t, dir)
		same := map[string]bool{}
		for name, s := range changed {
			same[name] = s.ContentHash == services[name].ContentHash
		}
		if diff := cmp.Diff(map[string]bool{"front": true, "back": false, "cache": true}, same); diff != "" {
			t.Errorf("digests that stayed (-want +got):\n%s", diff)
		}
	})
	t.Run("one service fails", func(t *testing.T) { c.failing(t, dir) })
	t.Run("official framing", func(t *testing.T) { c.framing(t, dir) })
}

// Services that begin alike are built side by side, and the engine's cache mixes
// up whose steps are whose. What did not change keeps its digest all the same.
func TestTwinsKeepTheirDigests(t *testing.T) {
	c := startCloud(t)
	files := map[string]string{"docker-compose.yml": "services:\n  one: {build: one}\n  two: {build: two}\n  three: {build: three}\n"}
	for _, name := range []string{"one", "two", "three"} {
		files[name+"/Dockerfile"] = "FROM scratch\nCOPY app /app\nENV A=1\nENV B=2\nCOPY own /own\nCMD [\"/app\"]\n"
		files[name+"/app"] = "the same for all"
		files[name+"/own"] = name
	}
	dir := project(t, files)
	when := time.Now().Add(-time.Hour)
	for name := range files { // one time stamp: else their first layers would differ
		must(t, os.Chtimes(filepath.Join(dir, name), when, when))
	}
	first, events, services := c.push(t, dir)
	if first.Status != event.StatusSuccess {
		t.Fatalf("push: %s", dump(events))
	}
	for range 2 {
		c.unchanged(t, dir, services)
	}
}

// checkPullable pulls by digest from where the rows say, as a device does.
func (c *cloud) checkPullable(t *testing.T, services map[string]event.Service) {
	t.Helper()
	for _, name := range []string{"front", "back", "cache"} {
		s := services[name]
		if !strings.HasPrefix(s.ContentHash, "sha256:") || s.Size == 0 || s.Steps == 0 {
			t.Errorf("%s: no digest, size or steps: %+v", name, s)
		}
		out, err := c.engine.Client.ImagePull(t.Context(), s.Location+"@"+s.ContentHash, image.PullOptions{RegistryAuth: c.mayPull(t, s.Location)})
		must(t, err)
		text, err := io.ReadAll(out)
		must(t, err)
		if strings.Contains(string(text), "error") {
			t.Errorf("%s: pull by digest: %s", name, text)
		}
	}
}

func (c *cloud) unchanged(t *testing.T, dir string, before map[string]event.Service) {
	again, events, services := c.push(t, dir)
	if again.Status != event.StatusSuccess {
		t.Fatalf("push: %s", dump(events))
	}
	for name, s := range services {
		if s.ContentHash != before[name].ContentHash || !s.Unchanged || s.CachedSteps == 0 {
			t.Errorf("%s: digest %s, was %s; %d steps from the cache", name, s.ContentHash, before[name].ContentHash, s.CachedSteps)
		}
	}
}

func (c *cloud) failing(t *testing.T, dir string) {
	before, err := c.db.FleetByID(t.Context(), c.fleet.ID)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "front/Dockerfile"), []byte("FROM scratch\nCOPY app /app\nCOPY missing /missing\n"), 0o644))
	result, events, services := c.push(t, dir)
	if result.Status != event.StatusFailed {
		t.Fatalf("status %s, want failed\n%s", result.Status, dump(events))
	}
	got := map[string]string{}
	for name, s := range services {
		got[name] = s.Status
	}
	if diff := cmp.Diff(map[string]string{"front": "failed", "back": "success", "cache": "success"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(services["front"].Error, "missing") {
		t.Errorf("the error does not name the file: %q", services["front"].Error)
	}
	after, err := c.db.FleetByID(t.Context(), c.fleet.ID)
	must(t, err)
	if after.TargetRelease != before.TargetRelease {
		t.Error("a failed release became the fleet's target")
	}
	images, err := c.db.Images(t.Context(), result.ReleaseID)
	must(t, err)
	for _, img := range images {
		if img.Status != got[img.Service] || img.BuildLog == "" {
			t.Errorf("row of %s: status %s, log %q", img.Service, img.Status, img.BuildLog)
		}
	}
	c.checkNothingLeft(t)
	must(t, os.WriteFile(filepath.Join(dir, "front/Dockerfile"), []byte("FROM scratch\nCOPY app /app\n"), 0o644))
}

// official pushes as balena's tools do and gives the answer.
func (c *cloud) official(t *testing.T, dir string) []byte {
	t.Helper()
	project, err := client.OpenProject(dir)
	must(t, err)
	reader, writer := io.Pipe()
	go func() { writer.CloseWithError(project.Pack(writer, nil)) }()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		c.url+"/v3/build?slug=admin%2Fhello&dockerfilePath=&emulated=false&nocache=false&headless=false&isdraft=true", reader)
	must(t, err)
	req.URL.RawQuery = strings.Replace(req.URL.RawQuery, "admin%2Fhello", strings.ReplaceAll(c.fleet.Slug, "/", "%2F"), 1)
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	must(t, err)
	return raw
}

// framing checks the stream that balena's own tools read.
func (c *cloud) framing(t *testing.T, dir string) {
	raw := c.official(t, dir)
	if !strings.HasPrefix(string(raw), "[\n{") || !strings.HasSuffix(string(raw), "}\n]\n") || !strings.Contains(string(raw), "}\n,\n{") {
		t.Errorf("not laid out as clients expect: %.80q … %q", raw, raw[max(0, len(raw)-40):])
	}
	var elements []struct {
		Message, Type, Resource string
		Value                   any
		IsError                 bool
	}
	if err := json.Unmarshal(raw, &elements); err != nil {
		t.Fatalf("not one JSON array: %v", err)
	}
	if elements[0].Resource != "buildLogId" || elements[0].Value == nil {
		t.Errorf("the release id is not the first element: %+v", elements[0])
	}
	var text strings.Builder
	for _, e := range elements {
		text.WriteString(e.Message + "\n")
		if e.IsError {
			t.Errorf("a successful build says isError: %q", e.Message)
		}
	}
	for _, want := range []string{"Starting build for ", "Step 1/", "Uploading images", "Release successfully created!", "Build finished in "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no line %q in\n%s", want, &text)
		}
	}
	number, ok := elements[0].Value.(float64)
	if !ok {
		t.Fatalf("the release id is %v, want a number", elements[0].Value)
	}
	id := int64(number)
	r, err := c.db.ReleaseByID(t.Context(), id)
	must(t, err)
	if r.Final || r.Status != model.StatusSuccess || !strings.Contains(r.BuildLog, "Build finished in") {
		t.Errorf("draft release: final %v, status %s, log %q", r.Final, r.Status, r.BuildLog)
	}
	fleet, err := c.db.FleetByID(t.Context(), c.fleet.ID)
	must(t, err)
	if fleet.TargetRelease == id {
		t.Error("a draft became the fleet's target")
	}
}

func TestALeavingClientCancelsItsBuild(t *testing.T) {
	c := startCloud(t)
	c.engine.Busybox(t, "busybox:test")
	dir := project(t, map[string]string{"Dockerfile": "FROM busybox:test\nRUN sleep 300\n"})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var release int64
	_, err := c.owner.Build(ctx, client.BuildRequest{Slug: c.fleet.Slug, Source: dir}, func(e event.Event) {
		if e.Type == event.ReleaseCreated {
			release = e.ReleaseID
		}
		if e.Type == event.Step && e.N == 2 {
			cancel()
		}
	})
	if err == nil {
		t.Fatal("the build ended by itself")
	}
	eventually(t, "the release to be cancelled", func() error {
		r, err := c.db.ReleaseByID(context.Background(), release)
		if err == nil && r.Status != model.StatusCancelled {
			err = errors.New("status " + r.Status)
		}
		return err
	})
	eventually(t, "the step's container to go", func() error {
		list, err := c.engine.Client.ContainerList(context.Background(), container.ListOptions{All: true})
		if err == nil && len(list) > 0 {
			err = errors.New("still there: " + list[0].Command)
		}
		return err
	})
}

func TestStagesReadyImagesAndFailingCommands(t *testing.T) {
	c := startCloud(t)
	c.engine.Busybox(t, "busybox:test")
	dir := project(t, map[string]string{
		"docker-compose.yml": "services:\n  staged: {build: staged}\n  broken: {build: broken}\n  args: {build: {context: args, args: {WHO: world}}}\n",
		"staged/Dockerfile":  "FROM busybox:test AS make\nCOPY in /in\nRUN cat /in /in > /out\nFROM scratch\nCOPY --from=make /out /out\n",
		"staged/in":          "x",
		"broken/Dockerfile":  "FROM busybox:test\nRUN echo fine && echo bad >&2 && exit 7\n",
		"args/Dockerfile.template": "FROM busybox:test\nARG WHO\nARG TARGETARCH\nRUN echo hello $WHO on $TARGETARCH, " +
			"%%BALENA_MACHINE_NAME%% %%BALENA_ARCH%% %%BALENA_SERVICE_NAME%%\n",
	})
	_, events, first := c.push(t, dir)
	if s := first["broken"]; s.Status != event.StatusFailed || s.ExitCode != 7 {
		t.Errorf("the failing command: %+v", s)
	}
	said := map[string]bool{}
	for _, e := range events {
		if e.Type == event.Log {
			said[e.Service+" "+e.Stream+" "+e.Text] = true
		}
		if e.Type == event.Error && e.Service == "broken" && !slices.Contains(e.Tail, "bad") {
			t.Errorf("the error does not show the end of the log: %q", e.Tail)
		}
	}
	for _, want := range []string{"broken out fine", "broken err bad", "args out hello world on amd64, generic-amd64 amd64 args"} {
		if !said[want] {
			t.Errorf("no line %q in %s", want, dump(events))
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, "broken/Dockerfile"), []byte("FROM busybox:test\nRUN true\n"), 0o644))
	_, _, good := c.push(t, dir)
	_, events, again := c.push(t, dir)
	for name, s := range again {
		if s.ContentHash == "" || s.ContentHash != good[name].ContentHash || s.CachedSteps < s.Steps-2 { // FROM is no step to cache
			t.Errorf("%s: %s after %s, %d of %d steps from the cache\n%s", name, s.ContentHash, good[name].ContentHash, s.CachedSteps, s.Steps, dump(events))
		}
	}

	// A ready image from another release of this registry, by digest; the engine has to
	// know its credentials, which come with the project.
	secrets, err := json.Marshal(map[string]map[string]string{
		strings.TrimPrefix(c.url, "http://"): {"username": "admin", "password": c.token},
	})
	must(t, err)
	ready := project(t, map[string]string{
		"docker-compose.yml":            "services:\n  ready: {image: '" + good["args"].Location + "@" + good["args"].ContentHash + "'}\n",
		".balena/registry-secrets.json": string(secrets),
	})
	result, events, services := c.push(t, ready)
	if result.Status != event.StatusSuccess || services["ready"].ContentHash != good["args"].ContentHash {
		t.Errorf("a ready image: %s", dump(events))
	}
	c.checkNothingLeft(t)
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited for %s: %v", what, err)
		}
	}
}

// mayPull is the engine's authorization for one repository.
func (c *cloud) mayPull(t *testing.T, location string) string {
	t.Helper()
	token, err := c.keys.SignRegistryToken("device", []auth.Access{
		{Type: "repository", Name: model.Repository(location), Actions: []string{"pull"}},
	})
	must(t, err)
	data, err := json.Marshal(map[string]string{"registrytoken": token})
	must(t, err)
	return base64.URLEncoding.EncodeToString(data)
}

func (c *cloud) checkRows(t *testing.T, release int64) {
	t.Helper()
	r, err := c.db.ReleaseByID(t.Context(), release)
	must(t, err)
	if r.Status != model.StatusSuccess || !r.Final || len(r.Commit) != 32 {
		t.Errorf("release row: %+v", r)
	}
	var doc struct {
		Services map[string]struct {
			DependsOn json.RawMessage `json:"depends_on"`
			Ports     []string
			Volumes   []string
		}
	}
	must(t, json.Unmarshal(r.Composition, &doc))
	if got := string(doc.Services["front"].DependsOn); got != `{"back":{"condition":"service_healthy"}}` {
		t.Errorf("depends_on is stored as %s", got)
	}
	if diff := cmp.Diff([]string{"data:/data"}, doc.Services["back"].Volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"80:8080"}, doc.Services["front"].Ports); diff != "" {
		t.Errorf("ports (-want +got):\n%s", diff)
	}
}

// checkNothingLeft looks for containers and names that a build should have taken away.
func (c *cloud) checkNothingLeft(t *testing.T) {
	t.Helper()
	containers, err := c.engine.Client.ContainerList(t.Context(), container.ListOptions{All: true})
	must(t, err)
	if len(containers) > 0 {
		t.Errorf("%d containers are left", len(containers))
	}
	images, err := c.engine.Client.ImageList(t.Context(), image.ListOptions{})
	must(t, err)
	for _, img := range images {
		if i := slices.IndexFunc(img.RepoTags, func(tag string) bool { return strings.Contains(tag, "/v2/") }); i >= 0 {
			t.Errorf("the name %s is left", img.RepoTags[i])
		}
	}
}

// wipe takes every image off the engine.
func (c *cloud) wipe(t *testing.T) {
	t.Helper()
	eventually(t, "the engine to be empty", func() error {
		images, err := c.engine.Client.ImageList(context.Background(), image.ListOptions{All: true})
		for _, img := range images {
			_, err = c.engine.Client.ImageRemove(context.Background(), img.ID, image.RemoveOptions{Force: true, PruneChildren: true})
		}
		if err == nil && len(images) > 0 {
			err = errors.New("images are left")
		}
		return err
	})
}

func dump(events []event.Event) string {
	var out strings.Builder
	for _, e := range events {
		data, err := json.Marshal(e)
		if err == nil {
			out.Write(append(data, '\n'))
		}
	}
	return out.String()
}
