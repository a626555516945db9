package supervisor

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// appsByID finds the UUIDs of the apps with a number; the lock is held. There are
// two while an app is to go and another has its number: what lies in folders by
// number is seen with both.
func (d *device) appsByID(w state.World) map[int64][]string {
	out := map[int64][]string{}
	note := func(id int64, uuid string) {
		if id != 0 && !slices.Contains(out[id], uuid) {
			out[id] = append(out[id], uuid)
		}
	}
	for uuid, a := range w.Apps {
		note(a.ID, uuid)
	}
	for uuid, a := range d.want.Apps {
		note(a.ID, uuid)
	}
	return out
}

// observeHost adds the files of services and what is known of reboots.
func (d *device) observeHost(w *state.World, apps map[int64][]string) error {
	d.observeReboots(w)
	if d.Files == nil {
		return nil
	}
	list, err := d.Files.List()
	if err != nil {
		return err
	}
	for _, f := range list {
		if len(apps[f.AppID]) == 0 {
			d.removeStrayFiles(f.AppID, f.Service, f.Hash)
		}
		for _, uuid := range apps[f.AppID] {
			a := w.Apps[uuid]
			a.UUID, a.ID = uuid, f.AppID
			a.Files = append(a.Files, state.FilesNow{Service: f.Service, Hash: f.Hash})
			w.Apps[uuid] = a
		}
	}
	return nil
}

// bootUnknown is later than any container: services that ask for a reboot then
// start without one. The other way round the device would restart for ever.
const bootUnknown = math.MaxInt64

// observeReboots adds when the device was started and whether it is to restart.
func (d *device) observeReboots(w *state.World) {
	if d.Machine == nil {
		return
	}
	var errs [2]error
	w.Boot, errs[0] = d.Machine.Boot()
	w.RebootPending, errs[1] = d.Machine.Pending()
	id, idErr := d.Machine.BootID()
	err := errors.Join(errs[0], errs[1], idErr)
	if err != nil {
		w.Boot, w.RebootPending = bootUnknown, false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.recallReboots(w, id)
	if err != nil && !d.rebootless {
		d.Log.Warn().Err(err).Msg("cannot see reboots; services that ask for one start without")
	}
	d.rebootless = err != nil
}

// recallReboots adds for whom a reboot was required, and whether it has
// happened; the lock is held.
func (d *device) recallReboots(w *state.World, bootID string) {
	for uuid, a := range w.Apps {
		a.Reboots = nil
		for key, required := range d.reboots {
			service, ok := serviceOf(key, uuid)
			if !ok {
				continue
			}
			if a.Reboots == nil {
				a.Reboots = map[string]bool{}
			}
			a.Reboots[service] = bootID != "" && required != bootID
		}
		w.Apps[uuid] = a
	}
}

func (d *device) forgetReboot(key string) error {
	if _, known := d.reboots[key]; !known {
		return nil
	}
	if err := d.Store.Reboots.Remove(key); err != nil {
		return err
	}
	delete(d.reboots, key)
	return nil
}

// removeStrayFiles deletes secrets of an app that is neither here nor wanted.
func (d *device) removeStrayFiles(appID int64, service, hash string) {
	d.mu.Lock()
	sure := d.wanted
	d.mu.Unlock()
	if !sure {
		return // the target may come yet
	}
	if err := d.Files.Remove(appID, service, hash); err != nil {
		d.Log.Warn().Err(err).Msg("cannot remove files of an app that is gone")
	}
}

var errNoFiles = errors.New("secrets and configs need a run folder in memory, and there is none here")

func (d *device) writeFiles(s reconcile.WriteFiles) error {
	if d.Files == nil {
		return fmt.Errorf("%s: %w", s.Title(), state.Classify(state.ClassInvalid, errNoFiles))
	}
	return d.Files.Write(s.App.ID, s.Service, s.Hash, s.Files)
}

func (d *device) removeFiles(s reconcile.RemoveFiles) error {
	if d.Files == nil {
		return nil
	}
	return d.Files.Remove(s.App.ID, s.Service, s.Hash)
}

var errNoReboot = errors.New("this deckhand does not reboot the machine; reboot it yourself")

func (d *device) requireReboot(s reconcile.RequireReboot) error {
	if d.Machine == nil {
		return fmt.Errorf("%s: %w", s.Title(), state.Classify(state.ClassInvalid, errNoReboot))
	}
	id, err := d.Machine.BootID()
	if err != nil {
		return fmt.Errorf("%s: %w", s.Title(), err)
	}
	if err := d.Machine.Require(); err != nil {
		return err
	}
	key := store.OfService(s.App.UUID, s.Service)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.Store.Reboots.Put(key, id); err != nil {
		return remembered(s, err)
	}
	d.reboots[key] = id
	return nil
}

// bootID names this run of the kernel; "": it is not known.
func (d *device) bootID() string {
	if d.Machine == nil {
		return ""
	}
	id, err := d.Machine.BootID()
	if err != nil {
		return "" // said when reboots are looked at
	}
	return id
}

func (d *device) reboot(ctx context.Context) error {
	if d.Machine == nil {
		return fmt.Errorf("reboot: %w", state.Classify(state.ClassInvalid, errNoReboot))
	}
	return d.Machine.Reboot(ctx)
}
