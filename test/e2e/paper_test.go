//go:build engine && linux

package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"

	"deckhand/state"
	"deckhand/test/system"
)

// paper is a cloud that says exactly what the test wants, also what no real
// cloud would say. It holds a device's question until there is news.
type paper struct {
	*scene
	url string

	mu      sync.Mutex
	body    []byte
	version int
	changed chan struct{}
	reports []json.RawMessage
	over    chan struct{} // closed at the end of the test
}

const paperUUID = "00000000000000000000000000000001"

// paperCloud starts such a cloud; it asks for no app at first.
func (s *scene) paperCloud() *paper {
	p := &paper{scene: s, changed: make(chan struct{}), over: make(chan struct{})}
	p.offer()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /device/v3/{uuid}/state", p.state)
	mux.HandleFunc("PATCH /device/v3/state", func(_ http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.reports = append(p.reports, b)
	})
	server := httptest.NewServer(mux)
	s.Cleanup(func() {
		close(p.over) // a held question would hold up the end, and so would a log that goes on
		server.CloseClientConnections()
		server.Close()
	})
	p.url = server.URL
	return p
}

// device starts a device of the paper cloud.
func (p *paper) device() {
	p.Helper()
	p.deviceWith(p.values())
	p.boot()
}

func (p *paper) values() map[string]any {
	return system.Registered(p.url, paperUUID, strings.Repeat("a", 32), 1, 1)
}

func (p *paper) state(w http.ResponseWriter, r *http.Request) {
	asked := r.Header.Get("If-None-Match")
	deadline := time.NewTimer(50 * time.Second)
	defer deadline.Stop()
	for {
		p.mu.Lock()
		body, etag, changed := p.body, fmt.Sprintf("%q", fmt.Sprint(p.version)), p.changed
		p.mu.Unlock()
		if asked != etag {
			w.Header().Set("ETag", etag)
			_, _ = w.Write(body) // a device that has left needs none
			return
		}
		w.Header().Set("Preference-Applied", "wait")
		select {
		case <-changed:
		case <-deadline.C:
			w.WriteHeader(http.StatusNotModified)
			return
		case <-p.over:
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		case <-r.Context().Done():
			return
		}
	}
}

// say puts a document in force, whatever it is.
func (p *paper) say(document []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.body, p.version = document, p.version+1
	close(p.changed)
	p.changed = make(chan struct{})
}

// offer puts apps in force.
func (p *paper) offer(apps ...paperApp) {
	b, err := json.Marshal(document(apps...))
	p.must(err)
	p.say(b)
}

// offerWith puts apps in force, with configuration variables.
func (p *paper) offerWith(config map[string]string, apps ...paperApp) {
	b, err := json.Marshal(configured(config, apps...))
	p.must(err)
	p.say(b)
}

// paperApp is an app of a target state.
type paperApp struct {
	uuid, commit string
	id, release  int64 // release 0 counts as 1
	services     map[string]any
	more         map[string]any // beside the services: networks, volumes, secrets, configs
}

// beside is the app with more than services in its release.
func (a paperApp) beside(section string, content map[string]any) paperApp {
	a.more = maps.Clone(a.more)
	if a.more == nil {
		a.more = map[string]any{}
	}
	a.more[section] = content
	return a
}

// app is an app whose services run an image; the digit tells apps apart.
func app(digit, commit string, services map[string]any) paperApp {
	return paperApp{uuid: strings.Repeat(digit, 32), commit: strings.Repeat(commit, 32), id: int64(digit[0] - '0'), services: services}
}

// runsImage is a service of a target state.
func runsImage(image string) map[string]any {
	return map[string]any{
		"id": 1, "image_id": 1, "image": image, "environment": map[string]string{}, "labels": map[string]string{},
		"composition": map[string]any{},
	}
}

// runsWith is a service with a composition.
func runsWith(image string, composition map[string]any) map[string]any {
	if composition == nil {
		composition = map[string]any{}
	}
	return with(runsImage(image), "composition", composition)
}

// with is the service with another value at a key.
func with(service map[string]any, key string, value any) map[string]any {
	service = maps.Clone(service)
	service[key] = value
	return service
}

func document(apps ...paperApp) map[string]any { return configured(nil, apps...) }

// configured is a target with configuration variables.
func configured(config map[string]string, apps ...paperApp) map[string]any {
	if config == nil {
		config = map[string]string{}
	}
	all := map[string]any{}
	for _, a := range apps {
		release := map[string]any{"id": max(a.release, 1), "services": a.services, "volumes": map[string]any{}, "networks": map[string]any{}}
		maps.Copy(release, a.more)
		all[a.uuid] = map[string]any{
			"id": a.id, "name": "app" + a.uuid[:1], "class": "fleet", "is_host": false, "releases": map[string]any{a.commit: release},
		}
	}
	return map[string]any{paperUUID: map[string]any{"name": "paper", "config": config, "apps": all}}
}

// reported reports whether a report contained a text.
func (p *paper) reported(text string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.reports {
		if strings.Contains(string(r), text) {
			return true
		}
	}
	return false
}

// serviceOf is the engine's name of the only container of an app's service.
func (s *scene) idOf(app paperApp, service string) string {
	s.Helper()
	id := ""
	for _, c := range s.all(service) {
		if c.Labels[state.LabelAppUUID] != app.uuid {
			continue
		}
		if id != "" {
			s.Fatalf("two containers of %s in app %s", service, app.uuid)
		}
		id = c.ID
	}
	return id
}
