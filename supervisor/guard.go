package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// lockFiles is how many files make up the lock of one service.
const lockFiles = 2

// observeLocks adds who holds update locks. What cannot be seen counts as held:
// the look fails, and nothing is stopped.
func (d *device) observeLocks(ctx context.Context, w *state.World, apps map[int64][]string) error {
	if d.Locks == nil {
		w.NoLocks = true
		return nil
	}
	list, err := d.Locks.Observe(ctx)
	if err != nil {
		return fmt.Errorf("observe update locks: %w", err)
	}
	stray := false
	byApp := map[string][]locks.UpdateLock{}
	for _, l := range list {
		for _, uuid := range apps[l.AppID] {
			byApp[uuid] = append(byApp[uuid], l)
		}
		stray = stray || l.Ours && len(apps[l.AppID]) == 0
	}
	for uuid, held := range byApp {
		a := w.Apps[uuid]
		a.UUID, a.ID = uuid, held[0].AppID
		a.Locked, a.UserLocks = sortLocks(held)
		w.Apps[uuid] = a
	}
	if stray {
		d.cleanLocks(ctx, apps)
	}
	return nil
}

// sortLocks tells the services that are locked by us from the locks of others,
// of which each service shows the oldest.
func sortLocks(held []locks.UpdateLock) (ours []string, others []state.UserLock) {
	count, oldest := map[string]int{}, map[string]locks.UpdateLock{}
	for _, l := range held {
		if l.Ours {
			if count[l.Service]++; count[l.Service] == lockFiles {
				ours = append(ours, l.Service)
			}
			continue
		}
		if o, seen := oldest[l.Service]; !seen || l.Since.Before(o.Since) {
			oldest[l.Service] = l
		}
	}
	for service, l := range oldest {
		others = append(others, state.UserLock{Service: service, Holder: l.Holder(), Since: l.Since.Unix()})
	}
	slices.Sort(ours)
	slices.SortFunc(others, func(a, b state.UserLock) int { return cmp.Compare(a.Service, b.Service) })
	return ours, others
}

// cleanLocks gives up locks of ours on apps that are neither here nor wanted.
func (d *device) cleanLocks(ctx context.Context, apps map[int64][]string) {
	d.mu.Lock()
	sure := d.wanted
	d.mu.Unlock()
	if !sure {
		return // the target may come yet
	}
	err := d.Locks.Clean(ctx, func(id int64) bool { return len(apps[id]) > 0 })
	if err != nil {
		d.Log.Warn().Err(err).Msg("cannot give up our locks on apps that are gone")
	}
}

func (d *device) takeLocks(ctx context.Context, s reconcile.TakeLocks) error {
	if d.Locks == nil {
		return nil
	}
	if s.By != "" {
		d.Log.Warn().Str("app", s.App.Name).Strs("services", s.Services).Str("by", s.By).Msg("breaking update locks")
	}
	end, err := d.leases.Yield(s)
	if err != nil {
		return err
	}
	err = d.Locks.Take(ctx, s.App.ID, s.Services, s.By != "")
	end(err == nil)
	return err
}

func (d *device) releaseLocks(ctx context.Context, s reconcile.ReleaseLocks) error {
	if d.Locks == nil {
		return nil
	}
	return d.Locks.Release(ctx, s.App.ID)
}

// overrideVariables are the configuration variables that allow to break update
// locks, in balena's present and older spellings.
func overrideVariables() []string {
	return []string{"BALENA_SUPERVISOR_OVERRIDE_LOCK", "RESIN_SUPERVISOR_OVERRIDE_LOCK", "BALENA_OVERRIDE_LOCK", "RESIN_OVERRIDE_LOCK"}
}

// overridesNow lists the permissions in force: the target's, then those of
// people; the lock is held.
func (d *device) overridesNow() []state.Override {
	var out []state.Override
	for _, name := range overrideVariables() {
		if truthy(d.want.Config[name]) {
			out = append(out, state.Override{By: "configuration variable " + name})
			break
		}
	}
	now := d.Now()
	for _, o := range d.sortedOverrides() {
		if o.Until.IsZero() || now.Before(o.Until) {
			out = append(out, o.Override)
		}
	}
	return out
}

func (d *device) sortedOverrides() []store.Override {
	out := make([]store.Override, 0, len(d.overrides))
	for _, o := range d.overrides {
		out = append(out, o)
	}
	slices.SortFunc(out, func(a, b store.Override) int { return cmp.Compare(a.App, b.App) })
	return out
}

// permissions lists what people allowed, expired or not.
func (d *device) permissions() []store.Override {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sortedOverrides()
}

// truthy is what balena's supervisor takes for yes in a configuration variable.
func truthy(v string) bool {
	switch strings.ToLower(v) {
	case "1", "true", "on":
		return true
	}
	return false
}

// allow writes a permission down.
func (d *device) allow(o store.Override) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Store.Overrides.Put(o); err != nil {
		return err
	}
	d.overrides[o.App] = o
	return nil
}

// disallow takes back the permissions that which names; it says how many.
func (d *device) disallow(which func(store.Override) bool) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dropOverrides(which)
}

// dropExpired forgets permissions whose time is over; the lock is held.
func (d *device) dropExpired() error {
	now := d.Now()
	_, err := d.dropOverrides(func(o store.Override) bool { return !o.Until.IsZero() && !now.Before(o.Until) })
	return err
}

func (d *device) dropOverrides(which func(store.Override) bool) (int, error) {
	var apps []string
	for app, o := range d.overrides {
		if which(o) {
			apps = append(apps, app)
		}
	}
	if len(apps) == 0 {
		return 0, nil
	}
	if err := d.Store.Overrides.Remove(apps...); err != nil {
		return 0, errors.Join(errors.New("take back a permission to break update locks"), err)
	}
	for _, app := range apps {
		delete(d.overrides, app)
	}
	return len(apps), nil
}
