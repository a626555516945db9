package reconcile

// finish puts the commit behind everything else of the app, and the removal of
// its images behind the commit: what the last release needs stays on the device
// until the new one is reached.
func (p *planner) finish(a *appPlan) {
	commit := Commit{App: a.App, Commit: a.want.Commit}.Key()
	if _, planned := p.graph.index[commit]; !planned {
		return
	}
	for _, k := range a.all {
		p.graph.edge(k, commit)
	}
	for _, ref := range a.now.Images {
		if id, here := p.imageID(ref); here {
			p.graph.edge(commit, RemoveImage{ID: id}.Key())
		}
	}
}
