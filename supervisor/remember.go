package supervisor

import (
	"context"
	"errors"
	"maps"
	"slices"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// stops tells marks of stops that took effect from those of stops that did not.
type stops struct {
	running map[string]int    // container → stops on their way
	touched map[string]uint64 // container → when one last began or ended, counted
	count   uint64
}

func newStops() stops { return stops{running: map[string]int{}, touched: map[string]uint64{}} }

func (s *stops) note(container string, change int) {
	s.count++
	s.touched[container] = s.count
	if s.running[container] += change; s.running[container] <= 0 {
		delete(s.running, container)
	}
}

// quiet reports whether no stop of the container was on its way since a look
// began.
func (s *stops) quiet(container string, since uint64) bool {
	return s.running[container] == 0 && s.touched[container] <= since
}

// stopsSeen is the count before a look.
func (d *device) stopsSeen() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.stops.count
}

// recall adds to a look what the store remembers; the lock is held.
func (d *device) recall(w *state.World, since uint64) {
	if d.adopt {
		d.adoptImages(*w)
	}
	for uuid, release := range d.commits {
		a := w.Apps[uuid]
		a.UUID, a.Commit, a.Images = uuid, release.Commit, release.Images
		w.Apps[uuid] = a
	}
	for uuid, a := range w.Apps {
		if a.ID == 0 {
			a.ID = d.want.Apps[uuid].ID
		}
		for i := range a.Containers {
			d.recallContainer(&a.Containers[i], since)
		}
		a.Handovers = d.handoversOf(uuid)
		w.Apps[uuid] = a
	}
	for id, img := range w.Images {
		// In local mode what the cloud's apps need stays for when it ends.
		img.Ours = !d.want.Local && (d.images[id] || slices.ContainsFunc(img.Refs, func(r string) bool { return d.images[r] }))
		w.Images[id] = img
	}
	w.Intents, w.Overrides = d.intentsNow(), d.overridesNow()
}

func (d *device) recallContainer(c *state.Container, since uint64) {
	if d.halted[c.ID] && c.Up() && d.stops.quiet(c.ID, since) {
		// The stop failed, or somebody has started it since. If it ends now
		// it is not us who stopped it.
		if err := d.Store.Halted.Remove(c.ID); err != nil {
			d.Log.Warn().Err(err).Str("container", c.Name).Msg("cannot forget that a container was to be stopped")
		} else {
			delete(d.halted, c.ID)
		}
	}
	c.Halted = d.halted[c.ID]
	if c.Hash == "" {
		c.Hash, c.Differs = d.adopted[c.ID], d.differs[c.ID].changes
	}
	if spec, known := d.specs[c.Hash]; known {
		c.Spec = &spec
	}
}

func (d *device) handoversOf(app string) map[string]state.Handover {
	var out map[string]state.Handover
	for key, h := range d.handovers {
		if service, ok := serviceOf(key, app); ok {
			if out == nil {
				out = map[string]state.Handover{}
			}
			out[service] = h
		}
	}
	return out
}

// serviceOf is the service of a hand-over's key, if it is one of the app.
func serviceOf(key, app string) (string, bool) {
	prefix := store.OfService(app, "")
	if len(key) > len(prefix) && key[:len(prefix)] == prefix {
		return key[len(prefix):], true
	}
	return "", false
}

// adoptImages makes the images of our containers ours again after the store was
// lost: those that came by digest from a registry, as every release does.
func (d *device) adoptImages(w state.World) {
	d.adopt = false
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			for _, r := range w.Images[c.Image].Refs {
				if state.Digest(r) == "" || state.Registry(r) == "" {
					continue
				}
				d.images[r] = true
				if err := d.Store.Images.Put(r); err != nil {
					d.Log.Warn().Err(err).Str("image", r).Msg("cannot remember an image; it will not be cleared up")
				}
			}
		}
	}
}

func (d *device) commit(c reconcile.Commit) error {
	release := store.Committed{Commit: c.Commit, Images: c.Images}
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.Commit == "" {
		if err := d.Store.Commits.Remove(c.App.UUID); err != nil {
			return err
		}
		delete(d.commits, c.App.UUID)
		return nil
	}
	if err := d.Store.Commits.Put(c.App.UUID, release); err != nil {
		return err
	}
	d.commits[c.App.UUID] = release
	return nil
}

// before writes what must be known even if we end in the middle of the step.
func (d *device) before(s reconcile.Step) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s := s.(type) {
	case reconcile.Fetch:
		return d.ownImage(s.Image)
	case reconcile.RemoveImage:
		// When the engine ends half way, the image has lost its names and is
		// still there.
		return d.ownImage(s.ID)
	case reconcile.Create:
		// The outcome is that of an earlier container.
		if err := d.forgetHandovers(store.OfService(s.App.UUID, s.Service.Name)); err != nil {
			return err
		}
		if err := d.forgetReboot(store.OfService(s.App.UUID, s.Service.Name)); err != nil {
			return err
		}
		return d.knowSpec(s.Service.Hash, s.Service.Spec)
	case reconcile.Stop:
		if err := d.Store.Halted.Put(s.Container); err != nil {
			return err
		}
		d.halted[s.Container] = true
		d.stops.note(s.Container, 1)
	case reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.Start, reconcile.Await, reconcile.Remove, reconcile.Rename, reconcile.Commit,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Handover, reconcile.Fulfil, reconcile.TakeLocks,
		reconcile.ReleaseLocks, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return nil
}

func (d *device) ownImage(name string) error {
	if err := d.Store.Images.Put(name); err != nil {
		return err
	}
	d.images[name] = true
	return nil
}

func (d *device) knowSpec(hash string, spec state.Spec) error {
	if _, known := d.specs[hash]; known {
		return nil
	}
	if err := d.Store.Specs.Put(hash, spec); err != nil {
		return err // not known before it is on the disk
	}
	d.specs[hash] = spec
	return nil
}

// failed keeps the books of a step that went wrong.
func (d *device) failed(ctx context.Context, s reconcile.Step, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s := s.(type) {
	case reconcile.Stop:
		d.stops.note(s.Container, -1) // the next look says whether the mark stays
	case reconcile.Handover:
		if s.KeepOld && ctx.Err() == nil && timeIsOver(err) {
			return d.putHandover(s, true)
		}
	case reconcile.Fetch, reconcile.RemoveImage, reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Create, reconcile.Start, reconcile.Await, reconcile.Remove,
		reconcile.Rename, reconcile.Commit, reconcile.Fulfil, reconcile.TakeLocks, reconcile.ReleaseLocks, reconcile.WriteFiles,
		reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return nil
}

// timeIsOver tells the end of a hand-over's time from all that can be tried
// again.
func timeIsOver(err error) bool { return state.ClassOf(err) == state.ClassTimeout }

func (d *device) putHandover(s reconcile.Handover, failed bool) error {
	key, outcome := store.OfService(s.App.UUID, s.Service), state.Handover{Hash: s.Hash, Image: s.Image, Failed: failed}
	if err := d.Store.Handovers.Put(key, outcome); err != nil {
		return err
	}
	d.handovers[key] = outcome
	return nil
}

func (d *device) forgetHandovers(keys ...string) error {
	if err := d.Store.Handovers.Remove(keys...); err != nil {
		return err
	}
	for _, k := range keys {
		delete(d.handovers, k)
	}
	return nil
}

// after writes what is true now that the step is done. A failure makes the step
// fail: the plan would ask for it again, and with less knowledge for more.
func (d *device) after(s reconcile.Step) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s := s.(type) {
	case reconcile.Start:
		return d.strike(func(i state.Intent) bool { return i.Kind == state.Start }, s.Container)
	case reconcile.Remove:
		return d.strike(func(state.Intent) bool { return true }, s.Container)
	case reconcile.RemoveVolume:
		return d.strike(func(i state.Intent) bool { return i.ID == s.Intent }, s.Name)
	case reconcile.Handover:
		return d.putHandover(s, false)
	case reconcile.Stop:
		d.stops.note(s.Container, -1)
	case reconcile.Fetch, reconcile.RemoveImage, reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.Create, reconcile.Await, reconcile.Rename, reconcile.Commit, reconcile.CreateAPINetwork, reconcile.Fulfil,
		reconcile.TakeLocks, reconcile.ReleaseLocks, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot,
		reconcile.Reboot:
	}
	return nil
}

// forget drops what refers to something that is gone. Without that nothing is
// wrong, only longer.
func (d *device) forget(s reconcile.Step) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	switch s := s.(type) {
	case reconcile.RemoveImage:
		names := append(slices.Clone(s.Refs), s.ID)
		for _, n := range names {
			delete(d.images, n)
		}
		err = d.Store.Images.Remove(names...)
	case reconcile.Start:
		delete(d.halted, s.Container)
		err = d.Store.Halted.Remove(s.Container)
	case reconcile.Remove:
		delete(d.halted, s.Container)
		delete(d.adopted, s.Container)
		delete(d.differs, s.Container)
		delete(d.stops.touched, s.Container)
		err = errors.Join(d.Store.Halted.Remove(s.Container), d.Store.Adopted.Remove(s.Container))
	case reconcile.Fetch, reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.Create, reconcile.Await, reconcile.Stop, reconcile.Rename, reconcile.Commit,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Handover, reconcile.Fulfil, reconcile.TakeLocks,
		reconcile.ReleaseLocks, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	if err != nil {
		d.Log.Warn().Err(err).Msg("cannot forget what is gone")
	}
}

// use makes a target the one in force.
func (d *device) use(t state.Target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want, d.wanted = t, true
	clear(d.differs) // more than specs may have changed
}

// target is the one in force.
func (d *device) target() state.Target {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.want
}

// learn remembers the specs of a target, and the document that it came in if
// there is one, in one write.
func (d *device) learn(t state.Target, doc *store.Target) error {
	wanted := map[string]state.Spec{}
	for _, a := range t.Apps {
		for _, s := range a.Services {
			wanted[s.Hash] = s.Spec
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var err error
	if doc != nil {
		err = d.Store.Accept(*doc, wanted)
	} else {
		err = d.Store.Specs.PutAll(wanted)
	}
	if err == nil {
		maps.Copy(d.specs, wanted)
	}
	return err
}

// tidy forgets what neither the target nor anything on the device, as it was last
// looked at, refers to.
func (d *device) tidy(t state.Target, w state.World) error {
	if w.Apps == nil {
		return nil // nobody has looked yet: containers may need what looks unused
	}
	keep := map[string]bool{}
	for _, a := range t.Apps {
		for _, s := range a.Services {
			keep[s.Hash] = true
		}
	}
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			keep[c.Hash] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, hash := range d.adopted {
		keep[hash] = true // the look may be older than the adoption
	}
	maps.DeleteFunc(d.specs, func(h string, _ state.Spec) bool { return !keep[h] })
	return errors.Join(d.Store.Specs.Prune(keep), d.prune(t, w))
}

// prune forgets what refers to containers, services and apps that are not here
// and not wanted. Steps that run now may be about younger containers than the
// look, so those that are named by a running stop stay.
func (d *device) prune(t state.Target, w state.World) error {
	containers := map[string]bool{}
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			containers[c.ID] = true
		}
	}
	gone := func(id string) bool { return !containers[id] && d.stops.running[id] == 0 }
	err := errors.Join(
		forgetIf(d.halted, gone, d.Store.Halted.Remove),
		forgetIf(d.adopted, gone, d.Store.Adopted.Remove),
		forgetIf(d.handovers, func(key string) bool { return !d.serviceKnown(key, t, w) }, d.Store.Handovers.Remove),
		forgetIf(d.reboots, func(key string) bool { return !d.serviceKnown(key, t, w) }, d.Store.Reboots.Remove),
		d.dropExpired(),
	)
	maps.DeleteFunc(d.differs, func(id string, _ differences) bool { return gone(id) })
	maps.DeleteFunc(d.stops.touched, func(id string, _ uint64) bool { return gone(id) })
	known := func(id int64, service string) bool {
		for uuid, a := range t.Apps {
			if a.ID == id && d.serviceKnown(store.OfService(uuid, service), t, w) {
				return true
			}
		}
		for uuid, a := range w.Apps {
			if a.ID == id && d.serviceKnown(store.OfService(uuid, service), t, w) {
				return true
			}
		}
		return false
	}
	return errors.Join(err, d.Store.Keys.Prune(known))
}

// serviceKnown reports whether a service is wanted or has a container.
func (d *device) serviceKnown(key string, t state.Target, w state.World) bool {
	for uuid, a := range t.Apps {
		if name, ok := serviceOf(key, uuid); ok {
			if _, wanted := a.Services[name]; wanted {
				return true
			}
		}
	}
	for uuid, a := range w.Apps {
		if name, ok := serviceOf(key, uuid); ok && slices.ContainsFunc(a.Containers, func(c state.Container) bool { return c.Service == name }) {
			return true
		}
	}
	return false
}

// forgetApps forgets what was remembered about services of apps of which nothing
// is left, so that it does not count when they come again; the lock is held.
func (d *device) forgetApps(w state.World) {
	gone := func(key string) bool {
		for uuid := range w.Apps {
			if _, ok := serviceOf(key, uuid); ok {
				return false
			}
		}
		return true
	}
	err := errors.Join(forgetIf(d.handovers, gone, d.Store.Handovers.Remove), forgetIf(d.reboots, gone, d.Store.Reboots.Remove))
	if err != nil {
		d.Log.Warn().Err(err).Msg("cannot forget what is gone")
	}
}

// forgetIf takes what is gone out of a map and out of the store.
func forgetIf[V any](all map[string]V, gone func(key string) bool, remove func(...string) error) error {
	var keys []string
	for k := range all {
		if gone(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	if err := remove(keys...); err != nil {
		return err
	}
	for _, k := range keys {
		delete(all, k)
	}
	return nil
}

// retryHandovers lets failed hand-overs be tried again; app limits it to one app.
func (d *device) retryHandovers(app string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var keys []string
	for key, h := range d.handovers {
		if _, ok := serviceOf(key, app); h.Failed && (app == "" || ok) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	return d.forgetHandovers(keys...)
}
