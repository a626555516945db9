package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deckhand/engine/enginetest"
	"deckhand/reconcile"
)

// moment is what a crash leaves behind.
type moment struct {
	what   string // the first crash point that leaves this
	points int    // how many do
	engine enginetest.Snapshot
	disk   disk
	host   *host
	at     time.Time
}

// film is an undisturbed run with every moment at which it could have ended.
type film struct {
	end     string   // see portrait
	volumes []string // at the end
	had     []string // at the beginning
	reboots bool     // the device is rebooted on the way
	moments []*moment
	points  int
	calls   []string // routes of the calls, with their objects
	took    time.Duration
}

// camera takes moments while a run goes on.
type camera struct {
	fake *enginetest.Fake
	host *host
	at   place

	mu   sync.Mutex
	film *film
	seen map[[2]uint64]*moment
	err  error
}

func (c *camera) take(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.film == nil || c.err != nil {
		return
	}
	disk, err := c.at.copy()
	if err != nil {
		c.err = fmt.Errorf("%s: %w", what, err)
		return
	}
	c.film.points++
	key := [2]uint64{uint64(c.fake.Changes()), disk.sum}
	if pending, _ := c.host.Pending(); pending {
		key[0] |= 1 << 63
	}
	if m := c.seen[key]; m != nil {
		m.points++
		return
	}
	m := &moment{what: what, points: 1, engine: c.fake.Snapshot(), disk: disk, host: c.host.copy(), at: time.Now()}
	c.seen[key] = m
	c.film.moments = append(c.film.moments, m)
}

// inBubble runs f in virtual time.
func inBubble(t *testing.T, what string, f func(ctx context.Context) error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		if err := f(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	})
}

// record plays a scene undisturbed.
func record(ctx context.Context, x *scene, at place) (f *film, err error) {
	c := &camera{at: at, seen: map[[2]uint64]*moment{}}
	var calls []string
	cfg := x.config()
	cfg.Before = func(_ context.Context, call enginetest.Call) error {
		c.take("before " + call.Route + " " + call.Object)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.film != nil {
			calls = append(calls, call.Route+" "+call.Object)
		}
		return nil
	}
	cfg.After = func(_ context.Context, call enginetest.Call) error {
		c.take("after " + call.Route + " " + call.Object)
		return nil
	}
	c.fake = enginetest.NewFake(cfg)
	defer c.fake.Close()
	c.host = newHost(time.Now(), x.first.RebootPending)
	pause(ctx, 2*time.Second)
	if err := x.put(ctx, at, c.fake); err != nil {
		return nil, fmt.Errorf("make the device: %w", err)
	}
	if x.rebooted() {
		c.host.boot = time.Now()
		pause(ctx, 2*time.Second)
	}
	f = &film{had: c.fake.Volumes()}
	began := time.Now()
	c.mu.Lock()
	c.film = f
	c.mu.Unlock()
	f.end, err = drive(ctx, x, at, c.fake, c.host, false, c.take)
	f.took, f.calls, f.volumes = time.Since(began), calls, c.fake.Volumes()
	f.reboots = c.host.boot.After(began)
	if err != nil {
		return f, fmt.Errorf("undisturbed: %w", err)
	}
	return f, c.err
}

// rebooted reports whether the device was started after the last container was
// made.
func (x *scene) rebooted() bool {
	last := int64(0)
	for _, a := range x.first.Apps {
		for _, c := range a.Containers {
			last = max(last, c.Created)
		}
	}
	return x.first.Boot > last
}

// drive lets supervisors work, one after the other if the device is rebooted,
// and gives the end. take is told at the boundaries of steps.
func drive(ctx context.Context, x *scene, at place, fake *enginetest.Fake, h *host, again bool, take func(what string)) (string, error) {
	for range 5 {
		end, err := live(ctx, x, at, fake, h, again, take)
		if !errors.Is(err, errReboot) {
			return end, err
		}
		if err := at.reboot(); err != nil {
			return "", err
		}
		pause(ctx, 2*time.Second)
		fake.Restart()
		h.up()
		pause(ctx, 2*time.Second)
		again = true
	}
	return "", errors.New("the device is rebooted again and again")
}

// live is one life of a supervisor.
func live(ctx context.Context, x *scene, at place, fake *enginetest.Fake, h *host, again bool, take func(what string)) (end string, err error) {
	p, err := begin(x, at, fake, h)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	if take != nil {
		p.step = func(s reconcile.Step) { take("beside " + s.Title()) }
	}
	if err := p.work(ctx, again); err != nil {
		return "", err
	}
	if _, err := p.settle(ctx); err != nil {
		return "", err
	}
	if take != nil {
		take("at the end")
	}
	return p.portrait(ctx)
}

func (x *scene) config() enginetest.Config {
	return enginetest.Config{Program: x.program, Delay: delay}
}

// resume goes on from a moment with a new process.
func resume(ctx context.Context, x *scene, m *moment, at place) (end string, err error) {
	if err := at.restore(m.disk); err != nil {
		return "", err
	}
	pause(ctx, time.Until(m.at)+time.Second)
	fake := m.engine.NewFake(x.config())
	defer fake.Close()
	return drive(ctx, x, at, fake, m.host.copy(), true, nil)
}

// pause lets virtual time pass.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
