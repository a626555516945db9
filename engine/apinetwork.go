package engine

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"

	"deckhand/state"
)

// optionBridge is the engine's option that names a bridge on the host.
const optionBridge = "com.docker.network.bridge.name"

// APINetwork says how the network is made on which services reach the
// supervisor. Its name in the engine is always state.APINetworkName.
type APINetwork struct {
	Bridge  string // interface on the host, at most 15 characters
	Subnet  string // in CIDR notation
	Gateway string // the supervisor's address on it
}

// whole fills in what is empty.
func (n APINetwork) whole() APINetwork {
	return APINetwork{
		Bridge:  cmp.Or(n.Bridge, state.APINetworkName),
		Subnet:  cmp.Or(n.Subnet, state.APINetworkSubnet),
		Gateway: cmp.Or(n.Gateway, state.APINetworkGateway),
	}
}

// is reports whether an engine's network is this one. Labels do not matter:
// balena's supervisor makes it without.
func (n APINetwork) is(have network.Inspect) bool {
	return have.Driver == "bridge" && have.Options[optionBridge] == n.Bridge &&
		len(have.IPAM.Config) == 1 && have.IPAM.Config[0].Subnet == n.Subnet &&
		address(have.IPAM.Config[0].Gateway) == n.Gateway
}

// address strips the prefix length that some engines report with a gateway.
func address(gateway string) string {
	a, _, _ := strings.Cut(gateway, "/")
	return a
}

// createAPINetwork makes the API network, in place of one that is not as it
// should be. Networks go by ID: the engine allows several of one name.
func (d doing) createAPINetwork(ctx context.Context) error {
	const what = "create network " + state.APINetworkName
	d.e.networks.Lock()
	defer d.e.networks.Unlock()
	list, err := d.NetworkList(ctx, network.ListOptions{Filters: filters.NewArgs(filters.Arg("name", state.APINetworkName))})
	if err != nil {
		return d.fail(what, err)
	}
	done := false
	for _, n := range list {
		switch {
		case n.Name != state.APINetworkName: // the filter finds parts of names too
		case !done && d.e.cfg.API.is(n):
			done = true
		default:
			if err := d.removeAPINetwork(ctx, n.ID); err != nil {
				return d.fail(what, err)
			}
		}
	}
	if done {
		return nil
	}
	want := d.e.cfg.API
	_, err = d.NetworkCreate(ctx, state.APINetworkName, network.CreateOptions{
		Driver:  "bridge",
		Options: map[string]string{optionBridge: want.Bridge},
		IPAM:    &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: want.Subnet, Gateway: want.Gateway}}},
	})
	if err != nil && strings.Contains(strings.ToLower(err.Error()), "overlap") {
		err = fmt.Errorf("%w: another network uses addresses of %s; remove or change that network", err, want.Subnet)
	}
	return wrap(d, what, err)
}

// removeAPINetwork removes a network that is not as it should be. What runs on
// it is not cut off: the planner replaces the services of ours, and whatever is
// left belongs to somebody. Endpoints without a container, which a crash of the
// engine leaves behind, are taken away.
func (d doing) removeAPINetwork(ctx context.Context, id string) error {
	n, err := d.NetworkInspect(ctx, id, network.InspectOptions{})
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	var users []string
	for _, key := range slices.Sorted(maps.Keys(n.Containers)) {
		name := n.Containers[key].Name
		_, err := d.inspect(ctx, key)
		switch {
		case err == nil:
			users = append(users, name)
		case !errdefs.IsNotFound(err):
			return err
		default:
			if err := d.NetworkDisconnect(ctx, id, name, true); err != nil && !errdefs.IsNotFound(err) {
				return fmt.Errorf("disconnect %s, which is gone: %w", name, err)
			}
		}
	}
	if len(users) > 0 {
		return state.Classify(state.ClassEngine, fmt.Errorf("the present one (%.12s) has other settings and is in use by %s; stop them",
			id, strings.Join(users, ", ")))
	}
	if err := d.NetworkRemove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return err
	}
	return nil
}
