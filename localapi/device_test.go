package localapi

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"deckhand/state"
)

// device is a supervisor for the API. The story is what happened to it.
type device struct {
	unmanaged, sick, noInstant, noKey bool

	status  Status
	down    error            // the engine's, if it does not answer
	locked  map[int64]string // by app: the service that holds an update lock
	trial   bool             // a new host OS must show that it works
	noLED   bool
	gone    bool  // containers vanish before an action begins
	keyless error // why the keys of services cannot be read
	story   []string
}

func (d *device) config() Config {
	return Config{
		Keys: d, Device: d, Host: d, Apps: d, Local: d,
		Unhealthy: func(reasons []string) { d.story = append(d.story, reasons...) },
		Log: func(r Request) {
			d.story = append(d.story, fmt.Sprintf("%s %s %d", r.Method, r.Path, r.Status))
		},
	}
}

func (d *device) serve(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(New(d.config()))
	t.Cleanup(s.Close)
	return s
}

func (d *device) tell(format string, args ...any) {
	d.story = append(d.story, fmt.Sprintf(format, args...))
}

func (d *device) Open() bool { return d.unmanaged }

func (d *device) Global() string {
	if d.noKey {
		return ""
	}
	return key
}

func (d *device) Services() ([]ServiceKey, error) {
	return []ServiceKey{{"serviceone", 1, "a"}, {"servicetwo", 2, "b"}}, d.keyless
}

func (d *device) Renew(_ context.Context, app int64, service string) (string, error) {
	d.tell("renew %d %s", app, service)
	return strings.Repeat("f", 32), nil
}

func (d *device) Health() (bool, []string) { return !d.sick, []string{"no poll"} }
func (d *device) InstantUpdates() bool     { return !d.noInstant }
func (d *device) Update(force, cancel bool) {
	d.tell("update %v %v", force, cancel)
}

func (d *device) Facts() Facts {
	return Facts{Name: "kitchen", Port: 48484, Addresses: "192.0.2.7", MACs: "00:00:5E:00:53:01", OS: "someOS 1", Version: "19.0.5", VPN: true, Pending: true}
}

func (d *device) Blink() error {
	if d.noLED {
		return errors.New("blink: not allowed")
	}
	d.tell("blink")
	return nil
}

func (d *device) Reboot(_ context.Context, force bool) error   { return d.goDown("reboot", force) }
func (d *device) Shutdown(_ context.Context, force bool) error { return d.goDown("shutdown", force) }

func (d *device) goDown(verb string, force bool) error {
	switch {
	case d.down != nil:
		return d.down
	case d.trial && !force:
		return state.Classify(state.ClassLocked, errors.New("Waiting for Host OS update to finish"))
	}
	for app, service := range d.locked {
		if !force {
			return lockfile(app, service)
		}
	}
	d.tell("%s %v", verb, force)
	return nil
}

func lockfile(app int64, service string) error {
	return state.Classify(state.ClassLocked, fmt.Errorf("Lockfile exists for { appId: %d, service: %s }", app, service))
}

func (d *device) Status() (Status, error) {
	if d.down == nil && d.status.Commits == nil {
		panic("a bug")
	}
	return d.status, d.down
}

func (d *device) Act(_ context.Context, a Action) error {
	if d.down != nil {
		return d.down
	}
	if x, ok := d.status.app(a.App); !ok || !x.Here {
		return fmt.Errorf("Application with ID %d is not in the current state", a.App)
	}
	if s, ok := d.locked[a.App]; ok && a.Kind != state.Start && !a.Force {
		return lockfile(a.App, s)
	}
	if d.gone && a.Present {
		return fmt.Errorf("act: %w", ErrVanished)
	}
	d.tell("%s %d %s force=%v alone=%v", a.Kind, a.App, strings.Join(a.Services, ","), a.Force, a.Alone)
	return nil
}

func (d *device) Environment(_ context.Context, container string) (map[string]string, error) {
	return map[string]string{"OF": container, "BALENA_API_KEY": "secret", "RESIN_SUPERVISOR_API_KEY": "secret"}, d.down
}

func (d *device) CleanVolumes(_ context.Context, may func(int64) bool) error {
	if d.down != nil {
		return d.down
	}
	for _, app := range []int64{1, 2} {
		if may(app) {
			d.tell("clean %d", app)
		}
	}
	return nil
}
