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

// supervisors are the UUIDs of the apps that are the supervisor itself. The host
// updates it.
var supervisors = []string{
	"52e35121417640b1b28a680504e4039b", // amd64
	"900de4f3cbac4b9bbd232885a35e407b", // aarch64
	"2e66a95795c149959c69472a8c2f92b8", // armv7hf
	"531b357e155c480cbec0fdd33041a1f5", // i386
	"6822565f766e413e96d9bebe2227cdcc", // rpi
}

// DecodeV3 reads a v3 target document for one device. An error, always of class
// invalid unless ctx ended, refuses the document whole and lists every violation
// with its path. An app whose composition cannot be run has Rejected set, the
// others are not touched by that. Problems are sorted by path.
func DecodeV3(ctx context.Context, doc []byte, deviceUUID string) (state.Target, []Problem, error) {
	device, err := read(doc, deviceUUID)
	if err != nil {
		return state.Target{}, nil, state.Classify(state.ClassInvalid, fmt.Errorf("target state: %w", err))
	}
	t := state.Target{Name: device.name, Config: device.config, Apps: map[string]state.App{}}
	var problems []Problem
	for _, doc := range device.apps {
		if err := ctx.Err(); err != nil {
			return state.Target{}, nil, err
		}
		app, found, err := decodeApp(ctx, doc)
		if err != nil {
			return state.Target{}, nil, fmt.Errorf("target state: app %s: %w", clip(doc.uuid), err)
		}
		problems = append(problems, found...)
		if app != nil {
			t.Apps[app.UUID] = *app
		}
	}
	slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Path, b.Path) })
	return t, problems, nil
}

func read(doc []byte, uuid string) (*deviceDoc, error) {
	if len(doc) > maxDocument {
		return nil, fmt.Errorf("larger than %d MiB", maxDocument>>20)
	}
	r := newReader(doc)
	device := r.document(uuid)
	if device != nil {
		r.sameIDs(device.apps)
	}
	if err := r.result(); err != nil {
		return nil, err
	}
	if device == nil {
		return nil, fmt.Errorf("no entry for this device (%s)", clip(uuid))
	}
	return device, nil
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

// decodeApp makes the wanted app of its document; nil when it is not ours to run.
func decodeApp(ctx context.Context, doc appDoc) (*state.App, []Problem, error) {
	path := "apps." + clip(doc.uuid)
	note := func(at, text string, kind compose.Kind) Problem { return Problem{Path: at, Text: text, Kind: kind} }
	switch {
	case doc.host:
		return nil, []Problem{note(path, "updates of the host are not supported yet", compose.Ignored)}, nil
	case slices.Contains(supervisors, doc.uuid):
		return nil, []Problem{note(path, "the supervisor's own app is updated by the host", compose.Ignored)}, nil
	}
	app := &state.App{UUID: doc.uuid, ID: doc.id, Name: doc.name, Class: doc.class}
	if len(doc.releases) == 0 {
		return app, nil, nil
	}
	rel := doc.releases[0]
	app.Commit, app.ReleaseID = rel.commit, rel.id
	var problems []Problem
	if more := len(doc.releases) - 1; more > 0 {
		problems = append(problems, note(path+".releases", fmt.Sprintf("only the first release, %s, is used; %d more are not", clip(rel.commit), more), compose.Warned))
	}
	found, err := fill(ctx, app, rel)
	if err != nil {
		return nil, nil, err
	}
	prefix := path + ".releases." + clip(rel.commit) + "."
	for _, p := range found {
		p.Path = prefix + p.Path
		problems = append(problems, p)
	}
	if err := compose.Refusal(found); err != nil {
		app.Rejected = plain(err)
		app.Services, app.Networks, app.Volumes = nil, nil, nil
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

// fill sets the app's services, networks and volumes.
func fill(ctx context.Context, app *state.App, rel releaseDoc) ([]Problem, error) {
	var problems []Problem
	reject := func(path, text string) {
		problems = append(problems, Problem{Path: path, Text: text, Kind: compose.Rejected})
	}
	if !isDockerName(app.UUID) {
		reject("uuid", "the app's UUID cannot be part of the names of networks")
	}
	if !isDockerName(rel.commit) {
		reject("commit", "the commit cannot be part of the names of containers")
	}
	services := make(map[string]any, len(rel.services))
	running := make(map[string]bool, len(rel.services))
	for _, name := range slices.Sorted(maps.Keys(rel.services)) {
		s := rel.services[name]
		at := "services." + name
		running[name] = s.running
		if v, ok := s.composition["running"]; ok && v != nil {
			b, isBool := v.(bool)
			if !isBool {
				reject(at+".running", "want true or false, got "+describe(v))
			}
			running[name] = b
		}
		if s.contract {
			problems = append(problems, Problem{Path: at + ".contract", Text: "contracts are not evaluated yet", Kind: compose.Ignored})
		}
		services[name] = merge(s)
	}
	project, found, err := compose.Load(ctx, compose.Options{Release: true}, map[string]any{
		"services": services, "networks": rel.networks, "volumes": rel.volumes,
	})
	if err != nil {
		return nil, err
	}
	for name, s := range project.Services {
		s.ID, s.ImageID, s.Running = rel.services[name].id, rel.services[name].imageID, running[name]
		project.Services[name] = s
	}
	app.Services, app.Networks, app.Volumes = project.Services, project.Networks, project.Volumes
	return append(problems, found...), nil
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
