package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"deckhand/strategy"
)

// wishes adds the edges of the update strategies. One that contradicts what the
// engine demands is dropped and shown.
func (p *planner) wishes(a *appPlan) {
	for _, name := range slices.Sorted(maps.Keys(a.phases)) {
		for _, k := range a.phases[name][strategy.Fetch] {
			p.graph.edge(k, a.gate)
		}
	}
	// What leaves has no wishes of its own that others could not overrule.
	names := slices.Sorted(maps.Keys(a.phases))
	slices.SortStableFunc(names, func(x, y string) int { return cmp.Compare(a.leaves(x), a.leaves(y)) })
	for _, name := range names {
		chosen := cmp.Or(a.strategies[name], strategy.Default)
		kept := true
		for _, e := range strategy.All[chosen] {
			kept = p.wish(a, name, e) && kept
		}
		if !kept && a.leaves(name) == 0 {
			p.decline(fmt.Sprintf("%s of %s/%s", chosen, a.label(), name), "its old container has to go before the new one can be made")
		}
		p.quietly(a, name)
	}
}

// leaves is 1 for a service that the release no longer has.
func (a *appPlan) leaves(service string) int {
	if _, wanted := a.want.Services[service]; wanted {
		return 0
	}
	return 1
}

// wish reports whether the edges could be added.
func (p *planner) wish(a *appPlan, service string, e strategy.Edge) bool {
	own := a.phases[service]
	first := own[e.First]
	switch e.Scope {
	case strategy.Release:
		first = []Key{a.gate}
	case strategy.Leaving:
		first = nil
		for _, other := range slices.Sorted(maps.Keys(a.phases)) {
			if a.leaves(other) == 1 {
				first = append(first, a.phases[other][e.First]...)
			}
		}
	case strategy.Service:
	}
	kept := true
	for _, x := range first {
		for _, y := range own[e.Then] {
			kept = p.graph.edge(x, y) && kept
		}
	}
	return kept
}

// quietly adds what shortens downtime where nothing speaks against it: the new
// container is made while the old one runs, and the old one runs until all that
// the new one waits for is there.
func (p *planner) quietly(a *appPlan, service string) {
	ready := slices.Concat(a.phases[service][strategy.Create], a.needs[service])
	for _, stop := range a.old[service] {
		for _, k := range ready {
			p.graph.edge(k, stop)
		}
	}
}
