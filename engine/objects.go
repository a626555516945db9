package engine

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"

	"deckhand/reconcile"
	"deckhand/state"
)

// removeImage deletes an image under the names it was planned with. It is
// refused as a whole while a container needs the image: taking only the names
// away would cause a new download.
func (d doing) removeImage(ctx context.Context, s reconcile.RemoveImage) error {
	what := "remove image " + s.ID
	if len(s.Refs) > 0 {
		what = "remove image " + s.Refs[0]
	}
	now, err := d.ImageInspect(ctx, s.ID)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return d.fail(what, err)
	}
	users, err := d.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("ancestor", s.ID))})
	if err != nil {
		return d.fail(what, err)
	}
	if len(users) > 0 {
		return state.Classify(state.ClassEngine, fmt.Errorf("%s: container %s uses it", what, containerName(users[0].Names)))
	}
	for _, ref := range references(now.RepoTags, now.RepoDigests) {
		if !slices.Contains(s.Refs, ref) {
			continue // a name that leads elsewhere by now, or that somebody added
		}
		if err := d.deleteImage(ctx, ref); err != nil {
			return d.fail(what, err)
		}
	}
	if err := d.deleteImage(ctx, s.ID); err != nil {
		return d.fail(what, err)
	}
	return nil
}

func (d doing) deleteImage(ctx context.Context, ref string) error {
	_, err := d.ImageRemove(ctx, ref, image.RemoveOptions{PruneChildren: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// createNetwork makes a network unless it exists. The engine would make a second
// one of the same name, so creations go one by one.
func (d doing) createNetwork(ctx context.Context, s reconcile.CreateNetwork) error {
	what := "create network " + s.Network.Name
	d.e.networks.Lock()
	defer d.e.networks.Unlock()
	name := state.NetworkName(s.App.UUID, s.Network.Name)
	done, err := d.networkExists(ctx, name, s.Network.Hash)
	if done || err != nil {
		return wrap(d, what, err)
	}
	_, err = d.NetworkCreate(ctx, name, networkOptions(s, d.e.cfg.Project)) // the client asks for CheckDuplicate where it matters
	if errdefs.IsConflict(err) {
		done, existsErr := d.networkExists(ctx, name, s.Network.Hash)
		if done || existsErr != nil {
			return wrap(d, what, existsErr)
		}
	}
	return wrap(d, what, err)
}

// networkExists reports whether the network is there as wanted; another one of
// the name is an error.
func (d doing) networkExists(ctx context.Context, name, hash string) (bool, error) {
	list, err := d.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", name))})
	if err != nil {
		return false, err
	}
	var other *network.Summary
	for i, n := range list {
		if n.Name != name { // the filter finds parts of names too
			continue
		}
		if d.e.ours(n.Labels) && n.Labels[state.LabelSpec] == hash {
			return true, nil
		}
		other = &list[i]
	}
	if other != nil {
		return false, state.Classify(state.ClassEngine, fmt.Errorf("a network %s (%.12s) with other settings exists; it must be removed first", name, other.ID))
	}
	return false, nil
}

func networkOptions(s reconcile.CreateNetwork, project string) network.CreateOptions {
	spec := s.Network.Spec
	ip6 := spec.EnableIPv6
	o := network.CreateOptions{
		Driver:     spec.Driver,
		Options:    maps.Clone(spec.DriverOpts),
		EnableIPv6: &ip6,
		Internal:   spec.Internal,
		Attachable: spec.Attachable,
		Labels:     objectLabels(spec.Labels, s.App, s.Network.Hash, project),
	}
	if len(spec.IPAM) > 0 {
		o.Labels["io.balena.private.ipam.config"] = "true" // balena's supervisor compares it
	}
	if len(spec.IPAM) > 0 || spec.IPAMDriver != "" || len(spec.IPAMOptions) > 0 {
		o.IPAM = &network.IPAM{Driver: spec.IPAMDriver, Options: maps.Clone(spec.IPAMOptions)}
		for _, c := range spec.IPAM {
			o.IPAM.Config = append(o.IPAM.Config, network.IPAMConfig{
				Subnet: c.Subnet, Gateway: c.Gateway, IPRange: c.IPRange, AuxAddress: maps.Clone(c.Aux)})
		}
	}
	return o
}

func (d doing) removeNetwork(ctx context.Context, s reconcile.RemoveNetwork) error {
	err := d.NetworkRemove(ctx, s.ID)
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if d.disconnectGone(ctx, s.ID) {
		err = d.NetworkRemove(ctx, s.ID)
	}
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	if n, inspect := d.NetworkInspect(ctx, s.ID, network.InspectOptions{}); inspect == nil && len(n.Containers) == 0 && errdefs.IsPermissionDenied(err) {
		err = fmt.Errorf("%w; it shows no container on it, so it has lost count: restart the engine", err)
	}
	return d.fail("remove network "+s.Name, err)
}

// disconnectGone takes containers off a network that do not exist any more: an
// engine under load may forget to, and then refuses to remove the network for
// ever. It reports whether there was one.
func (d doing) disconnectGone(ctx context.Context, id string) bool {
	n, err := d.NetworkInspect(ctx, id, network.InspectOptions{})
	if err != nil {
		return false
	}
	found := false
	for _, key := range slices.Sorted(maps.Keys(n.Containers)) {
		// The key is the container's ID, or that of an endpoint without one.
		name := n.Containers[key].Name
		who := key
		if strings.HasPrefix(key, "ep-") {
			who = name
		}
		if _, err := d.inspect(ctx, who); !errdefs.IsNotFound(err) {
			continue
		}
		if err := d.NetworkDisconnect(ctx, id, name, true); err == nil {
			d.e.cfg.Log.Warn().Str("network", n.Name).Str("container", name).Msg("the engine had kept a container on a network that is gone; taken off")
			found = true
		}
	}
	return found
}

// createVolume makes a volume unless it exists. The engine takes creation of an
// existing one for success and keeps its old options; here that is an error.
func (d doing) createVolume(ctx context.Context, s reconcile.CreateVolume) error {
	what := "create volume " + s.Volume.Name
	name := state.VolumeName(s.App.ID, s.Volume.Name)
	spec := s.Volume.Spec
	now, err := d.VolumeInspect(ctx, name)
	if err == nil {
		if sameVolume(now, s.Volume) {
			return nil
		}
		return state.Classify(state.ClassEngine, fmt.Errorf("%s: a volume %s with other settings exists; its data is kept, so remove it by hand if it is not needed", what, name))
	}
	if !errdefs.IsNotFound(err) {
		return d.fail(what, err)
	}
	_, err = d.VolumeCreate(ctx, volume.CreateOptions{
		Name: name, Driver: spec.Driver, DriverOpts: maps.Clone(spec.DriverOpts),
		Labels: objectLabels(spec.Labels, s.App, s.Volume.Hash, d.e.cfg.Project),
	})
	return wrap(d, what, err)
}

// removeVolume deletes a volume with its data. One of another owner that happens
// to have the name stays.
func (d doing) removeVolume(ctx context.Context, s reconcile.RemoveVolume) error {
	name := state.VolumeName(s.App.ID, s.Name)
	what := "remove volume " + name
	now, err := d.VolumeInspect(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return d.fail(what, err)
	}
	if uuid := label(now.Labels, state.LabelAppUUID); now.Labels[state.LabelProject] != d.e.cfg.Project || uuid != "" && uuid != s.App.UUID {
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s: it belongs to another app; its data is kept", what))
	}
	err = d.VolumeRemove(ctx, name, false)
	if errdefs.IsConflict(err) {
		err = d.volumeInUse(ctx, name, err)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return d.fail(what, err)
	}
	return nil
}

// volumeInUse says who uses a volume, as far as the engine tells.
func (d doing) volumeInUse(ctx context.Context, name string, was error) error {
	users, err := d.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(filters.Arg("volume", name))})
	if err != nil || len(users) == 0 {
		return was
	}
	var names []string
	for _, c := range users {
		names = append(names, containerName(c.Names))
	}
	slices.Sort(names)
	return state.Classify(state.ClassEngine, fmt.Errorf("container %s uses it", strings.Join(names, ", ")))
}

// sameVolume compares by hash; a volume from before us has none and is compared
// by what decides its data.
func sameVolume(now volume.Volume, want state.Volume) bool {
	if hash, ok := now.Labels[state.LabelSpec]; ok {
		return hash == want.Hash
	}
	return now.Driver == want.Spec.Driver && maps.Equal(now.Options, want.Spec.DriverOpts)
}

// wrap is fail that lets nil through.
func wrap(d doing, what string, err error) error {
	if err == nil {
		return nil
	}
	return d.fail(what, err)
}
