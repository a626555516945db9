package systemlog

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/logs"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
)

// said plays something and gives what stands in the log of the device afterwards,
// with a ! before what is about a failure.
func said(t *testing.T, play func(*Log)) (lines []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var stream logs.Stream
		outbox := logs.OpenOutbox(logs.OutboxConfig{Log: zerolog.Nop()})
		l := New(logs.NewJournal(outbox, &stream))
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.Run(ctx)
		play(l)
		synctest.Wait()
		for _, p := range outbox.Open().Next() {
			text := p.Message
			if p.Stderr {
				text = "!" + text
			}
			lines = append(lines, text)
		}
	})
	return lines
}

func stepEnded(s reconcile.Step, err error) run.Event {
	return run.Event{Node: reconcile.Node{Step: s}, Ended: true, Err: err}
}

func stepBegins(s reconcile.Step) run.Event { return run.Event{Node: reconcile.Node{Step: s}} }

func worldOf(c ...state.Container) run.Status {
	return run.Status{World: state.World{
		Apps:   map[string]state.AppNow{"u": {UUID: "u", ID: 3, Containers: c}},
		Images: map[string]state.Image{"sha256:i1": {ID: "sha256:i1", Refs: []string{"registry/web:1"}}},
	}}
}

func TestStepsInTheLogOfTheDevice(t *testing.T) {
	app := reconcile.App{UUID: "u", ID: 3, Name: "shop"}
	web := state.Service{Name: "web", Image: "registry/web:1", Spec: state.Spec{Environment: map[string]string{"TOKEN": "hush"}}}
	got := said(t, func(l *Log) {
		l.Status(worldOf(state.Container{ID: "c0", Service: "web", Image: "sha256:i0", Phase: state.Running}))
		for _, s := range []reconcile.Step{
			reconcile.Fetch{Image: "registry/web:1"}, reconcile.CreateVolume{App: app, Volume: state.Volume{Name: "data"}},
			reconcile.Create{App: app, Service: web}, reconcile.TakeLocks{App: app}, reconcile.Stop{App: app, Service: "web", Container: "c0"},
			reconcile.Remove{App: app, Service: "web", Container: "c0"}, reconcile.ReleaseLocks{App: app}, reconcile.Commit{App: app},
		} {
			l.Event(stepBegins(s))
			l.Event(stepEnded(s, nil))
		}
		l.Event(stepEnded(reconcile.Start{App: app, Service: "web", Image: "registry/web:1"}, state.Classify(state.ClassEngine, errors.New("port 80 is taken"))))
		l.Event(stepEnded(reconcile.Fetch{Image: "registry/db:1"}, state.Classify(state.ClassCancelled, errors.New("cancelled"))))
		l.Event(stepBegins(reconcile.Remove{App: app, Service: "web", Container: "c0"}))
	})
	want := []string{
		"Downloading image 'registry/web:1'", "Downloaded image 'registry/web:1'", "Creating volume 'data'",
		"Installing service 'web sha256:i1'", "Installed service 'web sha256:i1'", "Taking update locks",
		"Killing service 'web sha256:i0'", "Killed service 'web sha256:i0'", "Releasing update locks",
		"!Failed to start service 'web sha256:i1' due to 'port 80 is taken'",
		"Service is already stopped, removing container 'web sha256:i0'",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWhatContainersDoByThemselvesInTheLogOfTheDevice(t *testing.T) {
	c := func(id string, p state.Phase) state.Container {
		return state.Container{ID: id, Service: id, Image: "sha256:i1", Phase: p}
	}
	got := said(t, func(l *Log) {
		l.Status(worldOf(c("a", state.Running), c("b", state.Running), c("c", state.Running), c("d", state.Exited)))
		l.Event(stepBegins(reconcile.Stop{Service: "c", Container: "c"}))
		l.Status(worldOf(c("a", state.Exited), c("b", state.Restarting), c("c", state.Exited), c("d", state.Exited)))
		l.Status(worldOf(c("a", state.Exited), c("b", state.Running), c("c", state.Running)))
		l.Status(worldOf(c("c", state.Exited)))
		waits := run.Status{Plan: reconcile.Plan{Waiting: []reconcile.Waiting{{Class: state.ClassLocked, Text: "an update lock is held", Holder: "shop/web: updates.lock"}}}}
		l.Status(waits)
		l.Status(waits)
		l.Accepted(state.Target{Apps: map[string]state.App{"u": {Name: "shop", Rejected: "web: needs L4T"}}})
		l.Accepted(state.Target{Apps: map[string]state.App{"u": {Name: "shop", Rejected: "web: needs L4T"}}})
	})
	want := []string{
		"Killing service 'c sha256:i1'", "Service exited 'a sha256:i1'", "Restarting service 'b sha256:i1'", "Service exited 'c sha256:i1'",
		"!Updates are locked, retrying in 1s. Reason: an update lock is held by shop/web: updates.lock",
		"!Could not move to new release: shop: web: needs L4T",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
