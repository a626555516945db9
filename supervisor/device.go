package supervisor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// containerEngine is the part of package engine that a device needs.
type containerEngine interface {
	Observe(ctx context.Context) (state.World, error)
	Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error
	Watch(ctx context.Context) <-chan struct{}
}

// device is the engine together with what the store remembers: commits, applied
// specs, images that are ours, containers that we stopped. What a step makes
// worth remembering is written before the engine is asked, so that a crash in
// between leaves nothing that we do not know.
type device struct {
	engine containerEngine
	store  *store.Store
	log    zerolog.Logger

	mu      sync.Mutex
	commits map[string]store.Committed
	specs   map[string]state.Spec
	images  map[string]bool
	halted  map[string]bool
	adopt   bool // the store was lost: take over the images of our containers
}

func newDevice(e containerEngine, s *store.Store, log zerolog.Logger) (*device, error) {
	d := &device{engine: e, store: s, log: log, images: map[string]bool{}, adopt: s.Recovered() != ""}
	var err error
	if d.commits, err = s.Commits.All(); err != nil {
		return nil, err
	}
	if d.specs, err = s.Specs.All(); err != nil {
		return nil, err
	}
	if d.halted, err = s.Halted.All(); err != nil {
		return nil, err
	}
	refs, err := s.Images.All()
	for _, r := range refs {
		d.images[r] = true
	}
	return d, err
}

// Watch implements run.Device.
func (d *device) Watch(ctx context.Context) <-chan struct{} { return d.engine.Watch(ctx) }

// Observe implements run.Device.
func (d *device) Observe(ctx context.Context) (state.World, error) {
	w, err := d.engine.Observe(ctx)
	if err != nil {
		return w, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.adopt {
		d.adoptImages(w)
	}
	for uuid, a := range w.Apps {
		for i := range a.Containers {
			c := &a.Containers[i]
			c.Halted = d.halted[c.ID]
			if spec, known := d.specs[c.Hash]; known {
				c.Spec = &spec
			}
		}
		w.Apps[uuid] = a
	}
	for uuid, release := range d.commits {
		a := w.Apps[uuid]
		a.UUID, a.Commit, a.Images = uuid, release.Commit, release.Images
		w.Apps[uuid] = a
	}
	for id, img := range w.Images {
		img.Ours = d.images[id] || slices.ContainsFunc(img.Refs, func(r string) bool { return d.images[r] })
		w.Images[id] = img
	}
	return w, nil
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
				if err := d.store.Images.Put(r); err != nil {
					d.log.Warn().Err(err).Str("image", r).Msg("cannot remember an image; it will not be cleared up")
				}
			}
		}
	}
}

// Do implements run.Device.
func (d *device) Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error {
	if c, ok := s.(reconcile.Commit); ok {
		return d.commit(c)
	}
	if err := d.before(s); err != nil {
		return fmt.Errorf("remember %s: %w", s.Title(), state.Classify(state.ClassSpace, err))
	}
	if err := d.engine.Do(ctx, s, progress); err != nil {
		return err
	}
	if err := d.after(s); err != nil {
		d.log.Warn().Err(err).Msg("cannot forget what is gone")
	}
	return nil
}

func (d *device) commit(c reconcile.Commit) error {
	release := store.Committed{Commit: c.Commit, Images: c.Images}
	err := error(nil)
	if c.Commit == "" {
		err = d.store.Commits.Remove(c.App.UUID)
	} else {
		err = d.store.Commits.Put(c.App.UUID, release)
	}
	if err != nil {
		return fmt.Errorf("remember release %s: %w", c.Commit, state.Classify(state.ClassSpace, err))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.commits[c.App.UUID] = release
	if c.Commit == "" {
		delete(d.commits, c.App.UUID)
	}
	return nil
}

func (d *device) before(s reconcile.Step) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s := s.(type) {
	case reconcile.Fetch:
		d.images[s.Image] = true
		return d.store.Images.Put(s.Image)
	case reconcile.Create:
		if _, known := d.specs[s.Service.Hash]; known {
			return nil
		}
		if err := d.store.Specs.Put(s.Service.Hash, s.Service.Spec); err != nil {
			return err // not known before it is on the disk
		}
		d.specs[s.Service.Hash] = s.Service.Spec
	case reconcile.Stop:
		d.halted[s.Container] = true
		return d.store.Halted.Put(s.Container)
	case reconcile.RemoveImage:
		// When the engine ends half way, the image has lost its names and is
		// still there.
		d.images[s.ID] = true
		return d.store.Images.Put(s.ID)
	case reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.Start, reconcile.Await, reconcile.Remove, reconcile.Rename, reconcile.Commit,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Handover, reconcile.Fulfil, reconcile.TakeLocks,
		reconcile.ReleaseLocks, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return nil
}

func (d *device) after(s reconcile.Step) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch s := s.(type) {
	case reconcile.RemoveImage:
		names := append(slices.Clone(s.Refs), s.ID)
		for _, n := range names {
			delete(d.images, n)
		}
		return d.store.Images.Remove(names...)
	case reconcile.Start:
		delete(d.halted, s.Container)
		return d.store.Halted.Remove(s.Container)
	case reconcile.Remove:
		delete(d.halted, s.Container)
		return d.store.Halted.Remove(s.Container)
	case reconcile.Fetch, reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.Create, reconcile.Await, reconcile.Stop, reconcile.Rename, reconcile.Commit,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Handover, reconcile.Fulfil, reconcile.TakeLocks,
		reconcile.ReleaseLocks, reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return nil
}

// learn remembers the specs of a target in one write and forgets those that
// neither it nor a container needs.
func (d *device) learn(t state.Target, w state.World) error {
	wanted, keep := map[string]state.Spec{}, map[string]bool{}
	for _, a := range t.Apps {
		for _, s := range a.Services {
			wanted[s.Hash], keep[s.Hash] = s.Spec, true
		}
	}
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			keep[c.Hash] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.store.Specs.PutAll(wanted); err != nil {
		return err
	}
	maps.Copy(d.specs, wanted)
	if w.Apps == nil {
		return nil // nobody has looked yet: containers may need what looks unused
	}
	maps.DeleteFunc(d.specs, func(h string, _ state.Spec) bool { return !keep[h] })
	return d.store.Specs.Prune(keep)
}
