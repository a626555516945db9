package reconcile

import (
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
	whyNotOnDevice = "image is not on the device"
	whyNoContainer = "no container yet"
	whyImage       = "image changed"
	whySettings    = "settings changed"
	whyUnknown     = "made by another supervisor"
	whyNetwork     = "its network is replaced"
	whyTwice       = "its network exists twice"
	whyOwner       = "the container whose network it uses is replaced"
	whyNoAPI       = "it is not on the network of the supervisor's API"
	whyBroken      = "container is damaged"
	whyNotWanted   = "not in the target"
	whyDuplicate   = "duplicate"
	whyReplaced    = "replaced"
	whyNeverRan    = "created, not started"
	whyHalted      = "stopped by the supervisor"
	whyRefused     = "the engine could not start it"
	whyAskedStop   = "target asks for a stop"
	whyRelease     = "same container, new release"
	whyMissing     = "missing"
	whyNetSettings = "network settings changed"
	whyUnused      = "no service uses it"
	whyDone        = "every service is as asked"
	whyNoRelease   = "no release is wanted"
	whyTogether    = "a release starts when it is here as a whole"
	whyDependency  = "a service depends on it"
	whyRestarts    = "a service it depends on is replaced"
	whyHandover    = "the old container runs until the new one has taken over"
	whyTimedOut    = "it did not take over in time"
	whyGuard       = "running services are to be changed"
	whyOverride    = "an update lock is overridden"
	whyGuarded     = "nothing is left to guard"
	whyInTheWay    = "others hold a lock of the app"
	whyReboot      = "the service asks for a reboot"
	whyRebootNow   = "a reboot is required"
	whyWished      = "it was asked for"
	whyFulfilled   = "nothing of it is left to do"
	whySuperseded  = "the release it was for has been replaced"
)

func (p *planner) diffApp(uuid string) {
	want, wanted := p.want.Apps[uuid]
	a := &appPlan{
		App: p.identity(uuid), now: p.now.Apps[uuid], want: want, wanted: wanted,
		phases: make(map[string]*phases, len(want.Services)), old: map[string][]Key{}, starts: map[string]Key{},
		needs: map[string][]Key{}, gone: map[string]string{}, users: map[string][]Key{}, fresh: map[string][]Key{},
		have: containers(p.now.Apps[uuid]), strategies: make(map[string]string, len(want.Services)),
		stays: map[string]string{}, seen: make(map[string]bool, len(want.Services)), later: map[string]bool{},
	}
	if why := leaveAlone(a); why != "" {
		p.decline("release of "+a.label(), why)
		for _, c := range a.now.Containers {
			p.keep[c.Image] = true
		}
		p.others = append(p.others, a)
		return
	}
	p.apps = append(p.apps, a)
	few := len(a.now.Containers) + len(want.Services)
	a.all, a.order = make([]Key, 0, 3*few), make([][2]Key, 0, 3*few)
	p.readIntents(a)
	p.diffNetworks(a)
	p.diffVolumes(a)
	for _, name := range serviceNames(a) {
		p.visit(a, name)
	}
	p.diffDependencies(a)
	p.diffFiles(a)
	p.diffCommit(a)
	p.fulfil(a)
}

// diffCommit records the release when everything of it is as asked. A release
// that failed, or that still waits for a reboot, is not recorded.
func (p *planner) diffCommit(a *appPlan) {
	if a.now.Commit == a.want.Commit || a.failed || len(a.later) > 0 {
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

func (a *appPlan) put(service string, ph strategy.Phase, k Key) {
	s := a.phases[service]
	if s == nil {
		s = &phases{}
		a.phases[service] = s
	}
	s[ph] = append(s[ph], k)
}

// demand notes that the engine needs first before then.
func (a *appPlan) demand(first, then Key) { a.order = append(a.order, [2]Key{first, then}) }

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
