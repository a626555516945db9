package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
	"deckhand/supervisor/leases"
)

// StatusOf implements localapi.V3.
func (e edge) StatusOf(s localapi.Scope) any {
	v := answers{e.s}.view(scoped(e.s.runner.Status(), s))
	v.Leases = e.LeasesOf(s)
	return v
}

// PlanOf implements localapi.V3.
func (e edge) PlanOf(s localapi.Scope) (localapi.Plan, error) {
	st := e.s.runner.Status()
	if err := ready(st); err != nil {
		return localapi.Plan{}, err
	}
	p := ViewPlan(scoped(st, s).Plan)
	return localapi.Plan{Text: p.Text, DOT: p.DOT, JSON: p.Plan}, nil
}

// ready fails while there is nothing to plan from.
func ready(st run.Status) error {
	switch {
	case st.Looked.IsZero() && st.Err != nil:
		return st.Err
	case st.Looked.IsZero():
		return state.Classify(state.ClassEngine, history.ErrNothingYet)
	case !st.HasGoal:
		return state.Classify(state.ClassEngine, errors.New("there is no target yet; the cloud was not reached so far"))
	}
	return nil
}

// ExplainOf implements localapi.V3.
func (e edge) ExplainOf(s localapi.Scope, service string) (any, error) {
	st := e.s.runner.Status()
	if st.Looked.IsZero() && st.Err == nil {
		return nil, state.Classify(state.ClassEngine, history.ErrNothingYet)
	}
	st = scoped(st, s)
	past := visible(e.s.past(), st, s)
	return history.Explain(service, e.s.question(st, past))
}

// question is what an explanation is made of.
func (s *Supervisor) question(st run.Status, past []store.Entry) history.Question {
	q := history.Question{
		Status: st, Past: past, Now: s.device.Now(), Rows: func() []report.Row { return report.Rows(reportInput(st)) },
	}
	if c := s.cloudView(); c != nil {
		q.Problem = c.Problem
	}
	return q
}

// past is what happened, as far as it can be read.
func (s *Supervisor) past() []store.Entry {
	past, err := s.journal.Past()
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot read what happened; the answer goes without")
	}
	return past
}

// appsIn are the UUIDs of the apps that a caller may see.
func appsIn(st run.Status, s localapi.Scope) map[string]bool {
	out := map[string]bool{}
	for uuid, a := range st.Target.Apps {
		if s.All || a.ID == s.App {
			out[uuid] = true
		}
	}
	for uuid, a := range st.World.Apps {
		if s.All || a.ID == s.App {
			out[uuid] = true
		}
	}
	return out
}

// scoped leaves what a caller may see of where the loop stands. Whether all is
// settled is no secret.
func scoped(st run.Status, s localapi.Scope) run.Status {
	if s.All {
		return st
	}
	mine := appsIn(st, s)
	other := func(uuid string) bool { return !mine[uuid] }
	st.Plan = planOf(st.Plan, st.Target, mine)
	st.Running = slices.DeleteFunc(slices.Clone(st.Running), func(r run.Running) bool { return !about(r.Node.Step, st.Target, mine) })
	st.Target.Apps, st.World.Apps = maps.Clone(st.Target.Apps), maps.Clone(st.World.Apps)
	maps.DeleteFunc(st.Target.Apps, func(uuid string, _ state.App) bool { return other(uuid) })
	maps.DeleteFunc(st.World.Apps, func(uuid string, _ state.AppNow) bool { return other(uuid) })
	st.World.Intents = slices.DeleteFunc(slices.Clone(st.World.Intents), func(i state.Intent) bool { return other(i.App) })
	st.World.Overrides = slices.DeleteFunc(slices.Clone(st.World.Overrides), func(o state.Override) bool { return o.App != "" && other(o.App) })
	return st
}

// about reports whether a step is about one of the apps.
func about(step reconcile.Step, t state.Target, apps map[string]bool) bool {
	if step == nil {
		return false
	}
	for uuid := range apps {
		app := t.Apps[uuid]
		app.UUID = uuid // one that is to go is in no target
		if history.ConcernsApp(step, app) {
			return true
		}
	}
	return false
}

// planOf leaves the steps about some apps, in their order: what came after a step
// that is left out comes after what that one waits for.
func planOf(p reconcile.Plan, t state.Target, apps map[string]bool) reconcile.Plan {
	var out reconcile.Plan
	stands := map[reconcile.Key][]reconcile.Key{} // a step → what stands for it
	for _, n := range p.Nodes {                   // each behind all it waits for
		var after []reconcile.Key
		for _, k := range n.After {
			after = append(after, stands[k]...)
		}
		slices.Sort(after)
		after = slices.Compact(after)
		if !about(n.Step, t, apps) {
			stands[n.Key] = after
			continue
		}
		stands[n.Key] = []reconcile.Key{n.Key}
		n.After = after
		out.Nodes = append(out.Nodes, n)
	}
	for _, w := range p.Waiting {
		if at, ok := stands[w.Key]; ok && slices.Equal(at, []reconcile.Key{w.Key}) {
			out.Waiting = append(out.Waiting, w)
		}
	}
	for _, d := range p.Declined {
		for uuid := range apps {
			name := cmp.Or(t.Apps[uuid].Name, uuid)
			if subject := " " + d.Subject + " "; strings.Contains(subject, " "+name+"/") || strings.Contains(subject, " "+name+" ") {
				out.Declined = append(out.Declined, d)
				break
			}
		}
	}
	return out
}

// visible leaves what a caller may see of the past: of its apps, and of the
// device what befalls all of them.
func visible(past []store.Entry, st run.Status, s localapi.Scope) []store.Entry {
	if s.All {
		return past
	}
	mine := appsIn(st, s)
	return slices.DeleteFunc(slices.Clone(past), func(e store.Entry) bool {
		device := slices.Contains([]string{history.KindBegin, history.KindEngine, history.KindReboot, history.KindAllow}, e.Kind)
		return e.App == "" && !device || e.App != "" && !mine[e.App]
	})
}

// HistoryOf implements localapi.V3.
func (e edge) HistoryOf(s localapi.Scope, q localapi.HistoryQuery) (any, error) {
	st := scoped(e.s.runner.Status(), s)
	past := visible(e.s.past(), st, s)
	return history.PageOf(past, st, q)
}

// LeasesOf implements localapi.V3.
func (e edge) LeasesOf(s localapi.Scope) []localapi.Lease {
	t := e.s.device.target()
	var out []localapi.Lease
	for _, x := range e.s.device.leases.List() {
		if s.All || x.AppID == s.App {
			out = append(out, showLease(x, t))
		}
	}
	return out
}

func showLease(x store.Lease, t state.Target) localapi.Lease {
	return localapi.Lease{
		ID: x.ID, App: cmp.Or(t.Apps[x.App].Name, x.App), AppID: x.AppID, Service: x.Service, Holder: x.Holder, Reason: x.Reason,
		Since: x.Since, Until: x.Until, BrokenBy: x.BrokenBy, BrokenAt: x.BrokenAt,
	}
}

// TakeLease implements localapi.V3.
func (e edge) TakeLease(ctx context.Context, s localapi.Scope, r localapi.LeaseRequest) (localapi.Lease, error) {
	x, err := e.s.device.takeLease(ctx, s, r)
	return showLease(x, e.s.device.target()), err
}

// RenewLease implements localapi.V3.
func (e edge) RenewLease(s localapi.Scope, id string, length time.Duration) (localapi.Lease, error) {
	length, err := leases.Length(length)
	if err != nil {
		return localapi.Lease{}, err
	}
	x, err := e.s.device.leases.Renew(id, length, mayTouch(s))
	return showLease(x, e.s.device.target()), err
}

// ReleaseLease implements localapi.V3.
func (e edge) ReleaseLease(s localapi.Scope, id string) error {
	return e.s.device.leases.Release(id, mayTouch(s))
}

// WriteMetrics implements localapi.V3.
func (e edge) WriteMetrics(w io.Writer) { e.s.writeMetrics(w) }

// mayTouch: a lease belongs to the service whose key took it.
func mayTouch(s localapi.Scope) func(store.Lease) bool {
	return func(x store.Lease) bool {
		return s.All || x.AppID == s.App && (s.Service == "" || x.Service == s.Service)
	}
}

// errNoLocks: the planner does not ask for locks here.
var errNoLocks = errors.New("this deckhand has no folder for locks (--run-dir), and nothing here waits for one")

// takeLease finds the service and its containers, and takes a lease for them.
func (d *device) takeLease(ctx context.Context, s localapi.Scope, r localapi.LeaseRequest) (store.Lease, error) {
	length, err := leases.Length(r.For)
	if err != nil {
		return store.Lease{}, err
	}
	r.Holder = cmp.Or(strings.TrimSpace(r.Holder), s.Service)
	if err := leases.Check(r.Holder, r.Reason); err != nil {
		return store.Lease{}, state.Classify(state.ClassInvalid, err)
	}
	if d.Locks == nil {
		return store.Lease{}, state.Classify(state.ClassInvalid, errNoLocks)
	}
	seen := d.leases.Seen()
	w, err := d.Observe(ctx)
	if err != nil {
		return store.Lease{}, err
	}
	x, err := leaseOf(w, d.target(), s, r.Service)
	if err != nil {
		return x, err
	}
	x.Holder, x.Reason = r.Holder, r.Reason
	return d.leases.Grant(x, length, seen)
}

// leaseOf is a lease on a service and its containers.
func leaseOf(w state.World, t state.Target, s localapi.Scope, name string) (store.Lease, error) {
	mine := scoped(run.Status{World: w, Target: t}, s)
	q, err := history.FindService(mine.Target, mine.World, cmp.Or(name, s.Service))
	if err != nil {
		return store.Lease{}, err
	}
	if s.Service != "" && q.Name != s.Service {
		return store.Lease{}, state.Classify(state.ClassAuth, fmt.Errorf("the key of service %s takes leases for it only", s.Service))
	}
	if slices.Contains(q.App.Locked, q.Name) {
		return store.Lease{}, state.Classify(state.ClassLocked, leases.ErrBusy)
	}
	x := store.Lease{App: q.UUID, AppID: cmp.Or(q.App.ID, q.Want.ID), Service: q.Name}
	var rest []string
	for _, c := range q.App.Containers {
		switch {
		case c.Service != q.Name:
		case c.Up():
			x.Containers = append(x.Containers, c.ID)
		default:
			rest = append(rest, c.ID)
		}
	}
	if len(x.Containers) == 0 {
		x.Containers = rest
	}
	if len(x.Containers) == 0 {
		return x, state.Classify(state.ClassInvalid, fmt.Errorf("service %s has no container that could hold a lease", q.Label()))
	}
	return x, nil
}

// ofControl reports whether a path belongs to deckhand's own commands alone. What
// else there is on the socket is the device API.
func ofControl(path string) bool {
	return slices.Contains([]string{"/v3/status", "/v3/plan", "/v3/snapshot", "/v3/explain", "/v3/intents"}, path)
}
