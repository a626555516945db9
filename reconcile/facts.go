package reconcile

// facts adds the edges that the engine demands. It would refuse the later step
// otherwise; the simulation refuses the same.
func (p *planner) facts() error {
	for _, a := range p.apps {
		// Noted while the steps were made:
		//   an image before its container         "No such image"
		//   networks, volumes before a container   "network … not found"
		//   a container before its start           "No such container"
		//   a stop before the removal              "You cannot remove a running container"
		//   an old network before a new one        "network with name … already exists"
		//   a dependency before its dependents     (ours, from depends_on)
		//   a name free before it is given         "name … is already in use"
		for _, e := range a.order {
			if err := p.graph.fact(e[0], e[1]); err != nil {
				return err
			}
		}
		// "network … has active endpoints": containers leave before it goes.
		for _, n := range a.now.Networks {
			gone := RemoveNetwork{App: a.App, Name: n.Name, ID: n.ID}.Key()
			for _, k := range a.users[n.Name] {
				if err := p.graph.fact(k, gone); err != nil {
					return err
				}
			}
		}
	}
	// "image is being used by stopped container": containers go first.
	for id, removals := range p.frees {
		gone := RemoveImage{ID: id, Refs: p.now.Images[id].Refs}.Key()
		for _, k := range removals {
			if err := p.graph.fact(k, gone); err != nil {
				return err
			}
		}
	}
	return p.oneAtATime()
}

// oneAtATime lets the old container of a service stop before the new one
// starts: both would want the same ports, volumes and name.
func (p *planner) oneAtATime() error {
	for _, a := range p.apps {
		for service, stops := range a.old {
			for _, stop := range stops {
				if err := p.graph.fact(stop, a.starts[service]); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
