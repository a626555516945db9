package reconcile

import (
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
	for _, name := range slices.Sorted(maps.Keys(a.phases)) {
		chosen := a.want.Services[name].Strategy
		edges, known := strategy.All[chosen]
		if !known {
			chosen, edges = strategy.Default, strategy.All[strategy.Default]
		}
		kept := true
		for _, e := range edges {
			kept = p.wish(a, name, e) && kept
		}
		if !kept {
			p.decline(fmt.Sprintf("%s of %s/%s", chosen, a.label(), name), "its old container has to go before the new one can be made")
		}
		p.quietly(a, name)
	}
}

// wish reports whether the edges could be added.
func (p *planner) wish(a *appPlan, service string, e strategy.Edge) bool {
	first := a.phases[service][e.First]
	if e.Scope == strategy.Release {
		first = []Key{a.gate}
	}
	kept := true
	for _, x := range first {
		for _, y := range a.phases[service][e.Then] {
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
