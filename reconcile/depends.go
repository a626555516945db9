package reconcile

import (
	"slices"

	"deckhand/state"
	"deckhand/strategy"
)

// diffDependencies lets the start of a service wait for what it depends on.
func (p *planner) diffDependencies(a *appPlan) {
	for _, s := range a.services {
		if slices.ContainsFunc(s.want.DependsOn, func(d state.Dependency) bool { return d.Restart }) {
			p.restartWith(a, s, map[string]bool{})
		}
	}
	for _, s := range a.services {
		if s.start == "" {
			continue
		}
		for _, d := range s.want.DependsOn {
			if k := p.dependency(a, s, d); k != "" {
				s.needs = append(s.needs, k)
				a.demand(k, s.start)
			}
		}
	}
}

// dependency gives the step after which a condition holds; "" when it does now,
// or when nothing will bring it about.
func (p *planner) dependency(a *appPlan, s *servicePlan, d state.Dependency) Key {
	on := a.service(d.Service)
	subject := "wait of " + a.label() + "/" + s.name + " for " + d.Service
	switch {
	case !on.wanted:
		return ""
	case !on.want.Running:
		p.decline(subject, d.Service+" is to be kept stopped")
		return ""
	case on.later:
		p.decline(subject, "it first runs after a reboot")
		return ""
	case d.Condition == state.Started:
		return on.start
	}
	await := Await{App: a.App, Service: d.Service, Hash: on.want.Hash, Image: on.want.Image, Condition: d.Condition}
	if on.start == "" {
		c, ok := on.stayer()
		if !ok || reached(c, d.Condition) {
			return ""
		}
		await.Container = c.ID
	}
	k := p.add(a, await, rankStart, Reason{Cause: whyDependency})
	if on.start != "" {
		a.demand(on.start, k)
	}
	if _, failed := p.failures[k]; failed && d.Optional {
		p.decline(subject, "it failed, and the dependency is not required")
		return on.start
	}
	return k
}

// restartWith stops and starts a service that stays, when one it depends on
// starts anew and it asks for that. It stops before: from then on it is known
// that it has to start. trail ends a ring.
func (p *planner) restartWith(a *appPlan, s *servicePlan, trail map[string]bool) {
	if trail[s.name] || s.start != "" {
		return
	}
	trail[s.name] = true
	var starts []Key
	for _, d := range s.want.DependsOn {
		on := a.service(d.Service)
		if !d.Restart {
			continue
		}
		p.restartWith(a, on, trail)
		if on.start != "" {
			starts = append(starts, on.start)
			s.late = append(s.late, on.phases[strategy.Create]...)
		}
	}
	c, ok := s.stayer()
	if len(starts) == 0 || !ok || !c.Up() || !s.want.Running {
		return
	}
	stop := p.stop(a, s, c.ID, Reason{Cause: whyRestarts})
	s.old = append(s.old, stop)
	a.demand(stop, p.start(a, s, c.ID, Reason{Cause: whyRestarts}))
	for _, k := range starts {
		a.demand(stop, k)
	}
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
