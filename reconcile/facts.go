package reconcile

import (
	"cmp"
	"maps"
	"slices"
	"strconv"

	"deckhand/state"
	"deckhand/strategy"
)

// facts adds the edges that the engine demands. It would refuse the later step
// otherwise; the simulation refuses the same.
func (p *planner) facts() error {
	for _, a := range p.everyone() {
		// Noted while the steps were made:
		//   an image before its container         "No such image"
		//   networks, volumes before a container   "network … not found"
		//   a container before its start           "No such container"
		//   a stop before the removal              "You cannot remove a running container"
		//   an old network before a new one        "network with name … already exists"
		//   a dependency before its dependents     (ours, from depends_on)
		//   a name free before it is given         "name … is already in use"
		//   the owner of a network before those    "cannot join network of a non running container"
		//     that use it
		//   secrets, configs before a container    "bind source path does not exist"
		edges := slices.Concat(a.order, a.leaving(), a.oneAtATime())
		if err := p.demand(edges); err != nil {
			return err
		}
	}
	// "image is being used by stopped container": containers go first.
	var edges [][2]Key
	for gone, removals := range p.frees {
		for _, k := range removals {
			edges = append(edges, [2]Key{k, gone})
		}
	}
	return p.demand(slices.Concat(edges, p.exclusiveEdges(), p.apiOrder))
}

// exclusiveEdges: "port is already allocated", "address already in use", so
// whoever has it stops first.
func (p *planner) exclusiveEdges() [][2]Key {
	var edges [][2]Key
	for x, starts := range p.needed {
		for _, stop := range p.freed[x] {
			for _, start := range starts {
				edges = append(edges, [2]Key{stop, start})
			}
		}
	}
	return edges
}

// Exclusive lists what only one running container on the device can have: ports
// of the host ("80/tcp") and fixed addresses ("front 10.0.0.2"). Ports that the
// engine chooses are not among them, and neither is a port's address: one on
// every interface clashes with one on any.
func Exclusive(s *state.Spec) []string {
	if s == nil {
		return nil
	}
	var out []string
	for _, p := range s.Ports {
		if p.Published != 0 {
			out = append(out, strconv.Itoa(p.Published)+"/"+p.Protocol)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(s.Networks)) {
		for _, ip := range []string{s.Networks[n].IPv4, s.Networks[n].IPv6} {
			if ip != "" {
				out = append(out, cmp.Or(s.Networks[n].External, n)+" "+ip)
			}
		}
	}
	return out
}

func (p *planner) demand(edges [][2]Key) error {
	for _, e := range edges {
		if err := p.graph.fact(e[0], e[1]); err != nil {
			return err
		}
	}
	return nil
}

// leaving: "network … has active endpoints", so containers leave before it goes.
func (a *appPlan) leaving() [][2]Key {
	var edges [][2]Key
	for _, n := range a.now.Networks {
		gone := RemoveNetwork{App: a.App, Name: n.Name, ID: n.ID}.Key()
		for _, k := range a.users[n.Name] {
			edges = append(edges, [2]Key{k, gone})
		}
	}
	return edges
}

// oneAtATime lets the old container of a service stop before the new one
// starts: both would want the same volumes. A strategy that hands over says that
// the service is made for it.
func (a *appPlan) oneAtATime() [][2]Key {
	var edges [][2]Key
	for _, s := range a.services {
		if strategy.HandsOver(s.strategy) {
			continue
		}
		for _, stop := range s.old {
			edges = append(edges, [2]Key{stop, s.start})
		}
	}
	return edges
}
