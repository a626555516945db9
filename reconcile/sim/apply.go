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
		for _, i := range w.Intents {
			if i.Kind == state.Start {
				w.Intents = strike(w.Intents, i.ID, s.Container)
			}
		}
		return edit(w, s.App, func(a *state.AppNow) error { return start(w, a, s) })
	case reconcile.Await:
		return edit(w, s.App, func(a *state.AppNow) error { return await(w, a, s) })
	case reconcile.Stop:
		return edit(w, s.App, func(a *state.AppNow) error { return stop(w, a, s) })
	case reconcile.Remove:
		for _, i := range w.Intents {
			w.Intents = strike(w.Intents, i.ID, s.Container)
		}
		return edit(w, s.App, func(a *state.AppNow) error { return remove(a, s) })
	case reconcile.Rename:
		return edit(w, s.App, func(a *state.AppNow) error { return rename(w, a, s) })
	case reconcile.RemoveVolume:
		w.Intents = strike(w.Intents, s.Intent, s.Name)
		return edit(w, s.App, func(a *state.AppNow) error { return removeVolume(a, s) })
	case reconcile.CreateAPINetwork:
		return createAPINetwork(w)
	case reconcile.WriteFiles:
		return edit(w, s.App, func(a *state.AppNow) error { return writeFiles(a, s) })
	case reconcile.RemoveFiles:
		return edit(w, s.App, func(a *state.AppNow) error { return removeFiles(a, s) })
	case reconcile.TakeLocks:
		return edit(w, s.App, func(a *state.AppNow) error { return takeLocks(a, s) })
	case reconcile.ReleaseLocks:
		return edit(w, s.App, func(a *state.AppNow) error { a.Locked = nil; return nil })
	case reconcile.Handover:
		return edit(w, s.App, func(a *state.AppNow) error { return handover(w, a, s) })
	case reconcile.Fulfil:
		w.Intents = slices.DeleteFunc(w.Intents, func(i state.Intent) bool { return i.ID == s.Intent })
		return w, nil
	case reconcile.RequireReboot:
		w.RebootPending = true
		return edit(w, s.App, func(a *state.AppNow) error { requireReboot(a, s); return nil })
	case reconcile.Reboot:
		return reboot(w), nil
	case reconcile.Commit:
		return edit(w, s.App, func(a *state.AppNow) error { a.Commit, a.Images = s.Commit, s.Images; return nil })
	}
	return w, fmt.Errorf("step %T has no model", s)
}

// clone copies what the steps change.
func clone(w state.World) state.World {
	out := w
	out.Apps, out.Images, out.Intents = map[string]state.AppNow{}, map[string]state.Image{}, slices.Clone(w.Intents)
	for uuid, a := range w.Apps {
		a.Containers = slices.Clone(a.Containers)
		a.Networks = slices.Clone(a.Networks)
		a.Volumes = slices.Clone(a.Volumes)
		a.Files = slices.Clone(a.Files)
		a.Handovers, a.Reboots = maps.Clone(a.Handovers), maps.Clone(a.Reboots)
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
	for _, n := range spec.AppNetworks() {
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
	if err := surroundings(w, a, s, &c); err != nil {
		return err
	}
	delete(a.Handovers, s.Service.Name)
	delete(a.Reboots, s.Service.Name)
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

// surroundings checks what a container refers to beside networks and volumes.
func surroundings(w state.World, a *state.AppNow, s reconcile.Create, c *state.Container) error {
	spec := s.Service.Spec
	if h := state.FilesHash(spec.Files); h != "" && !slices.Contains(a.Files, state.FilesNow{Service: c.Service, Hash: h}) {
		return fmt.Errorf("create %s: bind source path does not exist: files %s", c.Service, h)
	}
	if spec.UsesAPINetwork() {
		if !w.APINetwork {
			return fmt.Errorf("create %s: network %s not found", c.Service, state.APINetworkName)
		}
		c.API = true
	}
	if owner := spec.NetworkOwner(); owner != "" {
		// The newest container of the service is the one that stays.
		for _, o := range a.Containers {
			if o.Service == owner {
				c.NetworkOwner = o.ID
			}
		}
		if c.NetworkOwner == "" {
			return fmt.Errorf("create %s: no container of %s", c.Service, owner)
		}
	}
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
		if is(w, c, s.Hash, s.Image, s.Container) {
			at = i
		}
	}
	if at < 0 {
		return fmt.Errorf("start %s: no such container", s.Service)
	}
	c := &a.Containers[at]
	if by := holder(w, *c); by != "" {
		return fmt.Errorf("start %s: port or address is already allocated by %s", s.Service, by)
	}
	if err := joined(w, a, *c); err != nil {
		return fmt.Errorf("start %s: %w", s.Service, err)
	}
	c.Phase, c.Halted, c.Health, c.Refused = state.Running, false, "", ""
	if c.Spec != nil && c.Spec.Healthcheck != nil {
		c.Health = "starting"
	}
	return nil
}

// holder finds a running container that has something to itself which this one
// needs as well.
func holder(w state.World, c state.Container) string {
	mine := reconcile.Exclusive(c.Spec)
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		for _, other := range w.Apps[uuid].Containers {
			if other.ID == c.ID && other.Service == c.Service || !other.Up() {
				continue
			}
			for _, x := range reconcile.Exclusive(other.Spec) {
				if slices.Contains(mine, x) {
					return other.ID
				}
			}
		}
	}
	return ""
}

// joined refuses a container that uses the network of one that does not run, or
// whose files are missing.
func joined(w state.World, a *state.AppNow, c state.Container) error {
	if c.NetworkOwner != "" && !slices.ContainsFunc(a.Containers, func(o state.Container) bool { return o.ID == c.NetworkOwner && o.Up() }) {
		return fmt.Errorf("cannot join network of a non running container: %s", c.NetworkOwner)
	}
	if c.Spec == nil {
		return nil
	}
	if h := state.FilesHash(c.Spec.Files); h != "" && !slices.Contains(a.Files, state.FilesNow{Service: c.Service, Hash: h}) {
		return fmt.Errorf("bind source path does not exist: files %s", h)
	}
	if c.Spec.UsesAPINetwork() && !w.APINetwork {
		return fmt.Errorf("network %s not found", state.APINetworkName)
	}
	return nil
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

func stop(w state.World, a *state.AppNow, s reconcile.Stop) error {
	c, err := at(a, s.Container)
	if err != nil {
		return err
	}
	if err := locked(w, a, s.Service); err != nil {
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

func rename(w state.World, a *state.AppNow, s reconcile.Rename) error {
	if err := locked(w, a, s.Service); err != nil {
		return err
	}
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

// locked refuses to touch a running service whose update lock is not ours.
func locked(w state.World, a *state.AppNow, service string) error {
	if w.NoLocks || slices.Contains(a.Locked, service) {
		return nil
	}
	return fmt.Errorf("%s: its update lock is not held", service)
}

func takeLocks(a *state.AppNow, s reconcile.TakeLocks) error {
	for _, l := range a.UserLocks {
		if slices.Contains(s.Services, l.Service) && s.By == "" {
			return fmt.Errorf("update lock of %s is held by %s", l.Service, l.Holder)
		}
	}
	a.UserLocks = slices.DeleteFunc(slices.Clone(a.UserLocks), func(l state.UserLock) bool { return slices.Contains(s.Services, l.Service) })
	a.Locked = slices.Compact(slices.Sorted(slices.Values(slices.Concat(a.Locked, s.Services))))
	return nil
}

func removeVolume(a *state.AppNow, s reconcile.RemoveVolume) error {
	for _, c := range a.Containers {
		if slices.Contains(c.Volumes, s.Name) {
			return fmt.Errorf("remove %s: volume is in use by %s", s.Name, c.ID)
		}
	}
	a.Volumes = slices.DeleteFunc(a.Volumes, func(v state.VolumeNow) bool { return v.Name == s.Name })
	return nil
}

func createAPINetwork(w state.World) (state.World, error) {
	for _, a := range w.Apps {
		for _, c := range a.Containers {
			if c.API {
				return w, fmt.Errorf("network %s has active endpoints: %s", state.APINetworkName, c.ID)
			}
		}
	}
	w.APINetwork = true
	return w, nil
}

func writeFiles(a *state.AppNow, s reconcile.WriteFiles) error {
	if f := (state.FilesNow{Service: s.Service, Hash: s.Hash}); !slices.Contains(a.Files, f) {
		a.Files = append(a.Files, f)
	}
	return nil
}

func removeFiles(a *state.AppNow, s reconcile.RemoveFiles) error {
	for _, c := range a.Containers {
		if c.Service == s.Service && c.Spec != nil && state.FilesHash(c.Spec.Files) == s.Hash {
			return fmt.Errorf("files of %s are used by %s", s.Service, c.ID)
		}
	}
	a.Files = slices.DeleteFunc(a.Files, func(f state.FilesNow) bool { return f == state.FilesNow{Service: s.Service, Hash: s.Hash} })
	return nil
}

// handover models the good end: the new container says that it has taken over,
// or its time is over.
func handover(w state.World, a *state.AppNow, s reconcile.Handover) error {
	for _, c := range a.Containers {
		if c.Service == s.Service && c.Phase != state.Created && is(w, c, s.Hash, s.Image, s.Container) {
			if a.Handovers == nil {
				a.Handovers = map[string]state.Handover{}
			}
			a.Handovers[s.Service] = state.Handover{Hash: s.Hash, Image: s.Image}
			return nil
		}
	}
	return fmt.Errorf("hand over %s: the new container was not started", s.Service)
}

// strike takes an object off what is left of an intent.
func strike(intents []state.Intent, id, object string) []state.Intent {
	for i := range intents {
		if intents[i].ID == id {
			intents[i].Left = slices.DeleteFunc(slices.Clone(intents[i].Left), func(x string) bool { return x == object })
		}
	}
	return intents
}

func requireReboot(a *state.AppNow, s reconcile.RequireReboot) {
	if a.Reboots == nil {
		a.Reboots = map[string]bool{}
	}
	a.Reboots[s.Service] = false
}

// reboot is what a restart of the device does: memory-backed files are gone, and
// the engine starts again what ran.
func reboot(w state.World) state.World {
	w.RebootPending = false
	for uuid, a := range w.Apps {
		for i, c := range a.Containers {
			w.Boot = max(w.Boot, c.Created+1)
			if !c.Up() {
				continue
			}
			if c.Spec != nil && (c.Spec.Restart.Name == "no" || len(c.Spec.Files) > 0) {
				a.Containers[i].Phase = state.Exited
			}
			if c.Spec != nil && len(c.Spec.Files) > 0 {
				a.Containers[i].Refused = "bind source path does not exist"
			}
		}
		for service := range a.Reboots {
			a.Reboots[service] = true
		}
		a.Locked, a.UserLocks, a.Files = nil, nil, nil
		w.Apps[uuid] = a
	}
	return w
}
