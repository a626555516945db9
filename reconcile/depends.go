package reconcile

import (
	"maps"
	"slices"

	"deckhand/state"
	"deckhand/strategy"
)

// diffDependencies lets the start of a service wait for what it depends on.
func (p *planner) diffDependencies(a *appPlan) {
	for _, name := range slices.Sorted(maps.Keys(a.want.Services)) {
		p.restartWith(a, name, map[string]bool{})
	}
	for _, name := range slices.Sorted(maps.Keys(a.starts)) {
		for _, d := range a.want.Services[name].DependsOn {
			if k := p.dependency(a, name, d); k != "" {
				a.needs[name] = append(a.needs[name], k)
				a.demand(k, a.starts[name])
			}
		}
	}
}

// dependency gives the step after which a condition holds; "" when it does now.
func (p *planner) dependency(a *appPlan, of string, d state.Dependency) Key {
	want, exists := a.want.Services[d.Service]
	if !exists {
		return ""
	}
	if !want.Running && d.Optional {
		return ""
	}
	if !want.Running {
		p.decline("wait of "+a.label()+"/"+of+" for "+d.Service, "the target keeps "+d.Service+" stopped")
		return ""
	}
	if a.later[d.Service] {
		p.decline("wait of "+a.label()+"/"+of+" for "+d.Service, "it first runs after a reboot")
		return ""
	}
	start, starting := a.starts[d.Service]
	if d.Condition == state.Started {
		return start
	}
	container := ""
	if !starting {
		for _, c := range a.have[d.Service] {
			if p.mismatch(a, c, want) == nil {
				if reached(c, d.Condition) {
					return ""
				}
				container = c.ID
				break
			}
		}
	}
	await := Await{App: a.App, Service: d.Service, Hash: want.Hash, Image: want.Image, Condition: d.Condition, Container: container}
	k := p.add(a, await, rankStart, Reason{Cause: whyDependency})
	if starting {
		a.demand(start, k)
	}
	if _, failed := p.failures[k]; failed && d.Optional {
		p.decline("wait of "+a.label()+"/"+of+" for "+d.Service, "it failed, and the dependency is not required")
		return start
	}
	return k
}

// restartWith stops and starts a service that stays, when one it depends on is
// replaced and it asks for that. It stops first: from then on it is known that
// it has to start. It reports whether the service is interrupted.
func (p *planner) restartWith(a *appPlan, name string, trail map[string]bool) bool {
	want := a.want.Services[name]
	if trail[name] || len(a.old[name]) > 0 {
		return len(a.old[name]) > 0
	}
	trail[name] = true
	var before []Key
	for _, d := range want.DependsOn {
		if d.Restart && p.restartWith(a, d.Service, trail) && a.starts[d.Service] != "" {
			before = append(append(before, a.old[d.Service]...), a.starts[d.Service])
		}
	}
	at := slices.IndexFunc(a.have[name], func(c state.Container) bool { return c.ID == a.stays[name] })
	if len(before) == 0 || at < 0 || !a.have[name][at].Up() || !want.Running {
		return false
	}
	id := a.have[name][at].ID
	stop := p.add(a, Stop{App: a.App, Service: name, Container: id}, rankStop, Reason{Cause: whyRestarts})
	a.old[name] = []Key{stop}
	a.put(name, strategy.Stop, stop)
	a.guarded = append(a.guarded, stop)
	a.demand(stop, p.start(a, want, id, Reason{Cause: whyRestarts}))
	for _, k := range before {
		a.demand(stop, k)
	}
	return true
}

// reached reports whether a container meets a condition now.
func reached(c state.Container, want state.Condition) bool {
	switch want {
	case state.Started:
		return c.Phase != state.Created
	case state.Healthy:
		return c.Phase == state.Running && c.Health == "healthy"
	case state.Completed:
		return c.Phase == state.Exited && c.ExitCode == 0
	}
	return false
}
