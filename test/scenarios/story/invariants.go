package story

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/state"
)

// checkRound holds what must be true of every round, whatever the scenario.
func checkRound(w state.World, want state.Target, p reconcile.Plan, ready []reconcile.Node) error {
	for _, n := range p.Nodes {
		if n.Step == nil {
			continue
		}
		if a, ok := want.Apps[n.Step.Traits().App]; ok && a.Rejected != "" {
			return fmt.Errorf("%s: the app is rejected and must stay as it is", n.Title())
		}
	}
	for _, n := range ready {
		if err := checkStep(w, want, n, ready); err != nil {
			return fmt.Errorf("%s: %w", n.Title(), err)
		}
	}
	return nil
}

func checkStep(w state.World, want state.Target, n reconcile.Node, ready []reconcile.Node) error {
	switch s := n.Step.(type) {
	case reconcile.Stop:
		return checkStop(w, want.Apps[s.App.UUID], s)
	case reconcile.Start:
		return checkStart(w.Apps[s.App.UUID], s)
	case reconcile.RemoveNetwork:
		for _, c := range w.Apps[s.App.UUID].Containers {
			if slices.Contains(c.Networks, s.Name) {
				return fmt.Errorf("%s is still attached", c.ID)
			}
		}
	case reconcile.Commit:
		for _, other := range ready {
			if other.Key != n.Key && other.Step.Traits().App == s.App.UUID {
				return fmt.Errorf("%s is not done yet", other.Title())
			}
		}
	case reconcile.Fetch, reconcile.RemoveImage, reconcile.CreateNetwork, reconcile.CreateVolume,
		reconcile.Create, reconcile.Await, reconcile.Remove, reconcile.Rename,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Handover, reconcile.Fulfil, reconcile.TakeLocks,
		reconcile.ReleaseLocks, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return nil
}

// checkStop: unless its strategy says otherwise, nothing stops before the whole
// release is on the device.
func checkStop(w state.World, want state.App, s reconcile.Stop) error {
	switch want.Services[s.Service].Strategy {
	case "kill-then-download", "delete-then-download":
		return nil
	}
	for _, service := range want.Services {
		if !here(w, service.Image) {
			return fmt.Errorf("image %s is not on the device", service.Image)
		}
	}
	return nil
}

// checkStart: a container that ended by itself is its restart policy's business.
func checkStart(a state.AppNow, s reconcile.Start) error {
	for _, c := range a.Containers {
		if c.ID == s.Container && c.Phase != state.Created && !c.Halted {
			return fmt.Errorf("%s ran and was not stopped by us", c.ID)
		}
	}
	return nil
}

func here(w state.World, ref string) bool {
	for _, i := range w.Images {
		if i.Leads(ref) {
			return true
		}
	}
	return false
}

// checkVolumes: volumes hold what cannot be downloaded again.
func checkVolumes(before, after state.World) error {
	for id, a := range before.Apps {
		for _, v := range a.Volumes {
			if !slices.Contains(after.Apps[id].Volumes, v) {
				return fmt.Errorf("volume %s was removed or changed", v.Name)
			}
		}
	}
	return nil
}

// end checks how a story ended: the plan was an honest forecast and the device
// is as the target asks.
func (t *tale) end(first reconcile.Plan) error {
	if t.stuck {
		return nil
	}
	if len(t.facts.Failures) > 0 {
		return errors.New("a step failed, yet the device settled")
	}
	if !t.surprises {
		if err := t.honest(first); err != nil {
			return err
		}
	}
	return t.reached()
}

// honest checks that what was done is what the first plan announced.
func (t *tale) honest(first reconcile.Plan) error {
	var forecast []reconcile.Key
	for _, n := range first.Nodes {
		if n.Step != nil {
			forecast = append(forecast, n.Key)
		}
	}
	did := slices.Concat(t.did...)
	slices.Sort(forecast)
	slices.Sort(did)
	if diff := cmp.Diff(forecast, did); diff != "" {
		return fmt.Errorf("the first plan was not what was done (-plan +done):\n%s", diff)
	}
	return t.ordered(first)
}

// ordered checks that the rounds kept the order that the first plan promised.
func (t *tale) ordered(first reconcile.Plan) error {
	when := map[reconcile.Key]int{} // the round in which a step was done or a gate opened
	for round, keys := range t.did {
		for _, k := range keys {
			when[k] = round
		}
	}
	for _, n := range first.Nodes { // each behind all it waits for
		if n.Step == nil {
			when[n.Key] = -1
		}
		for _, before := range n.After {
			switch {
			case n.Step == nil:
				when[n.Key] = max(when[n.Key], when[before])
			case when[before] >= when[n.Key]:
				return fmt.Errorf("%q was done before %q, against the first plan", n.Key, before)
			}
		}
	}
	return nil
}

func (t *tale) reached() error {
	for id, now := range t.world.Apps {
		want, wanted := t.want.Apps[id]
		if wanted && (want.Rejected != "" || t.start.Apps[id].ID != want.ID && t.start.Apps[id].ID != 0) {
			if diff := cmp.Diff(t.start.Apps[id], now); diff != "" {
				return fmt.Errorf("%s is to be left alone and was touched:\n%s", id, diff)
			}
			continue
		}
		if err := reached(t.world, now, want); err != nil {
			return fmt.Errorf("%s at the end: %w", id, err)
		}
	}
	for id, want := range t.want.Apps {
		if _, exists := t.world.Apps[id]; !exists && want.Rejected == "" && want.Commit != "" {
			return fmt.Errorf("%s is not on the device at the end", id)
		}
	}
	return nil
}

// reached compares an app with the target; a removed app has the zero target.
func reached(w state.World, now state.AppNow, want state.App) error {
	if want.Commit != "" && now.Commit != want.Commit {
		return fmt.Errorf("release %q, want %q", now.Commit, want.Commit)
	}
	if len(now.Containers) != len(want.Services) {
		return fmt.Errorf("%d containers for %d services", len(now.Containers), len(want.Services))
	}
	for _, c := range now.Containers {
		if err := asAsked(w, c, want); err != nil {
			return fmt.Errorf("%s: %w", c.Service, err)
		}
	}
	if len(now.Networks) != len(want.Networks) {
		return fmt.Errorf("%d networks, want %d", len(now.Networks), len(want.Networks))
	}
	for _, n := range now.Networks {
		if x, ok := want.Networks[n.Name]; !ok || n.Hash != "" && x.Hash != n.Hash {
			return fmt.Errorf("network %s is not as asked", n.Name)
		}
	}
	for name := range want.Volumes {
		if !slices.ContainsFunc(now.Volumes, func(v state.VolumeNow) bool { return v.Name == name }) {
			return fmt.Errorf("volume %s is missing", name)
		}
	}
	return nil
}

func asAsked(w state.World, c state.Container, want state.App) error {
	s, wanted := want.Services[c.Service]
	switch {
	case !wanted:
		return errors.New("it is not in the target")
	case c.Hash != s.Hash:
		return errors.New("its settings are not those of the target")
	case len(w.Images[c.Image].Refs) > 0 && !w.Images[c.Image].Leads(s.Image): // without a name nobody can tell
		return fmt.Errorf("it runs %s, want %s", c.Image, s.Image)
	case c.ReleaseID != want.ReleaseID || c.Commit != want.Commit:
		return fmt.Errorf("it is called %s", c.Name)
	case !s.Running && c.Up():
		return errors.New("it runs and should not")
	case s.Running && (c.Phase == state.Created || c.Phase == state.Exited && c.Halted):
		return errors.New("it does not run")
	}
	return nil
}
