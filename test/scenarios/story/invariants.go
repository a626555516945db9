package story

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/strategy"
)

// checkRound holds what must be true of every round, whatever the scenario.
//
// Balena's supervisor keeps rounds with removals of images free of anything else
// and gives up its locks in the last one. Here a removal shares nothing with the
// rest, and locks go as soon as nothing is left that they guard, so neither is
// asked for.
func (t *tale) checkRound(p reconcile.Plan, ready []reconcile.Node) error {
	for _, n := range p.Nodes {
		if n.Step == nil {
			continue
		}
		if err := t.checkPlanned(p, n); err != nil {
			return fmt.Errorf("%s: %w", n.Title(), err)
		}
	}
	for _, n := range ready {
		if err := t.checkStep(p, n, ready); err != nil {
			return fmt.Errorf("%s: %w", n.Title(), err)
		}
	}
	return t.checkDowntime(p)
}

// checkPlanned looks at a step whenever it is planned, ready or not.
func (t *tale) checkPlanned(p reconcile.Plan, n reconcile.Node) error {
	w := t.device.World
	if s, ok := n.Step.(reconcile.TakeLocks); ok {
		return checkTake(w, t.want, p, s)
	}
	if s, ok := n.Step.(reconcile.RemoveVolume); ok && !slices.ContainsFunc(w.Intents, func(i state.Intent) bool {
		return i.ID == s.Intent && i.Kind == state.Purge && i.App == s.App.UUID && slices.Contains(i.Left, s.Name)
	}) {
		return errors.New("nobody asked for the volume to be purged")
	}
	if _, ok := n.Step.(reconcile.ReleaseLocks); ok {
		return nil
	}
	if a, ok := t.want.Apps[n.Step.Traits().App]; ok && a.Rejected != "" {
		return errors.New("the app is rejected and must stay as it is")
	}
	return nil
}

// checkTake: the locks of an app are taken together, those of services that go
// and come included, and none that others hold is broken without a permission.
func checkTake(w state.World, want state.Target, p reconcile.Plan, s reconcile.TakeLocks) error {
	for _, n := range p.Nodes {
		if other, ok := n.Step.(reconcile.TakeLocks); ok && other.App.UUID == s.App.UUID && n.Key != s.Key() {
			return errors.New("the locks are taken twice")
		}
	}
	if all := services(w.Apps[s.App.UUID], want.Apps[s.App.UUID]); !slices.Equal(all, s.Services) {
		return fmt.Errorf("locks of %v are taken, want %v", s.Services, all)
	}
	if s.By != "" && !slices.ContainsFunc(w.Overrides, func(o state.Override) bool {
		return o.By == s.By && (o.App == "" || o.App == s.App.UUID)
	}) {
		return fmt.Errorf("%s permitted nothing", s.By)
	}
	return nil
}

// services lists what an app has and will have.
func services(now state.AppNow, want state.App) []string {
	var all []string
	for _, c := range now.Containers {
		all = append(all, c.Service)
	}
	for name := range want.Services {
		all = append(all, name)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// checkStep looks at a step that is done in this round.
func (t *tale) checkStep(p reconcile.Plan, n reconcile.Node, ready []reconcile.Node) error {
	app := n.Step.Traits().App
	now := t.device.World.Apps[app]
	switch s := n.Step.(type) {
	case reconcile.TakeLocks:
		return errors.Join(checkFree(now, s), t.checkLate(p, app))
	case reconcile.ReleaseLocks:
		return t.checkRelease(p, app)
	case reconcile.Stop:
		return errors.Join(t.checkLocked(app), t.checkStop(s))
	case reconcile.Rename, reconcile.Handover:
		return t.checkLocked(app)
	case reconcile.Start:
		return t.checkStart(s)
	case reconcile.Reboot:
		return t.checkReboot()
	case reconcile.RemoveNetwork:
		return inUse(now, "attached", func(c state.Container) bool { return slices.Contains(c.Networks, s.Name) })
	case reconcile.RemoveVolume:
		return inUse(now, "mounting it", func(c state.Container) bool { return slices.Contains(c.Volumes, s.Name) })
	case reconcile.Commit:
		for _, other := range ready {
			if other.Key != n.Key && other.Step.Traits().App == app {
				return fmt.Errorf("%s is not done yet", other.Title())
			}
		}
	case reconcile.Fetch, reconcile.RemoveImage, reconcile.CreateNetwork, reconcile.CreateVolume,
		reconcile.Create, reconcile.Await, reconcile.Remove, reconcile.CreateAPINetwork, reconcile.Fulfil,
		reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot:
	}
	return nil
}

// checkFree: nobody holds what is taken, or it was permitted to break it.
func checkFree(now state.AppNow, s reconcile.TakeLocks) error {
	for _, l := range now.UserLocks {
		if slices.Contains(s.Services, l.Service) && s.By == "" {
			return fmt.Errorf("%s holds the lock of %s", l.Holder, l.Service)
		}
	}
	return nil
}

// checkReboot: a reboot interrupts everything that runs.
func (t *tale) checkReboot() error {
	for id, a := range t.device.World.Apps {
		if slices.ContainsFunc(a.Containers, state.Container.Up) {
			if err := t.checkLocked(id); err != nil {
				return err
			}
		}
	}
	return nil
}

func inUse(now state.AppNow, how string, uses func(state.Container) bool) error {
	if i := slices.IndexFunc(now.Containers, uses); i >= 0 {
		return fmt.Errorf("%s is still %s", now.Containers[i].ID, how)
	}
	return nil
}

// checkLate: while something is downloaded nothing is done that needs locks, so
// the programs may take them, unless a service asks to be stopped first.
func (t *tale) checkLate(p reconcile.Plan, app string) error {
	want := t.want.Apps[app]
	for _, s := range want.Services {
		if early(s) {
			return nil
		}
	}
	if t.askedToStop(app, "") {
		return nil
	}
	if n := downloads(p, want); n != nil {
		return fmt.Errorf("too early: %s is still to be done", n.Title())
	}
	return nil
}

// downloads is a download for an app; nil: there is none.
func downloads(p reconcile.Plan, want state.App) *reconcile.Node {
	for i, n := range p.Nodes {
		f, ok := n.Step.(reconcile.Fetch)
		if ok && slices.ContainsFunc(f.For, func(of string) bool { return strings.HasPrefix(of, want.Name+"/") }) {
			return &p.Nodes[i]
		}
	}
	return nil
}

// checkLocked: whoever interrupts an app holds all of its locks.
func (t *tale) checkLocked(app string) error {
	if t.device.World.NoLocks {
		return nil
	}
	a := t.device.World.Apps[app]
	for _, s := range services(a, t.want.Apps[app]) {
		if !slices.Contains(a.Locked, s) {
			return fmt.Errorf("the update lock of %s is not held", s)
		}
	}
	return nil
}

// checkRelease: locks are kept while something is left that they guard, unless
// others hold some of the app's: who waits holds none.
func (t *tale) checkRelease(p reconcile.Plan, app string) error {
	for _, n := range p.Nodes {
		if n.Step == nil || n.Step.Traits().App != app {
			continue
		}
		_, stop := n.Step.(reconcile.Stop)
		_, rename := n.Step.(reconcile.Rename)
		_, handover := n.Step.(reconcile.Handover)
		if (stop || rename || handover) && len(t.device.World.Apps[app].UserLocks) == 0 {
			return fmt.Errorf("%s is still to be done", n.Title())
		}
	}
	return nil
}

// askedToStop: who asks for a stop does not wait for downloads. No service means
// any of the app.
func (t *tale) askedToStop(app, service string) bool {
	return slices.ContainsFunc(t.device.World.Intents, func(i state.Intent) bool {
		return i.App == app && i.Kind == state.Stop && (service == "" || slices.Contains(i.Services, service))
	})
}

// checkStop: unless its strategy says otherwise, nothing stops before the whole
// release is on the device. A service that leaves has no strategy; it makes room
// for those that ask for it.
func (t *tale) checkStop(s reconcile.Stop) error {
	if t.askedToStop(s.App.UUID, s.Service) {
		return nil
	}
	want := t.want.Apps[s.App.UUID]
	mine, stays := want.Services[s.Service]
	for _, service := range want.Services {
		if (service.Name == s.Service || !stays) && early(service) {
			return nil
		}
	}
	for _, service := range want.Services {
		if !here(t.device.World, service.Image) && !suits(t.device.World, service, want) {
			return fmt.Errorf("image %s is not on the device", service.Image)
		}
	}
	_, handsOver := t.device.World.Apps[s.App.UUID].Handovers[s.Service]
	if strategy.HandsOver(mine.Strategy) && mine.Running && handsOver && !runs(t.device.World, s.App.UUID, s.Service, s.Container) {
		return errors.New("it has handed over to nobody")
	}
	return nil
}

// early reports whether a service asks to be stopped before the download.
func early(s state.Service) bool {
	return s.Strategy == "kill-then-download" || s.Strategy == "delete-then-download"
}

// suits reports whether a service has the container that is wanted, so that it
// needs no image.
func suits(w state.World, s state.Service, want state.App) bool {
	return slices.ContainsFunc(w.Apps[want.UUID].Containers, func(c state.Container) bool {
		return c.Service == s.Name && c.Hash == s.Hash && c.Commit == want.Commit && c.ImageID == s.ImageID
	})
}

// runs reports whether a service has a container up beside this one.
func runs(w state.World, app, service, beside string) bool {
	return slices.ContainsFunc(w.Apps[app].Containers, func(c state.Container) bool {
		return c.Service == service && c.ID != beside && c.Up()
	})
}

// checkStart: a container that ended by itself is its restart policy's business,
// unless the engine could not even start it or somebody asks for it. Where the
// old container runs beside the new one, the new one is a change like a stop.
func (t *tale) checkStart(s reconcile.Start) error {
	for _, c := range t.device.World.Apps[s.App.UUID].Containers {
		if c.ID != s.Container || c.Phase == state.Created || c.Halted || c.Refused != "" {
			continue
		}
		if !slices.ContainsFunc(t.device.World.Intents, func(i state.Intent) bool {
			return i.Kind == state.Start && slices.Contains(i.Left, c.ID)
		}) {
			return fmt.Errorf("%s ran and was not stopped by us", c.ID)
		}
	}
	if runs(t.device.World, s.App.UUID, s.Service, s.Container) {
		return t.checkLocked(s.App.UUID)
	}
	return nil
}

// checkDowntime: what ran when the story began is not down while an image of its
// app is downloaded, unless its strategy or somebody asks for that.
func (t *tale) checkDowntime(p reconcile.Plan) error {
	for id, want := range t.want.Apps {
		if downloads(p, want) == nil {
			continue
		}
		for _, s := range want.Services {
			switch {
			case early(s), !s.Running, !runs(t.start, id, s.Name, ""), runs(t.device.World, id, s.Name, ""):
			case !slices.ContainsFunc(t.device.World.Apps[id].Containers, func(c state.Container) bool { return c.Service == s.Name && c.Halted }):
			case t.asked(id, s.Name):
			default:
				return fmt.Errorf("%s is down while an image is downloaded", s.Name)
			}
		}
	}
	return nil
}

// asked reports whether somebody wants a service stopped.
func (t *tale) asked(app, service string) bool {
	return slices.ContainsFunc(t.device.World.Intents, func(i state.Intent) bool {
		return i.Kind == state.Stop && i.App == app && slices.Contains(i.Services, service)
	})
}

func here(w state.World, ref string) bool {
	for _, i := range w.Images {
		if i.Leads(ref) {
			return true
		}
	}
	return false
}

// checkAfter looks at what a round did, whatever its steps were: volumes hold
// what cannot be downloaded again, and locks of others are theirs.
func checkAfter(before, after state.World, works []reconcile.Node) error {
	for id, a := range before.Apps {
		for _, v := range a.Volumes {
			if !slices.Contains(after.Apps[id].Volumes, v) && !slices.ContainsFunc(works, func(n reconcile.Node) bool {
				s, ok := n.Step.(reconcile.RemoveVolume)
				return ok && s.App.UUID == id && s.Name == v.Name
			}) {
				return fmt.Errorf("volume %s was removed or changed", v.Name)
			}
		}
		for _, l := range a.UserLocks {
			if !slices.Contains(after.Apps[id].UserLocks, l) && !slices.ContainsFunc(works, func(n reconcile.Node) bool {
				s, ok := n.Step.(reconcile.TakeLocks)
				_, reboot := n.Step.(reconcile.Reboot) // the files are in memory
				return reboot || ok && s.App.UUID == id && s.By != ""
			}) {
				return fmt.Errorf("the lock of %s, held by %s, was broken", l.Service, l.Holder)
			}
		}
	}
	return nil
}

// patient: who waits for a lock holds none of the app's.
func patient(w state.World, p reconcile.Plan) error {
	for _, wait := range p.Waiting {
		for _, n := range p.Nodes {
			s, ok := n.Step.(reconcile.TakeLocks)
			if ok && n.Key == wait.Key && wait.Holder != "" && len(w.Apps[s.App.UUID].Locked) > 0 {
				return fmt.Errorf("%s: it waits and holds locks of %v", n.Title(), w.Apps[s.App.UUID].Locked)
			}
		}
	}
	return nil
}
