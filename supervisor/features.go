package supervisor

import (
	"slices"
	"strings"

	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
)

// features is what the device has for a service whose labels ask for it. A
// service that may call the supervisor gets a key of its own, written down
// before its container is made.
func (s *Supervisor) features(app reconcile.App, service string) engine.Features {
	v := s.values()
	f := engine.Features{APIKey: v.DeviceAPIKey, APIURL: v.APIEndpoint, SupervisorPort: s.apiPort(), BoardRev: s.host.BoardRev}
	if path, local := strings.CutPrefix(s.cfg.Engine, "unix://"); local {
		f.EngineSocket = path
	}
	want := s.device.target().Apps[app.UUID].Services[service].Spec
	if !slices.Contains(want.Features, state.FeatureAPI) {
		return f
	}
	key, err := s.store.Keys.Ensure(app.ID, service)
	if err != nil {
		s.cfg.Log.Warn().Err(err).Str("app", app.Name).Str("service", service).Msg("cannot remember a key for the service; it cannot call the supervisor")
		return f
	}
	f.SupervisorKey = key
	return f
}
