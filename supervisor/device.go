package supervisor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/files"
	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/leases"
	"deckhand/target"
)

// containerEngine is the part of package engine that a device needs.
type containerEngine interface {
	Observe(ctx context.Context) (state.World, error)
	Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error
	Watch(ctx context.Context) <-chan struct{}
	// Differences compares a container that another supervisor made with the
	// one that we would make.
	Differences(ctx context.Context, container string, s reconcile.Create) ([]state.Change, error)
	// SupervisorKey is the key for our API that another supervisor gave to a
	// container; empty: none.
	SupervisorKey(ctx context.Context, container string) (string, error)
}

// lockFolder is the part of package locks that a device needs.
type lockFolder interface {
	Observe(ctx context.Context) ([]locks.UpdateLock, error)
	Take(ctx context.Context, appID int64, services []string, force bool) error
	Release(ctx context.Context, appID int64) error
	Clean(ctx context.Context, known func(appID int64) bool) error
	Watch(ctx context.Context) <-chan struct{}
}

// fileFolder is the part of package files that a device needs.
type fileFolder interface {
	Write(appID int64, service, hash string, list []state.File) error
	Remove(appID int64, service, hash string) error
	List() ([]files.Entry, error)
}

// machine is the part of package hostapp that a device needs.
type machine interface {
	Boot() (int64, error)
	BootID() (string, error)
	Pending() (bool, error)
	Require() error
	Reboot(ctx context.Context) error
}

// deviceConfig says what a device is made of.
type deviceConfig struct {
	Engine  containerEngine
	Store   *store.Store
	Locks   lockFolder // nil: nobody can hold a lock
	Files   fileFolder // nil: no service may have secrets or configs
	Machine machine    // nil: it is never rebooted
	Now     func() time.Time
	Log     zerolog.Logger
}

// device is the engine together with what the store remembers and what the host
// knows. What a step makes worth remembering is written before the effect where
// forgetting it would lose something, and behind it where to remember it too
// early would.
//
//	remember.go  images, specs, marks, hand-overs: the bookkeeping of steps
//	guard.go     update locks and permissions to break them
//	wishes.go    intents
//	adopt.go     what another supervisor made
//	host.go      secrets, configs, reboots
type device struct {
	deviceConfig

	mu         sync.Mutex
	want       state.Target // the target in force
	wanted     bool         // there is one
	commits    map[string]store.Committed
	specs      map[string]state.Spec
	images     map[string]bool
	halted     map[string]bool
	intents    map[string]state.Intent
	overrides  map[string]store.Override
	handovers  map[string]state.Handover
	reboots    map[string]string      // see store.Reboots
	puzzles    map[string]int         // containers of others → how often they could not be compared
	adopted    map[string]string      // container ID → hash of the spec it matches
	differs    map[string]differences // container ID → why it does not
	leases     *leases.Leases         // update locks over the local API
	until      time.Time              // while it is not over, nothing is done: the device goes down
	adopt      bool                   // the store was lost: take over the images of our containers
	stops      stops
	rebootless bool // reboots cannot be seen, and that was said
}

func newDevice(c deviceConfig) (*device, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	d := &device{
		deviceConfig: c, images: map[string]bool{}, intents: map[string]state.Intent{}, overrides: map[string]store.Override{},
		differs: map[string]differences{}, puzzles: map[string]int{}, adopt: c.Store.Recovered() != "", stops: newStops(),
	}
	var err error
	d.leases, err = leases.Open(c.Store.Leases, func() time.Time { return d.Now() }, d.bootID, c.Log)
	return d, errors.Join(err, d.load())
}

// load reads what is remembered.
func (d *device) load() error {
	var errs [9]error
	var refs []string
	var intents []state.Intent
	var overrides []store.Override
	d.commits, errs[0] = d.Store.Commits.All()
	d.specs, errs[1] = d.Store.Specs.All()
	d.halted, errs[2] = d.Store.Halted.All()
	d.handovers, errs[3] = d.Store.Handovers.All()
	d.adopted, errs[4] = d.Store.Adopted.All()
	refs, errs[5] = d.Store.Images.All()
	intents, errs[6] = d.Store.Intents.All()
	overrides, errs[7] = d.Store.Overrides.All()
	d.reboots, errs[8] = d.Store.Reboots.All()
	for _, r := range refs {
		d.images[r] = true
	}
	for _, i := range intents {
		d.intents[i.ID] = i
	}
	for _, o := range overrides {
		d.overrides[o.App] = o
	}
	return errors.Join(errs[:]...)
}

// Watch implements run.Device: it hints at changes of the engine and of locks.
func (d *device) Watch(ctx context.Context) <-chan struct{} {
	if d.Locks == nil {
		return d.Engine.Watch(ctx)
	}
	return merge(ctx, d.Engine.Watch(ctx), d.Locks.Watch(ctx), d.leases.Watch(ctx))
}

// merge passes hints of several kinds on until ctx ends.
func merge(ctx context.Context, all ...<-chan struct{}) <-chan struct{} {
	out := make(chan struct{}, 1) // one hint is as good as two
	var wg sync.WaitGroup
	for _, in := range all {
		wg.Go(func() {
			for hint(ctx, in) {
				select {
				case out <- struct{}{}:
				default:
				}
			}
		})
	}
	go func() { wg.Wait(); close(out) }()
	return out
}

// hint waits for one; false: there are no more.
func hint(ctx context.Context, in <-chan struct{}) bool {
	select {
	case <-ctx.Done():
		return false
	case _, open := <-in:
		return open
	}
}

// withoutOurselves leaves the supervisor's own container out of a look: the host
// runs it, and nobody must stop it.
func withoutOurselves(w *state.World) {
	for uuid, a := range w.Apps {
		a.Containers = slices.DeleteFunc(a.Containers, func(c state.Container) bool { return target.IsSupervisor(uuid, c.Service) })
		w.Apps[uuid] = a
	}
}

// Observe implements run.Device.
func (d *device) Observe(ctx context.Context) (state.World, error) {
	since, granted := d.stopsSeen(), d.leases.Seen()
	w, err := d.Engine.Observe(ctx)
	if err != nil {
		return w, err
	}
	if w.Apps == nil {
		w.Apps = map[string]state.AppNow{}
	}
	withoutOurselves(&w)
	if err := d.adoptContainers(ctx, w); err != nil {
		return w, err
	}
	d.mu.Lock()
	d.recall(&w, since)
	d.forgetApps(w)
	apps := d.appsByID(w)
	d.mu.Unlock()
	if err := d.observeLocks(ctx, &w, apps); err != nil {
		return w, err
	}
	d.leases.Observe(&w, granted)
	if err := d.observeHost(&w, apps); err != nil {
		return w, err
	}
	return w, nil
}

// Do implements run.Device.
func (d *device) Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error {
	if d.rests() {
		return fmt.Errorf("%s: %w", s.Title(), errGoingDown)
	}
	switch s := s.(type) {
	case reconcile.Commit:
		return remembered(s, d.commit(s))
	case reconcile.Fulfil:
		return remembered(s, d.forgetIntents(s.Intent))
	case reconcile.TakeLocks:
		return d.takeLocks(ctx, s)
	case reconcile.ReleaseLocks:
		return d.releaseLocks(ctx, s)
	case reconcile.WriteFiles:
		return d.writeFiles(s)
	case reconcile.RemoveFiles:
		return d.removeFiles(s)
	case reconcile.RequireReboot:
		return d.requireReboot(s)
	case reconcile.Reboot:
		return d.reboot(ctx)
	case reconcile.Fetch, reconcile.RemoveImage, reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume,
		reconcile.RemoveVolume, reconcile.CreateAPINetwork, reconcile.Create, reconcile.Start, reconcile.Await,
		reconcile.Handover, reconcile.Stop, reconcile.Remove, reconcile.Rename:
	}
	if err := d.before(s); err != nil {
		return remembered(s, err)
	}
	err := d.Engine.Do(ctx, s, progress)
	if err != nil {
		return errors.Join(err, remembered(s, d.failed(ctx, s, err)))
	}
	if err := d.after(s); err != nil {
		return remembered(s, err)
	}
	d.forget(s)
	return nil
}

// remembered is the error of a step whose bookkeeping failed: the disk is full,
// most often. The step is tried again; twice is safe.
func remembered(s reconcile.Step, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("remember %s: %w", s.Title(), state.Classify(state.ClassSpace, err))
}
