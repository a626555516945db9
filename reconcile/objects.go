package reconcile

import (
	"maps"
	"slices"

	"deckhand/state"
)

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
			a.demand(first, k)
		}
		a.fresh["network "+name] = append(a.fresh["network "+name], k)
	}
}

// diffVolumes makes volumes. One is deleted only when an intent names it: they
// hold what cannot be downloaded again.
func (p *planner) diffVolumes(a *appPlan) {
	have := map[string]state.VolumeNow{}
	for _, v := range a.now.Volumes {
		have[v.Name] = v
		want, wanted := a.want.Volumes[v.Name]
		_, purged := a.purge[v.Name]
		switch {
		case purged:
		case !wanted:
			p.decline("removal of volume "+a.label()+"/"+v.Name, "volumes are kept until they are purged")
		case v.Hash != "" && v.Hash != want.Hash:
			p.decline("new settings of volume "+a.label()+"/"+v.Name, "recreating it would delete its data; purge it to apply them")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.purge)) {
		// Also one that is not there: that it was removed has still to be noted.
		k := p.add(a, RemoveVolume{App: a.App, Name: name, Intent: a.purge[name].ID}, rankRemoveNetwork, asked(a.purge[name]))
		a.fresh["volume "+name] = []Key{k}
		a.ends(a.purge[name], k)
	}
	for _, name := range slices.Sorted(maps.Keys(a.want.Volumes)) {
		_, exists := have[name]
		if _, purged := a.purge[name]; exists && !purged {
			continue
		}
		k := p.add(a, CreateVolume{App: a.App, Volume: a.want.Volumes[name]}, rankCreate, Reason{Cause: whyMissing})
		for _, first := range a.fresh["volume "+name] {
			a.demand(first, k)
		}
		a.fresh["volume "+name] = append(a.fresh["volume "+name], k)
	}
}

// diffFiles writes secrets and configs before a container needs them, and
// deletes those that no container can use any more.
func (p *planner) diffFiles(a *appPlan) {
	have := make(map[state.FilesNow]bool, len(a.now.Files))
	for _, f := range a.now.Files {
		have[f] = true
	}
	for _, s := range a.services {
		f := state.FilesNow{Service: s.name, Hash: state.FilesHash(s.want.Spec.Files)}
		if f.Hash == "" {
			continue
		}
		if !have[f] {
			k := p.add(a, WriteFiles{App: a.App, Service: s.name, Hash: f.Hash, Files: s.want.Spec.Files}, rankCreate, Reason{Cause: whyMissing})
			a.demand(k, Create{App: a.App, Service: s.want}.Key())
			a.demand(k, s.start)
		}
		delete(have, f)
	}
	for _, f := range a.now.Files {
		s := a.service(f.Service)
		if !have[f] || s.usesFiles(f) {
			continue
		}
		k := p.add(a, RemoveFiles{App: a.App, Service: f.Service, Hash: f.Hash}, rankRemove, Reason{Cause: whyUnused})
		for _, c := range s.have {
			a.demand(Remove{App: a.App, Service: f.Service, Container: c.ID}.Key(), k)
		}
	}
}

// usesFiles reports whether a container that stays may use the files.
func (s *servicePlan) usesFiles(f state.FilesNow) bool {
	return slices.ContainsFunc(s.have, func(c state.Container) bool {
		return !slices.Contains(s.retired, c.ID) && (c.Spec == nil || state.FilesHash(c.Spec.Files) == f.Hash)
	})
}

// diffAPINetwork makes the network of the supervisor's API when a service uses
// it and it is missing or not as it should be.
func (p *planner) diffAPINetwork() {
	if p.now.APINetwork || len(p.apiUsers) == 0 {
		return
	}
	s := CreateAPINetwork{}
	k := p.graph.add(vertex{step: s, key: s.Key(), rank: rankCreate, why: Reason{Cause: whyMissing}})
	for _, u := range p.apiUsers {
		p.apiOrder = append(p.apiOrder, [2]Key{k, u})
	}
	for _, r := range p.apiLeavers {
		p.apiOrder = append(p.apiOrder, [2]Key{r, k})
	}
}
