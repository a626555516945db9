package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"deckhand/reconcile"
	"deckhand/state"
)

// engineName is the engine's name of a network that a service joins under a
// short name.
func engineName(s reconcile.Create, short string) string {
	return cmp.Or(s.Service.Spec.Networks[short].External, state.NetworkName(s.App.UUID, short))
}

// networkIDs gives the engine's IDs of the networks a service joins, by the
// engine's names. A missing one is an error here: the engine would accept its
// name for a container that does not run, and then fail to start it.
func (d doing) networkIDs(ctx context.Context, s reconcile.Create) (map[string]string, error) {
	need := map[string]string{} // what people call it, by the engine's name
	for short := range s.Service.Spec.Networks {
		need[engineName(s, short)] = short
	}
	if s.Service.Spec.UsesAPINetwork() {
		need[state.APINetworkName] = state.APINetworkName
	}
	ids, seen := map[string]string{}, map[string]int{}
	if len(need) == 0 {
		return ids, nil
	}
	args := filters.NewArgs()
	for name := range need {
		args.Add("name", name)
	}
	list, err := d.NetworkList(ctx, network.ListOptions{Filters: args})
	if err != nil {
		return nil, err
	}
	for _, n := range list {
		ids[n.Name], seen[n.Name] = n.ID, seen[n.Name]+1
	}
	for _, name := range slices.Sorted(maps.Keys(need)) {
		short := need[name]
		switch {
		case seen[name] == 1:
		case seen[name] > 1:
			return nil, fmt.Errorf("%d networks are called %s; all but one must be removed first", seen[name], short)
		case s.Service.Spec.Networks[short].External != "":
			return nil, state.Classify(state.ClassInvalid, fmt.Errorf("external network %s does not exist on the device; create it there or correct the name", name))
		default:
			return nil, fmt.Errorf("network %s does not exist", short)
		}
	}
	return ids, nil
}

// externalVolumes refuses a service whose external volume is missing: the
// engine would make an empty one.
func (d doing) externalVolumes(ctx context.Context, s reconcile.Create) error {
	for _, m := range s.Service.Spec.Mounts {
		if m.Type != "volume" || !m.External {
			continue
		}
		_, err := d.VolumeInspect(ctx, m.Source)
		if errdefs.IsNotFound(err) {
			return state.Classify(state.ClassInvalid, fmt.Errorf("external volume %s does not exist on the device; create it there or correct the name", m.Source))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// networkOwner finds the container whose network a service uses: the newest of
// the service that the composition names, because that is the one that stays.
func (d doing) networkOwner(ctx context.Context, s reconcile.Create) (string, error) {
	service := s.Service.Spec.NetworkOwner()
	if service == "" {
		return "", nil
	}
	// Containers of older supervisors have no label with the app's UUID.
	list, err := d.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return "", err
	}
	for _, c := range list { // newest first, to a nanosecond
		uuid := cmp.Or(label(c.Labels, state.LabelAppUUID), uuidOfNetworks(c))
		if d.e.ours(c.Labels) && uuid == s.App.UUID && label(c.Labels, state.LabelServiceName) == service &&
			c.State != "dead" && c.State != "removing" {
			return c.ID, nil
		}
	}
	return "", fmt.Errorf("there is no container of %s, whose network it uses", service)
}
