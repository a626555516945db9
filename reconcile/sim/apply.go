// Package sim says what each step does to a World. It is the model that the
// planner is tested against: it refuses what the engine refuses, and after a
// step is applied the planner must not ask for it again.
package sim

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"deckhand/reconcile"
	"deckhand/state"
)

// Apply returns the device as it will look when the step is done, or an error
// where the engine would refuse. The given World stays as it is.
func Apply(w state.World, s reconcile.Step) (state.World, error) {
	w = clone(w)
	switch s := s.(type) {
	case reconcile.Fetch:
		return w, fetch(&w, s)
	case reconcile.RemoveImage:
		return w, removeImage(&w, s)
	case reconcile.CreateNetwork:
		return edit(w, s.App, func(a *state.AppNow) error { return createNetwork(a, s) })
	case reconcile.RemoveNetwork:
		return edit(w, s.App, func(a *state.AppNow) error { return removeNetwork(a, s) })
	case reconcile.CreateVolume:
		return edit(w, s.App, func(a *state.AppNow) error { return createVolume(a, s) })
	case reconcile.Create:
		return edit(w, s.App, func(a *state.AppNow) error { return create(w, a, s) })
	case reconcile.Start:
		return edit(w, s.App, func(a *state.AppNow) error { return start(w, a, s) })
	case reconcile.Await:
		return edit(w, s.App, func(a *state.AppNow) error { return await(w, a, s) })
	case reconcile.Stop:
		return edit(w, s.App, func(a *state.AppNow) error { return stop(a, s) })
	case reconcile.Remove:
		return edit(w, s.App, func(a *state.AppNow) error { return remove(a, s) })
	case reconcile.Rename:
		return edit(w, s.App, func(a *state.AppNow) error { return rename(a, s) })
	case reconcile.Commit:
		return edit(w, s.App, func(a *state.AppNow) error { a.Commit, a.Images = s.Commit, s.Images; return nil })
	}
	return w, fmt.Errorf("step %T has no model", s)
}

// clone copies what the steps change.
func clone(w state.World) state.World {
	out := state.World{Apps: map[string]state.AppNow{}, Images: map[string]state.Image{}}
	for uuid, a := range w.Apps {
		a.Containers = slices.Clone(a.Containers)
		a.Networks = slices.Clone(a.Networks)
		a.Volumes = slices.Clone(a.Volumes)
		out.Apps[uuid] = a
	}
	maps.Copy(out.Images, w.Images)
	return out
}

// edit changes one app; the first step of an app makes it known.
func edit(w state.World, app reconcile.App, f func(*state.AppNow) error) (state.World, error) {
	a := w.Apps[app.UUID]
	a.UUID, a.ID = app.UUID, app.ID
	if err := f(&a); err != nil {
		return w, err
	}
	w.Apps[app.UUID] = a
	return w, nil
}

// ImageID is the engine ID that Fetch gives to a reference: the same for the
// same digest.
func ImageID(ref string) string {
	if d := state.Digest(ref); d != "" {
		return "image-of-" + d
	}
	return "image-of-" + ref
}

func fetch(w *state.World, s reconcile.Fetch) error {
	id := ImageID(s.Image)
	img := w.Images[id]
	img.ID, img.Ours = id, true
	if !slices.Contains(img.Refs, s.Image) {
		img.Refs = slices.Sorted(slices.Values(append(slices.Clone(img.Refs), s.Image)))
	}
	w.Images[id] = img
	return nil
}

func removeImage(w *state.World, s reconcile.RemoveImage) error {
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			if c.Image == s.ID {
				return fmt.Errorf("image %s is being used by container %s", s.ID, c.ID)
			}
		}
	}
	delete(w.Images, s.ID)
	return nil
}

func createNetwork(a *state.AppNow, s reconcile.CreateNetwork) error {
	id := 0
	for _, n := range a.Networks {
		if n.Name == s.Network.Name {
			return fmt.Errorf("network with name %s already exists", n.Name)
		}
		id = max(id, number(n.ID))
	}
	a.Networks = append(a.Networks, state.NetworkNow{ID: fmt.Sprintf("n%d", id+1), Name: s.Network.Name, Hash: s.Network.Hash})
	return nil
}

func removeNetwork(a *state.AppNow, s reconcile.RemoveNetwork) error {
	for _, c := range a.Containers {
		if slices.Contains(c.Networks, s.Name) {
			return fmt.Errorf("network %s has active endpoints: %s", s.Name, c.ID)
		}
	}
	a.Networks = slices.DeleteFunc(a.Networks, func(n state.NetworkNow) bool { return n.ID == s.ID })
	return nil
}

func createVolume(a *state.AppNow, s reconcile.CreateVolume) error {
	a.Volumes = append(a.Volumes, state.VolumeNow{Name: s.Volume.Name, Hash: s.Volume.Hash})
	return nil
}

func create(w state.World, a *state.AppNow, s reconcile.Create) error {
	id, ok := find(w, s.Service.Image)
	if !ok {
		return fmt.Errorf("no such image: %s", s.Service.Image)
	}
	spec := s.Service.Spec
	c := state.Container{
		Name:    state.ContainerName(s.Service.Name, s.Service.ImageID, s.ReleaseID, s.Commit),
		Service: s.Service.Name, ServiceID: s.Service.ID, ImageID: s.Service.ImageID,
		ReleaseID: s.ReleaseID, Commit: s.Commit,
		Image: id, Hash: s.Service.Hash, Spec: &spec, Phase: state.Created,
	}
	for n := range spec.Networks {
		found := 0
		for _, have := range a.Networks {
			if have.Name == n {
				found++
			}
		}
		if found != 1 {
			return fmt.Errorf("create %s: %d networks are called %s", c.Service, found, n)
		}
		c.Networks = append(c.Networks, n)
	}
	slices.Sort(c.Networks)
	for _, m := range spec.Mounts {
		if m.Type != "volume" || m.Source == "" {
			continue
		}
		if !slices.ContainsFunc(a.Volumes, func(v state.VolumeNow) bool { return v.Name == m.Source }) {
			return fmt.Errorf("create %s: no volume %s", c.Service, m.Source)
		}
		c.Volumes = append(c.Volumes, m.Source)
	}
	slices.Sort(c.Volumes)
	last := int64(0)
	for i, have := range a.Containers {
		if have.Name == c.Name {
			a.Containers[i].Name = "old_" + have.ID + "_" + have.Name
		}
		last = max(last, have.Created)
	}
	c.Created = last + 1
	c.ID = fmt.Sprintf("c%d", c.Created)
	a.Containers = append(a.Containers, c)
	return nil
}

// find is the look-up of an image by reference on a device.
func find(w state.World, ref string) (string, bool) {
	for _, id := range slices.Sorted(maps.Keys(w.Images)) {
		if w.Images[id].Leads(ref) {
			return id, true
		}
	}
	return "", false
}

func start(w state.World, a *state.AppNow, s reconcile.Start) error {
	at := -1
	for i, c := range a.Containers {
		if c.Service != s.Service {
			continue
		}
		if c.Up() {
			return fmt.Errorf("start %s: %s still runs and holds its ports", s.Service, c.ID)
		}
		if is(w, c, s.Hash, s.Image, s.Container) {
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("start %s: no such container", s.Service)
	}
	c := &a.Containers[at]
	if by := portHolder(w, *c); by != "" {
		return fmt.Errorf("start %s: port is already allocated by %s", s.Service, by)
	}
	c.Phase, c.Halted, c.Health = state.Running, false, ""
	if c.Spec != nil && c.Spec.Healthcheck != nil {
		c.Health = "starting"
	}
	return nil
}

// portHolder finds a running container that publishes a port of this one.
func portHolder(w state.World, c state.Container) string {
	mine := reconcile.HostPorts(c.Spec)
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		for _, other := range w.Apps[uuid].Containers {
			if other.ID == c.ID && other.Service == c.Service || !other.Up() {
				continue
			}
			for _, p := range reconcile.HostPorts(other.Spec) {
				if slices.Contains(mine, p) {
					return other.ID
				}
			}
		}
	}
	return ""
}

// is reports whether a container is the one a step means: by its ID if the step
// has one, else by what it was made from.
func is(w state.World, c state.Container, hash, image, id string) bool {
	if id != "" {
		return c.ID == id
	}
	return c.Hash == hash && w.Images[c.Image].Leads(image)
}

// await models the good end: the container gets where it is waited for.
func await(w state.World, a *state.AppNow, s reconcile.Await) error {
	for i := range a.Containers {
		c := &a.Containers[i]
		if c.Service != s.Service || c.Phase == state.Created || !is(w, *c, s.Hash, s.Image, s.Container) {
			continue
		}
		switch s.Condition {
		case state.Healthy:
			c.Phase, c.Health = state.Running, "healthy"
		case state.Completed:
			c.Phase, c.ExitCode = state.Exited, 0
		case state.Started:
		}
		return nil
	}
	return fmt.Errorf("await %s: no such container", s.Service)
}

func at(a *state.AppNow, id string) (*state.Container, error) {
	for i := range a.Containers {
		if a.Containers[i].ID == id {
			return &a.Containers[i], nil
		}
	}
	return nil, fmt.Errorf("no such container: %s", id)
}

func stop(a *state.AppNow, s reconcile.Stop) error {
	c, err := at(a, s.Container)
	if err != nil {
		return err
	}
	c.Phase, c.Halted = state.Exited, true
	return nil
}

func remove(a *state.AppNow, s reconcile.Remove) error {
	c, err := at(a, s.Container)
	if err != nil {
		return err
	}
	if c.Up() {
		return fmt.Errorf("you cannot remove a running container %s", c.ID)
	}
	a.Containers = slices.DeleteFunc(a.Containers, func(c state.Container) bool { return c.ID == s.Container })
	return nil
}

func rename(a *state.AppNow, s reconcile.Rename) error {
	for _, c := range a.Containers {
		if c.Name == s.Name {
			return fmt.Errorf("name %s is already in use by %s", s.Name, c.ID)
		}
	}
	c, err := at(a, s.Container)
	if err != nil {
		return err
	}
	c.Name = s.Name
	c.ImageID, c.ReleaseID, c.Commit, _ = state.ParseContainerName(s.Name)
	return nil
}

func number(id string) int {
	n := 0
	for _, r := range strings.TrimLeft(id, "abcdefghijklmnopqrstuvwxyz") {
		n = n*10 + int(r-'0')
	}
	return n
}
