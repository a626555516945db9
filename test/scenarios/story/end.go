package story

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/state"
)

// end checks how a story ended: the plan was an honest forecast and the device
// is as the target asks.
func (t *tale) end() error {
	for _, begin := range t.device.Fails {
		if !t.failed[begin] {
			return fmt.Errorf("nothing called %q was tried, so it did not fail", begin)
		}
	}
	if t.stuck {
		return nil
	}
	if len(t.facts.Failures) > 0 && !t.surprises {
		return errors.New("a step failed, yet the device settled")
	}
	if !t.surprises {
		if err := t.honest(); err != nil {
			return err
		}
	}
	return t.reached()
}

// honest checks that what was done is what the first plan announced, as far as
// it can see: what follows a reboot is another plan.
func (t *tale) honest() error {
	var forecast []reconcile.Key
	for _, n := range t.first.Nodes {
		if n.Step != nil {
			forecast = append(forecast, n.Key)
		}
	}
	var did []reconcile.Key
	for _, keys := range t.did {
		did = append(did, keys...)
		if slices.Contains(keys, reconcile.Reboot{}.Key()) {
			break
		}
	}
	slices.Sort(forecast)
	slices.Sort(did)
	if diff := cmp.Diff(forecast, did); diff != "" {
		return fmt.Errorf("the first plan was not what was done (-plan +done):\n%s", diff)
	}
	return t.ordered()
}

// ordered checks that the rounds kept the order that the first plan promised.
func (t *tale) ordered() error {
	when := map[reconcile.Key]int{} // the round in which a step was done or a gate opened
	for round, keys := range slices.Backward(t.did) {
		for _, k := range keys {
			when[k] = round
		}
	}
	for _, n := range t.first.Nodes { // each behind all it waits for
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
	w := t.device.World
	for id, now := range w.Apps {
		if err := t.ofApp(id, now); err != nil {
			return fmt.Errorf("%s at the end: %w", id, err)
		}
	}
	for id, want := range t.want.Apps {
		if _, exists := w.Apps[id]; !exists && want.Rejected == "" && want.Commit != "" {
			return fmt.Errorf("%s is not on the device at the end", id)
		}
	}
	for _, i := range w.Intents {
		if a := t.want.Apps[i.App]; a.Rejected == "" && (i.Kind != state.Stop || i.Commit != a.Commit) {
			return fmt.Errorf("what %s asked for was not done: %s %v", i.By, i.Kind, i.Left)
		}
	}
	return nil
}

func (t *tale) ofApp(id string, now state.AppNow) error {
	want, wanted := t.want.Apps[id]
	if len(now.Locked) > 0 {
		return fmt.Errorf("locks of %v are still held", now.Locked)
	}
	moved := t.start.Apps[id].ID != want.ID && t.start.Apps[id].ID != 0
	if !wanted || want.Rejected == "" && !moved {
		return t.app(now, want)
	}
	if diff := cmp.Diff(t.start.Apps[id].Containers, now.Containers); diff != "" && !t.surprises {
		return fmt.Errorf("it is to be left alone and was touched:\n%s", diff)
	}
	return nil
}

// app compares an app with the target; a removed app has the zero target.
func (t *tale) app(now state.AppNow, want state.App) error {
	if len(now.Containers) != len(want.Services) {
		return fmt.Errorf("%d containers for %d services", len(now.Containers), len(want.Services))
	}
	failed := false
	for _, c := range now.Containers {
		if now.Handovers[c.Service].Failed && c.Up() {
			failed = true // the old one serves on
			continue
		}
		if err := t.asAsked(c, want); err != nil {
			return fmt.Errorf("%s: %w", c.Service, err)
		}
	}
	if want.Commit != "" && (now.Commit == want.Commit) == failed {
		return fmt.Errorf("release %q, want %q", now.Commit, want.Commit)
	}
	return errors.Join(networks(now, want), volumes(now, want), files(now, want))
}

func networks(now state.AppNow, want state.App) error {
	if len(now.Networks) != len(want.Networks) {
		return fmt.Errorf("%d networks, want %d", len(now.Networks), len(want.Networks))
	}
	for _, n := range now.Networks {
		if x, ok := want.Networks[n.Name]; !ok || n.Hash != "" && x.Hash != n.Hash {
			return fmt.Errorf("network %s is not as asked", n.Name)
		}
	}
	return nil
}

func volumes(now state.AppNow, want state.App) error {
	for name := range want.Volumes {
		if !slices.ContainsFunc(now.Volumes, func(v state.VolumeNow) bool { return v.Name == name }) {
			return fmt.Errorf("volume %s is missing", name)
		}
	}
	return nil
}

// files: secrets are there for those who need them and for nobody else.
func files(now state.AppNow, want state.App) error {
	used := map[state.FilesNow]bool{}
	for _, c := range now.Containers {
		if c.Spec != nil {
			used[state.FilesNow{Service: c.Service, Hash: state.FilesHash(c.Spec.Files)}] = true
		}
	}
	for _, f := range now.Files {
		if !used[f] {
			return fmt.Errorf("files of %s are left over", f.Service)
		}
	}
	for name, s := range want.Services {
		f := state.FilesNow{Service: name, Hash: state.FilesHash(s.Spec.Files)}
		if f.Hash != "" && !now.Handovers[name].Failed && !slices.Contains(now.Files, f) {
			return fmt.Errorf("files of %s are missing", name)
		}
	}
	return nil
}

func (t *tale) asAsked(c state.Container, want state.App) error {
	s, wanted := want.Services[c.Service]
	w := t.device.World
	image := w.Images[c.Image]
	running := t.shallRun(s, want)
	switch {
	case !wanted:
		return errors.New("it is not in the target")
	case c.Hash != s.Hash:
		return errors.New("its settings are not those of the target")
	case len(image.Refs) > 0 && !image.Leads(s.Image): // without a name nobody can tell
		return fmt.Errorf("it runs %s, want %s", c.Image, s.Image)
	case c.ReleaseID != want.ReleaseID || c.Commit != want.Commit:
		return fmt.Errorf("it is called %s", c.Name)
	case s.Spec.UsesAPINetwork() && (!c.API || !w.APINetwork):
		return errors.New("it cannot reach the supervisor's API")
	case !running && c.Up():
		return errors.New("it runs and should not")
	case running && (c.Phase == state.Created || c.Phase == state.Exited && (c.Halted || c.Refused != "")):
		return errors.New("it does not run")
	}
	return nil
}

// shallRun: what the target wants to run, unless somebody wants it stopped or
// the service whose network it uses does not run.
func (t *tale) shallRun(s state.Service, want state.App) bool {
	if owner, ok := want.Services[s.Spec.NetworkOwner()]; ok && !t.shallRun(owner, want) {
		return false
	}
	return s.Running && !t.asked(want.UUID, s.Name)
}
