package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"deckhand/compose"
	"deckhand/state"
)

// Which services of a release the supervisor runs.

// Labels of services that say where, and whether, they run.
const (
	labelImageClass = "io.balena.image.class"
	labelImageStore = "io.balena.image.store"
	labelOptional   = "io.balena.features.optional"
)

// supervisors are the UUIDs of the apps that hold the supervisor itself.
var supervisors = []string{
	"52e35121417640b1b28a680504e4039b", // amd64
	"900de4f3cbac4b9bbd232885a35e407b", // aarch64
	"2e66a95795c149959c69472a8c2f92b8", // armv7hf
	"531b357e155c480cbec0fdd33041a1f5", // i386
	"6822565f766e413e96d9bebe2227cdcc", // rpi
}

// IsSupervisor reports whether a service is the supervisor itself: the host
// updates it, and nobody else may stop it.
func IsSupervisor(appUUID, service string) bool {
	switch service {
	case "main", "balena-supervisor", "core":
		return slices.Contains(supervisors, appUUID)
	}
	return false
}

// choose leaves out the services that are not run here, and names them.
func (r *release) choose() {
	unmet := map[string]string{} // by service that the app can do without
	for _, name := range slices.Sorted(maps.Keys(r.doc.services)) {
		s := r.doc.services[name]
		at := "services." + name
		switch foreign := r.foreign(s); {
		case IsSupervisor(r.app.UUID, name):
			r.leave(name, at, "this is the supervisor itself; the host updates it", compose.Ignored)
			if r.app.Own == nil {
				r.app.Own = map[string]string{}
			}
			r.app.Own[name] = state.Reference(s.image)
			continue
		case foreign != "":
			r.leave(name, at, foreign, compose.Ignored)
			continue
		}
		missing := r.missing(name, s)
		switch {
		case missing == "":
		case truthy(labelsOf(s)[labelOptional]):
			unmet[name] = missing
		default:
			r.reject(at+".contract", missing)
		}
	}
	if r.kinds[compose.Rejected] > 0 {
		return // nothing runs; that something optional would not either is no news
	}
	for _, name := range slices.Sorted(maps.Keys(unmet)) {
		r.leave(name, "services."+name+".contract", unmet[name]+"; the service is optional and left out", compose.Warned)
	}
}

func (r *release) leave(service, at, why string, kind compose.Kind) {
	r.left[service] = true
	r.note(at, why, kind)
}

// foreign says why a service of a host's app is not the supervisor's to run; ""
// when it is. In other apps these labels mean nothing.
func (r *release) foreign(s serviceDoc) string {
	if !r.app.Host {
		return ""
	}
	labels := labelsOf(s)
	if class := labels[labelImageClass]; class != "" && class != "service" {
		return fmt.Sprintf("%s is %s: it is part of the host, which updates it", labelImageClass, clip(class))
	}
	if store := labels[labelImageStore]; store != "" && store != "data" {
		return fmt.Sprintf("%s is %s: another engine of the host runs it", labelImageStore, clip(store))
	}
	return ""
}

// missing is a sentence on what a service requires and the device lacks.
func (r *release) missing(name string, s serviceDoc) string {
	if s.contract == nil {
		return ""
	}
	at := "services." + name + ".contract"
	needs, c := readContract(at, s.contract)
	for _, p := range c.problems {
		r.note(p.Path, p.Text, p.Kind)
	}
	if c.broken || len(needs) == 0 {
		return ""
	}
	if r.provided == nil {
		r.note(at, "not evaluated: what the device offers is not known here", compose.Warned)
		return ""
	}
	var unmet []string
	for _, q := range needs {
		if !q.metBy(*r.provided) && len(unmet) < maxUnmet {
			unmet = append(unmet, fmt.Sprintf("%s requires %s; this device offers %s", name, clipTo(q.String(), 500), clipTo(q.offered(*r.provided), 500)))
		}
	}
	return strings.Join(unmet, ", and ")
}

// maxUnmet is how many requirements of a service are named.
const maxUnmet = 5

// labelsOf are the labels of a service under their present names: those beside
// the composition count before those in it.
func labelsOf(s serviceDoc) map[string]string {
	out := map[string]string{}
	switch x := s.composition["labels"].(type) {
	case map[string]any:
		for k, v := range x {
			if v != nil {
				out[k] = fmt.Sprint(v)
			}
		}
	case []any:
		for _, v := range x {
			if text, ok := v.(string); ok {
				k, v, _ := strings.Cut(text, "=")
				out[k] = v
			}
		}
	}
	maps.Copy(out, s.labels)
	return compose.NormaliseLabels(out)
}

func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "1", "true", "on":
		return true
	}
	return false
}

// independent removes from a composition the dependencies on services that are
// left out: nobody can wait for them.
func (r *release) independent(name string, composition map[string]any) {
	for _, key := range []string{"depends_on", "dependsOn"} {
		kept, gone := without(composition[key], r.left)
		if len(gone) == 0 {
			continue
		}
		composition[key] = kept
		slices.Sort(gone)
		for _, dependency := range gone {
			r.note("services."+name+".depends_on", dependency+" is left out on this device and not waited for", compose.Ignored)
		}
	}
}

// without is a list or a mapping of dependencies without some of them.
func without(dependencies any, left map[string]bool) (kept any, gone []string) {
	switch x := dependencies.(type) {
	case map[string]any:
		kept := maps.Clone(x)
		for dependency := range x {
			if left[dependency] {
				gone = append(gone, dependency)
				delete(kept, dependency)
			}
		}
		return kept, gone
	case []any:
		var kept []any
		for _, v := range x {
			if dependency, ok := v.(string); ok && left[dependency] {
				gone = append(gone, dependency)
			} else {
				kept = append(kept, v)
			}
		}
		return kept, gone
	}
	return dependencies, nil
}
