package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"deckhand/config"
	"deckhand/localapi"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/target"
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

// Renew implements localapi.Keys. The cloud hears of a new global key at once. A
// service that has a new key gets a new container, in whose environment it is.
func (e edge) Renew(ctx context.Context, app int64, service string) (string, error) {
	s := e.s
	if service == "" {
		key, err := s.store.Identity.RenewAPIKey()
		if err != nil {
			return "", fmt.Errorf("write the new key down: %w", state.Classify(state.ClassSpace, err))
		}
		s.mu.Lock()
		s.apiKey = key
		s.mu.Unlock()
		s.runner.Look() // the report follows
		return key, nil
	}
	key, err := s.store.Keys.Renew(app, service)
	if err != nil {
		return "", fmt.Errorf("write the new key down: %w", state.Classify(state.ClassSpace, err))
	}
	w, err := s.device.Observe(ctx)
	if uuid := appNumbered(s.device.target(), w, app); err == nil && uuid != "" {
		_, err = s.Restart(ctx, Request{App: uuid, Services: []string{service}, By: "its new key"})
	}
	if err != nil {
		s.cfg.Log.Warn().Err(err).Str("service", service).Msg("a service has a new key and the old one in its environment")
	}
	return key, nil
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

// Environment implements localapi.Apps.
func (e edge) Environment(ctx context.Context, container string) (map[string]string, error) {
	return e.s.engine.Environment(ctx, container)
}

// vpnActive exists on the host while its VPN is connected.
const vpnActive = "run/openvpn/vpn_status/active"

// Facts implements localapi.Device.
func (e edge) Facts() localapi.Facts {
	s := e.s
	st := s.runner.Status()
	about := s.reportInput().Facts
	_, err := os.Stat(filepath.Join("/", s.cfg.HostRoot, vpnActive))
	s.mu.Lock()
	name := s.name
	s.mu.Unlock()
	return localapi.Facts{
		Name: cmp.Or(name, "local"), Port: about.APIPort, Addresses: about.IPAddress, MACs: about.MACAddress, OS: about.OSVersion,
		Version: target.SupervisorVersion, VPN: s.settings().VPN, VPNUp: err == nil,
		Pending: st.HasGoal && !st.Settled, Failed: st.Err != nil || len(st.Plan.Waiting) > 0, Downloaded: downloaded(st),
	}
}

// downloaded reports whether an update is on its way whose images are all here.
func downloaded(st run.Status) bool {
	update := false
	for uuid, want := range st.Target.Apps {
		if want.Commit == "" || want.Rejected != "" || st.World.Apps[uuid].Commit == want.Commit {
			continue
		}
		for _, x := range want.Services {
			if !onDevice(st.World, x.Image) {
				return false
			}
		}
		update = true
	}
	return update && !st.Settled
}

func onDevice(w state.World, image string) bool {
	for _, i := range w.Images {
		if i.Leads(image) {
			return true
		}
	}
	return false
}
