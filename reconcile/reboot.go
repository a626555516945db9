package reconcile

import (
	"deckhand/state"
)

// putOff notes that a service cannot start before the device has rebooted: it
// asks for that itself, or depends on one that does.
func (p *planner) putOff(a *appPlan, want state.Service, have []state.Container, good int) {
	if !want.Running {
		return
	}
	if good >= 0 && have[good].Up() {
		return
	}
	if want.RequiresReboot && (good < 0 || have[good].Phase == state.Created && have[good].Created >= p.now.Boot) {
		a.later[want.Name] = true
		return
	}
	for _, d := range want.DependsOn {
		if a.later[d.Service] {
			a.later[want.Name] = true
		}
	}
}

// requireReboot notes on the host that the service waits for a reboot; create is
// the making of its container, if that is planned.
func (p *planner) requireReboot(a *appPlan, want state.Service, create Key) {
	p.rebooting = true
	if p.now.RebootPending || !want.RequiresReboot {
		p.decline("start of "+a.label()+"/"+want.Name, "it waits for a reboot")
		return
	}
	k := p.add(a, RequireReboot{App: a.App, Service: want.Name}, rankStart, Reason{Cause: whyReboot})
	if create != "" {
		a.demand(create, k)
	}
	a.reboots = append(a.reboots, k)
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
		for _, c := range a.now.Containers {
			if c.Up() {
				a.guarded = append(a.guarded, k)
				break
			}
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
		if v.step != nil && v.key != last {
			p.graph.edge(v.key, last)
		}
	}
}
