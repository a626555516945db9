package reconcile

import (
	"cmp"
	"slices"

	"deckhand/state"
	"deckhand/strategy"
)

// visit looks at a service after those that it depends on: whether it can stay
// or start may follow from what happens to them.
func (p *planner) visit(a *appPlan, s *servicePlan) {
	if s.seen {
		return
	}
	s.seen = true
	if !s.wanted {
		p.diffService(a, s)
		return
	}
	owner := s.want.Spec.NetworkOwner()
	if owner != "" {
		p.visit(a, a.service(owner))
	}
	for _, d := range s.want.DependsOn {
		p.visit(a, a.service(d.Service))
	}
	if owner != "" && s.want.Running && !a.service(owner).later && !p.joins(a, s, a.service(owner)) {
		p.decline("start of "+a.label()+"/"+s.name, owner+", whose network it uses, does not run")
		s.want.Running = false
		s.stopped = Reason{Cause: whyOwnerStopped}
	}
	p.diffService(a, s)
}

func (p *planner) diffService(a *appPlan, s *servicePlan) {
	if s.wanted && p.handoverFailed(a, s) {
		return
	}
	good := -1
	for i, c := range s.have {
		if s.wanted && p.mismatch(a, c, s) == nil {
			good, s.stays = i, c.ID
			break
		}
	}
	why := Reason{Cause: whyNotWanted}
	if s.wanted {
		why = p.replaceReason(a, s)
		p.putOff(a, s)
		s.strategy = p.effective(a, s)
	}
	for i, c := range s.have {
		if i == good || p.serves(a, s, c) {
			p.keep[c.Image] = true
			a.goesOn(c)
			continue
		}
		reason := why
		if good >= 0 {
			reason = *p.mismatchOr(a, c, s, Reason{Cause: whyDuplicate})
		}
		p.retire(a, s, c, reason)
	}
	if s.wanted && len(s.have) == 0 {
		p.forgetImages(a, s)
	}
	switch {
	case !s.wanted:
	case good < 0:
		p.install(a, s, why)
	default:
		p.adjust(a, s, s.have[good])
	}
	if s.wanted && strategy.HandsOver(s.strategy) {
		p.handOver(a, s)
	}
}

// keepFirst sorts the containers of a service: running before not, new before
// old.
func keepFirst(cs []state.Container) {
	slices.SortStableFunc(cs, func(x, y state.Container) int {
		if x.Up() != y.Up() {
			if x.Up() {
				return -1
			}
			return 1
		}
		switch {
		case newer(x, y):
			return -1
		case newer(y, x):
			return 1
		}
		return 0
	})
}

// newer reports whether one container was made after another.
func newer(x, y state.Container) bool {
	return cmp.Or(cmp.Compare(x.Created, y.Created), cmp.Compare(x.ID, y.ID)) > 0
}

// mismatch says why a container cannot be the one that is wanted; nil: it can.
func (p *planner) mismatch(a *appPlan, c state.Container, s *servicePlan) *Reason {
	switch {
	case c.Phase == state.Dead || c.Phase == state.Removing:
		return &Reason{Cause: whyBroken}
	case c.Hash == "":
		return &Reason{Cause: whyUnknown, Changes: c.Differs}
	case !p.runs(a, c, s):
		return &Reason{Cause: whyImage, Changes: s.settings(c)}
	case c.Hash != s.want.Hash:
		return &Reason{Cause: whySettings, Changes: s.settings(c)}
	}
	for _, n := range c.Networks {
		if why, gone := a.gone[n]; gone {
			return &Reason{Cause: why}
		}
	}
	if c.Phase == state.Created && !s.attached(c) {
		return &Reason{Cause: whyBroken} // a crash between creation and the last connection
	}
	if owner := s.want.Spec.NetworkOwner(); owner != "" && c.NetworkOwner != a.service(owner).stays {
		return &Reason{Cause: whyOwner}
	}
	if s.want.Spec.UsesAPINetwork() && !c.API {
		return &Reason{Cause: whyNoAPI}
	}
	return a.unwished(c)
}

func (p *planner) mismatchOr(a *appPlan, c state.Container, s *servicePlan, or Reason) *Reason {
	if r := p.mismatch(a, c, s); r != nil {
		return r
	}
	return &or
}

// settings lists what differs between a container and what is wanted, as far as
// its spec is still known.
func (s *servicePlan) settings(c state.Container) []state.Change {
	if c.Spec == nil || c.Hash == s.want.Hash {
		return nil
	}
	return state.Diff(*c.Spec, s.want.Spec)
}

// runs reports whether the container was made from the wanted image. If the
// engine knows no image of that name, it is the right one where the container
// was made for this service of this very release.
func (p *planner) runs(a *appPlan, c state.Container, s *servicePlan) bool {
	if id, here := p.imageID(s.want.Image); here {
		return c.Image == id
	}
	return a.want.Commit != "" && c.Commit == a.want.Commit && c.ImageID == s.want.ImageID
}

func (s *servicePlan) attached(c state.Container) bool {
	for _, n := range s.want.Spec.AppNetworks() {
		if !slices.Contains(c.Networks, n) {
			return false
		}
	}
	return true
}

// replaceReason tells why a service needs a new container: what is wrong with
// the best one it has.
func (p *planner) replaceReason(a *appPlan, s *servicePlan) Reason {
	if len(s.have) == 0 {
		return Reason{Cause: whyNoContainer}
	}
	return *p.mismatchOr(a, s.have[0], s, Reason{Cause: whyReplaced})
}

// put notes a step as a part of the service's update.
func (s *servicePlan) put(ph strategy.Phase, k Key) { s.phases[ph] = append(s.phases[ph], k) }

// retire stops and removes a container that has no place any more.
func (p *planner) retire(a *appPlan, s *servicePlan, c state.Container, why Reason) {
	why.Changes = nil // the creation of its replacement tells them
	s.retired = append(s.retired, c.ID)
	remove := p.add(a, Remove{App: a.App, Service: s.name, Container: c.ID}, rankRemove, why)
	s.put(strategy.Remove, remove)
	if c.Up() {
		stop := p.stop(a, s, c.ID, why)
		for _, x := range Exclusive(c.Spec) {
			p.freed[x] = append(p.freed[x], stop)
		}
		if _, held := a.held[s.name]; !held {
			s.old = append(s.old, stop)
		}
		a.demand(stop, remove)
	}
	for _, n := range c.Networks {
		a.users[n] = append(a.users[n], remove)
	}
	for _, v := range c.Volumes {
		if _, purged := a.purge[v]; purged {
			a.demand(remove, RemoveVolume{App: a.App, Name: v, Intent: a.purge[v].ID}.Key())
		}
	}
	if usesAPI(c) {
		p.apiLeavers = append(p.apiLeavers, remove)
	}
	gone := RemoveImage{ID: c.Image}.Key()
	p.frees[gone] = append(p.frees[gone], remove)
	p.forgetImage(s, gone)
	if wish, ok := a.replace[c.ID]; ok {
		a.ends(wish, remove)
	}
}

// stop plans to stop a container, which needs the update locks.
func (p *planner) stop(a *appPlan, s *servicePlan, container string, why Reason) Key {
	k := p.add(a, Stop{App: a.App, Service: s.name, Container: container}, rankStop, why)
	if _, held := a.held[s.name]; !held { // who asks for a stop does not wait for downloads
		s.put(strategy.Stop, k)
	}
	a.guarded = append(a.guarded, k)
	return k
}

// forgetImages lets the images of the last release go before the download of a
// service whose old container is gone already, as far as no container uses them.
func (p *planner) forgetImages(a *appPlan, s *servicePlan) {
	if !strategy.Deletes(s.strategy) {
		return
	}
	used := map[string]bool{}
	for _, c := range a.now.Containers {
		used[c.Image] = true
	}
	for _, ref := range a.now.Images {
		if id, here := p.imageID(ref); here && !used[id] {
			p.forgetImage(s, RemoveImage{ID: id}.Key())
		}
	}
}

// forgetImage notes the removal of an old image. One that cannot be removed
// does not hold up the download.
func (p *planner) forgetImage(s *servicePlan, removal Key) {
	if _, failed := p.failures[removal]; !failed {
		s.put(strategy.Delete, removal)
	}
}

// install makes the container of a service that has none that fits.
func (p *planner) install(a *appPlan, s *servicePlan, why Reason) {
	create := p.add(a, Create{App: a.App, Commit: a.want.Commit, ReleaseID: a.want.ReleaseID, Service: s.want}, rankContainer, why)
	s.put(strategy.Create, create)
	if id, here := p.imageID(s.want.Image); here {
		p.keep[id] = true
	} else {
		fetch := p.fetch(a, s)
		s.put(strategy.Fetch, fetch)
		a.demand(fetch, create)
		if a.gate == "" {
			a.gate = p.graph.add(vertex{gate: "all images of " + a.label(), key: Key("gate images " + a.UUID), rank: rankGate, why: Reason{Cause: whyTogether}})
		}
	}
	for _, n := range s.want.Spec.AppNetworks() {
		for _, k := range a.fresh["network "+n] {
			a.demand(k, create)
		}
	}
	for _, v := range namedVolumes(s.want.Spec) {
		for _, k := range a.fresh["volume "+v] {
			a.demand(k, create)
		}
	}
	if s.want.Spec.UsesAPINetwork() {
		p.apiUsers = append(p.apiUsers, create)
	}
	p.joinAfter(a, a.service(s.want.Spec.NetworkOwner()), create)
	switch {
	case s.later:
		p.requireReboot(a, s, create)
	case s.want.Running:
		a.demand(create, p.start(a, s, "", Reason{Cause: why.Cause}))
	}
}

// joinAfter lets the making of a container wait for the one whose network it uses.
// The engine is asked for the newest of that service.
func (p *planner) joinAfter(a *appPlan, owner *servicePlan, create Key) {
	if !owner.wanted {
		return
	}
	a.demand(Create{App: a.App, Service: owner.want}.Key(), create)
	stayer, ok := owner.stayer()
	for _, c := range owner.have {
		if ok && newer(c, stayer) {
			a.demand(Remove{App: a.App, Service: owner.name, Container: c.ID}.Key(), create)
		}
	}
}

// joins reports whether a container can use the network of another service's:
// "cannot join network of a non running container". One that runs may go on.
func (p *planner) joins(a *appPlan, s, owner *servicePlan) bool {
	if owner.start != "" {
		return true
	}
	if !owner.want.Running {
		return false
	}
	if c, ok := owner.stayer(); ok && c.Up() {
		return true
	}
	return slices.ContainsFunc(s.have, func(c state.Container) bool { return c.Up() && p.mismatch(a, c, s) == nil })
}

func (p *planner) start(a *appPlan, s *servicePlan, container string, why Reason) Key {
	needs, joins := Exclusive(&s.want.Spec), s.want.Spec.NetworkOwner()
	k := p.add(a, Start{App: a.App, Service: s.name, Hash: s.want.Hash, Image: s.want.Image, Needs: needs, Joins: joins, Container: container}, rankStart, why)
	s.put(strategy.Start, k)
	s.start = k
	for _, x := range needs {
		p.needed[x] = append(p.needed[x], k)
	}
	if joins != "" {
		a.demand(a.service(joins).start, k)
	}
	return k
}

// adjust changes what can be changed about a container that fits. A container
// that ran and ended by itself stays as it is: that is its restart policy's
// business.
func (p *planner) adjust(a *appPlan, s *servicePlan, c state.Container) {
	if name := state.ContainerName(s.name, s.want.ImageID, a.want.ReleaseID, a.want.Commit); c.Name != name {
		p.rename(a, s, c, name)
	}
	wish, asking := a.begin[c.ID]
	var why Reason
	switch {
	case !s.want.Running && c.Up():
		p.stop(a, s, c.ID, Reason{Cause: cmp.Or(s.stopped.Cause, whyAskedStop), Changes: s.stopped.Changes})
		return
	case !s.want.Running || c.Up():
		return
	case s.later:
		p.requireReboot(a, s, "")
		return
	case c.Phase == state.Created:
		why = Reason{Cause: whyNeverRan}
	case c.Phase != state.Exited:
		return
	case c.Halted:
		why = Reason{Cause: whyHalted}
	case c.Refused != "":
		why = Reason{Cause: whyRefused, Changes: []state.Change{{Field: c.Refused}}}
	case asking:
		why = asked(wish)
	default:
		return
	}
	k := p.start(a, s, c.ID, why)
	if asking {
		a.ends(wish, k)
	}
}

// rename shows a new release on a container that stays: when its images are
// here, and when the locks allow a change.
func (p *planner) rename(a *appPlan, s *servicePlan, c state.Container, name string) {
	k := p.add(a, Rename{App: a.App, Service: s.name, Container: c.ID, Name: name}, rankRemove, Reason{Cause: whyRelease})
	s.put(strategy.Stop, k)
	a.guarded = append(a.guarded, k)
	for _, other := range s.have {
		if other.Name == name {
			a.demand(Remove{App: a.App, Service: s.name, Container: other.ID}.Key(), k)
		}
	}
}
