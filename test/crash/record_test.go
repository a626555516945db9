package crash

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

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
}

// camera takes moments while a run goes on.
type camera struct {
	fake *enginetest.Fake
	host *host
	at   place

	mu   sync.Mutex
	film *film // nil: nothing is taken
	seen map[[2]uint64]*moment
	err  error
}

// config is the scene's with the camera beside every call.
func (c *camera) config(x *scene) enginetest.Config {
	cfg := x.config()
	cfg.Before = func(_ context.Context, call enginetest.Call) error {
		c.take("before " + call.Route + " " + call.Object)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.film != nil {
			c.film.calls = append(c.film.calls, call.Route+" "+call.Object)
		}
		return nil
	}
	cfg.After = func(_ context.Context, call enginetest.Call) error {
		c.take("after " + call.Route + " " + call.Object)
		return nil
	}
	return cfg
}

// roll takes moments of what the supervisor does from now on.
func (c *camera) roll(ctx context.Context, x *scene, again bool) (*film, error) {
	f := &film{had: c.fake.Volumes()}
	began := time.Now()
	c.mu.Lock()
	c.film = f
	c.mu.Unlock()
	end, err := drive(ctx, x, c.at, c.fake, c.host, again, c.take)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.film = nil
	f.end, f.volumes, f.reboots = end, c.fake.Volumes(), c.host.boot.After(began)
	return f, errors.Join(err, c.err)
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
func record(ctx context.Context, x *scene, at place) (*film, error) {
	c := &camera{at: at, seen: map[[2]uint64]*moment{}, host: newHost(time.Now(), x.first.RebootPending)}
	c.fake = enginetest.NewFake(c.config(x))
	defer c.fake.Close()
	pause(ctx, 2*time.Second)
	if err := x.put(ctx, at, c.fake); err != nil {
		return nil, fmt.Errorf("make the device: %w", err)
	}
	if x.rebooted() {
		c.host.started()
		pause(ctx, 2*time.Second)
	}
	return c.roll(ctx, x, false)
}

// recordAgain is resume, with every moment at which the device could crash a
// second time.
func recordAgain(ctx context.Context, x *scene, m *moment, at place) (*film, error) {
	if err := at.restore(m.disk); err != nil {
		return nil, err
	}
	pause(ctx, time.Until(m.at)+time.Second)
	c := &camera{at: at, seen: map[[2]uint64]*moment{}, host: m.host.copy()}
	c.fake = m.engine.NewFake(c.config(x))
	defer c.fake.Close()
	return c.roll(ctx, x, true)
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

// agrees compares the end with that of the simulated device.
func (p *process) agrees(ctx context.Context) error {
	if p.x.end == nil {
		return nil
	}
	w, err := p.core.Device().Observe(ctx)
	if err != nil {
		return err
	}
	same := func(id string) string { return id }
	d := cmp.Diff(essence(*p.x.end, p.x.ends, imageID), essence(w, p.x.ends, same))
	if d != "" {
		return fmt.Errorf("it ends otherwise than on the simulated device (-simulated +real):\n%s\n%s%s", d, p.runner.Status().Plan, waits(p.runner.Status()))
	}
	return nil
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
		if err := p.agrees(ctx); err != nil {
			return "", err
		}
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
