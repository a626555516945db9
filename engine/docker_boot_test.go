//go:build engine && linux

package engine_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/dockerd"
)

// ownRig is a rig with an engine that the test may stop and start.
func ownRig(t *testing.T) (*rig, *dockerd.Engine) {
	t.Helper()
	own := dockerd.Start(t)
	own.Busybox(t, "rig:1")
	r := &rig{T: t, image: "rig:1", app: reconcile.App{UUID: fmt.Sprintf("%032x", serial.Add(1)), ID: 100, Name: "rig"}}
	r.e = open(t, func(c *engine.Config) { c.Host, c.RunDir = own.Host, own.Dir(t) })
	return r, own
}

// Services whose host is not ready when the engine starts: it tries each of them
// once and leaves them where they are.
func TestRefusedAtBoot(t *testing.T) {
	r, own := ownRig(t)
	port, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	number := port.Addr().(*net.TCPAddr).Port
	port.Close()
	always := func(name string, change func(*state.Service)) reconcile.Create {
		step := r.create(func(v *state.Service) {
			v.Name, v.Spec.Restart = name, state.RestartPolicy{Name: "always"}
			change(v)
		})
		r.do(step)
		return step
	}
	always("port", func(v *state.Service) {
		v.Spec.Ports = []state.Port{{HostIP: "127.0.0.1", Published: number, Target: 80, Protocol: "tcp"}}
	})
	always("ended", func(v *state.Service) {
		v.Spec.Command, v.Spec.Restart = []string{"sh", "-c", "exit 7"}, state.RestartPolicy{Name: "no"}
	})
	always("good", func(*state.Service) {})
	for _, c := range r.now().Containers {
		if err := r.start(c); err != nil {
			t.Fatal(err)
		}
	}
	by := func() map[string]state.Container {
		out := map[string]state.Container{}
		for _, c := range r.now().Containers {
			out[c.Service] = c
		}
		return out
	}
	until(t, "one ended", func() bool { return by()["ended"].Phase == state.Exited })
	own.Down(t)
	if _, err := r.e.Observe(t.Context()); err == nil {
		t.Fatal("the engine is not down")
	}
	port, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", number))
	if err != nil {
		t.Fatal(err)
	}
	own.Restart(t)
	until(t, "good one runs again", func() bool { return by()["good"].Phase == state.Running })
	now := by()
	t.Logf("port: %s %d %q", now["port"].Phase, now["port"].ExitCode, now["port"].Refused)
	if c := now["port"]; c.Phase != state.Exited || !strings.Contains(c.Refused, "address already in use") {
		t.Errorf("refused: %+v", c)
	}
	if c := now["ended"]; c.Refused != "" || c.ExitCode != 7 {
		t.Errorf("ended by itself: %+v", c)
	}
	before := r.e.Calls()
	r.now()
	if n := r.e.Calls() - before; n > 4 {
		t.Errorf("a look that finds nothing new took %d calls", n)
	}
	port.Close()
	if err := r.start(now["port"]); err != nil {
		t.Fatal(err)
	}
	if c := by()["port"]; c.Phase != state.Running || c.Refused != "" {
		t.Errorf("started: %+v", c)
	}
}

// An engine that is killed while it starts a container that ran before may refuse
// that container for ever, also after it was started again. Then a look says so,
// a start takes nothing away, and another container can be made in its place.
func TestKilledEngineLeavesNothingThatCannotStart(t *testing.T) {
	r, own := ownRig(t)
	step := r.create(nil)
	r.do(step)
	if err := r.start(r.now().Containers[0]); err != nil {
		t.Fatal(err)
	}
	hopeless := 0
	for round := range 3 {
		c := r.now().Containers[0]
		r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
		done := make(chan error, 1)
		go func() { done <- r.start(c) }()
		until(t, "on its way", func() bool { return len(shims(own)) > 0 || len(done) > 0 })
		own.Kill()
		t.Logf("start by an engine that is killed: %v", <-done)
		own.Restart(t)
		if err := r.start(c); err == nil {
			continue
		}
		now := r.now().Containers
		if len(now) != 1 || now[0].ID != c.ID || now[0].Phase != state.Dead || now[0].Refused == "" {
			t.Fatalf("round %d: %+v", round, now)
		}
		hopeless++
		r.do(step)
		r.do(reconcile.Remove{App: r.app, Service: "web", Container: c.ID})
		now = r.now().Containers
		if len(now) != 1 {
			t.Fatalf("round %d: %+v", round, now)
		}
		if err := r.start(now[0]); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	t.Logf("the engine gave up on %d containers", hopeless)
}

// Somebody removed a network below stopped containers. The engine would never
// start them again, not even on a new network of that name.
func TestContainersOfANetworkThatIsGone(t *testing.T) {
	r := newRig(t, nil)
	step := r.create(nil)
	r.do(step)
	c := r.now().Containers[0]
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
	removeNetwork(t, r.now().Networks[0].ID)
	step = r.create(nil) // with its network
	if err := r.start(c); state.ClassOf(err) != state.ClassEngine {
		t.Errorf("start: %v", err)
	}
	if now := r.now().Containers[0]; now.ID != c.ID || now.Phase != state.Dead || !strings.Contains(now.Refused, "not found") {
		t.Fatalf("%+v", now)
	}
	r.do(step)
	r.do(reconcile.Remove{App: r.app, Service: "web", Container: c.ID})
	if err := r.start(r.now().Containers[0]); err != nil {
		t.Error(err)
	}
}

// shims are the folders of containers that are being started.
func shims(own *dockerd.Engine) []string {
	dir := filepath.Join(filepath.Dir(strings.TrimPrefix(own.Host, "unix://")), "exec", "containerd", "daemon", "io.containerd.runtime.v2.task", "moby")
	list, _ := os.ReadDir(dir)
	var out []string
	for _, x := range list {
		out = append(out, x.Name())
	}
	return out
}
