package reconcile

import (
	"maps"
	"slices"
	"time"

	"deckhand/state"
)

// lockSteps plans to take the update locks of an app when a running service is
// to be changed, and to give them up when nothing is left to guard.
func (p *planner) lockSteps(a *appPlan) {
	if p.now.NoLocks {
		return
	}
	if len(a.guarded) == 0 {
		if len(a.now.Locked) > 0 && !p.rebooting {
			a.release = p.add(a, ReleaseLocks{App: a.App}, rankRelease, Reason{Cause: whyGuarded})
		}
		return
	}
	services := make([]string, 0, len(a.services))
	for _, s := range a.services {
		services = append(services, s.name)
	}
	missing := slices.ContainsFunc(services, func(s string) bool {
		_, held := slices.BinarySearch(a.now.Locked, s)
		return !held
	})
	if !missing {
		p.releaseLater(a)
		return
	}
	take, why := TakeLocks{App: a.App, Services: services}, Reason{Cause: whyGuard}
	if others := p.othersHold(a, services); len(others) > 0 {
		if by := p.override(a); by != "" {
			take.By = by
			why = Reason{Cause: whyOverride, Changes: []state.Change{{Field: "allowed by " + by}}}
		} else {
			a.blocked = others
		}
	}
	a.take = p.add(a, take, rankLock, why)
	if len(a.blocked) > 0 && len(a.now.Locked) > 0 {
		// All or nothing: who waits for a lock holds none.
		a.demand(p.add(a, ReleaseLocks{App: a.App, Yield: true}, rankLock, Reason{Cause: whyInTheWay}), a.take)
	}
	p.releaseLater(a)
}

func (p *planner) releaseLater(a *appPlan) {
	if !p.rebooting { // a reboot gives them up
		a.release = p.add(a, ReleaseLocks{App: a.App}, rankRelease, Reason{Cause: whyGuarded})
	}
}

// othersHold lists the locks that are in the way.
func (p *planner) othersHold(a *appPlan, services []string) []state.UserLock {
	var out []state.UserLock
	for _, l := range a.now.UserLocks {
		if _, found := slices.BinarySearch(services, l.Service); found {
			out = append(out, l)
		}
	}
	return out
}

// override names the permission to break the app's locks; "": there is none.
func (p *planner) override(a *appPlan) string {
	for _, o := range p.now.Overrides {
		if (o.App == "" || o.App == a.UUID) && (o.Until.IsZero() || p.clock.Before(o.Until)) {
			return o.By
		}
	}
	return ""
}

// lock puts the taking of the locks before everything they guard, and as late as
// that allows: behind what all of it waits for, a download above all. They are
// given up when every service runs that is to run.
func (p *planner) lock(a *appPlan) error {
	if a.take != "" {
		seen := map[int32]int{}
		for _, k := range a.guarded {
			if err := p.graph.fact(a.take, k); err != nil {
				return err
			}
			for _, before := range p.graph.vertices[p.graph.index[k]].after {
				seen[before]++
			}
		}
		for _, before := range slices.Sorted(maps.Keys(seen)) {
			v := p.graph.vertices[before]
			if _, lock := v.step.(TakeLocks); seen[before] == len(a.guarded) && !lock { // no app waits for another's locks
				p.graph.edge(v.key, a.take)
			}
		}
	}
	for _, fetch := range a.first {
		p.graph.edge(fetch, a.take)
	}
	if a.release == "" {
		return nil
	}
	for _, k := range a.guarded {
		p.graph.edge(k, a.release)
	}
	for _, s := range a.services {
		p.graph.edge(s.start, a.release)
	}
	return nil
}

// waits describes the locks that the app waits for.
func (a *appPlan) waits() []Waiting {
	var out []Waiting
	title := TakeLocks{App: a.App}.Title()
	for _, l := range a.blocked {
		out = append(out, Waiting{
			Key: a.take, Title: title, Class: state.ClassLocked, Holder: a.label() + "/" + l.Service + ": " + l.Holder,
			Text: "an update lock is held", Since: time.Unix(l.Since, 0).UTC(),
		})
	}
	return out
}
