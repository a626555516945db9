package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/supervisor/history"
)

const (
	// answerFirst is how long a restart of the device waits, so that whoever
	// asked for it gets the answer.
	answerFirst = time.Second
	// downWithin is after which time a device that still runs may be asked again.
	downWithin = 10 * time.Minute
)

// mains restarts the device or switches it off.
type mains interface {
	OnTrial() bool // a new host OS must show that it works; a restart would take it back
	ForceReboot(ctx context.Context) error
	PowerOff(ctx context.Context) error
}

// power is the end of the device, asked for over the device API. The zero value
// is ready.
type power struct {
	wait time.Duration // 0: answerFirst

	mu      sync.Mutex
	until   time.Time // while it is not over, it goes down
	running sync.WaitGroup
}

// errGoingDown stops steps: nobody wants an update to begin now.
var errGoingDown = state.Classify(state.ClassCancelled, errors.New("the device goes down"))

// Reboot implements localapi.Device.
func (e edge) Reboot(ctx context.Context, force bool) error {
	return e.s.goDown(ctx, force, "restarts", func(ctx context.Context) error { return e.s.mains.ForceReboot(ctx) })
}

// Shutdown implements localapi.Device.
func (e edge) Shutdown(ctx context.Context, force bool) error {
	return e.s.goDown(ctx, force, "switches off", func(ctx context.Context) error { return e.s.mains.PowerOff(ctx) })
}

// goDown checks whether the device may go down, and lets that happen a moment
// later. Once that is settled, whoever asks gets the same answer.
func (s *Supervisor) goDown(ctx context.Context, force bool, verb string, do func(context.Context) error) error {
	p := &s.power
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Now().Before(p.until) {
		return nil
	}
	if s.mains.OnTrial() && !force {
		return state.Classify(state.ClassLocked, errors.New("Waiting for Host OS update to finish")) //nolint:staticcheck // balena's words
	}
	free, err := s.lockAll(ctx, force)
	if err != nil {
		return err
	}
	p.until = time.Now().Add(downWithin)
	s.device.rest(p.until)
	s.cfg.Log.Warn().Bool("forced", force).Msg("the device " + verb + ": it was asked for over the local API")
	ctx = context.WithoutCancel(ctx) // the caller may go
	p.running.Go(func() {
		time.Sleep(cmp.Or(p.wait, answerFirst))
		err := do(ctx)
		if err == nil {
			return // locks and all end with the device
		}
		s.cfg.Log.Error().Err(err).Msg("the device cannot go down; it goes on")
		free(ctx)
		p.mu.Lock()
		p.until = time.Time{}
		p.mu.Unlock()
		s.device.rest(time.Time{})
		s.runner.Retry()
	})
	return nil
}

// lockAll takes the update locks of every app, or none. free gives up those that
// were not ours before.
func (s *Supervisor) lockAll(ctx context.Context, force bool) (free func(context.Context), err error) {
	w, err := s.device.Observe(ctx)
	if err != nil {
		return nil, err
	}
	var taken []int64
	free = func(ctx context.Context) {
		for _, id := range taken {
			if err := s.device.Locks.Release(ctx, id); err != nil {
				s.cfg.Log.Warn().Err(err).Int64("app", id).Msg("cannot give up a lock")
			}
		}
	}
	if s.device.Locks == nil {
		return free, nil
	}
	ctx, cancel := context.WithTimeout(ctx, turnPatience)
	defer cancel()
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		now := w.Apps[uuid]
		services := history.ServicesOf(state.App{}, now)
		if now.ID == 0 || len(services) == 0 {
			continue
		}
		err := s.lockApp(ctx, now, services, force || permitted(w, uuid))
		if err != nil {
			free(context.WithoutCancel(ctx))
			return nil, err
		}
		if len(now.Locked) == 0 {
			taken = append(taken, now.ID)
		}
	}
	return free, nil
}

func (s *Supervisor) lockApp(ctx context.Context, now state.AppNow, services []string, force bool) error {
	if !force && len(now.UserLocks) > 0 {
		return lockedBy(now.ID, now.UserLocks[0].Service)
	}
	take := reconcile.TakeLocks{App: reconcile.App{UUID: now.UUID, ID: now.ID}, Services: services}
	if force {
		take.By = "a forced restart"
	}
	err := s.device.takeLocks(ctx, take)
	if err == nil {
		return nil
	}
	if held, ok := errors.AsType[*locks.HeldError](err); ok {
		return lockedBy(now.ID, held.Lock.Service)
	}
	if ctx.Err() != nil {
		return lockedByUs(now.ID)
	}
	return fmt.Errorf("take the locks of app %d: %w", now.ID, err)
}

// rest lets nothing begin until then.
func (d *device) rest(until time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.until = until
}

func (d *device) rests() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return time.Now().Before(d.until)
}

// Blink implements localapi.Device.
func (e edge) Blink() error { return e.s.led.Blink() }
