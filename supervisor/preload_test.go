package supervisor

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rs/zerolog"

	"deckhand/engine/enginetest"
	"deckhand/uplink"
)

const (
	oldImage = "registry.test/old/web:1"
	oldApps  = `{"config":{},"pinDevice":true,"apps":{"7":{"name":"shop","commit":"c1","releaseId":8,"networks":{},"volumes":{},
		"services":{"9":{"serviceName":"web","imageId":10,"image":"` + oldImage + `","environment":{},"labels":{}}}}}}`
)

// fresh is a device that never had a target, with a file of the second form, which
// names apps by numbers, and their images.
type fresh struct {
	*Supervisor
	t    *testing.T
	file string
}

func newFresh(t *testing.T, images ...string) fresh {
	t.Helper()
	fake := enginetest.NewFake(enginetest.Config{})
	engine := httptest.NewServer(fake)
	t.Cleanup(func() { fake.Close(); engine.Close() })
	for _, ref := range images {
		fake.Load("sha256:"+strings.Repeat("1", 64), 1000, ref)
	}
	dir := t.TempDir()
	f := fresh{t: t, file: filepath.Join(dir, "apps.json")}
	config := filepath.Join(dir, "config.json")
	for path, text := range map[string]string{
		f.file: oldApps,
		config: fmt.Sprintf(`{"uuid":%q,"apiEndpoint":"http://127.0.0.1:1","deviceApiKey":"k","deviceId":1,"registered_at":1}`, benchUUID),
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	f.Supervisor, err = open(Config{
		ConfigFile: config, Engine: "tcp://" + strings.TrimPrefix(engine.URL, "http://"),
		DataDir: dir, HostRoot: dir, AppsFile: f.file, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	f.loadConfig()
	return f
}

// asks has the cloud explain the file; it gives the questions that the cloud was asked.
func (f fresh) asks(answer string) (questions []string) {
	f.t.Helper()
	cloud := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		questions = append(questions, r.URL.Path+" "+r.URL.Query().Get("$filter"))
		if answer == "" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, answer)
	}))
	defer cloud.Close()
	client, err := uplink.New(uplink.Config{Endpoint: cloud.URL, UUID: benchUUID, UserAgent: "Supervisor/1", Key: func() string { return "k" }})
	if err != nil {
		f.t.Fatal(err)
	}
	f.preloadOld(f.t.Context(), client)
	return questions
}

// unused checks that nothing came of the file, and that it is there for another try.
func (f fresh) unused() {
	f.t.Helper()
	if apps := f.device.target().Apps; len(apps) != 0 {
		f.t.Errorf("in force is %+v", apps)
	}
	if left, err := os.ReadFile(f.file); err != nil || string(left) != oldApps {
		f.t.Errorf("the file is not as it was: %s, %v", left, err)
	}
	if pin, pinned, err := f.store.Pins.Wanted(); err != nil || pinned {
		f.t.Errorf("the device is pinned: %+v, %v", pin, err)
	}
}

// A file that names apps by numbers waits until the cloud says which apps they are;
// then the device runs it, once.
func TestAnOldPreloadWaitsForTheCloud(t *testing.T) {
	f := newFresh(t, oldImage)
	f.preload(t.Context())
	f.unused()
	for _, answer := range []string{"", `{"d":[]}`} { // the cloud has trouble; it does not know the fleet
		if asked := f.asks(answer); len(asked) == 0 || asked[0] != "/v7/application id eq 7" {
			t.Fatalf("the cloud was asked %q", asked)
		}
		f.unused()
	}

	f.asks(fmt.Sprintf(`{"d":[{"uuid":%q}]}`, fleetApp))
	app := f.device.target().Apps[fleetApp]
	if app.ID != 7 || app.Name != "shop" || app.Commit != "c1" || app.Services["web"].Image != oldImage {
		t.Errorf("in force is %+v", f.device.target().Apps)
	}
	if left, err := os.ReadFile(f.file); err != nil || strings.TrimSpace(string(left)) != "{}" {
		t.Errorf("it would be read again: %s, %v", left, err)
	}
	if kept, err := os.ReadFile(f.file + ".preloaded"); err != nil || string(kept) != oldApps {
		t.Errorf("it is not kept: %s, %v", kept, err)
	}
	if pin, pinned, err := f.store.Pins.Wanted(); err != nil || !pinned || pin.Fleet != 7 || pin.Commit != "c1" {
		t.Errorf("the wish to stay on the release: %+v, %v", pin, err)
	}
	if len(f.device.images) == 0 {
		t.Error("the image is not ours: it would not go with its release")
	}
}

// Without its image a release does not run before the device has a network: the cloud's
// target is better than half of it.
func TestAnOldPreloadWithoutItsImages(t *testing.T) {
	f := newFresh(t)
	f.preload(t.Context())
	f.asks(fmt.Sprintf(`{"d":[{"uuid":%q}]}`, fleetApp))
	if apps := f.device.target().Apps; len(apps) != 0 {
		t.Errorf("in force is %+v", apps)
	}
}

// A device that has had a target of its own does not go back to what came with it.
func TestAnOldPreloadBehindATarget(t *testing.T) {
	f := newFresh(t, oldImage)
	f.preload(t.Context())
	doc := fmt.Sprintf(`{%q:{"name":"desk","config":{},"apps":{}}}`, benchUUID)
	if err := f.accept(t.Context(), []byte(doc), ""); err != nil {
		t.Fatal(err)
	}
	if asked := f.asks(fmt.Sprintf(`{"d":[{"uuid":%q}]}`, fleetApp)); len(asked) != 0 {
		t.Errorf("the cloud was asked %q", asked)
	}
	f.unused()
}
