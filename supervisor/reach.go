package supervisor

import (
	"net/netip"

	"deckhand/config"
	"deckhand/localapi"
	"deckhand/state"
)

// openToNetwork reports whether the device's own network may connect to the local
// API. The device itself and its containers always may.
func (s *Supervisor) openToNetwork() bool {
	v := s.values()
	if !v.Managed() {
		// It asks for no key: only who runs it may open it.
		return s.cfg.Listen != "" || v.DevelopmentMode
	}
	set := s.settings()
	switch {
	case set.LocalMode:
		return true
	case set.Firewall == config.FirewallAuto:
		return !usesHostNetwork(s.device.target())
	}
	return set.Firewall != config.FirewallOn
}

// usesHostNetwork reports whether a service of the target is open to the
// device's network without a port being published.
func usesHostNetwork(t state.Target) bool {
	for _, a := range t.Apps {
		for _, x := range a.Services {
			if x.Spec.NetworkMode == "host" {
				return true
			}
		}
	}
	return false
}

// reach is who may connect to the local API.
func (s *Supervisor) reach() localapi.Reach {
	return localapi.Reach{Network: s.openToNetwork, Refused: func(from netip.Addr) {
		s.cfg.Log.Debug().Str("from", from.String()).Msg("the firewall mode refuses a connection to the local API")
	}}
}
