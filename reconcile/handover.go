package reconcile

import (
	"slices"
	"time"

	"deckhand/state"
	"deckhand/strategy"
)

// effective is the strategy that a service is updated by. One that cannot be
// kept is replaced by the default, and the plan says so.
func (p *planner) effective(a *appPlan, want state.Service, have []state.Container, good int) string {
	chosen := want.Strategy
	if _, known := strategy.All[chosen]; !known {
		chosen = strategy.Default
	}
	if !strategy.HandsOver(chosen) {
		return chosen
	}
	for i, c := range have {
		if i == good || !c.Up() {
			continue
		}
		if !want.Running || a.later[want.Name] {
			return strategy.Default // nobody to hand over to
		}
		if why := p.cannotOverlap(a, c, want); why != "" {
			p.decline(chosen+" of "+a.label()+"/"+want.Name, why+"; the old container stops first")
			return strategy.Default
		}
	}
	return chosen
}

// cannotOverlap says why the old and the new container of a service cannot run
// at the same time; "": they can.
func (p *planner) cannotOverlap(a *appPlan, old state.Container, want state.Service) string {
	for _, n := range old.Networks {
		if _, gone := a.gone[n]; gone {
			return "network " + n + " is replaced"
		}
	}
	for _, v := range old.Volumes {
		if _, purged := a.purge[v]; purged {
			return "volume " + v + " is purged"
		}
	}
	if usesAPI(old) && want.Spec.UsesAPINetwork() && !p.now.APINetwork {
		return "the network of the supervisor's API is replaced"
	}
	for _, x := range Exclusive(old.Spec) {
		if slices.Contains(Exclusive(&want.Spec), x) {
			return "only one container can have " + x
		}
	}
	return ""
}

func usesAPI(c state.Container) bool { return c.API || c.Spec != nil && c.Spec.UsesAPINetwork() }

// handOver lets the old containers run until the new one has taken over.
func (p *planner) handOver(a *appPlan, want state.Service, have []state.Container, good int) {
	done, known := a.now.Handovers[want.Name]
	if known && good >= 0 && done.Hash == want.Hash && state.SameImage(done.Image, want.Image) {
		return
	}
	if !slices.ContainsFunc(have, func(c state.Container) bool { return c.Up() && (good < 0 || c.ID != have[good].ID) }) {
		return
	}
	s := Handover{
		App: a.App, Service: want.Name, Hash: want.Hash, Image: want.Image,
		Timeout: time.Duration(want.HandoverTimeout), KeepOld: want.KeepOld,
	}
	if s.Timeout == 0 {
		s.Timeout = strategy.HandoverTimeout
	}
	if good >= 0 {
		s.Container = have[good].ID
	}
	k := p.add(a, s, rankStart, Reason{Cause: whyHandover})
	a.put(want.Name, strategy.Handover, k)
	if start := a.starts[want.Name]; start != "" {
		a.demand(start, k)
		a.guarded = append(a.guarded, start) // the new one is not seen before the change is allowed
	}
}

// handoverFailed keeps the old container of a service whose new one did not take
// over in time, where the service asks for that. It reports whether it did.
func (p *planner) handoverFailed(a *appPlan, want state.Service, have []state.Container) bool {
	done, known := a.now.Handovers[want.Name]
	if !known || !done.Failed || done.Hash != want.Hash || !state.SameImage(done.Image, want.Image) {
		return false
	}
	serves := slices.IndexFunc(have, func(c state.Container) bool {
		return c.Up() && p.mismatch(a, c, want) != nil && p.cannotOverlap(a, c, want) == ""
	})
	if serves < 0 {
		return false
	}
	for i, c := range have {
		if i == serves {
			p.keep[c.Image] = true
			a.stays[want.Name] = c.ID
			continue
		}
		p.retire(a, c, Reason{Cause: whyTimedOut})
	}
	if id, here := p.imageID(want.Image); here {
		p.keep[id] = true
	}
	a.failed = true
	p.decline("new release of "+a.label()+"/"+want.Name, "the new container did not take over in time; the old one serves on until there is another release or another try")
	return true
}
