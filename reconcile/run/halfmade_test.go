package run_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/reconcile/sim"
	"deckhand/state"
)

// early is an engine that shows a container before it is connected.
type early struct{ *device }

func (e early) Do(ctx context.Context, s reconcile.Step, p func(done, total int64)) error {
	if _, ok := s.(reconcile.Create); !ok {
		return e.device.Do(ctx, s, p)
	}
	var before, after state.World
	var err error
	e.set(func() {
		before = e.world
		if after, err = sim.Apply(before, s); err != nil {
			return
		}
		a := after.Apps["shop"]
		a.Containers = slices.Clone(a.Containers)
		for i := range a.Containers {
			a.Containers[i].Networks = nil
		}
		half := after
		half.Apps = map[string]state.AppNow{"shop": a}
		e.world = half
		e.hint <- struct{}{}
	})
	if err != nil {
		return err
	}
	elapse(time.Second + time.Millisecond)
	e.set(func() {
		e.world = after
		e.log = append(e.log, s.Title())
	})
	return nil
}

func TestAContainerThatIsJustBeingMadeIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := run.New(run.Config{Device: early{d}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		want := shop("shop", "c1", nil)
		net := state.NetworkSpec{Driver: "bridge"}
		want.Networks = map[string]state.Network{"back": {Name: "back", Spec: net, Hash: net.Hash()}}
		s := state.Service{Name: "web", ID: 1, ImageID: 1, Image: "web:1", Running: true, Strategy: "kill-then-download"}
		s.Spec.Networks = map[string]state.Attachment{"back": {}}
		s.Hash = s.Spec.Hash()
		want.Services["web"] = s
		r.SetTarget(target(want))
		elapse(time.Minute)
		removed := slices.ContainsFunc(d.log, func(title string) bool { return strings.HasPrefix(title, "remove ") })
		if removed || d.did("create shop/web") != 1 || !r.Status().Settled {
			t.Errorf("log %q\n%s", d.log, r.Status().Plan)
		}
		cancel()
		<-done
	})
}
