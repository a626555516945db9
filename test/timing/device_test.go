package timing

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing/synctest"
	"time"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/state"
)

// What a step takes here. docs/strategies.md tells its readers.
const (
	takesFetch  = 2 * time.Second // and one second more for web
	takesStop   = time.Second
	takesStart  = 300 * time.Millisecond
	takesAnswer = 1500 * time.Millisecond // until a new container has taken over
	takesCheck  = 700 * time.Millisecond  // until a new container is healthy
	takesCreate = 200 * time.Millisecond
	takesRemove = 100 * time.Millisecond
	takesRename = 50 * time.Millisecond
	takesNote   = 10 * time.Millisecond // a lock, a commit, and whatever else is small
)

// look is what the device was like from a moment on.
type look struct {
	at    time.Duration
	world state.World
}

// deed is a step on its way.
type deed struct {
	step     reconcile.Step
	from, to time.Duration
}

// device is the simulated device of the planner's tests, on which every step
// takes its time. It remembers all that happened since zero.
type device struct {
	answers bool // new containers say that they have taken over
	hint    chan struct{}

	mu    sync.Mutex
	zero  time.Time
	world state.World
	looks []look
	deeds []deed
}

func newDevice(answers bool) *device {
	return &device{
		answers: answers, hint: make(chan struct{}, 1),
		world: state.World{Apps: map[string]state.AppNow{}, Images: map[string]state.Image{}, APINetwork: true},
	}
}

// begin forgets what led to where the device is now.
func (d *device) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.zero, d.deeds, d.looks = time.Now(), nil, []look{{0, d.world}}
}

// lock is a program that takes or gives back the update lock of its service.
func (d *device) lock(app string, by ...state.UserLock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w := d.world
	w.Apps = maps.Clone(w.Apps)
	a := w.Apps[app]
	a.UserLocks = by
	w.Apps[app] = a
	d.show(w)
}

// show makes a world the present one; the lock is held.
func (d *device) show(w state.World) {
	d.world = w
	d.looks = append(d.looks, look{time.Since(d.zero), w})
}

// Observe implements run.Device.
func (d *device) Observe(context.Context) (state.World, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.world, nil
}

// Do implements run.Device.
func (d *device) Do(ctx context.Context, s reconcile.Step, _ func(done, total int64)) error {
	from, takes := time.Now(), lasts(s)
	h, handsOver := s.(reconcile.Handover)
	late := handsOver && !d.answers
	if late {
		takes = h.Timeout
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deeds = append(d.deeds, deed{s, from.Sub(d.zero), time.Since(d.zero)})
	next, err := sim.Apply(d.world, s)
	if err != nil {
		return err
	}
	if late && h.KeepOld {
		next.Apps[h.App.UUID].Handovers[h.Service] = state.Handover{Hash: h.Hash, Image: h.Image, Failed: true}
		d.show(next)
		return state.Classify(state.ClassTimeout, errors.New("it did not take over in time"))
	}
	d.show(next)
	return nil
}

// Watch implements run.Device.
func (d *device) Watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{})
	go func() {
		defer close(out)
		for {
			select {
			case <-d.hint:
				out <- struct{}{}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out
}

// lasts is how long a step takes.
func lasts(s reconcile.Step) time.Duration {
	switch s := s.(type) {
	case reconcile.Fetch:
		if s.Image == "web:2" {
			return takesFetch + time.Second
		}
		return takesFetch
	case reconcile.Create:
		return takesCreate
	case reconcile.Start:
		return takesStart
	case reconcile.Stop:
		return takesStop
	case reconcile.Handover:
		return takesAnswer
	case reconcile.Await:
		return takesCheck
	case reconcile.Remove, reconcile.RemoveImage:
		return takesRemove
	case reconcile.Rename:
		return takesRename
	case reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume, reconcile.RemoveVolume,
		reconcile.CreateAPINetwork, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.TakeLocks, reconcile.ReleaseLocks,
		reconcile.Fulfil, reconcile.Commit, reconcile.RequireReboot, reconcile.Reboot:
	}
	return takesNote
}

// pass lets virtual time pass.
func pass(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
	synctest.Wait()
}
