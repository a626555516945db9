package reconcile

import (
	"cmp"
	"fmt"
	"slices"

	"deckhand/strategy"
)

// wishes adds the edges of the update strategies. One that contradicts what the
// engine demands is dropped and shown.
func (p *planner) wishes(a *appPlan) {
	var leaving servicePlan // the phases of all services that the release no longer has
	for _, s := range a.services {
		for _, k := range s.phases[strategy.Fetch] {
			p.graph.edge(k, a.gate)
		}
		if s.wanted {
			continue
		}
		for ph, keys := range s.phases {
			leaving.phases[ph] = append(leaving.phases[ph], keys...)
		}
	}
	p.othersFirst(a)
	for _, s := range a.services {
		if s.wanted && !p.follow(a, s, &leaving) {
			p.decline(fmt.Sprintf("%s of %s/%s", s.strategy, a.label(), s.name), "its old container has to go before the new one can be made")
		}
	}
	for _, s := range a.services {
		if !s.wanted { // what leaves has no wishes that others could not overrule
			p.follow(a, s, &leaving)
		}
	}
}

// othersFirst lets a service that stops before its own download run until the
// rest of the release is here: it cannot start before that.
func (p *planner) othersFirst(a *appPlan) {
	var early, late []Key
	for _, s := range a.services {
		switch {
		case !s.wanted:
		case strategy.StopsFirst(s.strategy):
			early = append(early, s.phases[strategy.Stop]...)
		default:
			late = append(late, s.phases[strategy.Fetch]...)
		}
	}
	if len(early)*len(late) > mostWishes {
		return
	}
	for _, fetch := range late {
		for _, stop := range early {
			p.graph.edge(fetch, stop)
		}
	}
	if len(early) > 0 {
		a.first = late
	}
}

// follow adds the edges of a service's strategy; it reports whether all could be
// added.
func (p *planner) follow(a *appPlan, s, leaving *servicePlan) bool {
	kept := true
	for _, e := range strategy.All[cmp.Or(s.strategy, strategy.Default)] {
		first := s.phases[e.First]
		switch e.Scope {
		case strategy.Release:
			first = []Key{a.gate}
		case strategy.Leaving:
			first = leaving.phases[e.First]
		case strategy.Service:
		}
		for _, x := range first {
			for _, y := range s.phases[e.Then] {
				kept = p.graph.edge(x, y) && kept
			}
		}
	}
	p.quietly(s)
	return kept
}

// quietly adds what shortens downtime where nothing speaks against it: the new
// container is made while the old one runs, and the old one runs until all that
// the new one waits for is there.
func (p *planner) quietly(s *servicePlan) {
	var others []Key // who has what the new one needs stops first
	if s.start != "" {
		for _, x := range Exclusive(&s.want.Spec) {
			others = append(others, p.freed[x]...)
		}
	}
	for _, stop := range s.old {
		for _, k := range others {
			if !slices.Contains(s.old, k) {
				p.graph.edge(k, stop)
			}
		}
		for _, k := range s.late {
			p.graph.edge(k, stop)
		}
		for _, k := range s.phases[strategy.Create] {
			p.graph.edge(k, stop)
		}
		for _, k := range s.needs {
			p.graph.edge(k, stop)
		}
	}
}
