//go:build engine && linux

package engine_test

import (
	"testing"
	"time"

	"deckhand/reconcile"
	"deckhand/state"
)

// A service that crashes again and again is stopped at any moment of its loop,
// without waiting for its grace period, and keeps its restart policy.
func TestStopAtAnyMomentOfARestartLoop(t *testing.T) {
	r := newRig(t, nil)
	for _, command := range []string{"exit 1", "sleep 0.1; exit 1", "sleep 0.3; exit 0"} {
		c := r.made(func(v *state.Service) {
			v.Spec.Command, v.Spec.Restart = []string{"sh", "-c", command}, state.RestartPolicy{Name: "always"}
			v.Spec.StopGrace = state.Duration(20 * time.Second)
		})
		for round := range 6 {
			if err := r.start(c); err != nil {
				t.Fatal(err)
			}
			until(t, "loop", func() bool { return round%2 == 0 || r.now().Containers[0].Phase == state.Restarting })
			begin := time.Now()
			r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%q, round %d: the stop took %v", command, round, took)
			}
			in, err := docker().Client.ContainerInspect(t.Context(), c.ID)
			if err != nil {
				t.Fatal(err)
			}
			if in.State.Running || in.State.Restarting || in.HostConfig.RestartPolicy.Name != "always" {
				t.Fatalf("%q, round %d: afterwards %s with policy %v", command, round, in.State.Status, in.HostConfig.RestartPolicy)
			}
		}
		r.do(reconcile.Remove{App: r.app, Service: "web", Container: c.ID})
	}
}

func TestStopOfAPausedContainer(t *testing.T) {
	r := newRig(t, nil)
	c := r.made(nil)
	if err := r.start(c); err != nil {
		t.Fatal(err)
	}
	if err := docker().Client.ContainerPause(t.Context(), c.ID); err != nil {
		t.Fatal(err)
	}
	r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
	if now := r.now().Containers[0]; now.Up() {
		t.Errorf("it is %s", now.Phase)
	}
}
