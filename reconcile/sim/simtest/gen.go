// Package simtest generates targets and mishaps for property tests of the
// planner and of the loop around it.
package simtest

import (
	"fmt"
	"maps"
	"slices"

	"pgregory.net/rapid"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/state"
)

var (
	apps     = []string{"aaaa", "bbbb"}
	services = []string{"db", "web", "worker"}
	images   = []string{"a:1", "b:1", "c:1", "reg.test/v2/x@sha256:0001", "reg.test/v2/y@sha256:0001", "reg.test/v2/z@sha256:0002"}
)

// Target draws a target with up to two apps.
func Target(t *rapid.T, label string) state.Target {
	out := state.Target{Name: "device", Apps: map[string]state.App{}}
	for i, uuid := range apps {
		if rapid.IntRange(0, 3).Draw(t, label+" has "+uuid) > 0 {
			out.Apps[uuid] = app(t, label+" "+uuid, uuid, int64(i+1))
		}
	}
	return out
}

func app(t *rapid.T, label, uuid string, id int64) state.App {
	rel := rapid.IntRange(0, 3).Draw(t, label+" release")
	a := state.App{
		UUID: uuid, ID: id, Name: rapid.SampledFrom([]string{"shop", "shop", "host"}).Draw(t, label+" name"),
		Services: map[string]state.Service{}, Networks: map[string]state.Network{}, Volumes: map[string]state.Volume{},
	}
	if rel == 0 {
		return a // an app without a release
	}
	a.Commit, a.ReleaseID = fmt.Sprintf("r%d", rel), int64(rel)
	if rapid.IntRange(0, 15).Draw(t, label+" rejected") == 0 {
		a.Rejected = "services.web.ports: not a port"
	}
	for _, n := range subset(t, label+" networks", []string{"front", "back"}) {
		s := state.NetworkSpec{Driver: "bridge", Internal: rapid.Bool().Draw(t, label+" internal")}
		a.Networks[n] = state.Network{Name: n, Spec: s, Hash: s.Hash()}
	}
	for _, v := range subset(t, label+" volumes", []string{"data", "logs"}) {
		s := state.VolumeSpec{Driver: rapid.SampledFrom([]string{"local", "other"}).Draw(t, label+" driver")}
		a.Volumes[v] = state.Volume{Name: v, Spec: s, Hash: s.Hash()}
	}
	// One condition for each dependency: nobody can be healthy and ended.
	until := map[string]state.Condition{}
	for i, name := range services {
		until[name] = rapid.SampledFrom([]state.Condition{state.Started, state.Healthy, state.Completed}).Draw(t, label+" until "+name)
		if rapid.IntRange(0, 2).Draw(t, label+" has "+name) > 0 {
			a.Services[name] = service(t, label+" "+name, name, services[:i], a, until)
		}
	}
	return a
}

func service(t *rapid.T, label, name string, before []string, a state.App, until map[string]state.Condition) state.Service {
	image := rapid.IntRange(0, len(images)-1).Draw(t, label+" image")
	s := state.Service{
		Name: name, ID: int64(1 + slices.Index(services, name)), Image: images[image], ImageID: int64(image + 1),
		Running:  rapid.IntRange(0, 6).Draw(t, label+" stopped") > 0,
		Strategy: rapid.SampledFrom([]string{"", "download-then-kill", "kill-then-download", "delete-then-download", "hand-over", "hand-over", "no-such"}).Draw(t, label+" strategy"),
	}
	s.Spec.Environment = map[string]string{"LEVEL": rapid.SampledFrom([]string{"info", "debug"}).Draw(t, label+" env")}
	s.Spec.Networks = map[string]state.Attachment{}
	for _, n := range subset(t, label+" on", slices.Sorted(maps.Keys(a.Networks))) {
		s.Spec.Networks[n] = state.Attachment{Aliases: []string{name}}
	}
	for _, v := range subset(t, label+" mounts", slices.Sorted(maps.Keys(a.Volumes))) {
		s.Spec.Mounts = append(s.Spec.Mounts, state.Mount{Type: "volume", Source: v, Target: "/" + v})
	}
	if rapid.Bool().Draw(t, label+" checked") {
		s.Spec.Healthcheck = &state.Healthcheck{Test: []string{"CMD", "true"}}
	}
	surroundings(t, label, before, a, &s, until)
	// Ports move between the services of an app from release to release.
	port := 100*int(a.ID) + (slices.Index(services, name)+int(a.ReleaseID))%len(services)
	if s.Strategy == "hand-over" {
		port = 100*int(a.ID) + 50 + slices.Index(services, name) // who hands over keeps his place
	}
	if s.Spec.NetworkMode == "" && rapid.Bool().Draw(t, label+" published") {
		s.Spec.Ports = []state.Port{{Published: port, Target: 80, Protocol: "tcp"}}
	}
	for _, d := range before {
		if _, ok := a.Services[d]; ok && rapid.Bool().Draw(t, label+" needs "+d) {
			s.DependsOn = append(s.DependsOn, state.Dependency{
				Service: d, Condition: until[d],
				Optional: rapid.IntRange(0, 3).Draw(t, label+" could do without "+d) == 0,
				Restart:  rapid.IntRange(0, 2).Draw(t, label+" restarts with "+d) == 0,
			})
		}
	}
	s.Hash = s.Spec.Hash()
	return s
}

// surroundings draws what a service refers to beside networks and volumes.
func surroundings(t *rapid.T, label string, before []string, a state.App, s *state.Service, until map[string]state.Condition) {
	if rapid.IntRange(0, 3).Draw(t, label+" secret") == 0 {
		s.Spec.Files = []state.File{{Target: "/run/secrets/key", Content: []byte(rapid.SampledFrom([]string{"old", "new"}).Draw(t, label+" secret is"))}}
	}
	if rapid.IntRange(0, 3).Draw(t, label+" api") == 0 {
		s.Spec.Features = []string{state.FeatureAPI}
	}
	s.RequiresReboot = rapid.IntRange(0, 15).Draw(t, label+" reboot") == 0
	for _, owner := range before {
		if _, ok := a.Services[owner]; ok && until[owner] != state.Completed && rapid.IntRange(0, 7).Draw(t, label+" in the network of "+owner) == 0 {
			s.Spec.NetworkMode, s.Spec.Networks = "service:"+owner, nil
			return
		}
	}
}

func subset(t *rapid.T, label string, of []string) []string {
	var out []string
	for _, x := range of {
		if rapid.Bool().Draw(t, label+" "+x) {
			out = append(out, x)
		}
	}
	return out
}

// Mishap does to a device what only the outside world does: processes end,
// people remove things, the engine restarts, power fails half way.
func Mishap(t *rapid.T, label string, w state.World) state.World {
	uuid := rapid.SampledFrom(apps).Draw(t, label+" app")
	a, ok := w.Apps[uuid]
	if !ok {
		return w
	}
	a.Containers = slices.Clone(a.Containers)
	a.Networks = slices.Clone(a.Networks)
	kind := rapid.IntRange(0, 12).Draw(t, label+" mishap")
	switch {
	case kind == 9:
		return visit(t, label, w, uuid)
	case kind == 10: // somebody removes the network of the API
		return withoutAPI(w)
	case kind == 11: // power fails; what lies in memory is gone
		if next, err := sim.Apply(w, reconcile.Reboot{}); err == nil {
			return next
		}
		return w
	case kind == 12: // a service guards itself
		return Visit(t, label, w)
	case kind == 0: // somebody removes images, and names of those in use
		return withoutImages(w)
	case kind == 1: // the engine restarts: "always" revives what we stopped
		for i, c := range a.Containers {
			if c.Phase == state.Exited {
				a.Containers[i].Phase, a.Containers[i].Halted = state.Running, false
			}
		}
	case kind == 2 && len(a.Networks) > 0: // the engine makes a name twice
		n := a.Networks[0]
		n.ID += "x"
		a.Networks = append(a.Networks, n)
	case len(a.Containers) > 0:
		i := rapid.IntRange(0, len(a.Containers)-1).Draw(t, label+" container")
		a.Containers = strike(a.Containers, i, kind)
	}
	out := w
	out.Apps = maps.Clone(w.Apps)
	out.Apps[uuid] = a
	return out
}

// Visit is a person or a program that asks for something, or guards a service.
func Visit(t *rapid.T, label string, w state.World) state.World {
	uuid := rapid.SampledFrom(apps).Draw(t, label+" app")
	a, ok := w.Apps[uuid]
	if !ok {
		return w
	}
	service := rapid.SampledFrom(services).Draw(t, label+" locks")
	if rapid.Bool().Draw(t, label+" asks") || slices.Contains(a.Locked, service) {
		return visit(t, label, w, uuid)
	}
	a.UserLocks = append(slices.Clone(a.UserLocks), state.UserLock{Service: service, Holder: "uid 0"})
	out := w
	out.Apps = maps.Clone(w.Apps)
	out.Apps[uuid] = a
	return out
}

// visit is a person who asks for something.
func visit(t *rapid.T, label string, w state.World, uuid string) state.World {
	a := w.Apps[uuid]
	last := 0
	for _, other := range w.Intents {
		var n int
		if _, err := fmt.Sscanf(other.ID, "i%d", &n); err == nil {
			last = max(last, n)
		}
	}
	i := state.Intent{ID: fmt.Sprintf("i%d", last+1), App: uuid, By: "somebody"}
	i.Kind = rapid.SampledFrom([]state.IntentKind{state.Restart, state.Stop, state.Start, state.Purge}).Draw(t, label+" asks to")
	switch i.Kind {
	case state.Stop:
		i.Services, i.Commit = subset(t, label+" service", services), a.Commit
	case state.Purge:
		for _, v := range a.Volumes {
			i.Left = append(i.Left, v.Name)
		}
	case state.Restart, state.Start:
		for _, c := range a.Containers {
			if rapid.Bool().Draw(t, label+" "+c.ID) {
				i.Left = append(i.Left, c.ID)
			}
		}
	}
	out := w
	out.Intents = append(slices.Clone(w.Intents), i)
	return out
}

func withoutAPI(w state.World) state.World {
	out := w
	out.APINetwork = false
	out.Apps = maps.Clone(w.Apps)
	for uuid, a := range out.Apps {
		a.Containers = slices.Clone(a.Containers)
		for i := range a.Containers {
			a.Containers[i].API = false
		}
		out.Apps[uuid] = a
	}
	return out
}

// Unlock is a user who gives up every lock.
func Unlock(w state.World) state.World {
	out := w
	out.Apps = maps.Clone(w.Apps)
	for uuid, a := range out.Apps {
		a.UserLocks = nil
		out.Apps[uuid] = a
	}
	return out
}

func strike(cs []state.Container, i, kind int) []state.Container {
	switch kind {
	case 3:
		return slices.Delete(cs, i, i+1)
	case 4:
		if cs[i].Phase == state.Running {
			cs[i].Phase, cs[i].ExitCode = state.Exited, 1
		}
	case 5:
		cs[i].Phase = state.Dead
	case 6:
		cs[i].Hash, cs[i].Spec = "", nil
	case 7:
		if cs[i].Health != "" {
			cs[i].Health = "unhealthy"
		}
	case 8: // power failed between creation and the last connection
		if cs[i].Phase == state.Created {
			cs[i].Networks = nil
		}
	}
	return cs
}

// withoutImages forgets all images that no container uses, and the names of the
// others.
func withoutImages(w state.World) state.World {
	used := map[string]bool{}
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			used[c.Image] = true
		}
	}
	out := w
	out.Images = maps.Clone(w.Images)
	maps.DeleteFunc(out.Images, func(id string, _ state.Image) bool { return !used[id] })
	for id, img := range out.Images {
		img.Refs, img.Ours = nil, false // what has no name cannot be known as ours
		out.Images[id] = img
	}
	return out
}

// Empty is a device that has just been unpacked.
func Empty() state.World {
	return state.World{Apps: map[string]state.AppNow{}, Images: map[string]state.Image{}}
}

// Preload puts some images on a device.
func Preload(t *rapid.T, label string, w state.World) state.World {
	out := w
	out.Images = maps.Clone(w.Images)
	for _, ref := range subset(t, label, images) {
		id := sim.ImageID(ref)
		img := out.Images[id]
		img.ID = id
		if !slices.Contains(img.Refs, ref) {
			img.Refs = slices.Sorted(slices.Values(append(slices.Clone(img.Refs), ref)))
		}
		out.Images[id] = img
	}
	return out
}
