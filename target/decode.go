package target

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"deckhand/compose"
	"deckhand/state"
)

// Problem is one thing about a document that its owner should know.
type Problem = compose.Problem

// Options say for which device a document is read.
type Options struct {
	// Device is the UUID of the device.
	Device string

	// Provided is what the device offers to contracts. Nil: not known, so that
	// contracts are only checked for their form, with a warning.
	Provided *Provided

	// Name and Config are those in force. Documents of other forms than v3 may
	// leave them out.
	Name   string
	Config map[string]string

	// AppUUID knows the UUID of an app by its ID, or returns "". Only apps.json
	// of an old form needs it; nil: none is known.
	AppUUID func(id int64) string
}

// DecodeV3 reads a v3 target document for one device. An error, always of class
// invalid unless ctx ended, refuses the document whole and lists every violation
// with its path. An app whose composition or contracts the device cannot fulfil
// has Rejected set, the others are not touched by that. Problems are sorted by
// path.
func DecodeV3(ctx context.Context, doc []byte, o Options) (state.Target, []Problem, error) {
	device, problems, err := read(doc, o.Device)
	if err != nil {
		return state.Target{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("target state: %w", err))
	}
	t := state.Target{Name: device.name, Config: device.config, Apps: map[string]state.App{}}
	for _, doc := range device.apps {
		if err := ctx.Err(); err != nil {
			return state.Target{}, nil, err
		}
		app, found, err := decodeApp(ctx, doc, o.Provided)
		if err != nil {
			return state.Target{}, nil, fmt.Errorf("target state: app %s: %w", clip(doc.uuid), err)
		}
		problems = append(problems, found...)
		if app.Host && app.Commit != "" && app.Rejected == "" && len(app.Services)+len(app.Own) == 0 {
			continue // nothing of it is ours to run or to report
		}
		t.Apps[app.UUID] = app
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return t, problems, nil
}

func read(doc []byte, uuid string) (*deviceDoc, []Problem, error) {
	if len(doc) > maxDocument {
		return nil, nil, fmt.Errorf("larger than %d MiB", maxDocument>>20)
	}
	r := newReader(doc)
	device := r.document(uuid)
	if device != nil {
		r.sameIDs(device.apps)
	}
	if err := r.result(); err != nil {
		return nil, nil, err
	}
	if device == nil {
		return nil, nil, fmt.Errorf("no entry for this device (%s)", clip(uuid))
	}
	problems := make([]Problem, 0, len(r.unknown))
	for _, path := range r.unknown {
		problems = append(problems, Problem{Path: path, Text: "not known here, so it has no effect; compose attributes belong into the composition", Kind: compose.Ignored})
	}
	return device, problems, nil
}

// sameIDs refuses apps that share an ID: their volumes would be the same.
func (r *reader) sameIDs(apps []appDoc) {
	owner := map[int64]string{}
	for _, a := range apps {
		if other, taken := owner[a.id]; taken {
			r.violation("apps."+clip(a.uuid)+".id", "%d is also the ID of app %s", a.id, clip(other))
		}
		owner[a.id] = a.uuid
	}
}

// decodeApp makes the wanted app of its document.
func decodeApp(ctx context.Context, doc appDoc, provided *Provided) (state.App, []Problem, error) {
	path := "apps." + clip(doc.uuid)
	app := state.App{UUID: doc.uuid, ID: doc.id, Name: doc.name, Class: doc.class, Host: doc.host}
	if len(doc.releases) == 0 {
		return app, nil, nil
	}
	r := &release{app: &app, doc: doc.releases[0], provided: provided, left: map[string]bool{}}
	app.Commit, app.ReleaseID = r.doc.commit, r.doc.id
	var problems []Problem
	if more := len(doc.releases) - 1; more > 0 {
		problems = append(problems, Problem{Path: path + ".releases", Kind: compose.Warned,
			Text: fmt.Sprintf("only the first release, %s, is used; %d more are not", clip(app.Commit), more)})
	}
	if err := r.fill(ctx); err != nil {
		return app, nil, err
	}
	if err := compose.Refusal(r.problems); err != nil {
		app.Rejected = plain(err)
		app.Services, app.Networks, app.Volumes = nil, nil, nil
	}
	for _, p := range r.problems {
		p.Path = path + ".releases." + clip(app.Commit) + "." + p.Path
		problems = append(problems, p)
	}
	return app, problems, nil
}

// plain is the text of a refusal without its class.
func plain(err error) string {
	if e, ok := errors.AsType[*state.Error](err); ok {
		return e.Err.Error()
	}
	return err.Error()
}

// notes collects problems, of each kind as many as anybody reads.
type notes struct {
	problems []Problem
	kinds    map[compose.Kind]int
}

func (n *notes) note(path, text string, kind compose.Kind) {
	if n.kinds == nil {
		n.kinds = map[compose.Kind]int{}
	}
	if n.kinds[kind]++; n.kinds[kind] <= maxNotes {
		n.problems = append(n.problems, Problem{Path: path, Text: text, Kind: kind})
	}
}

// release turns the document of a release into the services, networks and
// volumes of its app.
type release struct {
	notes
	app      *state.App
	doc      releaseDoc
	provided *Provided
	left     map[string]bool // services that are not run here
}

func (r *release) reject(path, text string) { r.note(path, text, compose.Rejected) }

// fill sets the app's services, networks and volumes.
func (r *release) fill(ctx context.Context) error {
	if !isDockerName(r.app.UUID) {
		r.reject("uuid", "the app's UUID cannot be part of the names of networks")
	}
	if !isDockerName(r.doc.commit) {
		r.reject("commit", "the commit cannot be part of the names of containers")
	}
	r.choose()
	services := make(map[string]any, len(r.doc.services))
	running := make(map[string]bool, len(r.doc.services))
	for _, name := range slices.Sorted(maps.Keys(r.doc.services)) {
		if r.left[name] {
			continue
		}
		s := r.doc.services[name]
		running[name] = s.running
		if v, ok := s.composition["running"]; ok && v != nil {
			b, isBool := v.(bool)
			if !isBool {
				r.reject("services."+name+".running", "want true or false, got "+describe(v))
			}
			running[name] = b
		}
		composition := merge(s)
		r.independent(name, composition)
		services[name] = composition
	}
	project, found, err := compose.Load(ctx, compose.Options{Release: true}, map[string]any{
		"services": services, "networks": r.doc.networks, "volumes": r.doc.volumes, "secrets": r.doc.secrets, "configs": r.doc.configs,
	})
	if err != nil {
		return err
	}
	for name, s := range project.Services {
		s.ID, s.ImageID, s.Running = r.doc.services[name].id, r.doc.services[name].imageID, running[name]
		project.Services[name] = s
	}
	r.app.Services, r.app.Networks, r.app.Volumes = project.Services, project.Networks, project.Volumes
	r.problems = append(r.problems, found...)
	return nil
}

// merge lays a service's composition and the fields beside it over each other:
// the composition's image counts, the variables and labels beside it count.
func merge(s serviceDoc) map[string]any {
	out := maps.Clone(s.composition)
	if out == nil {
		out = map[string]any{}
	}
	delete(out, "running")
	if out["image"] == nil {
		out["image"] = s.image
	}
	out["environment"] = over(out["environment"], s.environment)
	out["labels"] = over(out["labels"], s.labels)
	return out
}

// over lays variables over a mapping or a list of key=value. Another value is
// left for the compose package to refuse.
func over(under any, top map[string]string) any {
	switch x := under.(type) {
	case nil, map[string]any:
		m, _ := x.(map[string]any)
		out := make(map[string]any, len(m)+len(top))
		maps.Copy(out, m)
		for k, v := range top {
			out[k] = v
		}
		return out
	case []any:
		out := slices.Clone(x)
		for _, k := range slices.Sorted(maps.Keys(top)) {
			out = append(out, k+"="+top[k])
		}
		return out
	}
	return under
}
