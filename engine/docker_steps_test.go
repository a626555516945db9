//go:build engine && linux

package engine_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
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
	"github.com/google/go-cmp/cmp"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/dockerd"
)

const patience = time.Minute

// rig is an app of one service on the package's engine.
type rig struct {
	*testing.T
	e     *engine.Engine
	app   reconcile.App
	image string
}

func newRig(t *testing.T, change func(*engine.Config)) *rig {
	t.Helper()
	r := &rig{T: t, e: open(t, change), image: "rig:1"}
	docker().Busybox(t, r.image)
	r.app = reconcile.App{UUID: fmt.Sprintf("%032x", len(t.Name())*1000+int(serial.Add(1))), ID: 100 + serial.Load(), Name: "rig"}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		list, _ := docker().Client.ContainerList(ctx, container.ListOptions{All: true})
		for _, c := range list {
			_ = docker().Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true})
		}
	})
	return r
}

var serial atomic.Int64

func (r *rig) do(s reconcile.Step) {
	r.Helper()
	if err := r.e.Do(r.Context(), s, nil); err != nil {
		r.Fatalf("%s: %v", s.Key(), err)
	}
}

func (r *rig) create(change func(*state.Service)) reconcile.Create {
	v := state.Service{Name: "web", ID: 1, ImageID: r.app.ID, Image: r.image, Spec: state.Spec{
		Networks: map[string]state.Attachment{"default": {Aliases: []string{"web"}}}, Restart: state.RestartPolicy{Name: "no"}}}
	if change != nil {
		change(&v)
	}
	v.Hash = v.Spec.Hash()
	n := state.Network{Name: "default", Spec: state.NetworkSpec{Driver: "bridge"}}
	n.Hash = n.Spec.Hash()
	r.do(reconcile.CreateNetwork{App: r.app, Network: n})
	return reconcile.Create{App: r.app, Commit: "c", ReleaseID: 3, Service: v}
}

func (r *rig) made(change func(*state.Service)) state.Container {
	r.Helper()
	r.do(r.create(change))
	c := r.now().Containers
	if len(c) != 1 {
		r.Fatalf("%d containers", len(c))
	}
	return c[0]
}

func (r *rig) start(c state.Container) error {
	return r.e.Do(r.Context(), reconcile.Start{App: r.app, Service: c.Service, Hash: c.Hash, Container: c.ID}, nil)
}

func (r *rig) now() state.AppNow {
	r.Helper()
	w, err := r.e.Observe(r.Context())
	if err != nil {
		r.Fatal(err)
	}
	return w.Apps[r.app.UUID]
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
	}
}

func TestCallsDoNotGrowWithContainers(t *testing.T) {
	r := newRig(t, nil)
	for i := range 12 {
		r.do(r.create(func(v *state.Service) { v.Name = fmt.Sprintf("web%d", i) }))
	}
	before := r.e.Calls()
	if n := len(r.now().Containers); n != 12 {
		t.Fatalf("%d containers", n)
	}
	if n := r.e.Calls() - before; n > 4 {
		t.Errorf("one look took %d calls", n)
	}
}

func TestInfo(t *testing.T) {
	i, err := open(t, nil).Info(t.Context())
	if err != nil || i.Name != "Docker" || i.Version == "" || i.APIVersion < "1.41" {
		t.Errorf("%+v, %v", i, err)
	}
}

func TestEnvironmentInTheContainer(t *testing.T) {
	r := newRig(t, nil)
	r.image = "env:1"
	docker().Image(t, dockerd.Image{Tag: r.image, Changes: []string{"ENV USER=image", "ENV KEPT=image", "ENV BALENA_APP_NAME=image"}})
	c := r.made(func(v *state.Service) {
		v.Spec.Command = []string{"sh", "-c", "echo $USER $KEPT $BALENA_APP_NAME $RESIN_APP_NAME $BALENA_DEVICE_NAME_AT_INIT $MINE; echo mine >/tmp/balena/updates.lock; stat -c %a /tmp/resin"}
		v.Spec.Environment = map[string]string{"RESIN_APP_NAME": "service", "MINE": "$HOME"}
		v.Spec.Tty = true // the log is then plain text
	})
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	r.do(reconcile.Await{App: r.app, Service: "web", Hash: c.Hash, Condition: state.Completed, Container: c.ID})
	log, err := docker().Client.ContainerLogs(t.Context(), c.ID, container.LogsOptions{ShowStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	text, err := io.ReadAll(log)
	if err != nil {
		t.Fatal(err)
	}
	want := "root image rig service bright-sun $HOME\r\n1777\r\n"
	if d := cmp.Diff(want, string(text)); d != "" {
		t.Error(d)
	}
}

func TestLockFolderIsShared(t *testing.T) {
	var dir string
	r := newRig(t, func(c *engine.Config) { dir = c.RunDir })
	c := r.made(func(v *state.Service) { v.Spec.Command = []string{"touch", "/tmp/balena/updates.lock"} })
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "services", fmt.Sprint(r.app.ID), "web", "updates.lock")
	until(t, "lock file on the host", func() bool { _, err := os.Stat(file); return err == nil })
}

func TestStartErrorsAreClear(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		what   string
		change func(*state.Service)
		class  state.Class
		text   string
	}{
		{"missing program", func(v *state.Service) { v.Spec.Command = []string{"/nothing"} }, state.ClassInvalid, "not an executable file"},
		{"missing device", func(v *state.Service) { v.Spec.Devices = []string{"/dev/nothing:/dev/x:r"} }, state.ClassEngine, "device it asks for is missing"},
		{"port in use", func(v *state.Service) {
			v.Spec.Ports = []state.Port{{HostIP: "127.0.0.1", Published: l.Addr().(*net.TCPAddr).Port, Target: 80, Protocol: "tcp"}}
		}, state.ClassEngine, "taken by another program"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r := newRig(t, nil)
			err := r.start(r.made(c.change))
			if err == nil || state.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestStrangerKeepsItsName(t *testing.T) {
	r := newRig(t, nil)
	step := r.create(nil)
	name := state.ContainerName("web", r.app.ID, 3, "c")
	made, err := docker().Client.ContainerCreate(t.Context(), &container.Config{Image: r.image}, nil, nil, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	err = r.e.Do(t.Context(), step, nil)
	if err == nil || !strings.Contains(err.Error(), made.ID[:12]) {
		t.Errorf("error does not name the container: %v", err)
	}
	if c, err := docker().Client.ContainerInspect(t.Context(), made.ID); err != nil || c.Name != "/"+name {
		t.Errorf("a container that is not ours was touched: %v %v", c.Name, err)
	}
}

// A crash between create and the second network leaves a container that must
// not be taken for finished.
func TestHalfMadeContainerIsMadeAnew(t *testing.T) {
	r := newRig(t, nil)
	n := state.Network{Name: "back", Spec: state.NetworkSpec{Driver: "bridge"}}
	r.do(reconcile.CreateNetwork{App: r.app, Network: n})
	step := r.create(func(v *state.Service) { v.Spec.Networks["back"] = state.Attachment{} })
	r.do(step)
	whole := r.now().Containers[0]
	if err := docker().Client.NetworkDisconnect(t.Context(), state.NetworkName(r.app.UUID, "back"), whole.ID, true); err != nil {
		t.Fatal(err)
	}
	half := r.now().Containers[0]
	if len(half.Networks) != 1 {
		t.Fatalf("test is wrong: %v", half.Networks)
	}
	r.do(step)
	c := r.now().Containers
	if len(c) != 1 || c[0].ID == half.ID || len(c[0].Networks) != 2 {
		t.Errorf("after the second attempt: %+v", c)
	}
}

func TestProjectsDoNotSeeEachOther(t *testing.T) {
	a := newRig(t, nil)
	b := newRig(t, func(c *engine.Config) { c.Project = "demo" })
	a.made(nil)
	b.made(nil)
	if len(a.now().Containers) != 1 || len(b.now().Containers) != 1 {
		t.Fatal("an app does not see itself")
	}
	w, err := a.e.Observe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, seen := w.Apps[b.app.UUID]; seen {
		t.Error("the supervisor sees a project's app")
	}
}

// An update of the image alone leaves two containers with the same settings.
func TestStartFindsItsContainerByImage(t *testing.T) {
	r := newRig(t, nil)
	docker().Busybox(t, "rig:2", "new")
	r.do(r.create(nil))
	step := r.create(func(v *state.Service) { v.Image = "rig:2" })
	step.ReleaseID = 4
	r.do(step)
	r.do(reconcile.Start{App: r.app, Service: "web", Hash: step.Service.Hash, Image: r.image})
	for _, c := range r.now().Containers {
		if c.Up() != (c.ReleaseID == 3) {
			t.Errorf("%s is %s", c.Name, c.Phase)
		}
	}
}

func TestStopOfARestartLoop(t *testing.T) {
	r := newRig(t, nil)
	c := r.made(func(v *state.Service) {
		v.Spec.Command, v.Spec.Restart = []string{"false"}, state.RestartPolicy{Name: "always"}
	})
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	until(t, "restarting", func() bool { return r.now().Containers[0].Phase == state.Restarting })
	r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
	until(t, "stopped", func() bool { return !r.now().Containers[0].Up() })
	in, err := docker().Client.ContainerInspect(t.Context(), c.ID)
	if err != nil || in.HostConfig.RestartPolicy.Name != "always" {
		t.Errorf("policy afterwards: %v, %v; the next start would lose it", in.HostConfig.RestartPolicy, err)
	}
}

func TestStopHonoursGrace(t *testing.T) {
	r := newRig(t, nil)
	c := r.made(func(v *state.Service) {
		v.Spec.Command, v.Spec.StopGrace = []string{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}, state.Duration(time.Second)
	})
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	r.do(reconcile.Await{App: r.app, Service: "web", Hash: c.Hash, Condition: state.Started, Container: c.ID})
	begin := time.Now()
	r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
	if took := time.Since(begin); took < 900*time.Millisecond || took > 8*time.Second {
		t.Errorf("stop took %v with a grace of 1s", took)
	}
	if now := r.now().Containers[0]; now.ExitCode != 137 {
		t.Errorf("exit code %d", now.ExitCode)
	}
}

func TestFetchWithCredentials(t *testing.T) {
	reg := enginetest.NewRegistry(t)
	tree, err := dockerd.Rootfs(map[string]string{"etc/x": strings.Repeat("x", 100)})
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := reg.Push(t, "private/web", "1", tree, "true")
	door := guard(t, reg.Host, func(w http.ResponseWriter, q *http.Request) bool {
		if user, password, _ := q.BasicAuth(); user == "d_1" && password == "key" {
			return true
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
		return false
	})
	ref = strings.Replace(ref, reg.Host, door, 1)

	err = open(t, nil).Do(t.Context(), reconcile.Fetch{Image: ref}, nil)
	if state.ClassOf(err) != state.ClassAuth {
		t.Errorf("without credentials: %v", err)
	}
	var asked []string
	e := open(t, func(c *engine.Config) {
		c.Auth = func(registry string) (string, string, bool) {
			asked = append(asked, registry)
			return "d_1", "key", true
		}
	})
	var done, total int64
	if err := e.Do(t.Context(), reconcile.Fetch{Image: ref}, func(d, n int64) { done, total = d, n }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{door}, slices.Compact(asked)); d != "" {
		t.Error(d)
	}
	if total < 100_000 || done != total {
		t.Errorf("progress ended at %d of %d bytes", done, total)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	reg := enginetest.NewRegistry(t)
	tree, err := dockerd.Rootfs(map[string]string{"etc/x": t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := reg.Push(t, "slow/web", "1", tree, "true")
	reached, release := make(chan struct{}, 100), make(chan struct{})
	door := guard(t, reg.Host, func(_ http.ResponseWriter, q *http.Request) bool {
		if strings.Contains(q.URL.Path, "/blobs/") {
			reached <- struct{}{}
			<-release
		}
		return true
	})
	defer close(release)
	e := open(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- e.Do(ctx, reconcile.Fetch{Image: strings.Replace(ref, reg.Host, door, 1)}, nil)
	}()
	<-reached
	cancel()
	select {
	case err := <-ended:
		if state.ClassOf(err) != state.ClassCancelled {
			t.Errorf("%v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still pulling")
	}
}

// The registry goes away in the middle of a layer.
func TestFetchCutOff(t *testing.T) {
	reg := enginetest.NewRegistry(t)
	tree, err := dockerd.Rootfs(map[string]string{"etc/x": t.Name()})
	if err != nil {
		t.Fatal(err)
	}
	ref, _ := reg.Push(t, "cut/web", "1", tree, "true")
	down := false
	door := guard(t, reg.Host, func(w http.ResponseWriter, q *http.Request) bool {
		if down || strings.Contains(q.URL.Path, "/blobs/") {
			down = true
			panic(http.ErrAbortHandler)
		}
		return true
	})
	err = open(t, nil).Do(t.Context(), reconcile.Fetch{Image: strings.Replace(ref, reg.Host, door, 1)}, nil)
	if state.ClassOf(err) != state.ClassNetwork {
		t.Errorf("%v", err)
	}
}

// guard stands before a registry and lets requests through; it gives its address.
func guard(t *testing.T, host string, pass func(http.ResponseWriter, *http.Request) bool) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if !pass(w, q) {
			return
		}
		out, err := http.NewRequestWithContext(q.Context(), q.Method, "http://"+host+q.URL.RequestURI(), nil)
		if err != nil {
			return
		}
		out.Header = q.Header.Clone()
		r, err := http.DefaultClient.Do(out)
		if err != nil {
			return
		}
		defer r.Body.Close()
		for k, v := range r.Header {
			w.Header()[k] = v
		}
		w.WriteHeader(r.StatusCode)
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(func() {
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return strings.TrimPrefix(srv.URL, "http://")
}

func TestWatch(t *testing.T) {
	r := newRig(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	hints := r.e.Watch(ctx)
	hint := func(what string) {
		t.Helper()
		select {
		case _, open := <-hints:
			if !open {
				t.Fatalf("%s: closed", what)
			}
		case <-time.After(patience):
			t.Fatalf("no hint: %s", what)
		}
	}
	hint("connected")
	c := r.made(nil)
	hint("created")
	for len(hints) > 0 {
		<-hints
	}
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	hint("started")
	cancel()
	until(t, "channel closed", func() bool {
		_, open := <-hints
		return !open
	})
}

func TestWatchOverARestart(t *testing.T) {
	own := dockerd.Start(t)
	e := open(t, func(c *engine.Config) { c.Host = own.Host })
	ctx, cancel := context.WithCancel(t.Context())
	hints := e.Watch(ctx)
	<-hints
	if !e.Available() {
		t.Error("not available though connected")
	}
	own.Down(t)
	until(t, "unavailable", func() bool { return !e.Available() })
	if _, err := e.Observe(t.Context()); state.ClassOf(err) != state.ClassEngine {
		t.Errorf("observe of an engine that is away: %v", err)
	}
	for len(hints) > 0 {
		<-hints
	}
	own.Restart(t)
	<-hints
	if err := e.Ready(t.Context()); err != nil || !e.Available() {
		t.Error(err)
	}
	if _, err := e.Observe(t.Context()); err != nil {
		t.Error(err)
	}
	cancel()
	for range hints { // until it closes
	}
}

func TestReadyGivesUpWithItsContext(t *testing.T) {
	e := open(t, func(c *engine.Config) { c.Host = "unix:///nowhere/docker.sock" })
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := e.Ready(ctx)
	if err == nil || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "/nowhere/docker.sock") {
		t.Errorf("%v", err)
	}
}

// A network that was made twice, which the engine allows, is shown twice and can
// be removed one by one.
func TestDuplicateNetwork(t *testing.T) {
	r := newRig(t, nil)
	for range 2 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/v1.41/networks/create",
			strings.NewReader(fmt.Sprintf(`{"Name":"%s_twin","Driver":"bridge","Labels":{"io.balena.supervised":"true"}}`, r.app.UUID)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		answer, err := docker().Client.HTTPClient().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
	}
	nets := r.now().Networks
	if len(nets) != 2 || nets[0].Name != "twin" || nets[1].Name != "twin" {
		t.Fatalf("networks: %+v", nets)
	}
	step := r.create(func(v *state.Service) { v.Spec.Networks["twin"] = state.Attachment{} })
	if err := r.e.Do(t.Context(), step, nil); err == nil || !strings.Contains(err.Error(), "2 networks are called twin") {
		t.Errorf("create with an ambiguous network: %v", err)
	}
	r.do(reconcile.RemoveNetwork{App: r.app, Name: "twin", ID: nets[1].ID})
	left := slices.DeleteFunc(r.now().Networks, func(n state.NetworkNow) bool { return n.Name != "twin" })
	if d := cmp.Diff(nets[:1], left); d != "" {
		t.Error(d)
	}
	r.do(step)
}
