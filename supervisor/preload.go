package supervisor

import (
	"cmp"
	"context"

	"deckhand/state"
	"deckhand/target"
)

// preloaded is the source of a target that came with the device's disk image, and
// the device's UUID in it while it has none of its own.
const preloaded = "apps.json"

// preload uses the target that came with the device's disk image, if it has
// never had another: a device runs its release before it first sees a network.
func (s *Supervisor) preload(ctx context.Context) {
	if _, stored, err := s.store.Targets.Last(); err != nil || stored || s.cfg.AppsFile == "" {
		return
	}
	if s.engine.Ready(ctx) != nil {
		return // ctx ended
	}
	w, err := s.engine.Observe(ctx)
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot look for preloaded images")
		return
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
	p, problems, err := target.ReadApps(ctx, s.cfg.AppsFile, s.decoding(uuid), have)
	for _, problem := range problems {
		s.cfg.Log.Warn().Str("file", s.cfg.AppsFile).Msg(problem.String())
	}
	if err != nil {
		s.cfg.Log.Warn().Err(err).Msg("the preloaded apps are not used; waiting for the cloud's")
		return
	}
	if p == nil {
		return
	}
	if err := s.ownPreloaded(*p, w); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot remember the preloaded images; they will not be cleared up")
	}
	if err := s.take(ctx, p.Document, origin{uuid: uuid, name: preloaded}); err != nil {
		return // said by take
	}
	if err := target.SetAppsAside(s.cfg.AppsFile); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot set the preloaded apps aside; they are in use all the same")
	}
	if p.Pin != nil {
		s.cfg.Log.Warn().Int64("app", p.Pin.AppID).Str("commit", p.Pin.Commit).
			Msg("the preloaded release is to be pinned; pin it in the cloud, or the next release of the fleet is installed")
	}
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
