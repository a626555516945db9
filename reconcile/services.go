package reconcile

import (
	"cmp"
	"maps"
	"slices"

	"deckhand/state"
	"deckhand/strategy"
)

// visit looks at a service after those that it depends on: whether it can stay
// or start may follow from what happens to them.
func (p *planner) visit(a *appPlan, name string) {
	if a.seen[name] {
		return
	}
	a.seen[name] = true
	want, wanted := a.want.Services[name]
	if !wanted {
		p.diffService(a, name)
		return
	}
	if owner := want.Spec.NetworkOwner(); owner != "" {
		p.visit(a, owner)
	}
	for _, d := range want.DependsOn {
		p.visit(a, d.Service)
	}
	if owner := want.Spec.NetworkOwner(); want.Running && !p.joins(a, name, owner) {
		p.decline("start of "+a.label()+"/"+name, owner+", whose network it uses, does not run")
		want.Running = false
		a.want.Services = maps.Clone(a.want.Services)
		a.want.Services[name] = want
	}
	p.diffService(a, name)
}

func (p *planner) diffService(a *appPlan, name string) {
	want, wanted := a.want.Services[name]
	have := a.have[name]
	if wanted && p.handoverFailed(a, want, have) {
		return
	}
	good := -1
	for i, c := range have {
		if wanted && p.mismatch(a, c, want) == nil {
			good = i
			break
		}
	}
	why := Reason{Cause: whyNotWanted}
	if wanted {
		why = p.replaceReason(a, have, want)
		p.putOff(a, want, have, good)
		a.strategies[name] = p.effective(a, want, have, good)
	}
	for i, c := range have {
		if i == good {
			p.keep[c.Image] = true
			a.stays[name] = c.ID
			continue
		}
		reason := why
		if good >= 0 {
			reason = *p.mismatchOr(a, c, want, Reason{Cause: whyDuplicate})
		}
		p.retire(a, c, reason)
	}
	if a.strategies[name] != "" && len(have) == 0 {
		p.forgetImages(a, name)
	}
	switch {
	case !wanted:
	case good < 0:
		p.install(a, want, why)
	default:
		p.adjust(a, have[good], want)
	}
	if wanted && strategy.HandsOver(a.strategies[name]) {
		p.handOver(a, want, have, good)
	}
}

// containers sorts the containers of an app by service, the ones to keep first:
// running before not, new before old.
func containers(now state.AppNow) map[string][]state.Container {
	out := map[string][]state.Container{}
	for _, c := range now.Containers {
		out[c.Service] = append(out[c.Service], c)
	}
	for _, cs := range out {
		slices.SortStableFunc(cs, func(x, y state.Container) int {
			if x.Up() != y.Up() {
				if x.Up() {
					return -1
				}
				return 1
			}
			return cmp.Or(cmp.Compare(y.Created, x.Created), cmp.Compare(y.ID, x.ID))
		})
	}
	return out
}

// mismatch says why a container cannot be the one that is wanted; nil: it can.
func (p *planner) mismatch(a *appPlan, c state.Container, want state.Service) *Reason {
	switch {
	case c.Phase == state.Dead || c.Phase == state.Removing:
		return &Reason{Cause: whyBroken}
	case c.Hash == "":
		return &Reason{Cause: whyUnknown, Changes: settings(c, want)}
	case !p.runs(a, c, want):
		return &Reason{Cause: whyImage, Changes: settings(c, want)}
	case c.Hash != want.Hash:
		return &Reason{Cause: whySettings, Changes: settings(c, want)}
	}
	for _, n := range c.Networks {
		if why, gone := a.gone[n]; gone {
			return &Reason{Cause: why}
		}
	}
	if c.Phase == state.Created && !attached(c, want) {
		return &Reason{Cause: whyBroken} // a crash between creation and the last connection
	}
	if owner := want.Spec.NetworkOwner(); owner != "" && c.NetworkOwner != a.stays[owner] {
		return &Reason{Cause: whyOwner}
	}
	if want.Spec.UsesAPINetwork() && !c.API {
		return &Reason{Cause: whyNoAPI}
	}
	return a.unwished(c)
}

func (p *planner) mismatchOr(a *appPlan, c state.Container, want state.Service, or Reason) *Reason {
	if r := p.mismatch(a, c, want); r != nil {
		return r
	}
	return &or
}

// settings lists what differs between a container and what is wanted, as far as
// its spec is still known.
func settings(c state.Container, want state.Service) []state.Change {
	if c.Spec == nil || c.Hash == want.Hash {
		return nil
	}
	return state.Diff(*c.Spec, want.Spec)
}

// runs reports whether the container was made from the wanted image. If the
// engine knows no image of that name, it is the right one where the container
// was made for this service of this very release.
func (p *planner) runs(a *appPlan, c state.Container, want state.Service) bool {
	if id, here := p.imageID(want.Image); here {
		return c.Image == id
	}
	return a.want.Commit != "" && c.Commit == a.want.Commit && c.ImageID == want.ImageID
}

func attached(c state.Container, want state.Service) bool {
	for _, n := range want.Spec.AppNetworks() {
		if !slices.Contains(c.Networks, n) {
			return false
		}
	}
	return true
}

// replaceReason tells why a service needs a new container: what is wrong with
// the best one it has.
func (p *planner) replaceReason(a *appPlan, have []state.Container, want state.Service) Reason {
	if len(have) == 0 {
		return Reason{Cause: whyNoContainer}
	}
	return *p.mismatchOr(a, have[0], want, Reason{Cause: whyReplaced})
}

// retire stops and removes a container that has no place any more.
func (p *planner) retire(a *appPlan, c state.Container, why Reason) {
	why.Changes = nil // the creation of its replacement tells them
	remove := p.add(a, Remove{App: a.App, Service: c.Service, Container: c.ID}, rankRemove, why)
	a.put(c.Service, strategy.Remove, remove)
	if c.Up() {
		stop := p.add(a, Stop{App: a.App, Service: c.Service, Container: c.ID}, rankStop, why)
		for _, x := range Exclusive(c.Spec) {
			p.freed[x] = append(p.freed[x], stop)
		}
		a.put(c.Service, strategy.Stop, stop)
		a.old[c.Service] = append(a.old[c.Service], stop)
		a.demand(stop, remove)
		a.guarded = append(a.guarded, stop)
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
	p.frees[c.Image] = append(p.frees[c.Image], remove)
	a.put(c.Service, strategy.Delete, RemoveImage{ID: c.Image}.Key())
	if wish, ok := a.replace[c.ID]; ok {
		a.ends(wish, remove)
	}
}

// forgetImages lets the images of the last release go before the download of a
// service whose old container is gone already, as far as no container uses them.
func (p *planner) forgetImages(a *appPlan, service string) {
	used := map[string]bool{}
	for _, c := range a.now.Containers {
		used[c.Image] = true
	}
	for _, ref := range a.now.Images {
		if id, here := p.imageID(ref); here && !used[id] {
			a.put(service, strategy.Delete, RemoveImage{ID: id}.Key())
		}
	}
}

// install makes the container of a service that has none that fits.
func (p *planner) install(a *appPlan, want state.Service, why Reason) {
	create := p.add(a, Create{App: a.App, Commit: a.want.Commit, ReleaseID: a.want.ReleaseID, Service: want}, rankContainer, why)
	a.put(want.Name, strategy.Create, create)
	if id, here := p.imageID(want.Image); here {
		p.keep[id] = true
	} else {
		fetch := p.fetch(a, want)
		a.put(want.Name, strategy.Fetch, fetch)
		a.demand(fetch, create)
		if a.gate == "" {
			a.gate = p.graph.add(vertex{gate: "all images of " + a.label(), key: Key("gate images " + a.UUID), rank: rankGate, why: Reason{Cause: whyTogether}})
		}
	}
	for _, n := range want.Spec.AppNetworks() {
		for _, k := range a.fresh["network "+n] {
			a.demand(k, create)
		}
	}
	for _, v := range namedVolumes(want.Spec) {
		for _, k := range a.fresh["volume "+v] {
			a.demand(k, create)
		}
	}
	if want.Spec.UsesAPINetwork() {
		p.apiUsers = append(p.apiUsers, create)
	}
	owner := want.Spec.NetworkOwner()
	if x, ok := a.want.Services[owner]; ok {
		a.demand(Create{App: a.App, Service: x}.Key(), create)
	}
	switch {
	case a.later[want.Name]:
		p.requireReboot(a, want, create)
	case want.Running:
		a.demand(create, p.start(a, want, "", Reason{Cause: why.Cause}))
	}
}

// joins reports whether a container can use the network of another service's:
// "cannot join network of a non running container". One that runs may go on.
func (p *planner) joins(a *appPlan, name, owner string) bool {
	if owner == "" || a.starts[owner] != "" {
		return true
	}
	if !a.want.Services[owner].Running {
		return false
	}
	return slices.ContainsFunc(a.have[owner], func(c state.Container) bool { return c.ID == a.stays[owner] && c.Up() }) ||
		slices.ContainsFunc(a.have[name], func(c state.Container) bool { return c.Up() && p.mismatch(a, c, a.want.Services[name]) == nil })
}

func (p *planner) start(a *appPlan, want state.Service, container string, why Reason) Key {
	needs := Exclusive(&want.Spec)
	k := p.add(a, Start{App: a.App, Service: want.Name, Hash: want.Hash, Image: want.Image, Needs: needs, Joins: want.Spec.NetworkOwner(), Container: container}, rankStart, why)
	a.put(want.Name, strategy.Start, k)
	a.starts[want.Name] = k
	for _, x := range needs {
		p.needed[x] = append(p.needed[x], k)
	}
	if owner := a.starts[want.Spec.NetworkOwner()]; owner != "" {
		a.demand(owner, k)
	}
	return k
}

// adjust changes what can be changed about a container that fits. A container
// that ran and ended by itself stays as it is: that is its restart policy's
// business.
func (p *planner) adjust(a *appPlan, c state.Container, want state.Service) {
	if name := state.ContainerName(want.Name, want.ImageID, a.want.ReleaseID, a.want.Commit); c.Name != name {
		k := p.add(a, Rename{App: a.App, Service: want.Name, Container: c.ID, Name: name}, rankRemove, Reason{Cause: whyRelease})
		a.put(want.Name, strategy.Stop, k) // a release shows only when its images are here
		a.guarded = append(a.guarded, k)
		for _, other := range a.have[want.Name] {
			if other.Name == name {
				a.demand(Remove{App: a.App, Service: want.Name, Container: other.ID}.Key(), k)
			}
		}
	}
	wish, asking := a.begin[c.ID]
	var why Reason
	switch {
	case !want.Running && c.Up():
		stop := p.add(a, Stop{App: a.App, Service: want.Name, Container: c.ID}, rankStop, a.stopReason(want.Name))
		a.put(want.Name, strategy.Stop, stop)
		a.guarded = append(a.guarded, stop)
		return
	case !want.Running || c.Up():
		return
	case a.later[want.Name]:
		p.requireReboot(a, want, "")
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
	k := p.start(a, want, c.ID, why)
	if asking {
		a.ends(wish, k)
	}
}
