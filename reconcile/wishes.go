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
		for _, e := range edges {
			p.wish(a, name, chosen, e)
		}
		p.quietly(a, name)
	}
}

func (p *planner) wish(a *appPlan, service, chosen string, e strategy.Edge) {
	first := a.phases[service][e.First]
	if e.Scope == strategy.Release {
		first = []Key{a.gate}
	}
	dropped := 0
	for _, x := range first {
		for _, y := range a.phases[service][e.Then] {
			if !p.graph.edge(x, y) {
				dropped++
			}
		}
	}
	if dropped > 0 {
		p.decline(fmt.Sprintf("%s of %s/%s", chosen, a.label(), service),
			fmt.Sprintf("%s cannot come before %s here", e.First, e.Then))
	}
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
