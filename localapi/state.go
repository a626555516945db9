package localapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"

	"deckhand/report"
)

// stateRoutes tell what is on the device; a key of a service shows its own app.
func (a *api) stateRoutes() []route {
	return []route{
		{"GET", "/v1/apps/{app}", true, 0, a.appV1},
		{"GET", "/v2/applications/state", true, 0, a.applications},
		{"GET", "/v2/applications/{app}/state", true, 0, a.application},
		{"GET", "/v2/containerid", true, 0, a.containerID},
		{"GET", "/v2/state/status", true, 0, a.stateStatus},
	}
}

// status asks for what the caller may see; not ok: it was answered.
func (a *api) status(w http.ResponseWriter, r *http.Request) (Status, bool) {
	s, err := a.c.Apps.Status()
	if err != nil {
		problemOf(w, err)
		return s, false
	}
	return s.of(callerOf(r)), true
}

// secretVariables are left out of what the API shows of a container.
func secretVariables() []string {
	return []string{"RESIN_SUPERVISOR_API_KEY", "RESIN_API_KEY", "BALENA_SUPERVISOR_API_KEY", "BALENA_API_KEY"}
}

// appV1 shows the container of an app with one service.
func (a *api) appV1(w http.ResponseWriter, r *http.Request, _ []byte) {
	id, ok := parseInteger(r.PathValue("app"))
	switch {
	case !ok:
		text(w, http.StatusBadRequest, "Missing app id")
		return
	case !callerOf(r).may(id):
		failed(w, http.StatusUnauthorized, "Application is not available")
		return
	}
	s, ok := a.status(w, r)
	if !ok {
		return
	}
	names := s.services(id)
	switch {
	case len(names) == 0:
		text(w, http.StatusBadRequest, "App not found")
		return
	case len(names) > 1:
		text(w, http.StatusBadRequest, singleOnly)
		return
	}
	c := s.container(id, names[0])
	env, err := a.c.Apps.Environment(r.Context(), c.ContainerID)
	if err != nil {
		problemOf(w, err)
		return
	}
	for _, name := range secretVariables() {
		delete(env, name)
	}
	answer(w, http.StatusOK, struct {
		AppID     int64             `json:"appId"`
		Commit    string            `json:"commit,omitempty"`
		Container string            `json:"containerId"`
		Env       map[string]string `json:"env"`
		Image     string            `json:"imageId"`
		Release   int64             `json:"releaseId"`
	}{id, s.Commits[id], c.ContainerID, env, c.Image, c.ReleaseID})
}

// applications shows the wanted release of every app, by the app's name.
func (a *api) applications(w http.ResponseWriter, r *http.Request, _ []byte) {
	s, ok := a.status(w, r)
	if !ok {
		return
	}
	type service struct {
		Status   string `json:"status"`
		Image    string `json:"image"`
		Progress *int   `json:"downloadProgress"`
		Release  int64  `json:"releaseId"`
	}
	type app struct {
		ID       int64               `json:"appId"`
		UUID     string              `json:"appUuid"`
		Commit   string              `json:"commit"`
		Update   report.UpdateStatus `json:"updateStatus"`
		Services map[string]service  `json:"services"`
	}
	out := map[string]app{}
	for _, x := range s.Apps {
		if !x.Wanted {
			continue
		}
		services := map[string]service{}
		for name, v := range x.Services {
			services[name] = service{v.Status, v.Image, v.Progress, v.ReleaseID}
		}
		out[x.Name] = app{x.ID, x.UUID, x.Commit, x.Update, services}
	}
	answer(w, http.StatusOK, out)
}

// application shows what there is of an app, by image.
func (a *api) application(w http.ResponseWriter, r *http.Request, _ []byte) {
	raw := r.PathValue("app")
	id, ok := parseInteger(raw)
	if !ok || id == 0 {
		failed(w, http.StatusBadRequest, "Invalid application ID: "+raw)
		return
	}
	s, ok := a.status(w, r)
	if !ok {
		return
	}
	app, _ := s.app(id)
	if len(app.Rows) == 0 {
		failed(w, http.StatusConflict, fmt.Sprintf("Application ID does not exist: %d", id))
		return
	}
	type service struct {
		Status   string `json:"status"`
		Release  int64  `json:"releaseId"`
		Progress *int   `json:"download_progress"`
	}
	type services struct {
		Services map[string]service `json:"services"`
	}
	byImage := map[string]service{}
	for _, x := range app.Rows {
		key := fmt.Sprint(x.ImageID)
		v := service{x.Status, x.ReleaseID, x.Progress}
		if _, twice := byImage[key]; twice {
			v.Status = string(report.HandingOver)
		}
		byImage[key] = v
	}
	answer(w, http.StatusOK, struct {
		Commit string              `json:"commit,omitempty"`
		Local  map[string]services `json:"local"`
	}{s.Commits[id], map[string]services{fmt.Sprint(id): {byImage}}})
}

// containerID finds containers by the names of their services.
func (a *api) containerID(w http.ResponseWriter, r *http.Request, _ []byte) {
	s, ok := a.status(w, r)
	if !ok {
		return
	}
	all := map[string]string{}
	for _, app := range s.Apps {
		for _, name := range s.services(app.ID) {
			all[name] = s.container(app.ID, name).ContainerID
		}
	}
	name := queryText(r.URL.Query(), "serviceName", "service")
	if name == "" {
		succeeded(w, map[string]any{"services": all})
		return
	}
	id, ok := all[name]
	if !ok {
		failed(w, http.StatusServiceUnavailable, "Could not find service with that name")
		return
	}
	succeeded(w, map[string]any{"containerId": id})
}

// queryText is the first parameter that says something.
func queryText(q url.Values, names ...string) string {
	for _, name := range names {
		if v := q[name]; len(v) == 1 && meaningful(v[0]) {
			return v[0]
		}
	}
	return ""
}

func (a *api) stateStatus(w http.ResponseWriter, r *http.Request, _ []byte) {
	if s, ok := a.status(w, r); ok {
		answer(w, http.StatusOK, s.reduced())
	}
}

// stateStatus is the document of the API.
type stateStatus struct {
	Status     string      `json:"status"` // of the request
	AppState   string      `json:"appState"`
	Progress   *float64    `json:"overallDownloadProgress"`
	Containers []Container `json:"containers"`
	Images     []Image     `json:"images"`
	Release    string      `json:"release,omitempty"`
}

// reduced makes the document. It is about one app, that of the first container,
// else of the first image; only the progress counts all of them.
func (s Status) reduced() stateStatus {
	out := stateStatus{Status: "success", AppState: "applied", Containers: []Container{}, Images: []Image{}}
	if s.Applying {
		out.AppState = "applying"
	}
	sum, n := 0, 0
	for _, i := range s.Images {
		if i.Progress != nil {
			sum, n = sum+*i.Progress, n+1
		}
	}
	if n > 0 {
		mean := float64(sum) / float64(n)
		out.Progress = &mean
	}
	var app int64
	switch {
	case len(s.Containers) > 0:
		app = s.Containers[0].AppID
	case len(s.Images) > 0:
		app = s.Images[0].AppID
	default:
		return out
	}
	out.Containers = append(out.Containers, slices.DeleteFunc(slices.Clone(s.Containers), func(c Container) bool { return c.AppID != app })...)
	out.Images = append(out.Images, slices.DeleteFunc(slices.Clone(s.Images), func(i Image) bool { return i.AppID != app })...)
	out.Release = s.Commits[app]
	return out
}
