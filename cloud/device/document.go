package device

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// The target state as a device reads it. The order of keys is fixed: the same
// state is the same bytes, or devices would be told of changes that are none.

type deviceState struct {
	Name   string            `json:"name"`
	Apps   appStates         `json:"apps"`
	Config map[string]string `json:"config"`
}

// appStates is a JSON object in the order of the slice.
type appStates []appState

type appState struct {
	uuid     string
	ID       int64                   `json:"id"`
	Name     string                  `json:"name"`
	IsHost   bool                    `json:"is_host"`
	Class    string                  `json:"class"`
	Releases map[string]releaseState `json:"releases,omitempty"`
}

type releaseState struct {
	ID       int64                   `json:"id"`
	Services map[string]serviceState `json:"services,omitempty"`
	Networks json.RawMessage         `json:"networks,omitempty"`
	Volumes  json.RawMessage         `json:"volumes,omitempty"`
	Secrets  json.RawMessage         `json:"secrets,omitempty"`
	Configs  json.RawMessage         `json:"configs,omitempty"`
}

type serviceState struct {
	ID          int64                      `json:"id"`
	ImageID     int64                      `json:"image_id"`
	Image       string                     `json:"image"`
	Environment map[string]string          `json:"environment"`
	Labels      map[string]string          `json:"labels"`
	Contract    json.RawMessage            `json:"contract,omitempty"`
	Composition map[string]json.RawMessage `json:"composition,omitzero"`
}

// MarshalJSON writes the object in the order of the slice.
func (all appStates) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, app := range all {
		if i > 0 {
			b.WriteByte(',')
		}
		body, err := answer.Marshal(app)
		if err != nil {
			return nil, err
		}
		b.WriteString(strconv.Quote(app.uuid) + ":")
		b.Write(body)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// document encodes a target. It also says how often the device will poll.
func document(t model.Target, floor time.Duration) ([]byte, time.Duration, error) {
	config, poll := deviceConfig(t.Config, floor)
	state := deviceState{Name: t.Device.Name, Config: config, Apps: appStates{}}
	if t.Fleet != nil {
		app, err := fleetState(*t.Fleet, t.Config)
		if err != nil {
			return nil, 0, err
		}
		state.Apps = append(state.Apps, app)
	}
	b, err := answer.Marshal(map[string]deviceState{t.Device.UUID: state})
	return b, poll, err
}

func fleetState(f model.TargetFleet, config map[string]string) (appState, error) {
	app := appState{uuid: f.UUID, ID: f.ID, Name: f.Name, IsHost: f.IsHost, Class: f.Class}
	if f.Release == nil {
		return app, nil
	}
	var composition struct {
		Services map[string]map[string]json.RawMessage `json:"services"`
		Networks json.RawMessage                       `json:"networks"`
		Volumes  json.RawMessage                       `json:"volumes"`
		Secrets  json.RawMessage                       `json:"secrets"`
		Configs  json.RawMessage                       `json:"configs"`
	}
	if err := json.Unmarshal(f.Release.Composition, &composition); err != nil {
		return app, fmt.Errorf("composition of release %s: %w", f.Release.Commit, err)
	}
	release := releaseState{
		ID: f.Release.ID, Services: map[string]serviceState{}, Networks: present(composition.Networks), Volumes: present(composition.Volumes),
		Secrets: present(composition.Secrets), Configs: present(composition.Configs),
	}
	for _, s := range f.Release.Services {
		service := composition.Services[s.Name]
		delete(service, "build") // the device has the image
		release.Services[s.Name] = serviceState{
			ID: s.ID, ImageID: s.ImageID, Image: strings.ToLower(s.Image),
			Environment: s.Environment, Labels: withStrategy(s.Labels, config), Contract: present(s.Contract), Composition: service,
		}
	}
	app.Releases = map[string]releaseState{f.Release.Commit: release}
	return app, nil
}

// present is nil for an absent or null document.
func present(raw json.RawMessage) json.RawMessage {
	if string(bytes.TrimSpace(raw)) == "null" {
		return nil
	}
	return raw
}

// setting is the value of a configuration variable under either prefix; the
// newer one wins, as it does on the device.
func setting(config map[string]string, name string) (string, bool) {
	if v, ok := config["BALENA_"+name]; ok {
		return v, true
	}
	v, ok := config["RESIN_"+name]
	return v, ok
}

// withStrategy adds the update strategy that the configuration asks for to
// services which do not say one themselves.
func withStrategy(labels, config map[string]string) map[string]string {
	for label, name := range map[string]string{
		"io.resin.update.strategy":         "SUPERVISOR_UPDATE_STRATEGY",
		"io.resin.update.handover-timeout": "SUPERVISOR_HANDOVER_TIMEOUT",
	} {
		if _, said := labels[label]; said {
			continue
		}
		if _, said := labels[strings.Replace(label, "resin", "balena", 1)]; said {
			continue
		}
		if v, ok := setting(config, name); ok {
			labels[label] = v
		}
	}
	return labels
}

const pollName = "SUPERVISOR_POLL_INTERVAL"

// deviceConfig is the configuration a device gets: without what is meant for
// web pages only, and with one effective poll interval under every spelling in use.
func deviceConfig(config map[string]string, floor time.Duration) (map[string]string, time.Duration) {
	sent := maps.Clone(config)
	maps.DeleteFunc(sent, func(name, _ string) bool {
		return strings.HasPrefix(name, "BALENA_UI") || strings.HasPrefix(name, "RESIN_UI") ||
			name == "RESIN_HOST_LOG_TO_DISPLAY" || name == "BALENA_HOST_LOG_TO_DISPLAY"
	})
	poll := floor
	if v, ok := setting(config, pollName); ok {
		// Anything that is not a number would come back from the device as NaN.
		if ms, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil && ms > floor.Milliseconds() && ms <= maxPoll.Milliseconds() {
			poll = time.Duration(ms) * time.Millisecond
		}
	}
	text := strconv.FormatInt(poll.Milliseconds(), 10)
	sent["RESIN_"+pollName] = text
	if _, ok := config["BALENA_"+pollName]; ok {
		sent["BALENA_"+pollName] = text
	}
	return sent, poll
}

// maxPoll is beyond what a device's timer can hold (2^31-1 ms is 24.8 days).
const maxPoll = 24 * 24 * time.Hour
