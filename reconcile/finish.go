package reconcile

import "slices"

// finish puts the commit behind everything else of the app, and the removal of
// its images behind the commit: what the last release needs stays on the device
// until the new one is reached.
func (p *planner) finish(a *appPlan) {
	commit := Commit{App: a.App, Commit: a.want.Commit}.Key()
	if _, planned := p.graph.index[commit]; !planned {
		return
	}
	for _, k := range a.all {
		if !p.leftover(a, k) {
			p.graph.edge(k, commit)
		}
	}
	for _, ref := range a.now.Images {
		if id, here := p.imageID(ref); here {
			p.graph.edge(commit, RemoveImage{ID: id}.Key())
		}
	}
}

// leftover reports whether a step clears up something that the engine fails to
// remove: every service may be as asked all the same.
func (p *planner) leftover(a *appPlan, k Key) bool {
	if _, failed := p.failures[k]; !failed {
		return false
	}
	step := p.graph.vertices[p.graph.index[k]].step
	if c, ok := step.(Remove); ok {
		return !slices.Contains(p.graph.afterOf(k), Stop(c).Key())
	}
	n, ok := step.(RemoveNetwork)
	_, again := a.want.Networks[n.Name]
	return ok && !again
}

// mostWishes bounds the edges of what is only nice to have: a plan is not to grow
// by them.
const mostWishes = 10_000

// freeFirst lets images that nothing uses go before others are downloaded: the
// disk may be small. One that cannot be removed holds up nothing.
func (p *planner) freeFirst() {
	var fetches []Key
	for _, v := range p.graph.vertices {
		if f, ok := v.step.(Fetch); ok {
			fetches = append(fetches, f.Key())
		}
	}
	if len(fetches)*len(p.spare) > mostWishes {
		return
	}
	for _, gone := range p.spare {
		if _, failed := p.failures[gone]; failed || len(p.graph.vertices[p.graph.index[gone]].after) > 0 {
			continue
		}
		for _, f := range fetches {
			p.graph.edge(gone, f)
		}
	}
}
