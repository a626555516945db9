//go:build engine && linux

package engine_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/dockerd"
)

// taker is a service in the middle of a hand-over: an old container runs and a
// new one was made.
type taker struct {
	*rig
	dir      string // the service's folder on the host
	old, new state.Container
}

func newTaker(t *testing.T, change func(*state.Service)) taker {
	t.Helper()
	k := taker{}
	var run string
	k.rig = newRig(t, func(c *engine.Config) { run = c.RunDir })
	k.dir = filepath.Join(run, "services", fmt.Sprint(k.app.ID), "web")
	k.old = k.made(nil)
	if err := k.start(k.old); err != nil {
		t.Fatal(err)
	}
	k.do(k.create(func(v *state.Service) {
		v.Spec.Environment = map[string]string{"NEW": "1"}
		if change != nil {
			change(v)
		}
	}))
	for _, c := range k.now().Containers {
		if c.ID != k.old.ID {
			k.new = c
		}
	}
	return k
}

func (k taker) mark(name string) {
	k.Helper()
	if err := os.WriteFile(filepath.Join(k.dir, name), nil, 0o600); err != nil {
		k.Fatal(err)
	}
}

// takeOver starts the new container and the hand-over.
func (k taker) takeOver(timeout time.Duration, keepOld bool) <-chan error {
	k.Helper()
	if err := k.start(k.new); err != nil {
		k.Fatal(err)
	}
	return k.waiting(timeout, keepOld)
}

func (k taker) waiting(timeout time.Duration, keepOld bool) <-chan error {
	ended := make(chan error, 1)
	go func() {
		ended <- k.e.Do(k.Context(), reconcile.Handover{App: k.app, Service: "web", Hash: k.new.Hash, Image: k.image,
			Timeout: timeout, KeepOld: keepOld}, nil)
	}()
	return ended
}

// ends gives the outcome, which must not come before the pause is over.
func (k taker) ends(ended <-chan error, pause time.Duration) error {
	k.Helper()
	begin := time.Now()
	select {
	case err := <-ended:
		if took := time.Since(begin); took < pause {
			k.Errorf("over after %v: %v", took, err)
		}
		return err
	case <-time.After(patience):
		k.Fatal("the hand-over does not end")
		return nil
	}
}

func TestHandoverByFile(t *testing.T) {
	for _, name := range []string{"handover-complete", "resin-kill-me"} {
		t.Run(name, func(t *testing.T) {
			k := newTaker(t, func(v *state.Service) {
				v.Spec.Command = []string{"sh", "-c", "sleep 1; touch /tmp/balena/" + name + "; " + dockerd.Idle}
			})
			k.mark(name) // of an earlier hand-over
			if err := k.ends(k.takeOver(patience, true), 500*time.Millisecond); err != nil {
				t.Error(err)
			}
			// Whoever asks again before the outcome is stored hears the same.
			if err := k.ends(k.waiting(patience, true), 0); err != nil {
				t.Error(err)
			}
			k.do(reconcile.Stop{App: k.app, Service: "web", Container: k.old.ID})
			if left, err := os.ReadDir(k.dir); err != nil || len(left) != 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// A start that is repeated after a crash must not lose what the container said
// in between.
func TestHandoverMessageSurvivesASecondStart(t *testing.T) {
	k := newTaker(t, nil)
	if err := k.start(k.new); err != nil {
		t.Fatal(err)
	}
	k.mark("handover-complete")
	if err := k.ends(k.takeOver(patience, true), 0); err != nil {
		t.Error(err)
	}
}

func TestHandoverByHealth(t *testing.T) {
	k := newTaker(t, func(v *state.Service) {
		v.Spec.Command = []string{"sh", "-c", "sleep 1; touch /up; " + dockerd.Idle}
		v.Spec.Healthcheck = &state.Healthcheck{Test: []string{"CMD", "test", "-e", "/up"}, Interval: state.Duration(200 * time.Millisecond), Retries: 100}
	})
	if err := k.ends(k.takeOver(patience, true), 500*time.Millisecond); err != nil {
		t.Error(err)
	}
}

func TestHandoverByHealthOfTheImage(t *testing.T) {
	docker().Image(t, dockerd.Image{Tag: "checked:1", Changes: []string{`HEALTHCHECK --interval=200ms CMD ["true"]`}})
	k := newTaker(t, func(v *state.Service) { v.Image = "checked:1" })
	k.image = "checked:1"
	if err := k.ends(k.takeOver(patience, true), 0); err != nil {
		t.Error(err)
	}
}

func TestHandoverTimeout(t *testing.T) {
	k := newTaker(t, nil)
	const timeout = 500 * time.Millisecond
	if err := k.ends(k.takeOver(timeout, false), timeout); err != nil {
		t.Errorf("the old one may stop, but: %v", err)
	}
	err := k.ends(k.waiting(timeout, true), timeout)
	if state.ClassOf(err) != state.ClassTimeout || err == nil || !strings.Contains(err.Error(), "handover-complete") {
		t.Errorf("%v", err)
	}
}

// A new container that ends has failed where the old one is to be kept;
// otherwise it may come back until the time is over.
func TestHandoverToAContainerThatEnds(t *testing.T) {
	ends := func(v *state.Service) { v.Spec.Command = []string{"sh", "-c", "exit 3"} }
	k := newTaker(t, ends)
	begin := time.Now()
	err := k.ends(k.takeOver(patience, true), 0)
	if state.ClassOf(err) != state.ClassTimeout || err == nil || !strings.Contains(err.Error(), "exit code 3") || time.Since(begin) > patience/2 {
		t.Errorf("after %v: %v", time.Since(begin), err)
	}
	const timeout = 500 * time.Millisecond
	if err := k.ends(k.waiting(timeout, false), timeout); err != nil {
		t.Error(err)
	}
	ended := k.waiting(patience, false)
	k.do(reconcile.Remove{App: k.app, Service: "web", Container: k.new.ID})
	if err := k.ends(ended, 0); state.ClassOf(err) != state.ClassEngine || !strings.Contains(fmt.Sprint(err), "was removed") {
		t.Errorf("%v", err)
	}
}

func TestHandoverEndsWithItsContext(t *testing.T) {
	k := newTaker(t, nil)
	if err := k.start(k.new); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	err := k.e.Do(ctx, reconcile.Handover{App: k.app, Service: "web", Container: k.new.ID, Timeout: patience}, nil)
	if c := state.ClassOf(err); c != state.ClassTimeout && c != state.ClassCancelled {
		t.Errorf("%v", err)
	}
}

// Containers write in the folder with the messages. They must not make us
// delete, or believe, something else.
func TestHandoverFollowsNoLinks(t *testing.T) {
	k := newTaker(t, nil)
	outside := t.TempDir()
	precious := filepath.Join(outside, "precious")
	if err := os.WriteFile(precious, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(k.dir, "handover-complete")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(k.dir, "resin-kill-me", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	const timeout = 500 * time.Millisecond
	if err := k.ends(k.takeOver(timeout, true), timeout); state.ClassOf(err) != state.ClassTimeout {
		t.Errorf("an old message counted: %v", err)
	}
	if _, err := os.Stat(precious); err != nil {
		t.Error(err)
	}
	if err := os.Symlink("/nowhere", filepath.Join(k.dir, "handover-complete")); err != nil {
		t.Fatal(err)
	}
	if err := k.ends(k.waiting(patience, true), 0); err != nil {
		t.Errorf("a link is there as well: %v", err)
	}
}

// The usual start and stop ask the engine nothing more than to start and stop.
func TestStartAndStopAreOneCall(t *testing.T) {
	r := newRig(t, nil)
	c := r.made(nil)
	calls := func(f func()) int64 {
		before := r.e.Calls()
		f()
		return r.e.Calls() - before
	}
	got := []int64{
		calls(func() { r.do(reconcile.Start{App: r.app, Service: "web", Container: c.ID}) }),
		calls(func() { r.do(reconcile.Stop{App: r.app, Service: "web", Container: c.ID}) }),
	}
	if d := cmp.Diff([]int64{1, 1}, got); d != "" {
		t.Error(d)
	}
	if in, err := docker().Client.ContainerInspect(t.Context(), c.ID); err != nil || in.HostConfig.RestartPolicy.Name != container.RestartPolicyDisabled {
		t.Errorf("%v %v", in.HostConfig.RestartPolicy, err)
	}
}
