package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"deckhand/state"
	"deckhand/strategy"
)

// Ranks order steps that nothing else orders. They follow the way an ordinary
// update goes, so that nearly all edges agree with them.
const (
	rankRemoveNetwork = iota
	rankCreate        // networks, volumes
	rankFetch
	rankGate
	rankContainer
	rankStop
	rankStart
	rankRemove
	rankCommit
	rankImage
)

// The causes of steps. They are constant so that they can be counted.
const (
	whyNotOnDevice = "image is not on the device"
	whyNoContainer = "no container yet"
	whyImage       = "image changed"
	whySettings    = "settings changed"
	whyUnknown     = "made by another supervisor"
	whyNetwork     = "its network is replaced"
	whyTwice       = "its network exists twice"
	whyBroken      = "container is damaged"
	whyNotWanted   = "not in the target"
	whyDuplicate   = "duplicate"
	whyReplaced    = "replaced"
	whyNeverRan    = "created, not started"
	whyHalted      = "stopped by the supervisor"
	whyAskedStop   = "target asks for a stop"
	whyRelease     = "same container, new release"
	whyMissing     = "missing"
	whyNetSettings = "network settings changed"
	whyUnused      = "no service uses it"
	whyDone        = "every service is as asked"
	whyNoRelease   = "no release is wanted"
	whyTogether    = "a release starts when it is here as a whole"
	whyDependency  = "a service depends on it"
)

func (p *planner) diffApp(uuid string) {
	want, wanted := p.want.Apps[uuid]
	a := &appPlan{
		App: p.identity(uuid), now: p.now.Apps[uuid], want: want, wanted: wanted,
		phases: make(map[string]map[strategy.Phase][]Key, len(want.Services)), old: map[string][]Key{}, starts: map[string]Key{},
		needs: map[string][]Key{}, gone: map[string]string{}, users: map[string][]Key{}, fresh: map[string][]Key{},
		named: map[string]map[string]Key{}, have: containers(p.now.Apps[uuid]),
	}
	if why := leaveAlone(a); why != "" {
		p.decline("release of "+a.label(), why)
		for _, c := range a.now.Containers {
			p.keep[c.Image] = true
		}
		return
	}
	p.apps = append(p.apps, a)
	p.diffNetworks(a)
	p.diffVolumes(a)
	for _, name := range serviceNames(a) {
		p.diffService(a, name)
	}
	p.diffDependencies(a)
	if a.now.Commit != want.Commit {
		why := Reason{Cause: whyDone}
		if want.Commit == "" {
			why.Cause = whyNoRelease
		}
		p.add(a, Commit{App: a.App, Commit: want.Commit, Images: imagesOf(want)}, rankCommit, why)
	}
}

// leaveAlone says why an app is kept exactly as it is; "": it is not.
func leaveAlone(a *appPlan) string {
	switch {
	case a.wanted && a.want.Rejected != "":
		return "rejected: " + a.want.Rejected
	case a.wanted && a.now.ID != 0 && a.now.ID != a.want.ID:
		return fmt.Sprintf("the cloud changed the app's number from %d to %d, and its volumes are named after it; "+
			"remove the app from the device first", a.now.ID, a.want.ID)
	}
	return ""
}

func imagesOf(want state.App) []string {
	refs := map[string]bool{}
	for _, s := range want.Services {
		refs[s.Image] = true
	}
	return slices.Sorted(maps.Keys(refs))
}

// add puts a step of the app into the graph.
func (p *planner) add(a *appPlan, s Step, rank int, why Reason) Key {
	k := p.graph.add(vertex{step: s, key: s.Key(), rank: rank, why: why})
	if !slices.Contains(a.all[max(0, len(a.all)-1):], k) {
		a.all = append(a.all, k)
	}
	return k
}

func (a *appPlan) put(service string, ph strategy.Phase, k Key) {
	if a.phases[service] == nil {
		a.phases[service] = map[strategy.Phase][]Key{}
	}
	a.phases[service][ph] = append(a.phases[service][ph], k)
}

func serviceNames(a *appPlan) []string {
	set := map[string]bool{}
	for s := range a.have {
		set[s] = true
	}
	for s := range a.want.Services {
		set[s] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// diffNetworks keeps one network for each wanted name and removes the rest. A
// network that another supervisor made is taken over as it is.
func (p *planner) diffNetworks(a *appPlan) {
	kept := map[string]bool{}
	for _, n := range a.now.Networks {
		want, wanted := a.want.Networks[n.Name]
		same := wanted && (n.Hash == "" || n.Hash == want.Hash)
		if same && !kept[n.Name] {
			kept[n.Name] = true
			continue
		}
		why := Reason{Cause: whyNotWanted}
		switch {
		case same:
			why.Cause = whyDuplicate
		case wanted:
			why.Cause = whyNetSettings
		}
		k := p.add(a, RemoveNetwork{App: a.App, Name: n.Name, ID: n.ID}, rankRemoveNetwork, why)
		a.gone[n.Name] = whyNetwork
		if same {
			a.gone[n.Name] = whyTwice
		}
		a.fresh["network "+n.Name] = append(a.fresh["network "+n.Name], k)
	}
	for _, name := range slices.Sorted(maps.Keys(a.want.Networks)) {
		if kept[name] {
			continue
		}
		k := p.add(a, CreateNetwork{App: a.App, Network: a.want.Networks[name]}, rankCreate, Reason{Cause: whyMissing})
		for _, first := range a.fresh["network "+name] {
			a.order = append(a.order, [2]Key{first, k})
		}
		a.fresh["network "+name] = append(a.fresh["network "+name], k)
	}
}

// diffVolumes makes volumes and never deletes one: they hold what cannot be
// downloaded again.
func (p *planner) diffVolumes(a *appPlan) {
	have := map[string]state.VolumeNow{}
	for _, v := range a.now.Volumes {
		have[v.Name] = v
		want, wanted := a.want.Volumes[v.Name]
		switch {
		case !wanted:
			p.decline("removal of volume "+a.label()+"/"+v.Name, "volumes are kept until they are purged")
		case v.Hash != "" && v.Hash != want.Hash:
			p.decline("new settings of volume "+a.label()+"/"+v.Name, "recreating it would delete its data; purge it to apply them")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.want.Volumes)) {
		if _, ok := have[name]; !ok {
			k := p.add(a, CreateVolume{App: a.App, Volume: a.want.Volumes[name]}, rankCreate, Reason{Cause: whyMissing})
			a.fresh["volume "+name] = []Key{k}
		}
	}
}

func (p *planner) diffService(a *appPlan, name string) {
	want, wanted := a.want.Services[name]
	have := a.have[name]
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
	}
	for i, c := range have {
		if i == good {
			p.keep[c.Image] = true
			continue
		}
		reason := why
		if good >= 0 {
			reason = *p.mismatchOr(a, c, want, Reason{Cause: whyDuplicate})
		}
		p.retire(a, c, reason)
	}
	switch {
	case !wanted:
	case good < 0:
		p.install(a, want, why)
	default:
		p.adjust(a, have[good], want)
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
		return &Reason{Cause: whyUnknown}
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
	return nil
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
		for _, port := range Exclusive(c.Spec) {
			p.freed[port] = append(p.freed[port], stop)
		}
		a.put(c.Service, strategy.Stop, stop)
		a.old[c.Service] = append(a.old[c.Service], stop)
		a.order = append(a.order, [2]Key{stop, remove})
	}
	for _, n := range c.Networks {
		a.users[n] = append(a.users[n], remove)
	}
	if a.named[c.Service] == nil {
		a.named[c.Service] = map[string]Key{}
	}
	a.named[c.Service][c.Name] = remove
	p.frees[c.Image] = append(p.frees[c.Image], remove)
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
		a.order = append(a.order, [2]Key{fetch, create})
		if a.gate == "" {
			a.gate = p.graph.add(vertex{gate: "all images of " + a.label(), key: Key("gate images " + a.UUID), rank: rankGate, why: Reason{Cause: whyTogether}})
		}
	}
	for _, n := range want.Spec.AppNetworks() {
		for _, k := range a.fresh["network "+n] {
			a.order = append(a.order, [2]Key{k, create})
		}
	}
	for _, v := range namedVolumes(want.Spec) {
		for _, k := range a.fresh["volume "+v] {
			a.order = append(a.order, [2]Key{k, create})
		}
	}
	if want.Running {
		start := p.start(a, want, "", Reason{Cause: why.Cause})
		a.order = append(a.order, [2]Key{create, start})
	}
}

func (p *planner) start(a *appPlan, want state.Service, container string, why Reason) Key {
	needs := Exclusive(&want.Spec)
	k := p.add(a, Start{App: a.App, Service: want.Name, Hash: want.Hash, Image: want.Image, Needs: needs, Container: container}, rankStart, why)
	a.put(want.Name, strategy.Start, k)
	a.starts[want.Name] = k
	for _, port := range needs {
		p.ports[port] = append(p.ports[port], k)
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
		if remove, taken := a.named[want.Name][name]; taken {
			a.order = append(a.order, [2]Key{remove, k})
		}
	}
	switch {
	case !want.Running && c.Up():
		stop := p.add(a, Stop{App: a.App, Service: want.Name, Container: c.ID}, rankStop, Reason{Cause: whyAskedStop})
		a.put(want.Name, strategy.Stop, stop)
	case want.Running && c.Phase == state.Created:
		p.start(a, want, c.ID, Reason{Cause: whyNeverRan})
	case want.Running && c.Phase == state.Exited && c.Halted:
		p.start(a, want, c.ID, Reason{Cause: whyHalted})
	}
}

// diffDependencies lets the start of a service wait for what it depends on.
func (p *planner) diffDependencies(a *appPlan) {
	for _, name := range slices.Sorted(maps.Keys(a.starts)) {
		for _, d := range a.want.Services[name].DependsOn {
			if k := p.dependency(a, name, d); k != "" {
				a.needs[name] = append(a.needs[name], k)
				a.order = append(a.order, [2]Key{k, a.starts[name]})
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
	if !want.Running {
		p.decline("wait of "+a.label()+"/"+of+" for "+d.Service, "the target keeps "+d.Service+" stopped")
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
	k := p.add(a, Await{App: a.App, Service: d.Service, Hash: want.Hash, Image: want.Image, Condition: d.Condition, Container: container}, rankStart, Reason{Cause: whyDependency})
	if starting {
		a.order = append(a.order, [2]Key{start, k})
	}
	return k
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
