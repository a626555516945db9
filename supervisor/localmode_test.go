package supervisor

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/config"
	"deckhand/engine/enginetest"
	"deckhand/report"
	"deckhand/state"
)

func TestWhatLocalModeMakesOfATarget(t *testing.T) {
	app := func(uuid string, id int64, class string) state.App {
		return state.App{UUID: uuid, ID: id, Name: uuid, Class: class}
	}
	cloud := state.Target{Name: "kitchen", Config: map[string]string{"BALENA_SUPERVISOR_LOCAL_MODE": "1", "X": "cloud"}, Apps: map[string]state.App{
		"fleet": app("fleet", 7, "fleet"), "block": app("block", 8, "block"), "host": {UUID: "host", ID: 9, Class: "fleet", Host: true},
	}}
	pushed := &state.Target{Name: "bench", Config: map[string]string{"SUPERVISOR_LOCAL_MODE": "0", "X": "local"}, Apps: map[string]state.App{"1": app("1", 1, "fleet")}}
	for name, c := range map[string]struct {
		mode      mode
		name, x   string
		apps      []string
		localMode string // the variable
	}{
		"nothing pushed":                     {mode{}, "kitchen", "cloud", []string{"block", "host"}, "1"},
		"pushed, the cloud's words younger":  {mode{pushed: pushed}, "kitchen", "cloud", []string{"1", "block", "host"}, "1"},
		"pushed last":                        {mode{pushed: pushed, config: true}, "bench", "local", []string{"1", "block", "host"}, "1"},
		"without a cloud":                    {mode{unmanaged: true}, "kitchen", "cloud", []string{"block", "fleet", "host"}, "1"},
		"without a cloud, something pushed":  {mode{unmanaged: true, pushed: pushed, config: true}, "bench", "local", []string{"1", "block", "host"}, "0"},
		"the number of another app is taken": {mode{pushed: &state.Target{Apps: map[string]state.App{"8": app("8", 8, "fleet")}}}, "kitchen", "cloud", []string{"block", "host"}, "1"},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.mode.shape(cloud)
			s, _ := config.ReadSettings(got.Config)
			if got.Name != c.name || got.Config["X"] != c.x || s.LocalMode != (c.localMode == "1") || !got.Local {
				t.Errorf("name %s, config %v, local %v", got.Name, got.Config, got.Local)
			}
			if diff := cmp.Diff(c.apps, slices.Sorted(maps.Keys(got.Apps))); diff != "" {
				t.Errorf("apps (-want +got):\n%s", diff)
			}
		})
	}
}

// Clients get the configuration, change the apps, and send all of it back: that
// must change nothing about the device.
func TestConfigurationThatIsSentBackChangesNothing(t *testing.T) {
	for _, in := range []map[string]string{
		nil,
		{"BALENA_SUPERVISOR_LOCAL_MODE": "true", "RESIN_SUPERVISOR_POLL_INTERVAL": "60000", "BALENA_HOST_CONFIG_gpu_mem": "16", "RESIN_HOST_CONFIG_gpu_mem": "32", "HOST_DISCOVERABILITY": "0"},
		{"RESIN_OVERRIDE_LOCK": "1", "SUPERVISOR_VPN_CONTROL": "nonsense", "OTHER": ""},
	} {
		before, _ := config.ReadSettings(in)
		out := plainConfig(in, before)
		after, problems := config.ReadSettings(out)
		if len(problems) > 0 || before != after {
			t.Errorf("%v: %+v became %+v (%v)", in, before, after, problems)
		}
		if diff := cmp.Diff(out, plainConfig(out, after)); diff != "" {
			t.Errorf("%v: another round changes it (-first +second):\n%s", in, diff)
		}
		if v := in["BALENA_HOST_CONFIG_gpu_mem"]; out["HOST_CONFIG_gpu_mem"] != v {
			t.Errorf("%v: %v", in, out)
		}
	}
}

const (
	benchUUID = "0123456789abcdef0123456789abcdef"
	fleetRef  = "registry.test/v2/fleet@sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	fleetApp  = "fleetfleetfleetfleetfleetfleet00"
	imageA    = "sha256:1aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	imageB    = "sha256:1bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// bench is a device whose cloud and engine are in the test.
type bench struct {
	*testing.T
	dir    string
	values map[string]any
	fake   *enginetest.Fake
	engine *httptest.Server
	pulls  map[string]int
	mu     *sync.Mutex

	s    *Supervisor
	api  *httptest.Server
	stop func()
}

func newBench(t *testing.T, values map[string]any) *bench {
	t.Helper()
	b := &bench{T: t, dir: t.TempDir(), values: values, pulls: map[string]int{}, mu: &sync.Mutex{}}
	b.fake = enginetest.NewFake(enginetest.Config{Pull: func(ref string) enginetest.Pull {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.pulls[ref]++
		return enginetest.Pull{Missing: strings.HasPrefix(ref, "local_")}
	}})
	b.engine = httptest.NewServer(b.fake)
	t.Cleanup(func() { b.end(); b.fake.Close(); b.engine.Close() })
	b.start()
	return b
}

// start is a start of the supervisor, without a network to the cloud.
func (b *bench) start() {
	b.Helper()
	raw, err := json.Marshal(b.values)
	if err == nil {
		err = os.WriteFile(filepath.Join(b.dir, "config.json"), raw, 0o600)
	}
	if err != nil {
		b.Fatal(err)
	}
	s, err := open(Config{
		ConfigFile: filepath.Join(b.dir, "config.json"), Engine: "tcp://" + strings.TrimPrefix(b.engine.URL, "http://"),
		DataDir: b.dir, Log: zerolog.Nop(),
	})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	s.loadConfig()
	s.local.load(ctx)
	s.restore(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.runner.Run(ctx) })
	wg.Go(func() { s.local.run(ctx) })
	b.s, b.api = s, httptest.NewServer(s.api(false))
	b.stop = func() { cancel(); b.api.Close(); wg.Wait(); s.close() }
}

func (b *bench) end() {
	if b.stop != nil {
		b.stop()
		b.stop = nil
	}
}

func (b *bench) restart() { b.Helper(); b.end(); b.start() }

// cloud asks for the fleet's app, with or without local mode.
func (b *bench) cloud(localMode string) {
	b.Helper()
	doc := fmt.Sprintf(`{%q:{"name":"kitchen","config":{"RESIN_SUPERVISOR_LOCAL_MODE":%q},"apps":{%q:{"id":1000,"name":"fleet","class":"fleet","releases":{
		"fleetcommit":{"id":5,"services":{"main":{"id":1,"image_id":2,"image":%q,"environment":{},"labels":{},"composition":{"volumes":["data:/data"]}}},"volumes":{"data":{}}}}}}}}`,
		benchUUID, localMode, fleetApp, fleetRef)
	if err := b.s.accept(b.Context(), []byte(doc), ""); err != nil {
		b.Fatal(err)
	}
}

// pushes is the document that a client sends: the same each time.
const pushes = `{"local":{"name":"kitchen","config":{},"apps":{"1":{"name":"localapp","commit":"10ca12e1ea5e","releaseId":"1",
	"services":{"1":{"environment":{},"labels":{},"imageId":1,"serviceName":"web","serviceId":1,"image":"local_image_web:latest","running":true,"volumes":["scratch:/data"]}},
	"volumes":{"scratch":{}},"networks":{}}}}}`

func (b *bench) push(doc string) (int, string) {
	b.Helper()
	return b.call("POST", "/v2/local/target-state", doc)
}

func (b *bench) call(method, path, body string) (int, string) {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, b.api.URL+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return res.StatusCode, string(got)
}

// until waits for the running containers, SERVICE image, sorted.
func (b *bench) until(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within 20 s; on the engine is %v", what, b.running())
		}
		select {
		case <-b.s.runner.Changed():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (b *bench) running() []string {
	out := []string{}
	for _, c := range b.fake.Boxes() {
		if c.Status == "running" {
			out = append(out, c.Labels[state.LabelServiceName]+" "+c.Image)
		}
	}
	return out
}

func (b *bench) runs(what string, want ...string) {
	b.Helper()
	b.until(what, func() bool { st := b.s.runner.Status(); return st.Settled && slices.Equal(b.running(), want) })
}

// objects are the names of volumes and the IDs of images on the engine.
func (b *bench) objects() (volumes, images []string) {
	b.Helper()
	shot, err := b.s.engine.Snapshot(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return shot.Volumes, shot.Images
}

func managed() map[string]any {
	return map[string]any{"uuid": benchUUID, "apiEndpoint": "http://127.0.0.1:1", "deviceApiKey": "k", "deviceId": 1, "registered_at": 1}
}

func TestLocalModeThereAndBack(t *testing.T) {
	b := newBench(t, managed())
	b.cloud("0")
	b.until("the fleet's app", func() bool { return len(b.running()) == 1 && b.s.runner.Status().Settled })
	fleet := b.running()[0]
	_, fleetImages := b.objects()
	if code, body := b.push(pushes); code != 401 || body != "Unauthorized" {
		t.Errorf("pushed without local mode and key: %d %s", code, body)
	}
	code, body := b.call("POST", "/v2/local/target-state?apikey="+b.s.globalKey(), pushes)
	if code != 400 || !strings.Contains(body, "Target state can only set when device is in local mode") {
		t.Errorf("pushed without local mode: %d %s", code, body)
	}

	b.cloud("1")
	b.runs("the fleet's app gives way")
	if r := report.Build(b.s.inCloudsEyes(b.s.reportInput())); r.Device.Apps != nil {
		t.Errorf("the cloud is told about apps: %v", r.Device.Apps)
	}
	b.fake.Load(imageA, 100, "local_image_web:latest")
	if code, body := b.push(pushes); code != 200 || body != `{"status":"success","message":"OK"}`+"\n" {
		t.Fatalf("push: %d %s", code, body)
	}
	b.runs("the pushed app", "web "+imageA)

	// Clients send what is equal to the letter each time.
	b.fake.Load(imageB, 100, "local_image_web:latest")
	if code, _ := b.push(pushes); code != 200 {
		t.Fatalf("push: %d", code)
	}
	b.runs("the same push with another image", "web "+imageB)
	made := b.fake.Boxes()[0].ID
	b.restart()
	b.runs("after a restart", "web "+imageB)
	if b.fake.Boxes()[0].ID != made {
		t.Error("the restart of the supervisor made a new container")
	}
	if volumes, images := b.objects(); !slices.Contains(volumes, "1_scratch") || !slices.Contains(images, fleetImages[0]) || !slices.Contains(images, imageA) {
		t.Errorf("volumes %v, images %v: what nothing uses stays in local mode", volumes, images)
	}

	b.cloud("0")
	b.runs("the fleet's app is back", fleet)
	b.until("the snapshot is dropped", func() bool { shot, err := b.s.store.Local.Snapshot(); return shot == nil && err == nil })
	volumes, images := b.objects()
	if diff := cmp.Diff([]string{"1000_data"}, volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(fleetImages, images); diff != "" {
		t.Errorf("images (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{fleetRef: 1}, b.pulls); diff != "" {
		t.Errorf("downloads (-want +got):\n%s", diff)
	}
	if code, _ := b.push(pushes); code != 401 {
		t.Errorf("the API is still open: %d", code)
	}
	if pushed, err := b.s.store.Local.Pushed(); pushed != nil || err != nil {
		t.Errorf("the pushed target is still there: %v %v", pushed, err)
	}
	if r := report.Build(b.s.inCloudsEyes(b.s.reportInput())); len(r.Device.Apps) != 1 {
		t.Errorf("the cloud is told: %v", r.Device.Apps)
	}
}

// Small clouds count their apps from 1, as clients of local mode do.
func TestPushedAppsHaveVolumesOfTheirOwn(t *testing.T) {
	b := newBench(t, managed())
	b.cloud("0")
	b.until("the fleet's app", func() bool { return len(b.running()) == 1 && b.s.runner.Status().Settled })
	b.cloud("1")
	b.runs("the fleet's app gives way")
	b.fake.Load(imageA, 100, "local_image_web:latest")
	same := strings.ReplaceAll(strings.Replace(pushes, `"1":{"name"`, `"1000":{"name"`, 1), "scratch", "data")
	for range 2 {
		if code, body := b.push(same); code != 200 {
			t.Fatalf("push: %d %s", code, body)
		}
		b.runs("the pushed app", "web "+imageA)
		b.restart()
	}
	volumes, _ := b.objects()
	if diff := cmp.Diff([]string{"1000001000_data", "1000_data"}, volumes); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
}

// The cloud ends local mode and the device ends before it could clear up.
func TestLocalModeIsLeftAfterACrash(t *testing.T) {
	b := newBench(t, managed())
	b.cloud("1")
	b.until("the snapshot", func() bool { shot, _ := b.s.store.Local.Snapshot(); return shot != nil })
	b.fake.Load(imageA, 100, "local_image_web:latest")
	if code, body := b.push(pushes); code != 200 {
		t.Fatalf("push: %d %s", code, body)
	}
	b.runs("the pushed app", "web "+imageA)
	// As a crash between the two writes leaves it: the cloud's word is stored,
	// and nothing was done.
	last, _, err := b.s.store.Targets.Last()
	if err != nil {
		t.Fatal(err)
	}
	last.Document = []byte(strings.Replace(string(last.Document), `"RESIN_SUPERVISOR_LOCAL_MODE":"1"`, `"RESIN_SUPERVISOR_LOCAL_MODE":"0"`, 1))
	if err := b.s.store.Targets.Put(last); err != nil {
		t.Fatal(err)
	}
	b.restart()
	b.until("the fleet's app", func() bool { return len(b.running()) == 1 && strings.HasPrefix(b.running()[0], "main ") })
	b.until("the snapshot is dropped", func() bool { shot, err := b.s.store.Local.Snapshot(); return shot == nil && err == nil })
	if volumes, images := b.objects(); slices.Contains(volumes, "1_scratch") || slices.Contains(images, imageA) {
		t.Errorf("volumes %v, images %v", volumes, images)
	}
}

func TestDeviceWithoutACloudIsInLocalMode(t *testing.T) {
	b := newBench(t, map[string]any{})
	b.until("the snapshot", func() bool { shot, _ := b.s.store.Local.Snapshot(); return shot != nil })
	if code, body := b.push(pushes); code != 200 {
		t.Fatalf("push: %d %s", code, body)
	}
	b.until("the missing image is named", func() bool {
		for _, w := range b.s.runner.Status().Plan.Waiting {
			if strings.Contains(w.Text, "push to the device again") {
				return true
			}
		}
		return false
	})
	b.fake.Load(imageA, 100, "local_image_web:latest")
	if code, body := b.push(pushes); code != 200 {
		t.Fatalf("push: %d %s", code, body)
	}
	b.runs("the pushed app", "web "+imageA)
	b.restart()
	b.runs("after a restart", "web "+imageA)
	if len(b.pulls) != 0 {
		t.Errorf("asked for elsewhere: %v", b.pulls)
	}
	code, body := b.call("GET", "/v2/local/target-state", "")
	var got struct {
		Status string
		State  struct {
			Local struct {
				Name   string
				Config map[string]string
				Apps   map[string]any
			}
		}
	}
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 || got.Status != "success" {
		t.Fatalf("%d %s (%v)", code, body, err)
	}
	if got.State.Local.Name != "kitchen" || got.State.Local.Config["SUPERVISOR_LOCAL_MODE"] != "true" || got.State.Local.Apps["1"] == nil {
		t.Errorf("target state: %s", body)
	}
	if code, body := b.call("GET", "/v2/local/device-info", ""); code != 200 || !strings.Contains(body, `"info":{"arch":"`) {
		t.Errorf("device info: %d %s", code, body)
	}
}

func TestRefusedPushesChangeNothing(t *testing.T) {
	b := newBench(t, map[string]any{})
	b.until("the snapshot", func() bool { shot, _ := b.s.store.Local.Snapshot(); return shot != nil })
	b.fake.Load(imageA, 100, "local_image_web:latest")
	if code, body := b.push(pushes); code != 200 {
		t.Fatalf("push: %d %s", code, body)
	}
	b.runs("the pushed app", "web "+imageA)
	for name, doc := range map[string]string{
		"empty":           "",
		"no object":       "[]",
		"cut":             pushes[:100],
		"no local":        `{}`,
		"bad name":        strings.Replace(pushes, `"serviceName":"web"`, `"serviceName":"web/x"`, 1),
		"bad number":      strings.Replace(pushes, `"releaseId":"1"`, `"releaseId":"one"`, 1),
		"bad composition": strings.Replace(pushes, `"running":true`, `"running":true,"network_mode":"service:nobody"`, 1),
	} {
		code, body := b.push(doc)
		var answer struct{ Status, Message string }
		if err := json.Unmarshal([]byte(body), &answer); err != nil || code != 400 || answer.Status != "failed" || answer.Message == "" {
			t.Errorf("%s: %d %s", name, code, body)
		}
	}
	b.restart()
	b.runs("the last good one", "web "+imageA)
}
