//go:build bench

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/hostapp"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor"
	"deckhand/target"
)

// callsPerPass is the most that a look in which nothing is to do may ask.
const callsPerPass = 6

// calls: what the engine is asked for a job, and what the supervisor costs when
// nothing is to do.
func calls(t *testing.T, b *bench) {
	p := newProxy(t, b.engine)
	var rest []*resting
	out := b.table("Engine calls of a job, from the target to settled",
		"job", "services", "changes", "the least", "questions", "lists for looks", "all")
	for _, n := range b.sizes(1, 5, 20, 50) {
		d := b.start(t, p.host)
		r := alike(n, b.unique("calls"), "bench:1")
		job := func(title string, least, starts int, r release) {
			d.listening(t)
			<-time.After(time.Second) // what the job before left to do
			p.take()
			events := watch(t, b.engine)
			defer events.stop()
			d.offer(t, r)
			events.last(t, "start", starts)
			d.settled(t, r.commit)
			c := counted(p.take())
			out.row(title, n, c.changes, least, c.questions, c.lists, c.total())
		}
		job("install", 2*n+1, n, r)
		rest = append(rest, b.atRest(t, d, n))
		s := r.services["s0"]
		s.level = "debug"
		r.services["s0"] = s
		job("one variable", 4, 1, r)
		job("all images", 4*n, n, alike(n, b.unique("calls"), "bench:2"))
		d.stop(t)
		rest[len(rest)-1].passes(t, b, d)
		b.sweep(t)
	}
	out = b.table("Nothing to do: the program, connected to its cloud",
		"services", "resident MiB", "of it anonymous", "most resident", "own CPU, s per minute", "engine's CPU, s per minute")
	for _, r := range rest {
		out.row(r.n, r.resident, r.anonymous, r.most, r.own, r.engine)
	}
	out = b.table("Nothing to do: one pass, milliseconds",
		"services", "events", "engine calls", "target", "took", "own CPU", "engine's CPU")
	for _, r := range rest {
		for _, c := range []struct {
			events string
			cost
		}{{"flow", r.told}, {"are cut off", r.blind}} {
			out.row(r.n, c.events, c.calls, fmt.Sprintf("≤ %d", callsPerPass), c.took, c.own, c.engine)
			if c.calls > callsPerPass {
				t.Errorf("%d services: %.1f engine calls in a pass in which nothing is to do, at most %d", r.n, c.calls, callsPerPass)
			}
		}
	}
}

// resting is what a settled device costs.
type resting struct {
	n                         int
	resident, anonymous, most float64
	own, engine               string // for a minute; only of the largest device, since it takes time
	told, blind               cost
}

// cost is that of one pass, in milliseconds.
type cost struct {
	calls             float64
	took, own, engine string
}

func (b *bench) atRest(t *testing.T, d *device, n int) *resting {
	t.Helper()
	const settling, watched = 3 * time.Second, 20 * time.Second
	<-time.After(settling) // garbage of the installation goes
	r := &resting{n: n}
	if all := b.sizes(1, 5, 20, 50); n == slices.Max(all) {
		own, theirs := cpu(t, d.process.PID), cpu(t, b.engine.PID)
		<-time.After(watched)
		minute := func(used time.Duration) string {
			return fmt.Sprintf("%.2f", (used * (time.Minute / watched)).Seconds())
		}
		r.own, r.engine = minute(cpu(t, d.process.PID)-own), minute(cpu(t, b.engine.PID)-theirs)
	}
	r.resident, r.anonymous, r.most = memory(t, d.process.PID, "VmRSS"), memory(t, d.process.PID, "RssAnon"), memory(t, d.process.PID, "VmHWM")
	return r
}

// passes lets a loop look again and again at what a supervisor that was stopped
// has left, in this process: nobody asks it anything else.
func (r *resting) passes(t *testing.T, b *bench, d *device) {
	t.Helper()
	c := engine.Config{Host: b.engine.Host, RunDir: d.run()}
	r.told = b.cost(t, attach(t, d, c, false))
	r.blind = b.cost(t, attach(t, d, c, true))
}

// cost makes many passes and gives what one of them costs.
func (b *bench) cost(t *testing.T, l *loop) cost {
	t.Helper()
	defer l.close(t)
	const many = 100
	for range 3 { // what was on its way when it started
		l.pass(t)
	}
	before, own, theirs, began := l.engine.Calls(), self(t), cpu(t, b.engine.PID), time.Now()
	for range many {
		l.pass(t)
	}
	each := func(d time.Duration) string { return fmt.Sprintf("%.1f", float64((d/many).Microseconds())/1000) }
	return cost{
		took: each(time.Since(began)), own: each(self(t) - own), engine: each(cpu(t, b.engine.PID) - theirs),
		calls: float64(l.engine.Calls()-before) / many,
	}
}

// self is the processor time that this process has used.
func self(t *testing.T) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// loop is the inner part of a supervisor in this process.
type loop struct {
	engine *engine.Engine
	store  *store.Store
	core   *supervisor.Core
	runner *run.Runner
	cancel context.CancelFunc
	ended  chan error
}

// deaf is a device that hears of no change, so that each look asks for everything.
type deaf struct{ run.Device }

// Watch implements run.Device.
func (deaf) Watch(context.Context) <-chan struct{} { return make(chan struct{}) }

// newLoop opens a store and runs a loop on it.
func newLoop(t *testing.T, dir string, c engine.Config, blind bool) *loop {
	t.Helper()
	l := &loop{ended: make(chan error, 1)}
	var err error
	if l.store, err = store.Open(filepath.Join(dir, "deckhand.db"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	if l.engine, err = engine.New(c); err != nil {
		t.Fatal(err)
	}
	l.core, err = supervisor.NewCore(supervisor.CoreConfig{
		Engine: l.engine, Store: l.store, RunDir: c.RunDir, Host: hostapp.NewReboots(hostapp.RebootConfig{RunDir: c.RunDir}), Log: zerolog.Nop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	device := l.core.Device()
	if blind {
		device = deaf{device}
	}
	l.runner = run.New(run.Config{Device: device, Memory: l.core.Memory(), Log: zerolog.Nop()})
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	go func() { l.ended <- l.runner.Run(ctx) }()
	return l
}

// attach goes on where a device was stopped.
func attach(t *testing.T, d *device, c engine.Config, blind bool) *loop {
	t.Helper()
	l := newLoop(t, d.dir, c, blind)
	last, ok, err := l.store.Targets.Last()
	if err != nil || !ok {
		t.Fatalf("the device has stored no target: %v", err)
	}
	want, _, err := target.DecodeV3(t.Context(), last.Document, target.Options{Device: deviceUUID})
	if err != nil {
		t.Fatal(err)
	}
	l.core.Restore(want)
	l.runner.RestoreTarget(want)
	l.until(t, "settled", func(s run.Status) bool { return s.Settled })
	return l
}

func (l *loop) close(t *testing.T) {
	t.Helper()
	l.cancel()
	if err := <-l.ended; err != nil {
		t.Error(err)
	}
	_ = l.engine.Close() // it frees connections
	if err := l.store.Close(); err != nil {
		t.Error(err)
	}
}

// until waits until the loop's status has a property.
func (l *loop) until(t *testing.T, what string, is func(run.Status) bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for {
		changed := l.runner.Changed()
		s := l.runner.Status()
		if is(s) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s: not within a minute; %v\n%s", what, s.Err, s.Plan)
		}
	}
}

// pass asks for one more look and waits for it; nothing may be to do.
func (l *loop) pass(t *testing.T) {
	t.Helper()
	last := l.runner.Status().Looked
	l.runner.Look()
	l.until(t, "another look", func(s run.Status) bool { return s.Looked != last })
	if s := l.runner.Status(); !s.Settled {
		t.Fatalf("something is to do:\n%s", s.Plan)
	}
}

// reach gives the loop another target and waits until nothing is to do.
func (l *loop) reach(t *testing.T, want state.Target) {
	t.Helper()
	if err := l.core.Accept(want, l.runner.Status().World); err != nil {
		t.Fatal(err)
	}
	l.runner.SetTarget(want)
	l.until(t, "settled", func(s run.Status) bool {
		return s.Settled && s.Target.Apps[appUUID].Services["s0"].Hash == want.Apps[appUUID].Services["s0"].Hash
	})
}
