package supervisor

import (
	"cmp"
	"context"
	"time"

	"deckhand/state"
	"deckhand/state/store"
	"deckhand/target"
	"deckhand/uplink"
)

// preloaded is the source of a target that came with the device's disk image, and
// the device's UUID in it while it has none of its own.
const preloaded = "apps.json"

// preload uses the target that came with the device's disk image, if it has
// never had another: a device runs its release before it first sees a network.
func (s *Supervisor) preload(ctx context.Context) {
	s.preloadUnused = s.usePreloaded(ctx, nil) != nil
}

// preloadOld tries again with a file that could not be used before there was a
// cloud: old ones name apps by numbers that only the cloud can explain.
func (s *Supervisor) preloadOld(ctx context.Context, client *uplink.Client) {
	if !s.preloadUnused {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, preloadPatience)
	defer cancel()
	_ = s.usePreloaded(ctx, func(fleet int64) string {
		uuid, err := client.FleetUUID(ctx, fleet)
		if err != nil {
			s.cfg.Log.Warn().Err(err).Msg("cannot ask which app is preloaded")
		}
		return uuid
	}) // said there
}

// preloadPatience bounds how long the cloud waits for preloaded apps.
const preloadPatience = time.Minute

// usePreloaded makes the preloaded target the one in force. The error, which is
// logged, says that there is one and why it is not.
func (s *Supervisor) usePreloaded(ctx context.Context, appUUID func(int64) string) error {
	if _, stored, err := s.store.Targets.Last(); err != nil || stored || s.cfg.AppsFile == "" {
		return nil
	}
	if s.engine.Ready(ctx) != nil {
		return nil // ctx ended
	}
	w, err := s.engine.Observe(ctx)
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot look for preloaded images")
		return err
	}
	have := func(ref string) bool {
		for _, i := range w.Images {
			if i.Leads(ref) {
				return true
			}
		}
		return false
	}
	uuid := cmp.Or(s.values().UUID, preloaded)
	options := s.decoding(uuid)
	options.AppUUID = appUUID
	p, problems, err := target.ReadApps(ctx, s.cfg.AppsFile, options, have)
	for _, problem := range problems {
		s.cfg.Log.Warn().Str("file", s.cfg.AppsFile).Msg(problem.String())
	}
	if p != nil && p.Pin != nil {
		if err := s.keepPin(*p.Pin); err != nil { // before the target: the file is not read again
			return err
		}
	}
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("the preloaded apps are not used; waiting for the cloud's")
		return err
	}
	if p == nil {
		return nil
	}
	if err := s.ownPreloaded(*p, w); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot remember the preloaded images; they will not be cleared up")
	}
	if err := s.take(ctx, p.Document, origin{uuid: uuid, name: preloaded}); err != nil {
		return err // said by take
	}
	if err := target.SetAppsAside(s.cfg.AppsFile); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot set the preloaded apps aside; they are in use all the same")
	}
	return nil
}

// keepPin remembers that the device is to stay on the preloaded release. The
// cloud is told as soon as it knows the device.
func (s *Supervisor) keepPin(p target.Pin) error {
	if err := s.store.Pins.Put(store.Pin{Fleet: p.AppID, Commit: p.Commit}); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot remember that the device is to stay on the preloaded release; the preloaded apps are not used")
		return err
	}
	s.cfg.Log.Info().Int64("app", p.AppID).Str("commit", p.Commit).Msg("the device is to stay on the preloaded release")
	return nil
}

// ownPreloaded makes the preloaded images ours, so that they go with their
// release.
func (s *Supervisor) ownPreloaded(p target.Preload, w state.World) error {
	s.device.mu.Lock()
	defer s.device.mu.Unlock()
	for _, ref := range p.Images() {
		for id, i := range w.Images {
			if !i.Leads(ref) {
				continue
			}
			if err := s.device.ownImage(id); err != nil {
				return err
			}
		}
	}
	return nil
}

// origin says where a target document comes from.
type origin struct {
	uuid string // of the device, in the document
	name string // of who gave it, as it is stored
	etag string
}
