package device

import (
	"encoding/json"
	"maps"
	"strconv"

	"deckhand/cloud/answer"
)

// The target state as older devices read it. They know one app, the user's.

// scene is all that an older document is made of.
type scene struct {
	name    string // the device's
	app     *app   // nil: the device has no fleet
	release *release
	config  settings
	view    view
}

// dependents is what is always said about devices that hang on this one.
type dependents struct {
	Apps    struct{} `json:"apps"`
	Devices struct{} `json:"devices"`
}

type localState struct {
	Name   string            `json:"name"`
	Config map[string]string `json:"config,omitzero"`
	Apps   map[string]any    `json:"apps"`
}

func localDocument(l localState) ([]byte, error) {
	return answer.Marshal(struct {
		Local     localState `json:"local"`
		Dependent dependents `json:"dependent"`
	}{Local: l})
}

// secondApp is the app as devices with many containers first read it.
type secondApp struct {
	ReleaseID int64                     `json:"releaseId,omitempty"`
	Commit    string                    `json:"commit,omitempty"`
	Name      string                    `json:"name"`
	Services  map[string]map[string]any `json:"services"`
	Networks  json.RawMessage           `json:"networks"`
	Volumes   json.RawMessage           `json:"volumes"`
}

// secondDocument is the state of /device/v2.
func secondDocument(s scene) ([]byte, error) {
	local := localState{Name: s.name, Config: s.config.sent, Apps: map[string]any{}}
	if s.app != nil {
		a := secondApp{Name: s.app.Name, Services: map[string]map[string]any{}, Networks: json.RawMessage("{}"), Volumes: json.RawMessage("{}")}
		if s.release != nil {
			a.fill(s)
		}
		local.Apps[strconv.FormatInt(s.app.ID, 10)] = a
	}
	return localDocument(local)
}

func (a *secondApp) fill(s scene) {
	a.ReleaseID, a.Commit = s.release.ID, s.release.Commit
	if s.release.networks != nil {
		a.Networks = s.release.networks
	}
	if s.release.volumes != nil {
		a.Volumes = s.release.volumes
	}
	for _, service := range s.release.services {
		if !s.view.shows(service) {
			continue
		}
		one := map[string]any{}
		for name, value := range service.composition {
			one[name] = value
		}
		maps.Copy(one, map[string]any{
			"imageId": service.ImageID, "serviceName": service.Name, "image": service.Image, "running": true,
			"environment": s.view.environment(s.app, service), "labels": s.view.labelsOf(s.app, service),
		})
		if raw := present(service.Contract); raw != nil {
			one["contract"] = raw
		}
		a.Services[strconv.FormatInt(service.ID, 10)] = one
	}
}

// firstApp is the app as devices with one container read it.
type firstApp struct {
	Name        string            `json:"name"`
	Commit      string            `json:"commit"`
	Image       string            `json:"image"`
	Environment map[string]string `json:"environment"`
	Config      map[string]string `json:"config"`
}

// firstDocument is the state of /device/v1. A release with several services is
// none that such a device can run: it is told of no app and keeps what it has not.
func firstDocument(s scene) ([]byte, error) {
	local := localState{Name: s.name, Apps: map[string]any{}}
	if s.release != nil && len(s.release.services) == 1 {
		only := s.release.services[0]
		local.Apps[strconv.FormatInt(s.app.ID, 10)] = firstApp{
			Name: s.app.Name, Commit: s.release.Commit, Image: only.Image,
			Environment: s.view.environment(s.app, only), Config: s.config.sent,
		}
	}
	return localDocument(local)
}
