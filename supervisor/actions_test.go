package supervisor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/engine/enginetest"
	"deckhand/localapi"
	"deckhand/locks"
	"deckhand/report"
	"deckhand/state"
	"deckhand/uplink"
)

// mainsCounter is a device that notes how it is asked to go down.
type mainsCounter struct {
	mu     sync.Mutex
	trial  bool
	fails  error
	asked  []string
	called chan struct{}
}

func (m *mainsCounter) OnTrial() bool { return m.trial }

func (m *mainsCounter) ForceReboot(context.Context) error { return m.call("reboot") }
func (m *mainsCounter) PowerOff(context.Context) error    { return m.call("power off") }

func (m *mainsCounter) call(what string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, what)
	m.called <- struct{}{}
	return m.fails
}

// desk is a supervised device with an app of two services, and its API.
type desk struct {
	*testing.T
	dir    string
	fake   *enginetest.Fake
	engine string
	s      *Supervisor
	mains  *mainsCounter
	api    *httptest.Server
	hold   func(route string) error // before a call of the engine has its effect
	mu     sync.Mutex
}

const deskDoc = `{%q:{"name":"desk","config":{},"apps":{%q:{"id":1000,"name":"shop","class":"fleet","releases":{
	%q:{"id":5,"services":{
		"web":{"id":1,"image_id":21,"image":%q,"environment":{},"labels":{"io.balena.features.supervisor-api":"1"},"composition":{"volumes":["data:/data"]}},
		"job":{"id":2,"image_id":22,"image":%q,"environment":{},"labels":{},"composition":{}}},"volumes":{"data":{}}}}}}}}`

func newDesk(t *testing.T) *desk {
	t.Helper()
	b := &desk{T: t, dir: t.TempDir(), mains: &mainsCounter{called: make(chan struct{}, 10)}, hold: func(string) error { return nil }}
	b.fake = enginetest.NewFake(enginetest.Config{Before: func(_ context.Context, c enginetest.Call) error {
		b.mu.Lock()
		hold := b.hold
		b.mu.Unlock()
		return hold(c.Route)
	}})
	engine := httptest.NewServer(b.fake)
	raw := fmt.Sprintf(`{"uuid":%q,"apiEndpoint":"http://127.0.0.1:1","deviceApiKey":"k","deviceId":1,"registered_at":1}`, benchUUID)
	if err := os.WriteFile(filepath.Join(b.dir, "config.json"), []byte(raw), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := open(Config{
		ConfigFile: filepath.Join(b.dir, "config.json"), Engine: "tcp://" + strings.TrimPrefix(engine.URL, "http://"),
		DataDir: b.dir, RunDir: filepath.Join(b.dir, "run"), HostRoot: b.dir, Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.mains, s.power.wait, s.actions.patience = b.mains, time.Millisecond, 200*time.Millisecond
	s.device.Locks = locks.Open(locks.Config{RunDir: s.cfg.RunDir, UID: os.Geteuid(), Log: zerolog.Nop()})
	ctx, cancel := context.WithCancel(context.Background())
	s.loadConfig()
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.runner.Run(ctx) })
	wg.Go(func() { s.housekeeping(ctx) })
	b.engine = engine.URL
	b.s, b.api = s, httptest.NewServer(s.api(false))
	t.Cleanup(func() {
		b.api.Close()
		cancel()
		wg.Wait()
		s.power.running.Wait()
		s.close()
		b.fake.Close()
		engine.Close()
	})
	b.release("c1")
	return b
}

func (b *desk) holding(hold func(route string) error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hold = hold
}

// release brings a release with other images, and waits for it.
func (b *desk) release(commit string) {
	b.Helper()
	b.accept(commit)
	b.until("release "+commit, func() bool {
		st := b.s.runner.Status()
		return st.Settled && st.World.Apps[fleetApp].Commit == commit
	})
}

func (b *desk) accept(commit string) {
	b.Helper()
	image := func(name string) string {
		return "registry.test/v2/" + name + "@sha256:" + strings.Repeat(fmt.Sprintf("%x", commit), 16)[:64]
	}
	doc := fmt.Sprintf(deskDoc, benchUUID, fleetApp, commit, image("web"), image("job"))
	if err := b.s.accept(b.Context(), []byte(doc), ""); err != nil {
		b.Fatal(err)
	}
}

func (b *desk) until(what string, ok func() bool) {
	b.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			b.Fatalf("%s: not within 20 s; on the engine is %v, the plan is\n%s", what, b.boxes(), b.s.runner.Status().Plan)
		}
		select {
		case <-b.s.runner.Changed():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// boxes are the containers, by service.
func (b *desk) boxes() map[string]enginetest.Box {
	out := map[string]enginetest.Box{}
	for _, c := range b.fake.Boxes() {
		out[c.Labels[state.LabelServiceName]] = c
	}
	return out
}

func (b *desk) call(ctx context.Context, path, body string, key ...string) (int, string) {
	b.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, b.api.URL+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+append(key, b.s.globalKey())[0])
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(got))
}

// post expects an answer.
func (b *desk) post(path, body string, code int, text string) {
	b.Helper()
	if got, answer := b.call(b.Context(), path, body); got != code || !strings.Contains(answer, text) {
		b.Errorf("%s %s: %d %s, want %d %s", path, body, got, answer, code, text)
	}
}

// lock is a program in a container that holds an update lock.
func (b *desk) lock(service string) (release func()) {
	b.Helper()
	dir := filepath.Join(b.s.cfg.RunDir, "services", "1000", service)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.Fatal(err)
	}
	path := filepath.Join(dir, "updates.lock")
	if err := os.Symlink("anywhere", path); err != nil {
		b.Fatal(err)
	}
	return func() { _ = os.Remove(path) }
}

func (b *desk) intents() []string {
	b.Helper()
	all, err := b.s.store.Intents.All()
	if err != nil {
		b.Fatal(err)
	}
	out := []string{}
	for _, i := range all {
		out = append(out, strings.TrimSpace(string(i.Kind)+" "+strings.Join(i.Services, ",")))
	}
	return out
}

// The answer to an action comes when it is done.
func TestActionsAreDoneWhenTheyAreAnswered(t *testing.T) {
	b := newDesk(t)
	const v2 = "/v2/applications/1000/"
	first := b.boxes()

	b.post(v2+"restart-service", `{"serviceName":"web"}`, 200, "OK")
	if now := b.boxes(); now["web"].ID == first["web"].ID || now["web"].Status != "running" || now["job"].ID != first["job"].ID {
		t.Errorf("restart-service: %v", now)
	}
	first = b.boxes()
	b.post("/v1/restart", `{"appId":1000}`, 200, "OK")
	if now := b.boxes(); now["web"].ID == first["web"].ID || now["job"].ID == first["job"].ID {
		t.Errorf("restart: %v", now)
	}
	b.post(v2+"stop-service", `{"imageId":22}`, 200, "OK")
	if now := b.boxes(); now["job"].Status != "exited" || now["web"].Status != "running" {
		t.Errorf("stop: %v", now)
	}
	b.post(v2+"stop-service", `{"serviceName":"job"}`, 200, "OK") // it is stopped
	b.post(v2+"start-service", `{"serviceName":"job"}`, 200, "OK")
	if now := b.boxes(); now["job"].Status != "running" {
		t.Errorf("start: %v", now)
	}
	b.post(v2+"start-service", `{"serviceName":"job"}`, 200, "OK") // it runs

	first = b.boxes()
	b.post("/v1/purge", `{"appId":1000}`, 200, `{"Data":"OK","Error":""}`)
	if now := b.boxes(); now["web"].ID == first["web"].ID || now["web"].Status != "running" || now["job"].ID != first["job"].ID {
		t.Errorf("purge: %v", now)
	}
	b.post("/v1/restart", `{"appId":7}`, 503, "Application with ID 7 is not in the current state")
	if left := b.intents(); len(left) != 0 {
		t.Errorf("left to do: %v", left)
	}
}

// Who asks while a lock is held is told whose, nothing is written down, and force
// breaks the lock for that action alone.
func TestLocksStopActions(t *testing.T) {
	b := newDesk(t)
	release := b.lock("job")
	first := b.boxes()
	const v2 = "/v2/applications/1000/"
	const held = "Lockfile exists for { appId: 1000, service: job }"
	b.post("/v1/restart", `{"appId":1000}`, 423, held)
	b.post("/v1/purge", `{"appId":1000}`, 423, held)
	b.post(v2+"restart-service", `{"serviceName":"web"}`, 423, held)
	b.post(v2+"stop-service", `{"serviceName":"web","force":"no"}`, 423, held)
	b.post("/v1/reboot", "", 423, `{"Data":"","Error":"`+held+`"}`)
	if now := b.boxes(); now["web"].ID != first["web"].ID || now["web"].Status != "running" || len(b.intents()) != 0 {
		t.Errorf("something was done: %v, %v", now, b.intents())
	}
	b.post(v2+"start-service", `{"serviceName":"web"}`, 200, "OK")
	b.post(v2+"restart-service", `{"serviceName":"web","force":true}`, 200, "OK")
	if now := b.boxes(); now["web"].ID == first["web"].ID {
		t.Error("force did not help")
	}
	if left := b.s.device.permissions(); len(left) != 0 {
		t.Errorf("locks may be broken on: %v", left)
	}
	release()
	release = b.lock("job")
	defer release()
	b.post(v2+"restart-service", `{"serviceName":"web"}`, 423, held)
}

// A lock that is taken while the action waits for something else refuses it, too.
func TestALockThatComesLaterTakesTheActionBack(t *testing.T) {
	b := newDesk(t)
	first := b.boxes()["web"].ID
	var once sync.Once
	release := func() {}
	b.holding(func(route string) error {
		if route == "POST /containers/create" { // the new container is made before locks are taken
			once.Do(func() { release = b.lock("web") })
		}
		return nil
	})
	b.post("/v2/applications/1000/restart-service", `{"serviceName":"web"}`, 423, "Lockfile exists for { appId: 1000, service: web }")
	if left := b.intents(); len(left) != 0 {
		t.Errorf("left to do: %v", left)
	}
	release()
	b.until("all is as before", func() bool { return b.s.runner.Status().Settled })
	if now := b.boxes()["web"]; now.ID != first || now.Status != "running" {
		t.Errorf("web: %v", now)
	}
}

// An action goes on when the one who asked for it goes away.
func TestAnActionOutlivesItsRequest(t *testing.T) {
	b := newDesk(t)
	first := b.boxes()["job"].ID
	reached, goOn := make(chan struct{}), make(chan struct{})
	var once sync.Once
	b.holding(func(route string) error {
		if route == "POST /containers/{}/stop" {
			once.Do(func() { close(reached) })
			<-goOn
		}
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan string, 1)
	go func() {
		_, text := b.call(ctx, "/v2/applications/1000/restart-service", `{"serviceName":"job"}`)
		answered <- text
	}()
	<-reached
	b.post("/v2/applications/1000/stop-service", `{"serviceName":"web"}`, 423, "Locks for app 1000 are being held by another supervisor operation")
	cancel()
	if text := <-answered; !strings.Contains(text, "canceled") {
		t.Errorf("the request ended with %s", text)
	}
	close(goOn)
	b.until("the restart", func() bool {
		c := b.boxes()["job"]
		return c.ID != first && c.Status == "running" && len(b.intents()) == 0
	})
}

// A service whose container somebody removed after the request was checked is not
// there to be restarted or stopped; nothing is written down. A start makes a new one.
func TestAnActionOnWhatVanished(t *testing.T) {
	b := newDesk(t)
	var release sync.Once
	made := make(chan struct{})
	goOn := func() { release.Do(func() { close(made) }) }
	defer goOn()
	b.holding(func(route string) error {
		if route == "POST /containers/create" { // the loop makes it anew
			<-made
		}
		return nil
	})
	b.removeByHand(b.boxes()["job"].ID)
	b.until("the loss is seen", func() bool {
		return !slices.ContainsFunc(b.s.runner.Status().World.Apps[fleetApp].Containers, func(c state.Container) bool { return c.Service == "job" })
	})
	act := func(kind state.IntentKind) error {
		return edge{s: b.s}.Act(b.Context(), localapi.Action{Kind: kind, App: 1000, Services: []string{"job"}, Alone: true, Present: true})
	}
	for _, kind := range []state.IntentKind{state.Restart, state.Stop} {
		if err := act(kind); !errors.Is(err, localapi.ErrVanished) {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if left := b.intents(); len(left) != 0 {
		t.Errorf("left to do: %v", left)
	}
	goOn()
	if err := act(state.Start); err != nil {
		t.Error(err)
	}
	b.until("the service again", func() bool { return b.boxes()["job"].Status == "running" })
}

// removeByHand removes a container as somebody with the engine's own tool does.
func (b *desk) removeByHand(id string) {
	r, err := http.NewRequestWithContext(b.Context(), http.MethodDelete, b.engine+"/v1.41/containers/"+id+"?force=1", http.NoBody)
	if err != nil {
		b.Error(err)
		return
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		b.Error(err)
		return
	}
	_ = res.Body.Close()
	if res.StatusCode/100 != 2 {
		b.Errorf("remove %s by hand: %s", id, res.Status)
	}
}

// A step that fails is an answer; the action is tried again all the same.
func TestAFailureIsAnswered(t *testing.T) {
	b := newDesk(t)
	first := b.boxes()["job"].ID
	b.holding(func(route string) error {
		if route == "POST /containers/create" {
			return errors.New("no more containers")
		}
		return nil
	})
	b.post("/v2/applications/1000/restart-service", `{"serviceName":"job"}`, 503, "no more containers")
	if now := b.boxes()["job"]; now.ID != first || now.Status != "running" {
		t.Errorf("the old container: %v", now)
	}
	b.holding(func(string) error { return nil })
	b.s.runner.Retry()
	b.until("the restart", func() bool {
		c := b.boxes()["job"]
		return c.ID != first && c.Status == "running" && len(b.intents()) == 0
	})
}

// Other addresses make the device ask its cloud. It looks at itself again if something
// failed, or if somebody asked.
func TestWhatAWishForNewsLeadsTo(t *testing.T) {
	b := newDesk(t)
	looks := func(wish uplink.Trigger, most time.Duration) bool {
		changed := b.s.runner.Changed()
		b.s.asked(wish)
		select {
		case <-changed:
			return true
		case <-time.After(most):
			return false
		}
	}
	// What the release has left to say comes first.
	for quiet := false; !quiet; {
		select {
		case <-b.s.runner.Changed():
		case <-time.After(500 * time.Millisecond):
			quiet = true
		}
	}
	if looks(uplink.Trigger{Own: true}, 200*time.Millisecond) {
		t.Error("it looked at a device on which nothing failed")
	}
	if !looks(uplink.Trigger{}, 20*time.Second) {
		t.Error("somebody asked, and it did not look")
	}
	b.holding(func(route string) error {
		if route == "POST /containers/create" {
			return errors.New("no more containers")
		}
		return nil
	})
	b.accept("c2")
	b.until("a failed step", func() bool { return len(b.s.runner.Status().Failures) > 0 })
	b.holding(func(string) error { return nil })
	b.s.asked(uplink.Trigger{Own: true})
	if failed := b.s.runner.Status().Failures; len(failed) > 0 {
		t.Errorf("what failed is not tried again at once: %v", failed)
	}
	b.until("release c2", func() bool { return b.s.runner.Status().Settled })
}

// A forced update wakes what waits for a lock at once, with the same target and
// without a cloud.
func TestAForcedUpdateBreaksAWaitForLocks(t *testing.T) {
	b := newDesk(t)
	release := b.lock("web")
	defer release()
	b.accept("c2")
	e := edge{b.s, false}
	b.until("the wait", func() bool {
		f := e.Facts()
		return f.Pending && f.Failed && f.Downloaded && len(b.s.runner.Status().Plan.Waiting) > 0
	})
	b.post("/v1/update", `{"force":true}`, 204, "")
	b.until("the release", func() bool {
		st := b.s.runner.Status()
		return st.Settled && st.World.Apps[fleetApp].Commit == "c2"
	})
	if f := e.Facts(); f.Pending || f.Failed || f.Downloaded {
		t.Errorf("after it: %+v", f)
	}
}

// The device goes down once, whoever asks how often, and does nothing else from
// then on.
func TestTheDeviceGoesDownOnce(t *testing.T) {
	b := newDesk(t)
	b.mains.trial = true
	b.post("/v1/shutdown", "", 423, "Waiting for Host OS update to finish")
	b.post("/v1/shutdown", `{"force":true}`, 202, `{"Data":"OK","Error":null}`)
	b.post("/v1/reboot", "", 202, `{"Data":"OK","Error":null}`)
	b.post("/v1/shutdown", "", 202, `{"Data":"OK","Error":null}`)
	<-b.mains.called
	b.s.power.running.Wait()
	if len(b.mains.asked) != 1 || b.mains.asked[0] != "power off" {
		t.Errorf("asked for: %v", b.mains.asked)
	}
	first := b.boxes()
	b.accept("c2")
	b.until("a refused step", func() bool { return len(b.s.runner.Status().Failures) > 0 })
	if now := b.boxes(); now["web"].ID != first["web"].ID || len(now) != len(first) {
		t.Errorf("an update began: %v", now)
	}
}

// A host that does not go down is supervised as before.
func TestAHostThatRefusesIsSupervisedOn(t *testing.T) {
	b := newDesk(t)
	b.mains.fails = errors.New("no bus")
	b.post("/v1/reboot", "", 202, "OK")
	<-b.mains.called
	b.s.power.running.Wait()
	b.release("c2")
	list, err := b.s.device.Locks.Observe(t.Context())
	if err != nil || len(list) != 0 {
		t.Errorf("locks are left: %v %v", list, err)
	}
	b.post("/v1/reboot", "", 202, "OK")
	<-b.mains.called
}

// A new key replaces the old one at once: for the cloud, and in the container.
func TestNewKeys(t *testing.T) {
	b := newDesk(t)
	old := b.s.globalKey()
	code, fresh := b.call(t.Context(), "/v1/regenerate-api-key", "")
	if code != 200 || len(fresh) != 32 || fresh == old {
		t.Fatalf("%d %s", code, fresh)
	}
	if code, _ := b.call(t.Context(), "/v1/blink", "", old); code != 401 {
		t.Errorf("the old key: %d", code)
	}
	if code, text := b.call(t.Context(), "/v1/blink", "", fresh); code != 200 {
		t.Errorf("the new key: %d %s", code, text)
	}
	if r := report.Build(b.s.reportInput()); r.Device.APISecret != fresh {
		t.Error("the new key is not reported")
	}
	first := b.boxes()["web"].ID
	service, err := b.s.store.Keys.Ensure(1000, "web")
	if err != nil {
		t.Fatal(err)
	}
	if code, fresh = b.call(t.Context(), "/v1/regenerate-api-key", "", service); code != 200 || fresh == service {
		t.Fatalf("%d %s", code, fresh)
	}
	if code, _ := b.call(t.Context(), "/v1/blink", "", service); code != 401 {
		t.Errorf("the old key of the service: %d", code)
	}
	b.until("a container with the new key", func() bool { c := b.boxes()["web"]; return c.ID != first && c.Status == "running" })
	env, err := b.s.engine.Environment(t.Context(), b.boxes()["web"].ID)
	if err != nil || env["BALENA_SUPERVISOR_API_KEY"] != fresh {
		t.Errorf("its key is another one (%v)", err)
	}
}

// Only volumes that the supervisor made, that nobody wants and nothing has, go.
func TestCleanVolumes(t *testing.T) {
	b := newDesk(t)
	volume := func(name string, labels map[string]string) {
		raw, err := json.Marshal(map[string]any{"Name": name, "Labels": labels})
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, b.engine+"/v1.41/volumes/create", bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil || res.StatusCode != http.StatusCreated {
			t.Fatalf("%v %v", res, err)
		}
		_ = res.Body.Close()
	}
	ours := func(app, uuid string) map[string]string {
		return map[string]string{state.LabelSupervised: "", state.LabelAppID: app, state.LabelAppUUID: uuid}
	}
	volume("1000_old", ours("1000", fleetApp))
	volume("2000_other", ours("2000", strings.Repeat("b", 32)))
	volume("extra-firmware", nil)
	volume("mine", nil)
	e := edge{b.s, false}
	b.until("the engine's events", func() bool {
		w, err := b.s.device.Observe(t.Context())
		return err == nil && len(w.Apps[fleetApp].Volumes) == 2 && len(w.Apps[strings.Repeat("b", 32)].Volumes) == 1
	})
	clean := func(may func(int64) bool, want ...string) {
		t.Helper()
		if err := e.CleanVolumes(t.Context(), may); err != nil {
			t.Fatal(err)
		}
		if got := slices.Sorted(slices.Values(b.fake.Volumes())); !slices.Equal(got, want) {
			t.Errorf("volumes: %v, want %v", got, want)
		}
	}
	clean(func(app int64) bool { return app == 1000 }, "1000_data", "2000_other", "extra-firmware", "mine")
	clean(func(int64) bool { return true }, "1000_data", "extra-firmware", "mine")
}
