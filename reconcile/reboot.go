package reconcile

import (
	"slices"

	"deckhand/state"
)

// putOff notes that a service cannot start before the device has rebooted: it
// asks for that itself, or depends on one that does or uses its network.
func (p *planner) putOff(a *appPlan, s *servicePlan) {
	c, ok := s.stayer()
	if !s.want.Running || ok && c.Up() {
		return
	}
	fresh := !ok || c.Phase == state.Created && c.Created >= p.now.Boot
	if ok && a.now.Reboots[s.name] {
		fresh = false
	}
	s.later = s.want.RequiresReboot && fresh || a.service(s.want.Spec.NetworkOwner()).later ||
		slices.ContainsFunc(s.want.DependsOn, func(d state.Dependency) bool { return a.service(d.Service).later })
	a.later = a.later || s.later
}

// serves reports whether an old container of a service that waits for a reboot
// can go on until then.
func (p *planner) serves(a *appPlan, s *servicePlan, c state.Container) bool {
	return s.later && c.Up() && !a.inTheWay(c) && p.claimedByOthers(a, s, c) == ""
}

// inTheWay reports whether something that is to go needs the container gone.
func (a *appPlan) inTheWay(c state.Container) bool {
	for _, n := range c.Networks {
		if _, gone := a.gone[n]; gone {
			return true
		}
	}
	for _, v := range c.Volumes {
		if _, purged := a.purge[v]; purged {
			return true
		}
	}
	return false
}

// requireReboot notes on the host that the service waits for a reboot; create is
// the making of its container, if that is planned.
func (p *planner) requireReboot(a *appPlan, s *servicePlan, create Key) {
	p.rebooting = true
	if _, noted := a.now.Reboots[s.name]; noted && create == "" || !s.want.RequiresReboot {
		p.decline("start of "+a.label()+"/"+s.name, "it waits for a reboot")
		return
	}
	k := p.add(a, RequireReboot{App: a.App, Service: s.name}, rankStart, Reason{Cause: whyReboot})
	a.demand(create, k)
}

// diffReboot restarts the device when everything else is done. It interrupts
// every service, so it needs the locks of every app.
func (p *planner) diffReboot() {
	if !p.rebooting && !p.now.RebootPending {
		return
	}
	p.rebooting = true
	s := Reboot{}
	k := p.graph.add(vertex{step: s, key: s.Key(), rank: rankReboot, why: Reason{Cause: whyRebootNow}})
	for _, a := range p.everyone() {
		starts := slices.ContainsFunc(a.services, func(s *servicePlan) bool { return s.start != "" })
		if starts || slices.ContainsFunc(a.now.Containers, state.Container.Up) {
			a.guarded = append(a.guarded, k)
		}
	}
}

// rebootLast lets everything else come before the reboot.
func (p *planner) rebootLast() {
	last := Reboot{}.Key()
	if _, planned := p.graph.index[last]; !planned {
		return
	}
	for _, v := range p.graph.vertices {
		if v.key != last {
			p.graph.edge(v.key, last)
		}
	}
}
