package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"deckhand/state"
)

// Ranks order steps that nothing else orders. They follow the way an ordinary
// update goes, so that nearly all edges agree with them.
const (
	rankRemoveNetwork = iota
	rankCreate        // networks, volumes, files
	rankFetch
	rankGate
	rankContainer
	rankLock
	rankStop
	rankStart
	rankRemove
	rankRelease
	rankCommit
	rankImage
	rankReboot
)

// The causes of steps. They are constant so that they can be counted.
const (
	whyNotOnDevice  = "image is not on the device"
	whyNoContainer  = "no container yet"
	whyImage        = "image changed"
	whySettings     = "settings changed"
	whyUnknown      = "made by another supervisor"
	whyNetwork      = "its network is replaced"
	whyTwice        = "its network exists twice"
	whyOwner        = "the container whose network it uses is replaced"
	whyNoAPI        = "it is not on the network of the supervisor's API"
	whyBroken       = "container is damaged"
	whyNotWanted    = "not in the target"
	whyDuplicate    = "duplicate"
	whyReplaced     = "replaced"
	whyNeverRan     = "created, not started"
	whyHalted       = "stopped by the supervisor"
	whyRefused      = "the engine could not start it"
	whyAskedStop    = "target asks for a stop"
	whyOwnerStopped = "the service whose network it uses does not run"
	whyRelease      = "same container, new release"
	whyMissing      = "missing"
	whyNetSettings  = "network settings changed"
	whyUnused       = "no service uses it"
	whyDone         = "every service is as asked"
	whyNoRelease    = "no release is wanted"
	whyTogether     = "a release starts when it is here as a whole"
	whyDependency   = "a service depends on it"
	whyRestarts     = "a service it depends on is replaced"
	whyHandover     = "the old container runs until the new one has taken over"
	whyTimedOut     = "it did not take over in time"
	whyGuard        = "running services are to be changed"
	whyOverride     = "an update lock is overridden"
	whyGuarded      = "nothing is left to guard"
	whyInTheWay     = "others hold a lock of the app"
	whyReboot       = "the service asks for a reboot"
	whyRebootNow    = "a reboot is required"
	whyWished       = "it was asked for"
	whyFulfilled    = "nothing of it is left to do"
	whySuperseded   = "the release it was for has been replaced"
)

func (p *planner) diffApp(uuid string) {
	want, wanted := p.want.Apps[uuid]
	a := &appPlan{
		App: p.identity(uuid), now: p.now.Apps[uuid], want: want, wanted: wanted,
		gone: map[string]string{}, users: map[string][]Key{}, fresh: map[string][]Key{},
	}
	a.listServices()
	if why := leaveAlone(a); why != "" {
		p.decline("release of "+a.label(), why)
		for _, c := range a.now.Containers {
			p.keep[c.Image] = true
		}
		p.others = append(p.others, a)
		for _, i := range p.now.Intents {
			if i.App == a.UUID {
				p.decline("request to "+string(i.Kind)+" "+a.label()+" by "+i.By, "the app is left alone, see above; it is done when that ends")
			}
		}
		return
	}
	p.apps = append(p.apps, a)
	p.readIntents(a)
	p.diffNetworks(a)
	p.diffVolumes(a)
	for _, s := range a.services {
		p.visit(a, s)
	}
	p.diffDependencies(a)
	p.diffFiles(a)
	p.diffCommit(a)
	p.fulfil(a)
}

// listServices lists what the app has and what it is to have, by name.
func (a *appPlan) listServices() {
	few := len(a.want.Services) + len(a.now.Containers)
	a.named = make(map[string]*servicePlan, few)
	a.all, a.order = make([]Key, 0, 3*few), make([][2]Key, 0, 3*few)
	most := len(a.want.Services)
	for _, c := range a.now.Containers {
		if _, wanted := a.want.Services[c.Service]; !wanted {
			most++
		}
	}
	plans := make([]servicePlan, 0, most) // in one piece: thousands of them cost the collector more than the planner
	add := func(name string) *servicePlan {
		plans = append(plans, servicePlan{name: name})
		s := &plans[len(plans)-1]
		a.named[name] = s
		return s
	}
	for name, want := range a.want.Services {
		s := add(name)
		s.want, s.wanted = want, true
	}
	for _, c := range a.now.Containers {
		s := a.named[c.Service]
		if s == nil {
			s = add(c.Service)
		}
		s.have = append(s.have, c)
	}
	a.services = slices.SortedFunc(maps.Values(a.named), func(x, y *servicePlan) int { return cmp.Compare(x.name, y.name) })
	for _, s := range a.services {
		keepFirst(s.have)
	}
}

// diffCommit records the release when everything of it is as asked. A release
// that failed, or that still waits for a reboot, is not recorded.
func (p *planner) diffCommit(a *appPlan) {
	if a.now.Commit == a.want.Commit || a.failed || a.later {
		return
	}
	why := Reason{Cause: whyDone}
	if a.want.Commit == "" {
		why.Cause = whyNoRelease
	}
	p.add(a, Commit{App: a.App, Commit: a.want.Commit, Images: imagesOf(a.want)}, rankCommit, why)
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

// demand notes that the engine needs first before then.
func (a *appPlan) demand(first, then Key) { a.order = append(a.order, [2]Key{first, then}) }
