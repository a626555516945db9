package localapi

import (
	"context"
	"net/http"

	"deckhand/report"
	"deckhand/state"
)

// Config connects the device API with the supervisor, one interface for each
// topic. A topic declares its interface beside its routes.
type Config struct {
	Keys   Keys
	Device Device
	Host   Host
	Apps   Apps
	Tags   Tags
	Logs   Logs
	Local  Local
	V3     V3
	Events *Events // of /v3/events

	// Unhealthy is told the reasons for a bad health, for the log. May be nil.
	Unhealthy func(reasons []string)
	// Log is told every request. May be nil.
	Log func(Request)
}

// Device is the device as a whole.
type Device interface {
	// Health reports whether the supervisor works, and if not, why.
	Health() (ok bool, reasons []string)
	// InstantUpdates reports whether others may make the device poll.
	InstantUpdates() bool
	// Update makes the device poll now; it does not wait.
	Update(force, cancel bool)
	// Facts describe the device.
	Facts() Facts
	// Blink lets an LED blink for a while, so that somebody can find the device.
	Blink() error
	// Reboot restarts the device a moment after it returned nil, Shutdown
	// switches it off. force: whatever the update locks say. Class locked: they
	// say no.
	Reboot(ctx context.Context, force bool) error
	Shutdown(ctx context.Context, force bool) error
}

// Facts are what is known of the device. What is empty is not known.
type Facts struct {
	Name       string // as its owner calls it
	Port       int    // of this API
	Addresses  string // separated by spaces
	MACs       string // separated by spaces
	OS         string
	Version    string // of balena's supervisor that this API is like
	VPN        bool   // it is to be up
	VPNUp      bool   // it is
	Pending    bool   // something is left to do
	Failed     bool   // some of it rests after a failure, or waits for a lock
	Downloaded bool   // the images of an update that is not done are all here
}

// New makes the device API.
func New(c Config) http.Handler {
	a := &api{c: c, waiting: make(chan struct{}, held), strangers: newStrangers()}
	return &router{
		routes: a.routes(),
		enter:  a.enter,
		tooBad: func(w http.ResponseWriter, err error) { failed(w, http.StatusServiceUnavailable, err.Error()) },
		log:    c.Log,
	}
}

type api struct {
	c         Config
	waiting   chan struct{} // one for each request that waits for its action
	strangers *strangers
}

// openRoutes need no key, ever.
func (a *api) openRoutes() []route {
	return []route{
		{"GET", "/ping", false, 0, a.ping},
		{"GET", "/v1/healthy", false, 0, a.healthy},
	}
}

// deviceRoutes are about the device as a whole. Every key opens them.
func (a *api) deviceRoutes() []route {
	return []route{
		{"POST", "/v1/blink", true, 0, a.blink},
		{"POST", "/v1/regenerate-api-key", true, 0, a.renewKey},
		{"POST", "/v1/update", true, bodyLimit, a.update},
		{"POST", "/v1/reboot", true, bodyLimit, a.power(func(d Device) powerCall { return d.Reboot })},
		{"POST", "/v1/shutdown", true, bodyLimit, a.power(func(d Device) powerCall { return d.Shutdown })},
		{"GET", "/v1/device", true, 0, a.deviceV1},
		{"GET", "/v2/version", true, 0, a.version},
		{"GET", "/v2/device/name", true, 0, a.deviceName},
		{"GET", "/v2/device/vpn", true, 0, a.vpn},
	}
}

func (a *api) ping(w http.ResponseWriter, _ *http.Request, _ []byte) {
	text(w, http.StatusOK, "OK")
}

func (a *api) healthy(w http.ResponseWriter, _ *http.Request, _ []byte) {
	ok, reasons := a.c.Device.Health()
	if ok {
		text(w, http.StatusOK, "OK")
		return
	}
	if a.c.Unhealthy != nil {
		a.c.Unhealthy(reasons)
	}
	text(w, http.StatusInternalServerError, "Unhealthy")
}

// update asks for a poll. Who may not ask is told that it was heard.
func (a *api) update(w http.ResponseWriter, r *http.Request, body []byte) {
	f, err := readForm(r, body)
	if err != nil {
		problemOf(w, err)
		return
	}
	force := f.truthy("force")
	if !force && !a.c.Device.InstantUpdates() {
		text(w, http.StatusAccepted, "Accepted")
		return
	}
	a.c.Device.Update(force, f.truthy("cancel"))
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) blink(w http.ResponseWriter, _ *http.Request, _ []byte) {
	if err := a.c.Device.Blink(); err != nil {
		problemOf(w, err)
		return
	}
	text(w, http.StatusOK, "OK")
}

// renewKey replaces the key that the caller has shown.
func (a *api) renewKey(w http.ResponseWriter, r *http.Request, _ []byte) {
	c := callerOf(r)
	if c.key == "" {
		failed(w, http.StatusServiceUnavailable, "no key was asked for, so there is none to replace")
		return
	}
	fresh, err := a.c.Keys.Renew(r.Context(), c.app, c.service)
	if err != nil {
		problemOf(w, err)
		return
	}
	text(w, http.StatusOK, fresh)
}

type powerCall func(ctx context.Context, force bool) error

// power serves a restart of the device, or its end.
func (a *api) power(which func(Device) powerCall) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		f, err := readForm(r, body)
		if err != nil {
			problemOf(w, err)
			return
		}
		err = which(a.c.Device)(r.Context(), f.truthy("force"))
		switch {
		case err == nil:
			answer(w, http.StatusAccepted, outcome{Data: "OK"})
		case state.ClassOf(err) == state.ClassLocked:
			why := reason(err)
			answer(w, http.StatusLocked, outcome{Error: &why})
		default:
			why := reason(err)
			answer(w, http.StatusInternalServerError, outcome{Error: &why})
		}
	}
}

// deviceV1 describes the device, and of apps only the first.
func (a *api) deviceV1(w http.ResponseWriter, _ *http.Request, _ []byte) {
	s, err := a.c.Apps.Status()
	if err != nil {
		problemOf(w, err)
		return
	}
	f := a.c.Device.Facts()
	out := deviceV1{
		Port: f.Port, Addresses: f.Addresses, MACs: f.MACs, OS: f.OS, Version: f.Version,
		Pending: f.Pending, Failed: f.Failed, Downloaded: f.Downloaded,
	}
	for _, app := range s.Apps {
		if len(app.Rows) == 0 {
			continue
		}
		out.Status, out.Progress = app.Rows[0].Status, app.Rows[0].Progress
		if out.Status == string(report.Up) {
			out.Status = "Idle"
		}
		if !s.Applying {
			out.Commit = s.Commits[app.ID]
		}
		break
	}
	answer(w, http.StatusOK, out)
}

type deviceV1 struct {
	Port       int    `json:"api_port,omitempty"`
	Addresses  string `json:"ip_address,omitempty"`
	OS         string `json:"os_version,omitempty"`
	MACs       string `json:"mac_address,omitempty"`
	Version    string `json:"supervisor_version"`
	Pending    bool   `json:"update_pending"`
	Failed     bool   `json:"update_failed"`
	Downloaded bool   `json:"update_downloaded"`
	Commit     string `json:"commit,omitempty"`
	Status     string `json:"status,omitempty"`
	Progress   *int   `json:"download_progress"`
}

func (a *api) version(w http.ResponseWriter, _ *http.Request, _ []byte) {
	succeeded(w, map[string]any{"version": a.c.Device.Facts().Version})
}

func (a *api) deviceName(w http.ResponseWriter, _ *http.Request, _ []byte) {
	succeeded(w, map[string]any{"deviceName": a.c.Device.Facts().Name})
}

func (a *api) vpn(w http.ResponseWriter, _ *http.Request, _ []byte) {
	f := a.c.Device.Facts()
	succeeded(w, map[string]any{"vpn": map[string]bool{"enabled": f.VPN, "connected": f.VPNUp}})
}

// problemOf answers for what went wrong behind the API.
func problemOf(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if state.ClassOf(err) == state.ClassLocked {
		status = http.StatusLocked
	}
	failed(w, status, reason(err))
}

func text(w http.ResponseWriter, status int, s string) {
	// Clients of balena's supervisor get its framework's type for texts.
	send(w, status, "text/html; charset=utf-8", []byte(s))
}
