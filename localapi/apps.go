package localapi

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"slices"

	"deckhand/state"
)

// Apps is what runs on the device and what can be asked of it.
type Apps interface {
	// Status describes what is on the device. It fails when the engine does not
	// tell.
	Status() (Status, error)
	// Act does something to an app and returns when it is done. When ctx ends
	// first the action goes on; after any other error it does not, except that
	// what failed is tried again later. Class locked: a lock is in the way;
	// ErrVanished: there is nothing any more to act on.
	Act(ctx context.Context, a Action) error
	// Environment is that of a container, as the engine has it.
	Environment(ctx context.Context, container string) (map[string]string, error)
	// CleanVolumes deletes the volumes of apps that nobody wants and no
	// container has; may says which apps are meant.
	CleanVolumes(ctx context.Context, may func(app int64) bool) error
}

// Action is something that is done to an app beside its target.
type Action struct {
	Kind     state.IntentKind
	App      int64
	Services []string // empty: all of the app's
	Force    bool     // update locks are broken
	Alone    bool     // not while another action works on the app; it waits for that, but not for long
	Present  bool     // only if what it works on is on the device when it begins; else ErrVanished
}

// ErrVanished means that a service lost its container after the request was
// checked and before anything was done.
var ErrVanished = errors.New("the service has no container any more")

// actionRoutes change apps. A key of a service opens them for its own app.
func (a *api) actionRoutes() []route {
	return []route{
		{"POST", "/v1/restart", true, bodyLimit, a.restartV1},
		{"POST", "/v1/purge", true, bodyLimit, a.purgeV1},
		{"POST", "/v1/apps/{app}/stop", true, bodyLimit, a.only(state.Stop)},
		{"POST", "/v1/apps/{app}/start", true, bodyLimit, a.only(state.Start)},
		{"POST", "/v2/applications/{app}/restart", true, bodyLimit, a.whole(state.Restart)},
		{"POST", "/v2/applications/{app}/purge", true, bodyLimit, a.whole(state.Purge)},
		{"POST", "/v2/applications/{app}/restart-service", true, bodyLimit, a.service(state.Restart)},
		{"POST", "/v2/applications/{app}/stop-service", true, bodyLimit, a.service(state.Stop)},
		{"POST", "/v2/applications/{app}/start-service", true, bodyLimit, a.service(state.Start)},
		{"GET", "/v2/cleanup-volumes", true, 0, a.cleanVolumes},
	}
}

// Texts that programs compare.
const (
	noApp      = "App not found: an app needs to be installed for this endpoint to work."
	noService  = "Service not found, a container must exist for this endpoint to work"
	notWanted  = "Service does not exist in target release"
	useV2      = "serviceName or imageId parameters were not provided or the app is multi-container. Use the v2 service action endpoints."
	singleOnly = "Some v1 endpoints are only allowed on single-container apps"
)

// held is how many requests may wait for their actions at once. Each costs a
// connection; a device has far fewer callers.
const held = 64

var errTooMany = errors.New("too many requests wait for their actions; try again later")

// act does an action while the request waits.
func (a *api) act(r *http.Request, x Action) error {
	select {
	case a.waiting <- struct{}{}:
		defer func() { <-a.waiting }()
	default:
		return errTooMany
	}
	return a.c.Apps.Act(r.Context(), x)
}

func (a *api) restartV1(w http.ResponseWriter, r *http.Request, body []byte) {
	x, ok := a.wholeV1(w, r, body, state.Restart, "Missing app id")
	if !ok {
		return
	}
	if err := a.act(r, x); err != nil {
		problemOf(w, err)
		return
	}
	text(w, http.StatusOK, "OK")
}

func (a *api) purgeV1(w http.ResponseWriter, r *http.Request, body []byte) {
	x, ok := a.wholeV1(w, r, body, state.Purge, "Invalid or missing appId")
	if !ok {
		return
	}
	if err := a.act(r, x); err != nil {
		problemOf(w, err)
		return
	}
	none := ""
	answer(w, http.StatusOK, outcome{Data: "OK", Error: &none})
}

// wholeV1 reads a request about an app that its body names.
func (a *api) wholeV1(w http.ResponseWriter, r *http.Request, body []byte, kind state.IntentKind, missing string) (Action, bool) {
	f, err := readForm(r, body)
	if err != nil {
		problemOf(w, err)
		return Action{}, false
	}
	app, ok := f.integer("appId")
	if !ok {
		text(w, http.StatusBadRequest, missing)
		return Action{}, false
	}
	if !callerOf(r).may(app) {
		failed(w, http.StatusUnauthorized, "Unauthorized")
		return Action{}, false
	}
	return Action{Kind: kind, App: app, Force: f.truthy("force")}, true
}

// appForm reads the body and the app that the path names. If it is none that the
// caller may change, that is answered and ok is false; unnamed is said where the
// path names no app.
func appForm(w http.ResponseWriter, r *http.Request, body []byte, unnamed string) (f form, app int64, ok bool) {
	f, err := readForm(r, body)
	app, named := parseInteger(r.PathValue("app"))
	switch {
	case err != nil:
		problemOf(w, err)
	case !named || app == 0:
		failed(w, http.StatusBadRequest, unnamed)
	case !callerOf(r).may(app):
		failed(w, http.StatusUnauthorized, "Unauthorized")
	default:
		return f, app, true
	}
	return f, app, false
}

// whole serves an action on all services of an app.
func (a *api) whole(kind state.IntentKind) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		f, app, ok := appForm(w, r, body, "Missing app id")
		if !ok {
			return
		}
		if err := a.act(r, Action{Kind: kind, App: app, Force: f.truthy("force")}); err != nil {
			problemOf(w, err)
			return
		}
		text(w, http.StatusOK, "OK")
	}
}

// only serves an action on the one service of an app.
func (a *api) only(kind state.IntentKind) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		f, err := readForm(r, body)
		app, ok := parseInteger(r.PathValue("app"))
		switch {
		case err != nil:
			problemOf(w, err)
			return
		case !ok:
			text(w, http.StatusBadRequest, "Invalid app id")
			return
		case !callerOf(r).may(app):
			plain(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		s, err := a.c.Apps.Status()
		if err != nil {
			problemOf(w, err)
			return
		}
		names := s.services(app)
		switch {
		case len(names) == 0:
			text(w, http.StatusBadRequest, noApp)
			return
		case len(names) > 1:
			text(w, http.StatusBadRequest, useV2)
			return
		case !s.wants(app, names[0]):
			text(w, http.StatusNotFound, notWanted)
			return
		}
		if err := a.act(r, serviceAction(kind, app, names[0], f)); err != nil {
			problemOf(w, err)
			return
		}
		a.containerAfter(w, app, names[0])
	}
}

func serviceAction(kind state.IntentKind, app int64, service string, f form) Action {
	disturbs := kind != state.Start
	return Action{Kind: kind, App: app, Services: []string{service}, Force: disturbs && f.truthy("force"), Alone: disturbs}
}

// containerAfter answers with the container that a service has after an action.
func (a *api) containerAfter(w http.ResponseWriter, app int64, service string) {
	s, err := a.c.Apps.Status()
	if err != nil {
		problemOf(w, err)
		return
	}
	var out struct {
		Container *string `json:"containerId"`
	}
	if c := s.container(app, service); c != nil {
		out.Container = &c.ContainerID
	}
	answer(w, http.StatusOK, out)
}

// service serves an action on one service of an app, which the body names.
func (a *api) service(kind state.IntentKind) func(http.ResponseWriter, *http.Request, []byte) {
	return func(w http.ResponseWriter, r *http.Request, body []byte) {
		f, app, ok := appForm(w, r, body, "Invalid app id")
		if !ok {
			return
		}
		name, named := f.text("serviceName")
		image, numbered := f.integer("imageId")
		if !named && !numbered {
			text(w, http.StatusBadRequest, useV2)
			return
		}
		s, err := a.c.Apps.Status()
		if err != nil {
			problemOf(w, err)
			return
		}
		name, refusal := s.meant(app, func(c Container) bool {
			return named && c.ServiceName == name || numbered && c.ImageID == image
		})
		if refusal != "" {
			text(w, http.StatusNotFound, refusal)
			return
		}
		x := serviceAction(kind, app, name, f)
		x.Present = true
		err = a.act(r, x)
		switch {
		case errors.Is(err, ErrVanished):
			w.WriteHeader(http.StatusNotFound) // without a body, as programs know it
		case err != nil:
			problemOf(w, err)
		default:
			text(w, http.StatusOK, "OK")
		}
	}
}

// meant finds the service that a request is about. An app with one service has
// only that to offer, whatever the request calls it.
func (s Status) meant(app int64, matches func(Container) bool) (name, refusal string) {
	names := s.services(app)
	switch len(names) {
	case 0:
		return "", noApp
	case 1:
		name = names[0]
	default:
		i := slices.IndexFunc(s.Containers, func(c Container) bool { return c.AppID == app && matches(c) })
		if i < 0 {
			return "", noService
		}
		name = s.Containers[i].ServiceName
	}
	if !s.wants(app, name) {
		return "", notWanted
	}
	return name, ""
}

func (a *api) cleanVolumes(w http.ResponseWriter, r *http.Request, _ []byte) {
	if err := a.c.Apps.CleanVolumes(r.Context(), callerOf(r).may); err != nil {
		problemOf(w, err)
		return
	}
	succeeded(w, nil)
}

// outcome is the oldest form of an answer.
type outcome struct {
	Data  string  `json:"Data"`
	Error *string `json:"Error"`
}

// succeeded answers with fields beside the word for it.
func succeeded(w http.ResponseWriter, fields map[string]any) {
	out := map[string]any{"status": "success"}
	maps.Copy(out, fields)
	answer(w, http.StatusOK, out)
}
