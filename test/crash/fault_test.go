package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/engine/enginetest"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
)

// errInjected is what a failing engine says.
var errInjected = errors.New("injected: the disk is on fire")

// fault is one way in which an engine's call goes wrong.
type fault struct {
	nth  int    // the call, counted; -1: by route and object
	call string // route and object
	late bool   // the call has its effect before it fails
	lost bool   // no answer at all, instead of a refusal
	ever bool   // each time, until it is lifted
}

func (f fault) String() string {
	what := "refused"
	if f.lost {
		what = "without an answer"
	}
	if f.late {
		what += ", though done"
	}
	if f.ever {
		what += ", each time"
	}
	return f.call + " " + what
}

// saboteur makes calls fail.
type saboteur struct {
	fault fault

	mu     sync.Mutex
	n      int
	armed  bool // the present call is the one
	hits   int
	lifted bool
}

func (s *saboteur) meant(c enginetest.Call) bool {
	if s.fault.ever {
		return !s.lifted && c.Route+" "+c.Object == s.fault.call
	}
	s.n++
	return s.n-1 == s.fault.nth
}

func (s *saboteur) err() error {
	s.hits++
	if s.fault.lost {
		return enginetest.ErrLost
	}
	return errInjected
}

func (s *saboteur) before(_ context.Context, c enginetest.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.meant(c) {
		return nil
	}
	if s.fault.late {
		s.armed = true
		s.fault.call = c.Route + " " + c.Object // what it turned out to be
		return nil
	}
	return s.err()
}

func (s *saboteur) after(_ context.Context, c enginetest.Call) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.armed || c.Route+" "+c.Object != s.fault.call {
		return nil
	}
	s.armed = s.fault.ever
	return s.err()
}

func (s *saboteur) lift() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifted = true
}

// sees tells the calls of every look, and those that only listen.
func sees(call string) bool {
	route, _, _ := strings.Cut(call, " ")
	_, path, _ := strings.Cut(call, " ")
	path, _, _ = strings.Cut(path, " ")
	switch path {
	case "/containers/json", "/images/json", "/networks", "/volumes", "/events", "/_ping", "/version", "/info":
		return route == "GET" || route == "HEAD"
	}
	return false
}

func writes(call string) bool {
	return !strings.HasPrefix(call, "GET ") && !strings.HasPrefix(call, "HEAD ")
}

// once lists the faults of single calls: every call that changes something,
// before its effect and behind it, every call that asks about one object, and one
// of the calls that every look makes. The engine refuses or the connection
// breaks, by turns.
func (f *film) once() []fault {
	var out []fault
	looks := 0
	for i, call := range f.calls {
		if sees(call) {
			if looks++; looks != 1+len(f.calls)%7 {
				continue
			}
		}
		out = append(out, fault{nth: i, call: call, lost: i%2 == 1})
		if writes(call) {
			out = append(out, fault{nth: i, call: call, late: true, lost: i%2 == 0})
		}
	}
	return out
}

// forEver lists the faults of calls that never work, of those of a look only one.
func (f *film) forEver() []fault {
	var out []fault
	var looks []string
	calls := slices.Compact(slices.Sorted(slices.Values(f.calls)))
	for _, call := range calls {
		if sees(call) {
			looks = append(looks, call)
			continue
		}
		out = append(out, fault{nth: -1, call: call, ever: true})
	}
	// Whichever of its lists a look lacks, the outcome is the same.
	return append(out, fault{nth: -1, call: looks[len(f.calls)%len(looks)], ever: true})
}

// suffer plays the scene from its beginning with a fault that happens once.
func suffer(ctx context.Context, x *scene, f *film, at place, what fault) error {
	s := &saboteur{fault: what}
	fake, h, err := f.again(ctx, x, at, s)
	if err != nil {
		return err
	}
	defer fake.Close()
	end, err := drive(ctx, x, at, fake, h, false, nil)
	if err != nil {
		return err
	}
	if d := cmp.Diff(f.end, end); d != "" {
		return fmt.Errorf("the end differs (-undisturbed +now):\n%s", d)
	}
	return nil
}

// again makes the device as it was at the beginning.
func (f *film) again(ctx context.Context, x *scene, at place, s *saboteur) (*enginetest.Fake, *host, error) {
	first := f.moments[0]
	if err := at.restore(first.disk); err != nil {
		return nil, nil, err
	}
	pause(ctx, time.Until(first.at))
	cfg := x.config()
	cfg.Before, cfg.After = s.before, s.after
	return first.engine.NewFake(cfg), first.host.copy(), nil
}

// endure plays the scene with a call that never works: everything else gets
// done, the failure shows, and once the call works again so does the rest.
func endure(ctx context.Context, x *scene, f *film, at place, what fault) (err error) {
	s := &saboteur{fault: what}
	fake, h, err := f.again(ctx, x, at, s)
	if err != nil {
		return err
	}
	defer fake.Close()
	p, err := begin(x, at, fake, h)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.end()) }()
	if err := p.work(ctx, false); err != nil {
		return err
	}
	if err := p.limp(ctx, f, s); err != nil {
		return err
	}
	s.lift()
	p.runner.Look() // as after any event of the engine
	pause(ctx, p.rest())
	if _, err := p.settle(ctx); err != nil && !errors.Is(err, errReboot) {
		return fmt.Errorf("after the call works again: %w", err)
	}
	end, err := p.portrait(ctx)
	if err != nil || errors.Is(err, errReboot) {
		return err
	}
	if d := cmp.Diff(f.end, end); d != "" && !f.reboots {
		return fmt.Errorf("after the call works again the end differs (-undisturbed +now):\n%s", d)
	}
	return nil
}

// rest is how long back-off lasts, with the next try after it.
func (p *process) rest() time.Duration {
	st := p.runner.Status()
	longest := 15 * time.Second // between two tries to look
	for _, w := range st.Plan.Waiting {
		longest = max(longest, time.Until(w.Until))
	}
	return longest + time.Second
}

// limp checks a device one of whose calls never works.
func (p *process) limp(ctx context.Context, f *film, s *saboteur) error {
	if sees(s.fault.call) { // nobody can look
		pause(ctx, 5*time.Minute)
		if st := p.runner.Status(); st.Err == nil && !st.Settled && !strings.HasPrefix(s.fault.call, "GET /events") {
			return fmt.Errorf("the device cannot be looked at, and the status does not say so:\n%s", st.Plan)
		}
		return nil
	}
	st, err := p.settle(ctx)
	if err != nil {
		if errors.Is(err, errReboot) {
			return nil
		}
		return err
	}
	end, err := p.portrait(ctx)
	if err != nil {
		return err
	}
	for _, v := range f.volumes {
		if !slices.Contains(p.fake.Volumes(), v) && !strings.Contains(s.fault.call, "/volumes/") && slices.Contains(f.had, v) {
			return fmt.Errorf("volume %s is lost", v)
		}
	}
	if st.Settled {
		// Only an inspection tells that the engine refused to start a container;
		// one that cannot be inspected is left alone.
		alone := strings.HasPrefix(s.fault.call, "GET /containers/{}/json")
		if d := cmp.Diff(f.end, end); d != "" && !alone {
			return fmt.Errorf("it counts as settled and differs (-undisturbed +now):\n%s", d)
		}
		return nil
	}
	return p.shows(st, f, end)
}

// shows checks that the status names the failure, and that apps it has nothing
// to do with are done.
func (p *process) shows(st run.Status, f *film, end string) error {
	named := false
	open, reboot := map[string]bool{}, false
	for _, w := range st.Plan.Waiting {
		named = named || strings.Contains(w.Text, "injected") || strings.Contains(w.Text, "EOF")
	}
	if !named && len(p.x.fails) == 0 && end != f.end {
		return fmt.Errorf("the status does not name the failure:\n%s%s", st.Plan, waits(st))
	}
	for _, n := range st.Plan.Nodes {
		if n.Step == nil {
			continue
		}
		open[n.Step.Traits().App] = true
		if s, ok := n.Step.(reconcile.Fetch); ok {
			for _, who := range s.For {
				app, _, _ := strings.Cut(who, "/")
				open[app] = true
			}
		}
		_, last := n.Step.(reconcile.Reboot)
		reboot = reboot || last
	}
	want, got := apps(f.end), apps(end)
	for uuid, app := range p.x.want.Apps {
		if open[uuid] || open[app.Name] || reboot && afterReboot(app) {
			continue // a reboot comes last, behind what fails
		}
		if d := cmp.Diff(want[uuid], got[uuid]); d != "" {
			return fmt.Errorf("app %s has nothing to do with the failure and is not done (-undisturbed +now):\n%s", uuid, d)
		}
	}
	return nil
}

// afterReboot reports whether an app has a service that first runs after a reboot.
func afterReboot(app state.App) bool {
	for _, s := range app.Services {
		if s.RequiresReboot {
			return true
		}
	}
	return false
}

// apps cuts a portrait up.
func apps(portrait string) map[string]string {
	out := map[string]string{}
	uuid := ""
	for line := range strings.Lines(portrait) {
		if rest, ok := strings.CutPrefix(line, "app "); ok {
			uuid, _, _ = strings.Cut(rest, " ")
		} else if !strings.HasPrefix(line, "  ") {
			uuid = ""
		}
		if uuid != "" {
			out[uuid] += line
		}
	}
	return out
}
