package reconcile

import (
	"maps"
	"slices"

	"deckhand/state"
)

// indexImages prepares the look-up of images by reference and by digest.
func (p *planner) indexImages() {
	for _, id := range slices.Sorted(maps.Keys(p.now.Images)) {
		for _, ref := range p.now.Images[id].Refs {
			p.images[ref] = id
			if d := state.Digest(ref); d != "" {
				p.images[d] = id
			}
		}
	}
}

// imageID finds the image that a reference leads to, as state.SameImage does.
func (p *planner) imageID(ref string) (string, bool) {
	if id, ok := p.images[ref]; ok {
		return id, true
	}
	if d := state.Digest(ref); d != "" {
		id, ok := p.images[d]
		return id, ok
	}
	return "", false
}

// diffImages removes images that we fetched and nothing needs any more: no
// service of any accepted app, and no container that stays.
func (p *planner) diffImages() {
	for _, a := range p.apps {
		p.keepRelease(a)
		for _, s := range a.want.Services {
			if id, ok := p.imageID(s.Image); ok {
				p.keep[id] = true
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(p.now.Images)) {
		if img := p.now.Images[id]; img.Ours && !p.keep[id] {
			s := RemoveImage{ID: id, Refs: img.Refs}
			p.spare = append(p.spare, s.Key())
			p.graph.add(vertex{step: s, key: s.Key(), rank: rankImage, why: Reason{Cause: whyUnused}})
		}
	}
}

// keepRelease keeps the images of the last release while the plan does not reach
// the next one.
func (p *planner) keepRelease(a *appPlan) {
	if a.now.Commit == a.want.Commit || !a.failed && !a.later {
		return
	}
	for _, ref := range a.now.Images {
		if id, here := p.imageID(ref); here {
			p.keep[id] = true
		}
	}
}

// fetch downloads the image of a service. One digest under two names is
// downloaded once.
func (p *planner) fetch(a *appPlan, s *servicePlan) Key {
	ref := s.want.Image
	if d := state.Digest(ref); d != "" {
		if p.fetches[d] == "" {
			p.fetches[d] = ref
		}
		ref = p.fetches[d]
	}
	f := Fetch{Image: ref, For: []string{a.label() + "/" + s.name}}
	if at, planned := p.graph.index[f.Key()]; planned {
		if other, ok := p.graph.vertices[at].step.(Fetch); ok {
			f.For = append(slices.Clone(other.For), f.For...)
			p.graph.vertices[at].step = f
		}
	}
	return p.add(a, f, rankFetch, Reason{Cause: whyNotOnDevice})
}
