package run_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"deckhand/reconcile/run"
	"deckhand/state"
)

// frozen is a device that can be made to hang in a look.
type frozen struct {
	*device
	ice chan struct{} // nil: it looks as usual
}

func (f *frozen) Observe(ctx context.Context) (state.World, error) {
	f.mu.Lock()
	ice := f.ice
	f.mu.Unlock()
	if ice != nil {
		<-ice
	}
	return f.device.Observe(ctx)
}

// A loop that hangs shows, also while a download runs. One that waits for a
// download, a lock or a pause after a failure does not.
func TestAStalledLoopShows(t *testing.T) {
	const patience = 3 * time.Minute
	synctest.Test(t, func(t *testing.T) {
		d := &frozen{device: newDevice()}
		pull := make(chan struct{})
		d.hangs["fetch web:1 for shop/web"] = pull
		r := run.New(run.Config{Device: d, Event: func(run.Event) {}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- r.Run(ctx) }()
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "web:1"})))
		elapse(time.Hour)
		if running := r.Status().Running; len(running) != 1 {
			t.Fatalf("running %v", running)
		}
		if since := r.Pulse().Stalled(time.Now(), patience); !since.IsZero() {
			t.Errorf("a download counts as a stall since %v", since)
		}
		ice := make(chan struct{})
		d.set(func() { d.ice = ice })
		r.Look()
		began := time.Now()
		elapse(patience - time.Second)
		if since := r.Pulse().Stalled(time.Now(), patience); !since.IsZero() {
			t.Errorf("impatient after %v", time.Since(since))
		}
		elapse(2 * time.Second)
		if since := r.Pulse().Stalled(time.Now(), patience); !since.Equal(began) {
			t.Errorf("stalled since %v, want %v", since, began)
		}
		d.set(func() { d.ice = nil })
		close(ice)
		synctest.Wait()
		if since := r.Pulse().Stalled(time.Now(), patience); !since.IsZero() {
			t.Errorf("it goes on, and counts as stalled since %v", since)
		}
		close(pull)
		elapse(time.Hour)
		if since := r.Pulse().Stalled(time.Now(), patience); !since.IsZero() || !r.Status().Settled {
			t.Errorf("settled %v, stalled since %v", r.Status().Settled, since)
		}
		d.set(func() {
			a := d.world.Apps["shop"]
			a.UserLocks = []state.UserLock{{Service: "web", Holder: "updates.lock"}}
			d.world.Apps["shop"] = a
		})
		r.SetTarget(target(shop("shop", "c2", map[string]string{"web": "web:2"})))
		elapse(24 * time.Hour)
		if since := r.Pulse().Stalled(time.Now(), patience); !since.IsZero() || r.Status().Settled {
			t.Errorf("settled %v; who waits for a lock counts as stalled since %v", r.Status().Settled, since)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// A loop that nobody runs has something to do and does not do it.
func TestALoopThatDoesNotRunShows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := run.New(run.Config{Device: newDevice()})
		if since := r.Pulse().Stalled(time.Now().Add(time.Hour), time.Minute); !since.IsZero() {
			t.Error("nobody has asked it for anything")
		}
		r.Look()
		elapse(2 * time.Minute)
		if since := r.Pulse().Stalled(time.Now(), time.Minute); since.IsZero() {
			t.Error("it does not show")
		}
	})
}
