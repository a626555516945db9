package supervisor

import (
	"cmp"
	"fmt"
	"slices"

	"deckhand/config"
	"deckhand/localapi"
)

// edge is the supervisor as the device API sees it.
type edge struct {
	s    *Supervisor
	open bool // nobody needs a key: it is served on a socket of our own
}

// settings are those of the target in force. A device without a cloud is open to
// its own network: that is all it has.
func (s *Supervisor) settings() config.Settings {
	set, _ := config.ReadSettings(s.device.target().Config) // problems are said when the target arrives
	if s.configFile() != nil && !s.values().Managed() {
		set.LocalMode = true
	}
	return set
}

// Open implements localapi.Keys.
func (e edge) Open() bool { return e.open || e.s.settings().LocalMode }

// Global implements localapi.Keys.
func (e edge) Global() string { return e.s.globalKey() }

// Services implements localapi.Keys.
func (e edge) Services() ([]localapi.ServiceKey, error) {
	all, err := e.s.store.Keys.All()
	if err != nil {
		return nil, fmt.Errorf("read the keys of services: %w", err)
	}
	out := make([]localapi.ServiceKey, 0, len(all))
	for _, k := range all {
		out = append(out, localapi.ServiceKey{Key: k.Key, AppID: k.AppID, Service: k.Service})
	}
	slices.SortFunc(out, func(a, b localapi.ServiceKey) int {
		return cmp.Or(cmp.Compare(a.AppID, b.AppID), cmp.Compare(a.Service, b.Service))
	})
	return out, nil
}

// globalKey opens the whole device API.
func (s *Supervisor) globalKey() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.apiKey
}

// Health implements localapi.Device.
func (e edge) Health() (ok bool, reasons []string) { return e.s.health() }

// InstantUpdates implements localapi.Device.
func (e edge) InstantUpdates() bool { return e.s.settings().InstantUpdates }

// Update implements localapi.Device.
func (e edge) Update(force, cancel bool) { e.s.update(force, cancel) }

// Status implements localapi.Apps.
func (e edge) Status() (localapi.Status, error) {
	st := e.s.runner.Status()
	if st.Err != nil {
		return localapi.Status{}, st.Err
	}
	return localapi.Describe(e.s.reportInput(), st.HasGoal && !st.Settled), nil
}
