package localapi

import (
	"net/http"

	"deckhand/state"
)

// Config connects the device API with the supervisor, one interface for each
// topic. A topic declares its interface beside its routes.
type Config struct {
	Keys   Keys
	Device Device
	Apps   Apps
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
}

// New makes the device API.
func New(c Config) http.Handler {
	a := &api{c}
	return &router{
		routes: a.routes(),
		enter:  a.enter,
		tooBad: func(w http.ResponseWriter, err error) { failed(w, http.StatusServiceUnavailable, err.Error()) },
		log:    c.Log,
	}
}

type api struct{ c Config }

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
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(s))
}
