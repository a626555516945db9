package supervisor

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"pgregory.net/rapid"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
	"deckhand/supervisor/leases"
)

// ofShop is what the key of a service of the shop opens.
func ofShop(service string) localapi.Scope { return localapi.Scope{App: 1, Service: service} }

func (x *told) take(t *testing.T, service string, length time.Duration) store.Lease {
	t.Helper()
	l, err := x.takeLease(t.Context(), ofShop(service), localapi.LeaseRequest{Holder: "backup", Reason: "nightly copy", For: length})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// supervisor is one without a loop.
func (x *told) supervisor() *Supervisor {
	return &Supervisor{cfg: Config{Log: zerolog.Nop()}, device: x.device, store: x.Store, journal: x.j}
}

const leaseWait = "shop/db: lease of backup (nightly copy)"

// endings are how a lease may end.
func endings() map[string]func(t *testing.T, x *told, l store.Lease) {
	return map[string]func(t *testing.T, x *told, l store.Lease){
		"released": func(t *testing.T, x *told, l store.Lease) {
			if err := x.leases.Release(l.ID, mayTouch(ofShop("db"))); err != nil {
				t.Fatal(err)
			}
		},
		"its time is over": func(_ *testing.T, x *told, _ store.Lease) { x.clock = x.clock.Add(10 * time.Minute) },
		"its container is gone": func(_ *testing.T, x *told, l store.Lease) {
			a := x.world.Apps["aaaa"]
			a.Containers = slices.DeleteFunc(slices.Clone(a.Containers), func(c state.Container) bool { return slices.Contains(l.Containers, c.ID) })
			x.world.Apps["aaaa"] = a
		},
		"the device restarts": func(t *testing.T, x *told, _ store.Lease) {
			x.close(t)
			x.boots++
			x.reopen(t)
		},
		broken: func(t *testing.T, x *told, _ store.Lease) {
			if err := x.allow(store.Override{Override: state.Override{App: "aaaa", By: "the owner", Until: x.clock.Add(time.Hour)}}); err != nil {
				t.Fatal(err)
			}
		},
	}
}

const broken = "somebody breaks it"

// An update waits for a lease as for a lock file, everybody is told who has it
// and why, and it goes on when the lease ends, however that happens.
func TestAnUpdateWaitsForALease(t *testing.T) {
	for name, end := range endings() {
		t.Run(name, func(t *testing.T) {
			x := newTold(t)
			x.accept(t, release(1, "r1"))
			x.work(t, nil)
			l := x.take(t, "db", 10*time.Minute)
			x.clock = x.clock.Add(time.Minute)
			x.accept(t, release(2, "r2"))
			x.work(t, nil)
			x.close(t)
			x.reopen(t) // the supervisor restarts: it is not forgotten
			x.work(t, nil)
			x.waitsForLease(t, l)
			end(t, x, l)
			x.work(t, nil)
			if st := x.status(t); !st.Settled || st.World.Apps["aaaa"].Commit != "r2" {
				t.Errorf("the update did not go on: %v, %s", st.Plan, st.World.Apps["aaaa"].Commit)
			}
			want, text := state.ClassNotFound, "take a new one"
			if name == broken {
				want, text = state.ClassLocked, "allowed by the owner"
			}
			_, err := x.leases.Renew(l.ID, time.Minute, mayTouch(ofShop("db")))
			if state.ClassOf(err) != want || !strings.Contains(err.Error(), text) {
				t.Errorf("renewing afterwards: %v, want class %s", err, want)
			}
		})
	}
}

// waitsForLease checks who is told what the update waits for.
func (x *told) waitsForLease(t *testing.T, l store.Lease) {
	t.Helper()
	st := x.status(t)
	if w := st.Plan.Waiting; len(w) != 1 || w[0].Holder != leaseWait || !w[0].Since.Equal(l.Since) || w[0].Class != state.ClassLocked {
		t.Fatalf("waits: %+v", w)
	}
	if text := st.Plan.String(); !strings.Contains(text, "an update lock is held by "+leaseWait+" since ") {
		t.Errorf("plan:\n%s", text)
	}
	if v := view(st); v.State != StateWaiting || v.Waiting[0].Holder != leaseWait {
		t.Errorf("status: %+v", v)
	}
	if b := x.explain(t, "web").Blockers; len(b) != 1 || b[0].Kind != history.BlockedLock || b[0].Holder != leaseWait {
		t.Errorf("explanation: %+v", b)
	}
	if w := reportWaits(st)["aaaa"]; len(w) != 1 || w[0].Holder != leaseWait {
		t.Errorf("report: %+v", w)
	}
}

// reopen is a start of the supervisor on the same disk.
func (x *told) reopen(t *testing.T) {
	t.Helper()
	x.now = x.device.Now
	x.open(t)
	x.disk.Store = x.Store.History
	x.j = history.New(history.Config{Store: x.disk, Target: x.target, Now: x.device.Now, Log: zerolog.Nop()})
	x.use(release(2, "r2"))
}

// Renewing keeps a lease, releasing ends it once, and nobody touches another's.
func TestALeaseBelongsToItsService(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	l := x.take(t, "db", time.Minute)
	x.clock = x.clock.Add(50 * time.Second)
	l, err := x.leases.Renew(l.ID, time.Minute, mayTouch(ofShop("db")))
	if err != nil || !l.Until.Equal(x.clock.Add(time.Minute)) {
		t.Fatalf("%v %v", l.Until, err)
	}
	x.clock = x.clock.Add(50 * time.Second)
	if n := x.leases.Holding(); n != 1 {
		t.Fatalf("%d leases hold after a renewal", n)
	}
	for _, s := range []localapi.Scope{ofShop("web"), {App: 2, Service: "db"}, {App: 2}} {
		_, renew := x.leases.Renew(l.ID, time.Minute, mayTouch(s))
		for _, err := range []error{renew, x.leases.Release(l.ID, mayTouch(s))} {
			if !errors.Is(err, leases.ErrNoLease) {
				t.Errorf("%+v: %v", s, err)
			}
		}
	}
	if err := x.leases.Release(l.ID, mayTouch(localapi.Scope{All: true})); err != nil {
		t.Errorf("the owner: %v", err)
	}
	if err := x.leases.Release(l.ID, mayTouch(ofShop("db"))); state.ClassOf(err) != state.ClassNotFound {
		t.Errorf("twice: %v", err)
	}
}

func TestWhatNoLeaseIsGivenFor(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	whole := localapi.Scope{All: true}
	for _, c := range []struct {
		name string
		who  localapi.Scope
		r    localapi.LeaseRequest
		want state.Class
		text string
	}{
		{"no holder", whole, localapi.LeaseRequest{Service: "web"}, state.ClassInvalid, "say who takes the lease"},
		{"two lines", ofShop("web"), localapi.LeaseRequest{Holder: "a\nb"}, state.ClassInvalid, "holder: it must be one line"},
		{"no text", ofShop("web"), localapi.LeaseRequest{Reason: "\xff"}, state.ClassInvalid, "reason: it must be one line"},
		{"a novel", ofShop("web"), localapi.LeaseRequest{Reason: strings.Repeat("x", 201)}, state.ClassInvalid, "longer than 200 bytes"},
		{"too short", ofShop("web"), localapi.LeaseRequest{For: time.Millisecond}, state.ClassInvalid, "lasts from 1s to 24h"},
		{"too long", ofShop("web"), localapi.LeaseRequest{For: 25 * time.Hour}, state.ClassInvalid, "lasts from 1s to 24h"},
		{"negative", ofShop("web"), localapi.LeaseRequest{For: -time.Hour}, state.ClassInvalid, "lasts from 1s to 24h"},
		{"another service", ofShop("web"), localapi.LeaseRequest{Service: "db"}, state.ClassAuth, "takes leases for it only"},
		{"another app", localapi.Scope{App: 2, Service: "web"}, localapi.LeaseRequest{}, state.ClassInvalid, "there is no service web"},
		{"no such service", whole, localapi.LeaseRequest{Service: "shop/none", Holder: "me"}, state.ClassInvalid, "no service none"},
		{"no service", whole, localapi.LeaseRequest{Holder: "me"}, state.ClassInvalid, "there is no service"},
	} {
		_, err := x.takeLease(t.Context(), c.who, c.r)
		if err == nil || state.ClassOf(err) != c.want || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v, want %s: %s", c.name, err, c.want, c.text)
		}
	}
	for range leases.Each {
		x.take(t, "web", time.Minute)
	}
	if _, err := x.takeLease(t.Context(), ofShop("web"), localapi.LeaseRequest{}); state.ClassOf(err) != state.ClassRateLimit {
		t.Errorf("too many: %v", err)
	}
	x.take(t, "db", time.Minute)
	if l, err := x.takeLease(t.Context(), ofShop("db"), localapi.LeaseRequest{}); err != nil || l.Holder != "db" || l.Until.Sub(l.Since) != leases.Usual {
		t.Errorf("what is left out: %+v %v", l, err)
	}
	if n := len((edge{x.supervisor(), true}).LeasesOf(localapi.Scope{App: 2})); n != 0 {
		t.Errorf("another app sees %d", n)
	}
}

// While we have the locks of an app nobody gets a lease on it, whenever in the
// middle of that the question comes.
func TestNoLeaseWhileAnUpdateHasTheLocks(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	take := reconcile.TakeLocks{App: reconcile.App{UUID: "aaaa", ID: 1, Name: "shop"}, Services: []string{"db", "job", "web"}}
	ask := func() error {
		_, err := x.takeLease(t.Context(), ofShop("web"), localapi.LeaseRequest{})
		return err
	}
	seen := x.leases.Seen() // of somebody who asked before
	end, err := x.leases.Yield(take)
	if err != nil {
		t.Fatal(err)
	}
	if err := ask(); !errors.Is(err, leases.ErrBusy) {
		t.Errorf("on the way: %v", err)
	}
	end(false)
	if err := ask(); err != nil {
		t.Errorf("after a taking that failed: %v", err)
	}
	if _, err := x.leases.Grant(store.Lease{App: "aaaa", AppID: 1, Service: "db"}, time.Minute, seen); !errors.Is(err, leases.ErrBusy) {
		t.Errorf("asked before, granted after: %v", err)
	}
	if err := x.takeLocks(t.Context(), take); state.ClassOf(err) != state.ClassLocked || !strings.Contains(err.Error(), "service web: held by lease of web") {
		t.Errorf("taking locks in spite of a lease: %v", err)
	}
	take.By = "the owner"
	if err := x.takeLocks(t.Context(), take); err != nil {
		t.Fatal(err)
	}
	if err := ask(); !errors.Is(err, leases.ErrBusy) {
		t.Errorf("under our locks: %v", err)
	}
	if err := x.releaseLocks(t.Context(), reconcile.ReleaseLocks{App: take.App}); err != nil {
		t.Fatal(err)
	}
	if err := ask(); err != nil {
		t.Errorf("after the update: %v", err)
	}
}

// A lease that came after the look keeps the device from restarting as well, and
// force breaks it.
func TestALeaseHoldsARestartUp(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	s := x.supervisor()
	now := x.look(t).Apps["aaaa"]
	x.take(t, "web", time.Minute)
	if err := s.lockApp(t.Context(), now, []string{"db", "job", "web"}, false); state.ClassOf(err) != state.ClassLocked {
		t.Errorf("without force: %v", err)
	}
	if err := s.lockApp(t.Context(), now, []string{"db", "job", "web"}, true); err != nil || x.leases.Holding() != 0 {
		t.Errorf("with force: %v, %d leases hold", err, x.leases.Holding())
	}
}

// A look that began before a lease was given cannot have seen its container.
func TestAnOldLookEndsNoLease(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	before := x.leases.Seen()
	x.take(t, "web", time.Minute)
	w := state.World{Apps: map[string]state.AppNow{}}
	x.leases.Observe(&w, before)
	if got := w.Apps["aaaa"].UserLocks; len(got) != 1 || w.Apps["aaaa"].ID != 1 {
		t.Errorf("the old look: %+v", got)
	}
	w = state.World{Apps: map[string]state.AppNow{}}
	x.leases.Observe(&w, x.leases.Seen())
	if len(w.Apps) != 0 || x.leases.Holding() != 0 {
		t.Errorf("a new look without the container: %+v", w.Apps)
	}
}

// leaseModel is what leases are, in the fewest words.
type leaseModel struct {
	*told
	until  map[string]time.Time
	broken map[string]bool
}

func (m *leaseModel) holds(id string) bool { return m.clock.Before(m.until[id]) }

// steps are what may be done to leases, each compared with what should come of it.
func (m *leaseModel) steps(t *testing.T, r *rapid.T) map[string]func() {
	length := func() time.Duration { return time.Duration(rapid.IntRange(1, 300).Draw(r, "seconds")) * time.Second }
	some := func() string {
		return rapid.SampledFrom(append(slices.Sorted(maps.Keys(m.until)), "none")).Draw(r, "lease")
	}
	take := func() {
		d := length()
		l, err := m.takeLease(t.Context(), ofShop("web"), localapi.LeaseRequest{For: d})
		if err == nil {
			m.until[l.ID] = m.clock.Add(d)
		} else if state.ClassOf(err) != state.ClassRateLimit {
			r.Fatalf("take: %v", err)
		}
	}
	return map[string]func(){
		"take": take, "take another": take,
		"renew": func() {
			id, d := some(), length()
			want := m.holds(id) && !m.broken[id]
			if _, err := m.leases.Renew(id, d, mayTouch(ofShop("web"))); (err == nil) != want {
				r.Fatalf("renew: %v", err)
			}
			if want {
				m.until[id] = m.clock.Add(d)
			}
		},
		"release": func() {
			id := some()
			if err := m.leases.Release(id, mayTouch(ofShop("web"))); (err == nil) != m.holds(id) {
				r.Fatalf("release: %v", err)
			}
			delete(m.until, id)
		},
		"wait": func() { m.clock = m.clock.Add(length()) },
		"restart": func() {
			m.close(t)
			m.now = m.device.Now
			m.open(t)
			m.use(release(1, "r1"))
		},
		"break": func() {
			app := reconcile.App{UUID: "aaaa", ID: 1, Name: "shop"}
			err := errors.Join(m.takeLocks(t.Context(), reconcile.TakeLocks{App: app, Services: []string{"web"}, By: "me"}),
				m.releaseLocks(t.Context(), reconcile.ReleaseLocks{App: app}))
			if err != nil {
				r.Fatalf("%v", err)
			}
			for id := range m.until {
				m.broken[id] = m.broken[id] || m.holds(id)
			}
		},
	}
}

// Whatever is done to leases in whatever order, over restarts, they hold exactly
// until they end.
func TestLeasesAgainstAModel(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := &leaseModel{newTold(t), map[string]time.Time{}, map[string]bool{}}
		m.accept(t, release(1, "r1"))
		m.work(t, nil)
		steps := m.steps(t, r)
		for range rapid.IntRange(1, 20).Draw(r, "steps") {
			steps[rapid.SampledFrom(slices.Sorted(maps.Keys(steps))).Draw(r, "what")]()
			want := 0
			for id := range m.until {
				if m.holds(id) && !m.broken[id] {
					want++
				}
			}
			locked := len(m.look(r).Apps["aaaa"].UserLocks) > 0
			if n := m.leases.Holding(); n != want || locked != (want > 0) {
				r.Fatalf("%d leases hold (locked %v), want %d", n, locked, want)
			}
		}
	})
}
