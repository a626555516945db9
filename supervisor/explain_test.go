package supervisor

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
)

// told is a device with a journal, and a clock that goes on by a second with
// each step.
type told struct {
	*modelled
	j        *history.Journal
	disk     *redirected // under the journal
	clock    time.Time
	failures map[reconcile.Key]state.Failure
}

// redirected is a store that a test may put another in front of.
type redirected struct{ history.Store }

// question is one to a device whose cloud is reached.
func question(st run.Status, past []store.Entry, now time.Time) history.Question {
	return history.Question{Status: st, Past: past, Now: now, Rows: func() []report.Row { return report.Rows(reportInput(st)) }}
}

func newTold(t *testing.T) *told {
	m := newModelled(t)
	t.Cleanup(func() { m.close(t) })
	x := &told{modelled: m, clock: time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC), failures: map[reconcile.Key]state.Failure{}}
	x.device.Now = func() time.Time { return x.clock }
	x.disk = &redirected{m.Store.History}
	x.j = history.New(history.Config{Store: x.disk, Target: m.target, Now: x.device.Now, Log: zerolog.Nop()})
	x.j.Begin("1.0")
	return x
}

func (x *told) accept(t *testing.T, want state.Target) {
	x.clock = x.clock.Add(time.Minute)
	x.j.Accepted(x.target(), want, "from https://api.test")
	x.modelled.accept(t, want)
	clear(x.failures)
}

// status is where the loop would stand.
func (x *told) status(t *testing.T) run.Status {
	w := x.look(t)
	p, err := reconcile.Make(w, x.target(), reconcile.Facts{Now: x.clock, Failures: x.failures})
	if err != nil {
		t.Fatal(err)
	}
	s := run.Status{Target: x.target(), HasGoal: true, World: w, Plan: p, Looked: x.clock, Settled: p.Steps() == 0, Failures: x.failures}
	x.j.Status(s)
	return s
}

// work goes on until nothing can start; a step that breaks fails and rests.
func (x *told) work(t *testing.T, breaks func(reconcile.Step) error) {
	x.before = breaks
	defer func() { x.before = nil }()
	for range 200 {
		ready := x.status(t).Plan.Ready()
		if len(ready) == 0 {
			return
		}
		n := ready[0]
		x.j.Event(run.Event{Node: n, At: x.clock})
		x.clock = x.clock.Add(time.Second)
		err := x.device.Do(t.Context(), n.Step, nil)
		x.j.Event(run.Event{Node: n, At: x.clock, Ended: true, Took: time.Second, Err: err})
		if err != nil {
			x.failures[n.Key] = state.Failure{Class: state.ClassOf(err), Text: history.PlainText(err), Attempt: 3, Next: x.clock.Add(time.Hour)}
		}
	}
	t.Fatal("no end is reached")
}

func (x *told) explain(t *testing.T, name string) history.Explanation {
	t.Helper()
	st := x.status(t)
	past, err := x.j.Past()
	if err != nil {
		t.Fatal(err)
	}
	e, err := history.Explain(name, question(st, past, x.clock))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func blockerOf(e history.Explanation, kind string) history.Blocker {
	for _, b := range e.Blockers {
		if b.Kind == kind {
			return b
		}
	}
	return history.Blocker{}
}

// A service that was restarted can say which field did it, from what to what,
// which target brought that, and how long it was down.
func TestExplainTheLastRestart(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	x.accept(t, release(2, "r2"))
	x.work(t, nil)
	for range 2 {
		e := x.explain(t, "job")
		r := e.Restart
		if r == nil || r.Release != "r2" || !strings.Contains(r.By, "new target for shop: release r1 → r2") || r.Down < state.Duration(time.Second) {
			t.Fatalf("restart: %+v", r)
		}
		why := reconcile.Reason{Cause: r.Cause, Changes: r.Changes}.String()
		if !strings.Contains(why, "environment.LEVEL changed") || !strings.Contains(why, "files changed") {
			t.Errorf("why: %s", why)
		}
		if e.Verdict != "it is as it was asked to be" || len(e.Blockers) != 0 || e.Runs == nil || e.Runs.Release != "r2" || e.Runs.Status != "running" {
			t.Errorf("%+v", e)
		}
		x.j.Flush() // once from memory, once from the disk
	}
	db := x.explain(t, "shop/db") // only its name changed
	if r := db.Restart; r == nil || r.Release != "r1" || r.Cause != "no container yet" {
		t.Errorf("db: %+v", r)
	}
	if _, err := x.wish(t, state.Restart, "db"); err != nil {
		t.Fatal(err)
	}
	x.j.Wish(string(RequestRestart), "aaaa", []string{"db"}, owner, "shop/db restarts")
	x.work(t, nil)
	if r := x.explain(t, "db").Restart; r == nil || !strings.Contains(r.By, "restart for the owner") {
		t.Errorf("db after a request: %+v", r)
	}
	if _, err := x.wish(t, state.Purge); err != nil {
		t.Fatal(err)
	}
	x.j.Wish(string(RequestPurge), "aaaa", nil, owner, "the volumes are deleted")
	x.j.Allow(string(RequestOverride), "aaaa", owner, "has nothing to do with it")
	x.work(t, nil)
	if r := x.explain(t, "db").Restart; r == nil || !strings.Contains(r.By, "purge for the owner") || r.Cause == "no container yet" || r.Down == 0 {
		t.Errorf("db after a purge: %+v", r)
	}
}

// A hand-over costs no time, also when another one follows: the stop that ended
// the first is not what the second began with.
func TestExplainARestartAfterAHandover(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	x.accept(t, release(2, "r2"))
	x.work(t, nil)
	if r := x.explain(t, "web").Restart; r == nil || r.Down != 0 || r.Cause != "image changed" {
		t.Errorf("after the update: %+v", r)
	}
	x.clock = x.clock.Add(time.Hour)
	if _, err := x.wish(t, state.Restart, "web"); err != nil {
		t.Fatal(err)
	}
	x.j.Wish(string(RequestRestart), "aaaa", []string{"web"}, owner, "shop/web restarts")
	x.work(t, nil)
	if r := x.explain(t, "web").Restart; r == nil || r.Down != 0 || r.Cause == "image changed" {
		t.Errorf("after the request: %+v", r)
	}
}

// Why a service does not update, for each thing that can be in its way.
func TestExplainWhatIsInTheWay(t *testing.T) {
	for _, c := range []struct {
		name, service string
		disturb       func(x *told)
		target        func() state.Target
		breaks        func(reconcile.Step) error
		kind          string
		want          []string // in the blocker
	}{
		{
			name: "a lock of its own", service: "job", kind: history.BlockedLock, want: []string{"update lock", "job", "deckhand override shop"},
			disturb: func(x *told) {
				x.users[1] = []locks.UpdateLock{{AppID: 1, Service: "job", Path: "/run/updates.lock", Kind: "file", UID: 1000, Since: x.clock.Add(-2 * time.Hour)}}
			},
		},
		{
			name: "a failed download", service: "web", kind: history.BlockedFailure, want: []string{"disk is full", "free disk space"},
			breaks: func(s reconcile.Step) error {
				if _, ok := s.(reconcile.Fetch); ok {
					return state.Classify(state.ClassSpace, errors.New("the disk is full"))
				}
				return nil
			},
		},
		{
			name: "another service's download", service: "job", kind: history.BlockedFailure, want: []string{"no such host", "DNS"},
			breaks: func(s reconcile.Step) error {
				if _, ok := s.(reconcile.Fetch); ok {
					return state.Classify(state.ClassDNS, errors.New("no such host"))
				}
				return nil
			},
		},
		{
			name: "a stop", service: "db", kind: history.BlockedStopped, want: []string{"the owner asked", "deckhand start shop/db"},
			disturb: func(x *told) { _, _ = x.wish(t, state.Stop, "db") }, target: func() state.Target { return release(1, "r1") },
		},
		{
			name: "a rejected release", service: "web", kind: history.BlockedRejected, want: []string{"r2", "services.web.ports", "correct the release"},
			target: func() state.Target {
				r := release(2, "r2")
				a := r.Apps["aaaa"]
				a.Rejected, a.Services, a.Networks, a.Volumes = "services.web.ports: not a port", nil, nil, nil
				r.Apps["aaaa"] = a
				return r
			},
		},
		{
			name: "a failed hand-over", service: "web", kind: history.BlockedHandover, want: []string{"did not take over", "no message", "deckhand retry"},
			target: func() state.Target {
				r := release(2, "r2")
				s := r.Apps["aaaa"].Services["web"]
				s.KeepOld = true
				r.Apps["aaaa"].Services["web"] = s
				return r
			},
			breaks: func(s reconcile.Step) error {
				if _, ok := s.(reconcile.Handover); ok {
					return state.Classify(state.ClassTimeout, errors.New("no message in time"))
				}
				return nil
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := newTold(t)
			x.accept(t, release(1, "r1"))
			x.work(t, nil)
			if c.disturb != nil {
				c.disturb(x)
			}
			want := release(2, "r2")
			if c.target != nil {
				want = c.target()
			}
			x.accept(t, want)
			x.work(t, c.breaks)
			e := x.explain(t, c.service)
			mentions(t, e, c.kind, c.want)
			reported(t, c.kind, reportWaits(x.status(t))["aaaa"])
		})
	}
}

// reported checks what the report says about a blocker: locks and failures only.
func reported(t *testing.T, kind string, told []report.Wait) {
	t.Helper()
	held := kind == history.BlockedLock
	switch {
	case !held && kind != history.BlockedFailure:
		if len(told) > 0 {
			t.Errorf("the report says that something is waited for: %+v", told)
		}
	case len(told) != 1:
		t.Errorf("the report tells %d waits: %+v", len(told), told)
	case held && (!strings.Contains(told[0].Holder, "job") || told[0].Since.IsZero()), !held && (told[0].Tries == 0 || told[0].Until.IsZero()):
		t.Errorf("the report does not tell enough: %+v", told[0])
	}
}

func mentions(t *testing.T, e history.Explanation, kind string, want []string) {
	t.Helper()
	b := blockerOf(e, kind)
	if b.Kind == "" {
		t.Fatalf("nothing is in the way: %+v", e)
	}
	for _, w := range want {
		if !strings.Contains(b.Text+b.Advice+b.Holder, w) {
			t.Errorf("nothing about %q in %+v", w, b)
		}
	}
	if e.Verdict == "it is as it was asked to be" {
		t.Error("the verdict says that all is well")
	}
}

// What containers do by themselves is remembered, and one that does it all the
// time does not push everything else out.
func TestTheJournalNotesWhatContainersDo(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	c := &x.world.Apps["aaaa"].Containers[0]
	for range 50 {
		c.Phase, c.ExitCode = state.Exited, 137
		x.status(t)
		x.clock = x.clock.Add(time.Second)
		c.Phase = state.Running
		x.status(t)
		x.clock = x.clock.Add(time.Second)
	}
	e := x.explain(t, c.Service)
	n := 0
	for _, p := range e.Past {
		if strings.Contains(p.Text, "exit code 137") {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it is noted %d times", n)
	}
	gone := c.Service
	a := x.world.Apps["aaaa"]
	a.Containers = slices.Delete(slices.Clone(a.Containers), 0, 1)
	x.world.Apps["aaaa"] = a
	if e := x.explain(t, gone); !strings.Contains(fmt.Sprint(e.Past), "removed by somebody else") {
		t.Errorf("%+v", e.Past)
	}
}

// The lock somebody holds is noted when it comes in the way and when it is given
// up, and not with every look.
func TestTheJournalNotesWaits(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	x.users[1] = []locks.UpdateLock{{AppID: 1, Service: "job", UID: 1000, Since: x.clock}}
	x.accept(t, release(2, "r2"))
	x.work(t, nil)
	for range 5 {
		x.status(t)
	}
	delete(x.users, 1)
	x.work(t, nil)
	past, err := x.j.Past()
	if err != nil {
		t.Fatal(err)
	}
	var waits []string
	for _, e := range past {
		if e.Kind == history.KindWait {
			waits = append(waits, e.Title)
		}
	}
	if len(waits) != 2 || !strings.HasSuffix(waits[0], " waits") || !strings.HasSuffix(waits[1], " waits no longer") {
		t.Errorf("waits: %q", waits)
	}
}

// An update writes nothing while its steps run, and little when it is done.
func TestTheJournalCostsFewWrites(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	past := &countingPast{Store: x.Store.History}
	x.disk.Store = past
	x.accept(t, release(2, "r2"))
	x.work(t, nil)
	if past.writes != 0 {
		t.Errorf("%d writes on the way", past.writes)
	}
	x.j.Flush()
	x.j.Flush()
	if past.writes != 1 {
		t.Errorf("%d writes at the end", past.writes)
	}
	past.fails = errors.New("the disk is full")
	x.j.Wish(string(RequestRestart), "aaaa", nil, owner, "kept in memory")
	x.j.Flush()
	past.fails = nil
	x.j.Flush()
	if all, err := x.j.Past(); err != nil || all[len(all)-1].Text != "kept in memory" {
		t.Errorf("what could not be written is lost: %v", err)
	}
}

// Who asks while entries are on their way to the disk sees them once.
func TestTheJournalIsWholeWhileItIsWritten(t *testing.T) {
	x := newTold(t)
	slow := &slowPast{Store: x.Store.History, begun: make(chan struct{}), goOn: make(chan struct{})}
	x.disk.Store = slow
	x.j.Wish(string(RequestRestart), "aaaa", nil, owner, "just now")
	go x.j.Flush()
	<-slow.begun
	asked := make(chan []store.Entry)
	go func() {
		all, _ := x.j.Past()
		asked <- all
	}()
	var all []store.Entry
	select {
	case all = <-asked: // before the write has ended
		close(slow.goOn)
	case slow.goOn <- struct{}{}:
		all = <-asked
	}
	if n := len(all); n == 0 || all[n-1].Text != "just now" {
		t.Errorf("%+v", all)
	}
}

// slowPast says when it has begun to write.
type slowPast struct {
	history.Store
	begun, goOn chan struct{}
}

func (s *slowPast) Append(entries []store.Entry) error {
	close(s.begun)
	<-s.goOn
	return s.Store.Append(entries)
}

type countingPast struct {
	history.Store
	writes int
	fails  error
}

func (c *countingPast) Append(entries []store.Entry) error {
	if c.fails != nil {
		return c.fails
	}
	c.writes++
	return c.Store.Append(entries)
}

// A long step is in the past before it has ended.
func TestTheJournalNotesLongSteps(t *testing.T) {
	x := newTold(t)
	n := reconcile.Node{Step: reconcile.Fetch{Image: "web:1"}, Key: "fetch web:1"}
	x.j.Event(run.Event{Node: n, At: x.clock})
	x.j.Flush()
	x.clock = x.clock.Add(time.Minute)
	x.j.Flush()
	x.j.Flush()
	past, err := x.j.Past()
	if err != nil {
		t.Fatal(err)
	}
	if len(past) != 2 || past[1].Outcome != history.OutcomeStarted {
		t.Errorf("%+v", past)
	}
}

func TestExplainNamesTheService(t *testing.T) {
	x := newTold(t)
	want := release(1, "r1")
	other := want.Apps["aaaa"]
	other.UUID, other.ID, other.Name = "bbbb", 2, "lab"
	want.Apps["bbbb"] = other
	x.accept(t, want)
	st := x.status(t)
	for name, text := range map[string]string{
		"web": "2 apps have a service web; say which: shop/web, lab/web", "wob": "there is no service wob; the device has db, job, web",
		"shop/wob": "shop has no service wob", "ship/web": "there is no app ship",
	} {
		if _, err := history.Explain(name, question(st, nil, x.clock)); state.ClassOf(err) != state.ClassInvalid || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e, err := history.Explain("lab/web", question(st, nil, x.clock))
	if err != nil || e.App != "lab" || e.Runs != nil || len(e.Next) == 0 {
		t.Errorf("%+v, %v", e, err)
	}
}
