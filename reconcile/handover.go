package reconcile

import (
	"slices"
	"time"

	"deckhand/state"
	"deckhand/strategy"
)

// effective is the strategy that a service is updated by. One that cannot be
// kept is replaced by the default, and the plan says so.
func (p *planner) effective(a *appPlan, s *servicePlan) string {
	chosen := s.want.Strategy
	if _, known := strategy.All[chosen]; !known {
		chosen = strategy.Default
	}
	if !strategy.HandsOver(chosen) {
		return chosen
	}
	for _, c := range s.have {
		if c.ID == s.stays || !c.Up() {
			continue
		}
		if !s.want.Running || s.later {
			return strategy.Default // nobody to hand over to
		}
		if why := p.cannotOverlap(a, c, s); why != "" {
			p.decline(chosen+" of "+a.label()+"/"+s.name, why+"; the old container stops first")
			return strategy.Default
		}
	}
	return chosen
}

// cannotOverlap says why the old and the new container of a service cannot run
// at the same time; "": they can.
func (p *planner) cannotOverlap(a *appPlan, old state.Container, s *servicePlan) string {
	for _, n := range old.Networks {
		_, gone := a.gone[n]
		if _, again := a.want.Networks[n]; gone && again {
			return "network " + n + " is replaced"
		}
	}
	for _, v := range old.Volumes {
		_, purged := a.purge[v]
		if _, again := a.want.Volumes[v]; purged && again {
			return "volume " + v + " is purged"
		}
	}
	if usesAPI(old) && s.want.Spec.UsesAPINetwork() && !p.now.APINetwork {
		return "the network of the supervisor's API is replaced"
	}
	for _, x := range Exclusive(old.Spec) {
		if slices.Contains(Exclusive(&s.want.Spec), x) {
			return "only one container can have " + x
		}
	}
	if x := p.claimedByOthers(a, s, old); x != "" {
		return x + " goes to another service"
	}
	return ""
}

// claimedByOthers is what the container has to itself and another service is to
// have; "" for nothing.
func (p *planner) claimedByOthers(a *appPlan, s *servicePlan, c state.Container) string {
	for _, x := range Exclusive(c.Spec) {
		for _, other := range p.claims()[x] {
			if other != a.UUID+"/"+s.name {
				return x
			}
		}
	}
	return ""
}

// claims lists, by what only one container can have, the services that are to
// have it.
func (p *planner) claims() map[string][]string {
	if p.claimed != nil {
		return p.claimed
	}
	p.claimed = map[string][]string{}
	for uuid, app := range p.want.Apps {
		for name, s := range app.Services {
			for _, x := range Exclusive(&s.Spec) {
				p.claimed[x] = append(p.claimed[x], uuid+"/"+name)
			}
		}
	}
	return p.claimed
}

func usesAPI(c state.Container) bool { return c.API || c.Spec != nil && c.Spec.UsesAPINetwork() }

// handOver lets the old containers run until the new one has taken over.
func (p *planner) handOver(a *appPlan, s *servicePlan) {
	if done, known := a.now.Handovers[s.name]; known && s.stays != "" && s.is(done) {
		return
	}
	// One that served before takes over from nobody who is younger. Two of one
	// second may be either way round: then it is handed over, which costs no one.
	stayer, stays := s.stayer()
	if !slices.ContainsFunc(s.have, func(c state.Container) bool {
		return c.Up() && c.ID != s.stays && !(stays && stayer.Created < c.Created)
	}) {
		return
	}
	step := Handover{
		App: a.App, Service: s.name, Hash: s.want.Hash, Image: s.want.Image, Container: s.stays,
		Timeout: time.Duration(s.want.HandoverTimeout), KeepOld: s.want.KeepOld,
	}
	if step.Timeout == 0 {
		step.Timeout = strategy.HandoverTimeout
	}
	k := p.add(a, step, rankStart, Reason{Cause: whyHandover})
	s.put(strategy.Handover, k)
	if s.start == "" {
		a.guarded = append(a.guarded, k)
		return
	}
	a.demand(s.start, k)
	a.guarded = append(a.guarded, s.start) // the new one is not seen before the change is allowed
}

// is reports whether a hand-over was to what is wanted now.
func (s *servicePlan) is(h state.Handover) bool {
	return h.Hash == s.want.Hash && state.SameImage(h.Image, s.want.Image)
}

// handoverFailed keeps the old container of a service whose new one did not take
// over in time, where the service asks for that. It reports whether it did.
func (p *planner) handoverFailed(a *appPlan, s *servicePlan) bool {
	done, known := a.now.Handovers[s.name]
	if !known || !done.Failed || !s.is(done) {
		return false
	}
	serves := slices.IndexFunc(s.have, func(c state.Container) bool {
		return c.Up() && p.mismatch(a, c, s) != nil && p.cannotOverlap(a, c, s) == "" && !a.inTheWay(c)
	})
	if serves < 0 {
		return false
	}
	for i, c := range s.have {
		if i == serves {
			p.keep[c.Image] = true
			s.stays = c.ID
			continue
		}
		p.retire(a, s, c, Reason{Cause: whyTimedOut})
	}
	if id, here := p.imageID(s.want.Image); here {
		p.keep[id] = true
	}
	a.failed = true
	p.decline("new release of "+a.label()+"/"+s.name, "the new container did not take over in time; the old one serves on until there is another release or another try")
	return true
}
