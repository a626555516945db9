package device

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// The target state as devices of today read it. The order of keys is fixed: the
// same state is the same bytes, or devices would be told of changes that are none.
// It is written by hand, in pieces, since what a release says is the same for all
// devices that run it.

// app is an app as its targets are made of it.
type app struct {
	model.TargetFleet
	updater string // image of the app that updates it; "": none
	config  settings
}

// settings is a configuration as a device gets it.
type settings struct {
	sent    map[string]string
	encoded []byte
	poll    time.Duration // how often the device will ask
	labels  [][2]string   // of services that do not have them
}

// release is a release with all that is the same for everybody.
type release struct {
	model.TargetRelease
	services []service // by name
	rest     []byte    // `,"networks":…,"volumes":…`, as JSON
	networks json.RawMessage
	volumes  json.RawMessage
}

// service is one of a release; about and body are JSON, before and after
// environment and labels.
type service struct {
	model.TargetService
	about, body []byte
	composition map[string]json.RawMessage // nil: the composition has no such service
}

// readRelease takes a release apart.
func readRelease(r model.TargetRelease) (*release, error) {
	var doc struct {
		Services map[string]map[string]json.RawMessage `json:"services"`
		Networks json.RawMessage                       `json:"networks"`
		Volumes  json.RawMessage                       `json:"volumes"`
		Secrets  json.RawMessage                       `json:"secrets"`
		Configs  json.RawMessage                       `json:"configs"`
	}
	if err := json.Unmarshal(r.Composition, &doc); err != nil {
		return nil, fmt.Errorf("composition of release %s: %w", r.Commit, err)
	}
	out := &release{TargetRelease: r, networks: present(doc.Networks), volumes: present(doc.Volumes)}
	for _, part := range []struct {
		name string
		raw  json.RawMessage
	}{{"networks", doc.Networks}, {"volumes", doc.Volumes}, {"secrets", doc.Secrets}, {"configs", doc.Configs}} {
		if raw := present(part.raw); raw != nil {
			out.rest = appendCompact(append(appendText(append(out.rest, ','), part.name), ':'), raw)
		}
	}
	for i, s := range r.Services {
		if i+1 < len(r.Services) && r.Services[i+1].Name == s.Name {
			continue // two images of one service: the newer one
		}
		one := service{TargetService: s, composition: doc.Services[s.Name]}
		delete(one.composition, "build") // the device has the image
		one.about = fmt.Appendf(one.about, `"id":%d,"image_id":%d,"image":`, s.ID, s.ImageID)
		one.about = appendText(one.about, s.Image)
		if raw := present(s.Contract); raw != nil {
			one.body = appendCompact(append(one.body, `,"contract":`...), raw)
		}
		if one.composition != nil {
			b, err := answer.Marshal(one.composition)
			if err != nil {
				return nil, fmt.Errorf("composition of service %s: %w", s.Name, err)
			}
			one.body = append(append(one.body, `,"composition":`...), b...)
		}
		out.services = append(out.services, one)
	}
	return out, nil
}

// view is from where an app is looked at.
type view struct {
	device   *model.TargetVariables // of the device that looks; nil: it has none
	labels   [][2]string            // for services that do not have them
	host     bool                   // as the host OS of the device
	profiles []string               // that are active for it
}

// shows says whether a service is part of the app from here.
func (v view) shows(s service) bool {
	if len(s.Profiles) == 0 {
		return true
	}
	return v.host && slices.ContainsFunc(s.Profiles, func(p string) bool { return slices.Contains(v.profiles, p) })
}

// environment of a service, the particular over the general.
func (v view) environment(a *app, s service) map[string]string {
	all := make(map[string]string, len(s.ImageEnvironment)+len(a.Environment)+len(s.ServiceEnvironment))
	maps.Copy(all, s.ImageEnvironment)
	maps.Copy(all, a.Environment)
	maps.Copy(all, s.ServiceEnvironment)
	if v.device != nil {
		maps.Copy(all, v.device.Environment)
		maps.Copy(all, v.device.Services[s.ID])
	}
	return all
}

const (
	storeLabel   = "io.balena.image.store"
	updaterLabel = "io.balena.private.updater"
)

// labelsOf a service.
func (v view) labelsOf(a *app, s service) map[string]string {
	all := make(map[string]string, len(s.Labels)+2)
	if v.host {
		all[storeLabel] = "root"
	}
	maps.Copy(all, s.Labels)
	for _, label := range v.labels {
		_, said := all[label[0]]
		if _, too := all[strings.Replace(label[0], "resin", "balena", 1)]; !said && !too {
			all[label[0]] = label[1]
		}
	}
	if a.updater != "" {
		all[updaterLabel] = a.updater
	}
	return all
}

// appendApp writes `"<uuid>":{…}`. No release: the app has none to run.
func appendApp(b []byte, a *app, r *release, v view) []byte {
	b = append(appendText(b, a.UUID), `:{"id":`...)
	b = append(strconv.AppendInt(b, a.ID, 10), `,"name":`...)
	b = append(appendText(b, a.Name), `,"is_host":`...)
	b = append(strconv.AppendBool(b, a.IsHost), `,"class":`...)
	b = appendText(b, a.Class)
	if r != nil {
		b = append(b, `,"releases":{`...)
		b = append(appendText(b, r.Commit), `:{"id":`...)
		b = strconv.AppendInt(b, r.ID, 10)
		b = appendServices(b, a, r, v)
		b = append(append(b, r.rest...), `}}`...)
	}
	return append(b, '}')
}

func appendServices(b []byte, a *app, r *release, v view) []byte {
	open := `,"services":{`
	for _, s := range r.services {
		if !v.shows(s) {
			continue
		}
		b = append(b, open...)
		b = append(append(appendText(b, s.Name), ":{"...), s.about...)
		b = appendTexts(append(b, `,"environment":`...), v.environment(a, s))
		b = appendTexts(append(b, `,"labels":`...), v.labelsOf(a, s))
		b = append(append(b, s.body...), '}')
		open = ","
	}
	if open == "," {
		b = append(b, '}')
	}
	return b
}

// appendTexts writes a JSON object of texts, by name.
func appendTexts(b []byte, texts map[string]string) []byte {
	b = append(b, '{')
	for i, name := range slices.Sorted(maps.Keys(texts)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendText(append(appendText(b, name), ':'), texts[name])
	}
	return append(b, '}')
}

// appendText writes a JSON string.
func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			encoded, _ := answer.Marshal(s) // a text is always JSON
			return append(b, encoded...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendCompact writes JSON without white space.
func appendCompact(b []byte, raw json.RawMessage) []byte {
	var compact bytes.Buffer
	if json.Compact(&compact, raw) != nil {
		return append(b, "null"...) // the database has valid JSON only
	}
	return append(b, compact.Bytes()...)
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

const pollName = "SUPERVISOR_POLL_INTERVAL"

// deviceSettings is the configuration a device gets: without what is meant for
// web pages only, and with one effective poll interval under every spelling in use.
func deviceSettings(config map[string]string, floor time.Duration) settings {
	s := settings{sent: maps.Clone(config), poll: floor}
	maps.DeleteFunc(s.sent, func(name, _ string) bool {
		return strings.HasPrefix(name, "BALENA_UI") || strings.HasPrefix(name, "RESIN_UI") ||
			name == "RESIN_HOST_LOG_TO_DISPLAY" || name == "BALENA_HOST_LOG_TO_DISPLAY"
	})
	if v, ok := setting(config, pollName); ok {
		// Anything that is not a number would come back from the device as NaN.
		if ms, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64); err == nil && ms > floor.Milliseconds() && ms <= maxPoll.Milliseconds() {
			s.poll = time.Duration(ms) * time.Millisecond
		}
	}
	text := strconv.FormatInt(s.poll.Milliseconds(), 10)
	s.sent["RESIN_"+pollName] = text
	if _, ok := config["BALENA_"+pollName]; ok {
		s.sent["BALENA_"+pollName] = text
	}
	for _, pair := range [][2]string{
		{"io.resin.update.strategy", "SUPERVISOR_UPDATE_STRATEGY"},
		{"io.resin.update.handover-timeout", "SUPERVISOR_HANDOVER_TIMEOUT"},
	} {
		if v, ok := setting(config, pair[1]); ok {
			s.labels = append(s.labels, [2]string{pair[0], v})
		}
	}
	s.encoded = appendTexts(nil, s.sent)
	return s
}

// maxPoll is beyond what a device's timer can hold (2^31-1 ms is 24.8 days).
const maxPoll = 24 * 24 * time.Hour
