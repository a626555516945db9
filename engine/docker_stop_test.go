//go:build engine && linux

package engine_test

import (
	"fmt"
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
		for round := range 8 {
			what := fmt.Sprintf("%q, round %d", command, round)
			if err := r.start(c); err != nil {
				t.Fatal(err)
			}
			seen := state.Phase("")
			until(t, "loop", func() bool { seen = r.now().Containers[0].Phase; return round%2 == 0 || seen == state.Restarting })
			begin := time.Now()
			r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID})
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("%s: a stop of a %s container took %v", what, seen, took)
			}
			for range 5 {
				if now := r.now().Containers[0]; now.Up() {
					t.Fatalf("%s: %s after the stop", what, now.Phase)
				}
			}
			in, err := docker().Client.ContainerInspect(t.Context(), c.ID)
			if err != nil || in.HostConfig.RestartPolicy.Name != "always" {
				t.Fatalf("%s: policy %v, %v", what, in.HostConfig.RestartPolicy, err)
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
