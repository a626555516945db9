package run_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/reconcile/sim"
	"deckhand/reconcile/sim/simtest"
	"deckhand/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// elapse lets virtual time pass: every test here runs in a synctest bubble.
func elapse(d time.Duration) {
	time.Sleep(d) //nolint:forbidigo // virtual time
}

// device is a simulated engine: every step takes a second and may be told to
// fail or to hang.
type device struct {
	mu    sync.Mutex
	world state.World
	fails map[string]error         // title → what Do returns
	hangs map[string]chan struct{} // title → ends when closed or cancelled
	log   []string
	looks int
	away  error // the engine does not answer
	hint  chan struct{}
}

func newDevice() *device {
	return &device{world: simtest.Empty(), fails: map[string]error{}, hangs: map[string]chan struct{}{}, hint: make(chan struct{}, 1)}
}

func (d *device) Observe(context.Context) (state.World, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.looks++
	return d.world, d.away
}

func (d *device) Do(ctx context.Context, s reconcile.Step, _ func(done, total int64)) error {
	d.mu.Lock()
	err, hang := d.fails[s.Title()], d.hangs[s.Title()]
	d.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
		return ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.log = append(d.log, "failed "+s.Title())
		return err
	}
	next, err := sim.Apply(d.world, s)
	if err != nil {
		return err
	}
	d.world = next
	d.log = append(d.log, s.Title())
	return nil
}

func (d *device) Watch(ctx context.Context) <-chan struct{} {
	out := make(chan struct{}, 1)
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

func (d *device) did(title string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, l := range d.log {
		if l == title {
			n++
		}
	}
	return n
}

func (d *device) set(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// memory remembers failures between two runs.
type memory struct {
	mu  sync.Mutex
	all map[reconcile.Key]state.Failure
}

func (m *memory) Failures() map[reconcile.Key]state.Failure {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.all
}

func (m *memory) SaveFailures(all map[reconcile.Key]state.Failure) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.all = all
	return nil
}

// shop is an app whose services run the given images.
func shop(uuid, commit string, images map[string]string) state.App {
	a := state.App{UUID: uuid, ID: 1, Name: uuid, Commit: commit, ReleaseID: 1, Services: map[string]state.Service{}}
	for name, image := range images {
		s := state.Service{Name: name, ID: 1, ImageID: 1, Image: image, Running: true}
		s.Hash = s.Spec.Hash()
		a.Services[name] = s
	}
	return a
}

func target(apps ...state.App) state.Target {
	t := state.Target{Apps: map[string]state.App{}}
	for _, a := range apps {
		t.Apps[a.UUID] = a
	}
	return t
}

// start runs a loop until the test ends.
func start(t *testing.T, d *device, m *memory) *run.Runner {
	t.Helper()
	cfg := run.Config{Device: d}
	if m != nil {
		cfg.Memory = m
	}
	r := run.New(cfg)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = r.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return r
}

func TestReachesTheTargetAndRests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := start(t, d, nil)
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "web:1", "db": "db:1"})))
		elapse(time.Minute)
		if s := r.Status(); !s.Settled || len(s.World.Apps["shop"].Containers) != 2 || s.World.Apps["shop"].Commit != "c1" {
			t.Fatalf("not settled: %+v\n%s", s.World, s.Plan)
		}
		looks := d.looks
		elapse(24 * time.Hour)
		if d.looks != looks {
			t.Errorf("%d looks at the engine in a day in which nothing happened", d.looks-looks)
		}
	})
}

func TestAFailureBlocksOnlyWhatDependsOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		d.fails["fetch bad:1 for sick/web"] = state.Classify(state.ClassNotFound, errors.New("manifest unknown"))
		r := start(t, d, nil)
		r.SetTarget(target(shop("sick", "c1", map[string]string{"web": "bad:1"}), shop("well", "c1", map[string]string{"web": "good:1"})))
		elapse(30 * time.Second)
		s := r.Status()
		if s.World.Apps["well"].Commit != "c1" {
			t.Errorf("the healthy app did not arrive:\n%s", s.Plan)
		}
		if len(s.Plan.Waiting) != 1 || s.Plan.Waiting[0].Class != state.ClassNotFound || !strings.Contains(s.Plan.Waiting[0].Text, "manifest unknown") {
			t.Errorf("waiting: %+v", s.Plan.Waiting)
		}
		d.set(func() { clear(d.fails) })
		elapse(time.Hour)
		if s := r.Status(); !s.Settled || len(s.Failures) != 0 {
			t.Errorf("not settled after the cause was gone: %+v", s.Failures)
		}
	})
}

func TestBackOffDoublesAndSurvivesTheProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, m := newDevice(), &memory{}
		d.fails["fetch bad:1 for sick/web"] = state.Classify(state.ClassNetwork, errors.New("connection reset"))
		want := target(shop("sick", "c1", map[string]string{"web": "bad:1"}))
		r := start(t, d, m)
		r.SetTarget(want)
		elapse(10 * time.Minute)
		tries := d.did("failed fetch bad:1 for sick/web")
		if tries < 7 || tries > 12 {
			t.Errorf("%d tries in ten minutes, want about nine: 1+2+4+…+256 s", tries)
		}
		again := start(t, d, m) // the process died and came back
		again.RestoreTarget(want)
		elapse(30 * time.Second)
		if more := d.did("failed fetch bad:1 for sick/web") - tries; more > 2 {
			t.Errorf("%d more tries at once after a restart: the back-off was forgotten", more)
		}
		tries = d.did("failed fetch bad:1 for sick/web")
		again.Retry() // an operator asks
		elapse(2 * time.Second)
		if d.did("failed fetch bad:1 for sick/web") == tries {
			t.Error("an operator's retry did not try at once")
		}
	})
}

func TestANewTargetCancelsAHangingDownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		d.hangs["fetch huge:1 for shop/web"] = make(chan struct{})
		r := start(t, d, nil)
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "huge:1"})))
		elapse(time.Hour)
		r.SetTarget(target(shop("shop", "c2", map[string]string{"web": "small:1"})))
		elapse(10 * time.Second)
		if s := r.Status(); !s.Settled || s.World.Apps["shop"].Commit != "c2" {
			t.Errorf("the hanging download blocks the next release:\n%s", s.Plan)
		}
	})
}

// A target that is taken back after its update stopped the old container: the
// old container runs again.
func TestTakenBackUpdateStartsTheOldContainerAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := start(t, d, nil)
		first := target(shop("shop", "c1", map[string]string{"web": "web:1"}))
		r.SetTarget(first)
		elapse(time.Minute)
		d.set(func() { d.fails["start shop/web"] = errors.New("no such device") })
		r.SetTarget(target(shop("shop", "c2", map[string]string{"web": "web:2"})))
		elapse(time.Minute)
		if now := r.Status().World.Apps["shop"].Containers; slices.ContainsFunc(now, state.Container.Up) {
			t.Fatalf("the update should be stuck between stop and start: %+v", now)
		}
		d.set(func() { clear(d.fails) })
		r.SetTarget(first)
		elapse(time.Minute)
		s := r.Status()
		if now := s.World.Apps["shop"].Containers; !s.Settled || len(now) != 1 || !now[0].Up() || now[0].Commit != "c1" {
			t.Errorf("after the target was taken back: %+v\n%s", now, s.Plan)
		}
	})
}

func TestDriftIsRepairedOnAHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := start(t, d, nil)
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "web:1"})))
		elapse(time.Minute)
		d.set(func() { // somebody removes the container
			a := d.world.Apps["shop"]
			a.Containers = nil
			d.world = state.World{Apps: map[string]state.AppNow{"shop": a}, Images: d.world.Images}
		})
		d.hint <- struct{}{}
		elapse(time.Minute)
		if s := r.Status(); !s.Settled || len(s.World.Apps["shop"].Containers) != 1 {
			t.Errorf("not repaired:\n%s", s.Plan)
		}
	})
}

func TestAnEngineThatIsAwayIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		d.away = state.Classify(state.ClassEngine, errors.New("connection refused"))
		r := start(t, d, nil)
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "web:1"})))
		elapse(10 * time.Minute)
		if s := r.Status(); s.Err == nil || s.Settled {
			t.Errorf("status while the engine is away: %+v", s)
		}
		if d.looks > 100 {
			t.Errorf("%d looks in ten minutes at an engine that is away", d.looks)
		}
		d.set(func() { d.away = nil })
		elapse(time.Minute)
		if s := r.Status(); !s.Settled {
			t.Errorf("not settled after the engine came back:\n%s", s.Plan)
		}
	})
}

// stuck says that it did a step and did nothing: what a fault of ours would do.
type stuck struct{ *device }

func (s stuck) Do(_ context.Context, step reconcile.Step, _ func(done, total int64)) error {
	s.set(func() { s.log = append(s.log, step.Title()) })
	return nil
}

func TestAStepThatDoesNotShowIsNotRepeatedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := run.New(run.Config{Device: stuck{d}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "web:1"})))
		elapse(time.Hour)
		if n := d.did("fetch web:1 for shop/web"); n > 20 {
			t.Errorf("done %d times in an hour", n)
		}
		if w := r.Status().Plan.Waiting; len(w) != 1 || !strings.Contains(w[0].Text, "does not show") {
			t.Errorf("nobody is told: %+v", w)
		}
		cancel()
		<-done
	})
}

func TestEndsAtOnceAndLeavesContainersAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		d.hangs["fetch huge:1 for shop/web"] = make(chan struct{})
		r := run.New(run.Config{Device: d})
		ctx, cancel := context.WithCancel(t.Context())
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "huge:1", "db": "db:1"})))
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		elapse(5 * time.Second)
		cancel()
		began := time.Now()
		<-done
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("ending took %s", took)
		}
	})
}

func TestALockOfSomebodyElseHoldsUpOnlyWhatItGuards(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := start(t, d, nil)
		shop1, blog1 := shop("shop", "c1", map[string]string{"web": "web:1"}), shop("blog", "c1", map[string]string{"web": "web:1"})
		r.SetTarget(target(shop1, blog1))
		elapse(time.Minute)
		d.set(func() {
			a := d.world.Apps["shop"]
			a.UserLocks = []state.UserLock{{Service: "web", Holder: "updates.lock, owner uid 0"}}
			d.world.Apps["shop"] = a
		})
		r.SetTarget(target(shop("shop", "c2", map[string]string{"web": "web:2"}), shop("blog", "c2", map[string]string{"web": "web:2"})))
		elapse(time.Hour)
		s := r.Status()
		if s.World.Apps["blog"].Commit != "c2" {
			t.Errorf("the lock of one app held up another:\n%s", s.Plan)
		}
		if w := s.Plan.Waiting; s.World.Apps["shop"].Commit != "c1" || len(w) != 1 || !strings.Contains(w[0].Holder, "uid 0") || len(s.Running) > 0 {
			t.Errorf("waiting %+v, running %+v", w, s.Running)
		}
		if d.did("take locks of shop") > 0 || d.did("stop shop/web c1") > 0 {
			t.Errorf("the lock was not respected: %q", d.log)
		}
		d.set(func() {
			a := d.world.Apps["shop"]
			a.UserLocks = nil
			d.world.Apps["shop"] = a
		})
		d.hint <- struct{}{}
		elapse(time.Minute)
		if s := r.Status(); !s.Settled || s.World.Apps["shop"].Commit != "c2" || len(s.World.Apps["shop"].Locked) > 0 {
			t.Errorf("not updated after the lock was given up:\n%s", s.Plan)
		}
	})
}

// forgetful makes containers that never look as they were asked for.
type forgetful struct{ *device }

func (f forgetful) Do(ctx context.Context, s reconcile.Step, p func(done, total int64)) error {
	if err := f.device.Do(ctx, s, p); err != nil {
		return err
	}
	if _, ok := s.(reconcile.Start); ok {
		f.set(func() {
			a := f.world.Apps["shop"]
			a.Containers = slices.Clone(a.Containers)
			for i := range a.Containers {
				a.Containers[i].Hash = "v1:other"
			}
			f.world.Apps["shop"] = a
		})
	}
	return nil
}

func TestAContainerIsNotReplacedForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := run.New(run.Config{Device: forgetful{d}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = r.Run(ctx) }()
		r.SetTarget(target(shop("shop", "c1", map[string]string{"web": "web:1"})))
		elapse(time.Hour)
		s := r.Status()
		if n := d.did("create shop/web"); n > 15 {
			t.Errorf("made %d times in an hour", n)
		}
		up := slices.ContainsFunc(s.World.Apps["shop"].Containers, state.Container.Up)
		if w := s.Plan.Waiting; len(w) != 1 || !strings.Contains(w[0].Text, "still planned") || !up {
			t.Errorf("up %v, waiting %+v", up, w)
		}
		cancel()
		<-done
	})
}

func TestARebootComesLastAndAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice()
		r := start(t, d, nil)
		a := shop("shop", "c1", map[string]string{"web": "web:1", "db": "db:1"})
		web := a.Services["web"]
		web.RequiresReboot = true
		a.Services["web"] = web
		r.SetTarget(target(a))
		elapse(time.Minute)
		s := r.Status()
		if !s.Settled || s.World.Apps["shop"].Commit != "c1" {
			t.Fatalf("not settled:\n%s", s.Plan)
		}
		reboot, start := slices.Index(d.log, "reboot"), slices.Index(d.log, "start shop/web")
		if d.did("reboot") != 1 || start < reboot || slices.Index(d.log, "start shop/db") > reboot || slices.Index(d.log, "commit shop c1") < start {
			t.Errorf("order: %q", d.log)
		}
	})
}
