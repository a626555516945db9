package story

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"deckhand/compose"
	"deckhand/state"
)

// registrar gives apps and services the IDs they have in the cloud: the same in
// every release.
type registrar struct{ apps, services []string }

func (s *Scenario) registrar() registrar {
	apps, services := map[string]bool{}, map[string]bool{}
	for _, docs := range []map[string][]byte{s.old, s.half, s.new} {
		for app, doc := range docs {
			apps[app] = true
			var d struct {
				Services map[string]any `yaml:"services"`
			}
			if yaml.Unmarshal(doc, &d) == nil { // else: loading says what is wrong
				for name := range d.Services {
					services[name] = true
				}
			}
		}
	}
	return registrar{slices.Sorted(maps.Keys(apps)), slices.Sorted(maps.Keys(services))}
}

func (r registrar) app(name string) int64 { return int64(1 + slices.Index(r.apps, name)) }

func (r registrar) service(name string) int64 { return int64(1 + slices.Index(r.services, name)) }

// uuid is an app's UUID. It shows where a plan prints it instead of the name.
func uuid(app string) string { return app + "-uuid" }

// target makes one side from its documents. What the loader refuses becomes a
// rejected app, as on a device.
func (s *Scenario) target(ctx context.Context, side string, docs map[string][]byte, release int) (state.Target, error) {
	ids := s.registrar()
	out := state.Target{Name: "device", Apps: map[string]state.App{}}
	for name, doc := range docs {
		a := state.App{UUID: uuid(name), ID: ids.app(name), Name: name}
		if other := s.options.heirs[name]; other != "" {
			a.ID = ids.app(other)
		}
		if side == "new" && name == shop && s.options.appID > 0 {
			a.ID = s.options.appID
		}
		if strings.TrimSpace(string(doc)) != "" {
			a.ReleaseID, a.Commit = int64(release), fmt.Sprintf("r%d", release)
			if err := s.fill(ctx, &a, side, doc, ids); err != nil {
				return out, fmt.Errorf("%s document of %s: %w", side, name, err)
			}
		}
		if side == "new" && name == shop && s.options.rejected != "" {
			a.Rejected, a.Services, a.Networks, a.Volumes = s.options.rejected, nil, nil, nil
		}
		out.Apps[a.UUID] = a
	}
	return out, nil
}

func (s *Scenario) fill(ctx context.Context, a *state.App, side string, doc []byte, ids registrar) error {
	var decoded map[string]any
	if err := yaml.Unmarshal(doc, &decoded); err != nil {
		return err
	}
	p, problems, err := compose.Load(ctx, compose.Options{Release: true, Name: a.Name}, decoded)
	if err != nil {
		return err
	}
	if refusal := compose.Refusal(problems); refusal != nil {
		if e, ok := errors.AsType[*state.Error](refusal); ok {
			refusal = e.Err // people need no class here
		}
		a.Rejected = refusal.Error()
		return nil
	}
	a.Services, a.Networks, a.Volumes = p.Services, p.Networks, p.Volumes
	for name, service := range a.Services {
		service.ID = ids.service(name)
		// Every release has a row of its own, also for the same image.
		service.ImageID = 10_000*(a.ID-1) + 100*a.ReleaseID + service.ID
		service.Running = !s.options.stopped[side+" "+name]
		a.Services[name] = service
	}
	return nil
}
