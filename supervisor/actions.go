package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
)

// caller stands for a program that used the device API, for people.
const caller = "a call of the local API"

// turnPatience is how long an action waits for another one on the same app.
const turnPatience = 10 * time.Second

// actions are what is asked for over the device API and waited for. The zero
// value is ready.
type actions struct {
	patience time.Duration // 0: turnPatience

	mu     sync.Mutex
	forced map[string]int // app UUID → actions for which its update locks may be broken
}

// errBrokenOff is for a caller that is still there when we end.
var errBrokenOff = errors.New("the supervisor ends; the action is written down and goes on when it is back")

// Act implements localapi.Apps. The action is written down like a wish of the
// owner; after that only the waiting can fail.
func (e edge) Act(ctx context.Context, a localapi.Action) error {
	s := e.s
	if !s.runner.Status().HasGoal {
		return errors.New("there is no target yet, so everything stays as it is; try again when the cloud was reached")
	}
	if err := s.turn(ctx, a); err != nil {
		return err
	}
	w, err := s.device.Observe(ctx)
	if err != nil {
		return err
	}
	x, err := newAction(s.device.target(), w, a)
	if err != nil || x.idle() {
		return err
	}
	end, err := s.mayDisturb(w, x, a.Force)
	if err != nil {
		return err
	}
	defer end()
	x.at = s.device.Now().UTC()
	asked := time.Now()
	g, err := s.device.ask(x)
	if err != nil {
		return err
	}
	if !g.joined {
		s.journal.Wish(string(x.kind), x.now.UUID, a.Services, x.by, g.text)
	}
	about := s.device.intentsAbout(x)
	s.retry(x.now.UUID)
	return s.await(ctx, waited{wish: x, asked: asked, about: about, own: ownIntents(x.kind, g)})
}

// newAction is the wish that an action stands for.
func newAction(t state.Target, w state.World, a localapi.Action) (wish, error) {
	uuid := appNumbered(t, w, a.App)
	if uuid == "" && a.Present {
		return wish{}, localapi.ErrVanished
	}
	if uuid == "" {
		return wish{}, fmt.Errorf("Application with ID %d is not in the current state", a.App) //nolint:staticcheck // balena's words
	}
	x, err := newWish(t, w, a.Kind, Request{App: uuid, Services: a.Services, By: caller})
	if err != nil {
		return x, err
	}
	every := func(state.Container) bool { return true }
	if a.Present && x.kind != state.Start && len(x.containers(every)) == 0 {
		return x, localapi.ErrVanished // a start makes one
	}
	started := func(c state.Container) bool { return c.Up() || c.Phase == state.Exited }
	if x.kind == state.Restart && len(x.containers(started)) == 0 {
		x.kind = state.Start // it never ran
	}
	return x, nil
}

// idle reports whether there is nothing to do about a wish.
func (x wish) idle() bool { return x.kind == state.Purge && len(x.now.Volumes) == 0 }

// appNumbered finds an app of which something is on the device. Of two with the
// same number the wanted one is meant; "": there is none.
func appNumbered(t state.Target, w state.World, id int64) string {
	found := ""
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		a := w.Apps[uuid]
		want, wanted := t.Apps[uuid]
		if cmp.Or(want.ID, a.ID) != id || id == 0 || len(a.Containers)+len(a.Volumes)+len(a.Networks) == 0 {
			continue
		}
		if found == "" || wanted {
			found = uuid
		}
	}
	return found
}

func lockedBy(app int64, service string) error {
	return state.Classify(state.ClassLocked, fmt.Errorf("Lockfile exists for { appId: %d, service: %s }", app, service)) //nolint:staticcheck // balena's words
}

func lockedByUs(app int64) error {
	return state.Classify(state.ClassLocked, fmt.Errorf("Locks for app %d are being held by another supervisor operation", app)) //nolint:staticcheck // balena's words
}

// turn waits until no other action works on the app.
func (s *Supervisor) turn(ctx context.Context, a localapi.Action) error {
	if !a.Alone {
		return nil
	}
	patience := time.NewTimer(cmp.Or(s.actions.patience, turnPatience))
	defer patience.Stop()
	for {
		changed := s.runner.Changed()
		if !s.device.busy(a.App, s.runner.Status().World) {
			return nil
		}
		select {
		case <-changed:
		case <-patience.C:
			return lockedByUs(a.App)
		case <-ctx.Done():
			return errBrokenOff
		}
	}
}

// busy reports whether an action that disturbs an app is on its way.
func (d *device) busy(app int64, w state.World) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, i := range d.intents {
		now, want := w.Apps[i.App], d.want.Apps[i.App]
		if cmp.Or(want.ID, now.ID) != app {
			continue
		}
		switch i.Kind {
		case state.Restart, state.Purge:
			return true
		case state.Stop:
			if i.Commit == want.Commit && runsAny(now, i.Services) {
				return true
			}
		case state.Start: // disturbs nobody
		}
	}
	return false
}

func runsAny(now state.AppNow, services []string) bool {
	return slices.ContainsFunc(now.Containers, func(c state.Container) bool {
		return c.Up() && slices.Contains(services, c.Service)
	})
}

// mayDisturb reports whether update locks let an action go ahead. With force
// they may be broken until end is called, or else until everything is settled.
func (s *Supervisor) mayDisturb(w state.World, x wish, force bool) (end func(), err error) {
	end = func() {}
	if x.kind == state.Start || permitted(w, x.now.UUID) && !s.actions.has(x.now.UUID) {
		return end, nil
	}
	if force {
		return s.forceAction(x)
	}
	known := history.ServicesOf(x.want, x.now)
	for _, l := range x.now.UserLocks {
		if slices.Contains(known, l.Service) {
			return end, lockedBy(cmp.Or(x.want.ID, x.now.ID), l.Service)
		}
	}
	return end, nil
}

// permitted reports whether somebody allowed to break the locks of an app.
func permitted(w state.World, uuid string) bool {
	return slices.ContainsFunc(w.Overrides, func(o state.Override) bool { return o.App == "" || o.App == uuid })
}

func (a *actions) has(uuid string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.forced[uuid] > 0
}

// forceAction allows to break the locks of an app for one action. Of several at
// once the last one takes the permission back.
func (s *Supervisor) forceAction(x wish) (end func(), err error) {
	uuid := x.now.UUID
	s.actions.mu.Lock()
	defer s.actions.mu.Unlock()
	if s.actions.forced[uuid] == 0 {
		o := store.Override{Override: state.Override{App: uuid, By: "a forced " + string(x.kind), Until: s.device.Now().Add(forceFor).UTC()}, Once: true}
		if err := s.device.allow(o); err != nil {
			return nil, fmt.Errorf("write down that the action is forced: %w", state.Classify(state.ClassSpace, err))
		}
		s.journal.Allow(string(RequestOverride), uuid, o.By, "update locks of "+x.name+" may be broken until that is done")
	}
	if s.actions.forced == nil {
		s.actions.forced = map[string]int{}
	}
	s.actions.forced[uuid]++
	return func() { s.endForced(uuid) }, nil
}

func (s *Supervisor) endForced(uuid string) {
	s.actions.mu.Lock()
	defer s.actions.mu.Unlock()
	if s.actions.forced[uuid]--; s.actions.forced[uuid] > 0 {
		return
	}
	delete(s.actions.forced, uuid)
	if s.device.asks(uuid) {
		return // the caller went away, the action goes on: the permission ends when all is settled
	}
	if _, err := s.device.disallow(func(o store.Override) bool { return o.App == uuid && o.Once }); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("an action is done, and locks may still be broken")
	}
}

// endOnce takes back permissions to break locks that were given for one update,
// when all was settled at a look. Younger ones stay, and those of actions that are
// not done.
func (s *Supervisor) endOnce(looked time.Time) {
	_, err := s.device.disallow(func(o store.Override) bool {
		given := o.Until.Add(-forceFor)
		return o.Once && given.Before(looked) && (o.App == "" || !s.actions.has(o.App) && !s.device.asksNow(o.App))
	})
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("an update is done, and locks may still be broken")
	}
}

// asks reports whether an action on an app is still to be done.
func (d *device) asks(uuid string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.asksNow(uuid)
}

// asksNow is asks while the lock is held.
func (d *device) asksNow(uuid string) bool {
	for _, i := range d.intents {
		if i.App == uuid && i.Kind != state.Stop {
			return true
		}
	}
	return false
}

// intentsAbout lists what is written down of a wish, its own and earlier ones
// that it joined.
func (d *device) intentsAbout(x wish) []string {
	objects := x.containers(func(state.Container) bool { return true })
	if x.kind == state.Purge {
		objects = nil
		for _, v := range x.now.Volumes {
			objects = append(objects, v.Name)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []string
	for _, i := range d.intentsNow() {
		if i.App != x.now.UUID || i.Kind != x.kind {
			continue
		}
		if len(without(i.Left, objects...)) < len(i.Left) || len(without(i.Services, x.services...)) < len(i.Services) {
			out = append(out, i.ID)
		}
	}
	return out
}

// ownIntents are those that nobody else asked for.
func ownIntents(kind state.IntentKind, g granted) []string {
	var out []string
	for _, i := range g.put {
		if i.Kind == kind && i.By == caller && !g.joined {
			out = append(out, i.ID)
		}
	}
	return out
}

// waited is an action that somebody waits for.
type waited struct {
	wish
	asked time.Time
	about []string // IDs of the intents
	own   []string // those of them that go when the action is refused
}

// await returns when an action is done, or cannot be.
func (s *Supervisor) await(ctx context.Context, x waited) error {
	for {
		changed := s.runner.Changed()
		st := s.runner.Status()
		if st.Looked.After(x.asked) {
			if done, err := s.reached(x, st); done || err != nil {
				return err
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errBrokenOff
		}
	}
}

// reached reports whether an action is done, as the last look shows it.
func (s *Supervisor) reached(x waited, st run.Status) (bool, error) {
	written := s.device.written(x.about)
	seen := slices.ContainsFunc(st.World.Intents, func(i state.Intent) bool { return slices.Contains(x.about, i.ID) })
	now := st.World.Apps[x.now.UUID]
	switch {
	case x.kind == state.Stop && !written:
		return false, x.takenBack()
	case x.kind == state.Stop && seen && !runsAny(now, x.services):
		return true, nil
	case x.kind != state.Stop && !written && !seen:
		if x.kind == state.Restart && x.anyLeft(now) {
			return false, x.takenBack()
		}
		return true, nil
	case !seen:
		return false, nil // that look began before the action was written down
	}
	return false, s.refused(x, st)
}

// anyLeft reports whether a container is there that was to be replaced.
func (x waited) anyLeft(now state.AppNow) bool {
	old := x.containers(func(c state.Container) bool { return c.Up() || c.Phase == state.Exited })
	return slices.ContainsFunc(now.Containers, func(c state.Container) bool { return slices.Contains(old, c.ID) })
}

func (x waited) takenBack() error {
	return fmt.Errorf("the %s of %s was taken back by a later request or a new release", x.kind, x.subject())
}

// written reports whether one of the intents is still to be done.
func (d *device) written(ids []string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(ids, func(id string) bool { _, ok := d.intents[id]; return ok })
}

// refused says what an action cannot be done for. When that is a lock the action
// is taken back; what else failed is tried again whoever waits.
func (s *Supervisor) refused(x waited, st run.Status) error {
	steps := map[reconcile.Key]reconcile.Step{}
	for _, n := range st.Plan.Nodes {
		steps[n.Key] = n.Step
	}
	for _, w := range st.Plan.Waiting {
		if !x.concerned(steps[w.Key], st.Target) {
			continue
		}
		if w.Class != state.ClassLocked {
			return state.Classify(w.Class, fmt.Errorf("%s failed and is tried again: %s", w.Title, w.Text))
		}
		if x.kind == state.Start {
			continue
		}
		if err := s.device.forgetIntents(x.own...); err != nil {
			return fmt.Errorf("take the action back: %w", state.Classify(state.ClassSpace, err))
		}
		s.runner.Look()
		app := cmp.Or(x.want.ID, x.now.ID)
		for _, l := range st.World.Apps[x.now.UUID].UserLocks {
			return lockedBy(app, l.Service)
		}
		return lockedBy(app, "unknown")
	}
	return nil
}

// concerned reports whether an action waits for a step: one about its services,
// or about the app as a whole.
func (x waited) concerned(step reconcile.Step, t state.Target) bool {
	if _, fetch := step.(reconcile.Fetch); step == nil || fetch && x.kind == state.Stop {
		return false
	}
	if about := history.SubjectOf(step); about.App == x.now.UUID && about.Service == "" {
		return true
	}
	return slices.ContainsFunc(x.services, func(service string) bool { return history.Concerns(step, t, x.now.UUID, service) })
}

// CleanVolumes implements localapi.Apps. A volume that a release wants or a
// container has stays, and so does every one of an app about whose release
// nothing is known.
func (e edge) CleanVolumes(ctx context.Context, may func(app int64) bool) error {
	s := e.s
	if !s.runner.Status().HasGoal {
		return errors.New("there is no target yet, so nobody knows which volumes are wanted")
	}
	w, err := s.device.Observe(ctx)
	if err != nil {
		return err
	}
	t, local := s.device.target(), s.settings().LocalMode
	var errs []error
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		now := w.Apps[uuid]
		want, wanted := t.Apps[uuid]
		id := cmp.Or(want.ID, now.ID)
		if id == 0 || !may(id) || want.Rejected != "" || local && !wanted {
			continue
		}
		for _, name := range unused(now, want) {
			step := reconcile.RemoveVolume{App: reconcile.App{UUID: uuid, ID: id, Name: cmp.Or(want.Name, uuid)}, Name: name}
			errs = append(errs, s.device.Do(ctx, step, nil))
		}
	}
	s.runner.Look()
	return errors.Join(errs...)
}

// unused lists the volumes of an app that nothing needs.
func unused(now state.AppNow, want state.App) []string {
	var out []string
	for _, v := range now.Volumes {
		_, wanted := want.Volumes[v.Name]
		attached := slices.ContainsFunc(now.Containers, func(c state.Container) bool { return slices.Contains(c.Volumes, v.Name) })
		if !wanted && !attached {
			out = append(out, v.Name)
		}
	}
	return out
}
