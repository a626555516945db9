package reconcile

import (
	"maps"
	"slices"

	"deckhand/state"
)

// readIntents sorts what people asked for by the object it is about, and stops
// in the target what they want stopped.
func (p *planner) readIntents(a *appPlan) {
	a.replace, a.begin, a.purge = map[string]state.Intent{}, map[string]state.Intent{}, map[string]state.Intent{}
	a.held = map[string]state.Intent{}
	for _, i := range p.now.Intents {
		if i.App != a.UUID {
			continue
		}
		a.intents = append(a.intents, i)
		switch i.Kind {
		case state.Restart:
			note(a.replace, i)
		case state.Start:
			note(a.begin, i)
		case state.Purge:
			note(a.purge, i)
		case state.Stop:
			if i.Commit != a.want.Commit {
				continue
			}
			for _, s := range i.Services {
				a.held[s] = i
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.held)) {
		if s := a.service(name); s.want.Running {
			s.want.Running, s.stopped = false, asked(a.held[name])
			p.decline("start of "+a.label()+"/"+name, "stopped for "+a.held[name].By+"; start it, or bring a new release")
		}
	}
}

func note(by map[string]state.Intent, i state.Intent) {
	for _, object := range i.Left {
		if _, known := by[object]; !known {
			by[object] = i
		}
	}
}

// asked is the reason of a step that somebody asked for.
func asked(i state.Intent) Reason {
	return Reason{Cause: whyWished, Changes: []state.Change{{Field: string(i.Kind) + " for " + i.By}}}
}

// unwished says that a container that fits is to be replaced all the same; nil:
// it is not.
func (a *appPlan) unwished(c state.Container) *Reason {
	if i, ok := a.replace[c.ID]; ok {
		r := asked(i)
		return &r
	}
	for _, v := range c.Volumes {
		if i, ok := a.purge[v]; ok {
			r := asked(i)
			return &r
		}
	}
	return nil
}

// ends notes that an intent is fulfilled not before a step is done.
func (a *appPlan) ends(i state.Intent, k Key) {
	if a.last == nil {
		a.last = map[string][]Key{}
	}
	a.last[i.ID] = append(a.last[i.ID], k)
}

// goesOn notes that a container stays for now: somebody who asked for another one
// is not served by this plan.
func (a *appPlan) goesOn(c state.Container) {
	i, asked := a.replace[c.ID]
	if !asked {
		return
	}
	if a.open == nil {
		a.open = map[string]bool{}
	}
	a.open[i.ID] = true
}

// fulfil forgets the intents of which nothing will be left.
func (p *planner) fulfil(a *appPlan) {
	for _, i := range a.intents {
		why := Reason{Cause: whyFulfilled}
		if a.open[i.ID] {
			continue
		}
		if i.Kind == state.Stop {
			if i.Commit == a.want.Commit && a.wanted {
				continue // it goes on
			}
			why.Cause = whySuperseded
		}
		k := p.add(a, Fulfil{Intent: i.ID, Kind: i.Kind, App: a.App}, rankRelease, why)
		for _, first := range a.last[i.ID] {
			a.demand(first, k)
		}
	}
}

// fulfilUnknown forgets the intents about apps that are neither here nor wanted.
func (p *planner) fulfilUnknown() {
	for _, i := range p.now.Intents {
		_, here := p.now.Apps[i.App]
		_, wanted := p.want.Apps[i.App]
		if here || wanted {
			continue
		}
		s := Fulfil{Intent: i.ID, Kind: i.Kind, App: App{UUID: i.App}}
		p.graph.add(vertex{step: s, key: s.Key(), rank: rankRelease, why: Reason{Cause: whySuperseded}})
	}
}
