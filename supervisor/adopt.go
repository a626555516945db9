package supervisor

import (
	"context"
	"fmt"
	"slices"

	"deckhand/reconcile"
	"deckhand/state"
)

// differences is in what a container of another supervisor is not what is
// wanted.
type differences struct {
	hash    string // of the spec it was compared with
	changes []state.Change
}

// candidate is a container that nobody compared with what is wanted so far.
type candidate struct {
	container string
	create    reconcile.Create
}

// mostPuzzles is how often a look fails because a container cannot be compared.
// After that the container is taken for damaged, so that one cannot hold up the
// device for ever.
const mostPuzzles = 5

// adoptContainers compares containers that another supervisor made with what is
// wanted, each once for each wanted spec. Those that are equal count as made by
// us from then on: they need no restart. While one cannot be compared nothing is
// known about it, and nothing must be done: the look has failed.
func (d *device) adoptContainers(ctx context.Context, w state.World) error {
	for _, c := range d.candidates(w) {
		changes, err := d.Engine.Differences(ctx, c.container, c.create)
		if err == nil && len(changes) == 0 {
			err = d.learnKey(ctx, c)
		}
		if err == nil {
			err = d.compared(c, changes)
		}
		if err == nil {
			delete(d.puzzles, c.container)
			continue
		}
		if d.puzzles[c.container]++; d.puzzles[c.container] <= mostPuzzles {
			return fmt.Errorf("compare a container of another supervisor: %w", err)
		}
		d.Log.Warn().Err(err).Str("container", c.container).Msg("cannot compare a container of another supervisor; it is replaced")
	}
	return nil
}

func (d *device) candidates(w state.World) []candidate {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []candidate
	for uuid, a := range w.Apps {
		want, wanted := d.want.Apps[uuid]
		if !wanted || want.Rejected != "" {
			continue
		}
		for _, c := range a.Containers {
			s, ok := want.Services[c.Service]
			if !ok || c.Hash != "" || d.adopted[c.ID] != "" || d.differs[c.ID].hash == s.Hash {
				continue
			}
			app := reconcile.App{UUID: uuid, ID: want.ID, Name: want.Name}
			out = append(out, candidate{c.ID, reconcile.Create{App: app, Commit: want.Commit, ReleaseID: want.ReleaseID, Service: s}})
		}
	}
	slices.SortFunc(out, func(a, b candidate) int {
		if a.container < b.container {
			return -1
		}
		return 1
	})
	return out
}

func (d *device) compared(c candidate, changes []state.Change) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := c.create.Service
	if len(changes) > 0 {
		d.differs[c.container] = differences{s.Hash, changes}
		return nil
	}
	if err := d.knowSpec(s.Hash, s.Spec); err != nil {
		return err
	}
	if err := d.Store.Adopted.Put(c.container, s.Hash); err != nil {
		return err
	}
	d.adopted[c.container] = s.Hash
	d.Log.Info().Str("service", s.Name).Str("app", c.create.App.Name).Msg("taken over from another supervisor without a restart")
	return nil
}

// learnKey lets a container that is taken over go on to call the supervisor: the key
// in its environment becomes that of its service. Whoever can make such a container
// rules the engine; still a key opens nothing that way that another one opens, and
// nothing that the cloud's documents or an image say is a key.
func (d *device) learnKey(ctx context.Context, c candidate) error {
	app, s := c.create.App, c.create.Service
	if !slices.Contains(s.Spec.Features, state.FeatureAPI) {
		return nil
	}
	all, err := d.Store.Keys.All()
	if err != nil {
		return err
	}
	for _, k := range all {
		if k.AppID == app.ID && k.Service == s.Name {
			return nil
		}
	}
	key, err := d.Engine.SupervisorKey(ctx, c.container)
	if err != nil || key == "" {
		return err
	}
	global, err := d.Store.Identity.APIKey()
	if err != nil {
		return err
	}
	taken := key == global
	for _, k := range all {
		taken = taken || key == k.Key
	}
	for _, v := range s.Spec.Environment {
		taken = taken || key == v
	}
	if taken {
		d.Log.Warn().Str("service", s.Name).Str("app", app.Name).Msg("the container's key for the local API is not its own; it is refused until the service is made anew")
		return nil
	}
	if err := d.Store.Keys.Learn(app.ID, s.Name, key); err != nil {
		return err
	}
	d.Log.Info().Str("service", s.Name).Str("app", app.Name).Msg("its key for the local API works on")
	return nil
}
