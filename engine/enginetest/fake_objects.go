package enginetest

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
)

// net is a network. It never changes.
type net struct {
	id, name, driver string
	created          time.Time
	options          network.CreateOptions
}

// vol is a volume. It never changes.
type vol struct {
	name, driver string
	created      time.Time
	options      map[string]string
	labels       map[string]string
	anonymous    bool
}

func predefined(name string) bool {
	return name == "bridge" || name == "host" || name == "none" || name == "default"
}

// filters reads the filters of a list.
func (q request) filters(known ...string) (filters.Args, error) {
	args, err := filters.FromJSON(q.Query.Get("filters"))
	if err != nil {
		return args, invalid("%s", err)
	}
	accepted := map[string]bool{}
	for _, k := range known {
		accepted[k] = true
	}
	if err := args.Validate(accepted); err != nil {
		return args, invalid("%s", err)
	}
	return args, nil
}

// network finds one by ID, name or the beginning of an ID.
func (m *machine) network(term string) (*net, error) {
	if n := m.networks[term]; n != nil {
		return n, nil
	}
	var byName, byID []*net
	for id, n := range m.networks {
		if n.name == term {
			byName = append(byName, n)
		}
		if strings.HasPrefix(id, term) {
			byID = append(byID, n)
		}
	}
	switch {
	case len(byName) == 1:
		return byName[0], nil
	case len(byName) > 1:
		return nil, invalid("network %s is ambiguous (%d matches found on name)", term, len(byName))
	case len(byID) == 1:
		return byID[0], nil
	case len(byID) > 1:
		return nil, invalid("network %s is ambiguous (%d matches found based on ID prefix)", term, len(byID))
	}
	return nil, notFound("network %s not found", term)
}

// called counts the networks of a name.
func (m *machine) called(name string) int {
	count := 0
	for _, n := range m.networks {
		if n.name == name {
			count++
		}
	}
	return count
}

func (m *machine) networksByAge() []*net {
	return slices.SortedFunc(maps.Values(m.networks), func(a, b *net) int { return cmp.Compare(a.id, b.id) })
}

func (f *Fake) describe(n *net, whole bool) network.Inspect {
	o := n.options
	out := network.Inspect{
		Name: n.name, ID: n.id, Created: n.created, Scope: "local", Driver: n.driver, Internal: o.Internal, Attachable: o.Attachable,
		Options: o.Options, Labels: o.Labels, Containers: map[string]network.EndpointResource{}, IPAM: network.IPAM{Driver: "default"},
	}
	if o.EnableIPv6 != nil {
		out.EnableIPv6 = *o.EnableIPv6
	}
	if o.IPAM != nil {
		out.IPAM = *o.IPAM
		out.IPAM.Driver = cmp.Or(out.IPAM.Driver, "default")
	}
	if !whole {
		return out
	}
	for _, c := range f.m.containers {
		for _, e := range c.nets {
			if e.NetworkID == n.id {
				out.Containers[c.id] = network.EndpointResource{Name: c.name, EndpointID: e.EndpointID, IPv4Address: e.IPAddress + "/16"}
			}
		}
	}
	return out
}

func (f *Fake) listNetworks(q request) (reply, error) {
	match, err := q.filters("dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return reply{}, err
	}
	out := []network.Inspect{}
	for _, n := range slices.Backward(f.m.networksByAge()) { // in no order that means anything
		kind := "custom"
		if predefined(n.name) {
			kind = "builtin"
		}
		if match.Match("name", n.name) && match.Match("id", n.id) && match.ExactMatch("driver", n.driver) &&
			match.ExactMatch("type", kind) && (!match.Contains("label") || match.MatchKVList("label", n.options.Labels)) {
			out = append(out, f.describe(n, false))
		}
	}
	return answer(out)
}

func (f *Fake) inspectNetwork(q request) (reply, error) {
	n, err := f.m.network(q.Object)
	if refused := (refusal{}); errors.As(err, &refused) && refused.status == http.StatusBadRequest {
		return reply{}, invalid("%d matches found based on name: network %s is ambiguous", f.m.called(q.Object), q.Object)
	}
	if err != nil {
		return reply{}, err
	}
	return answer(f.describe(n, true))
}

func (f *Fake) createNetwork(q request) (reply, error) {
	var asked network.CreateRequest
	if err := q.decode(&asked); err != nil {
		return reply{}, err
	}
	asked.EnableIPv4 = nil // lost
	switch {
	case asked.Name == "":
		return reply{}, invalid("network name is required")
	case predefined(asked.Name):
		return reply{}, refuse(http.StatusForbidden, "operation is not permitted on predefined %s network ", asked.Name)
	}
	check := asked.CheckDuplicate //nolint:staticcheck // the field of this API version
	if check != nil && *check && f.m.called(asked.Name) > 0 {
		return reply{}, conflict("network with name %s already exists", asked.Name)
	}
	switch asked.Driver = cmp.Or(asked.Driver, "bridge"); asked.Driver {
	case "bridge", "macvlan", "ipvlan", "host", "null":
	default:
		return reply{}, notFound("plugin %q not found", asked.Driver)
	}
	if err := f.m.poolFree(asked.IPAM); err != nil {
		return reply{}, err
	}
	n := &net{id: f.m.id(), name: asked.Name, driver: asked.Driver, created: time.Now(), options: asked.CreateOptions}
	f.m.networks[n.id] = n
	f.changed("network", "create", n.id, map[string]string{"name": n.name, "type": n.driver})
	return made(network.CreateResponse{ID: n.id})
}

// poolFree refuses a range of addresses that another network has.
func (m *machine) poolFree(asked *network.IPAM) error {
	for _, a := range prefixes(asked) {
		for _, n := range m.networks {
			for _, b := range prefixes(n.options.IPAM) {
				if a.Overlaps(b) {
					return refuse(http.StatusForbidden, "Pool overlaps with other one on this address space")
				}
			}
		}
	}
	return nil
}

func prefixes(i *network.IPAM) []netip.Prefix {
	var out []netip.Prefix
	if i == nil {
		return nil
	}
	for _, c := range i.Config {
		if p, err := netip.ParsePrefix(c.Subnet); err == nil {
			out = append(out, p.Masked())
		}
	}
	return out
}

// attached lists the running containers in a network.
func (m *machine) attached(n *net) []*box {
	var out []*box
	for _, c := range m.sorted() {
		for _, e := range c.nets {
			if c.running && e.NetworkID == n.id {
				out = append(out, c)
			}
		}
	}
	return out
}

func (f *Fake) removeNetwork(q request) (reply, error) {
	n, err := f.m.network(q.Object)
	if err != nil {
		return reply{}, err
	}
	if predefined(n.name) {
		return reply{}, refuse(http.StatusForbidden, "%s is a pre-defined network and cannot be removed", n.name)
	}
	if len(f.m.attached(n)) > 0 {
		return reply{}, refuse(http.StatusForbidden, "error while removing network: network %s id %s has active endpoints", n.name, n.id)
	}
	delete(f.m.networks, n.id)
	f.changed("network", "destroy", n.id, map[string]string{"name": n.name, "type": n.driver})
	return done()
}

// address gives a container its address in a network.
func (f *Fake) address(c *box, n *net, asked *network.EndpointIPAMConfig) (string, error) {
	taken := map[string]bool{}
	for _, other := range f.m.attached(n) {
		for _, e := range other.nets {
			if other != c && e.NetworkID == n.id {
				taken[e.IPAddress] = true
			}
		}
	}
	if asked != nil && asked.IPv4Address != "" {
		if taken[asked.IPv4Address] {
			return "", refuse(http.StatusForbidden, "Address already in use")
		}
		if len(prefixes(n.options.IPAM)) == 0 {
			return "", invalid("user specified IP address is supported only when connecting to networks with user configured subnets")
		}
		return asked.IPv4Address, nil
	}
	at := netip.MustParseAddr("172.18.0.2")
	if own := prefixes(n.options.IPAM); len(own) > 0 {
		at = own[0].Addr().Next().Next()
	}
	for ; taken[at.String()]; at = at.Next() {
	}
	return at.String(), nil
}

func (f *Fake) connect(q request) (reply, error) {
	var asked network.ConnectOptions
	if err := q.decode(&asked); err != nil {
		return reply{}, err
	}
	if asked.EndpointConfig == nil {
		asked.EndpointConfig = &network.EndpointSettings{}
	}
	asked.EndpointConfig.MacAddress, asked.EndpointConfig.GwPriority = "", 0
	c, err := f.m.find(asked.Container)
	if err != nil {
		return reply{}, err
	}
	name := q.Object
	n, err := f.m.network(q.Object)
	if err == nil {
		name = n.name
	} else if c.running {
		return reply{}, err // a container that does not run takes any name, and fails to start
	}
	mode := c.host.NetworkMode
	switch {
	case mode.IsContainer(), mode.IsHost() != (name == "host"):
		return reply{}, invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case c.removing || c.dead:
		return reply{}, conflict("container %s is marked for removal and cannot be connected or disconnected to the network %s", c.id, name)
	case c.running && c.nets[name] != nil:
		return reply{}, refuse(http.StatusForbidden, "endpoint with name %s already exists in network %s", c.name, name)
	}
	e := endpoint(asked.EndpointConfig, name, c)
	if c.running {
		if e.IPAddress, err = f.address(c, n, e.IPAMConfig); err != nil {
			return reply{}, err
		}
		e.NetworkID, e.EndpointID = n.id, n.id+c.id
	}
	c.nets[name] = e
	f.changed("network", "connect", e.NetworkID, map[string]string{"container": c.id, "name": name})
	return answer(nil)
}

func (f *Fake) disconnect(q request) (reply, error) {
	var asked network.DisconnectOptions
	if err := q.decode(&asked); err != nil {
		return reply{}, err
	}
	c, err := f.m.find(asked.Container)
	if err != nil {
		return reply{}, err
	}
	name := q.Object
	if n, err := f.m.network(q.Object); err == nil {
		name = n.name
	} else if !asked.Force {
		return reply{}, err
	}
	if c.nets[name] == nil {
		return reply{}, broken("container %s is not connected to network %s", c.id, name)
	}
	delete(c.nets, name)
	f.changed("network", "disconnect", q.Object, map[string]string{"container": c.id, "name": name})
	return answer(nil)
}

func (v *vol) describe() *volume.Volume {
	return &volume.Volume{
		Name: v.name, Driver: v.driver, Labels: v.labels, Options: v.options, Scope: "local",
		Mountpoint: "/var/lib/docker/volumes/" + v.name + "/_data", CreatedAt: v.created.UTC().Format(time.RFC3339),
	}
}

func (f *Fake) listVolumes(q request) (reply, error) {
	match, err := q.filters("dangling", "driver", "label", "name")
	if err != nil {
		return reply{}, err
	}
	out := volume.ListResponse{Volumes: []*volume.Volume{}}
	for _, name := range slices.Sorted(maps.Keys(f.m.volumes)) {
		v := f.m.volumes[name]
		if match.Match("name", name) && match.ExactMatch("driver", v.driver) && (!match.Contains("label") || match.MatchKVList("label", v.labels)) {
			out.Volumes = append(out.Volumes, v.describe())
		}
	}
	return answer(out)
}

func (f *Fake) inspectVolume(q request) (reply, error) {
	v := f.m.volumes[q.Object]
	if v == nil {
		return reply{}, notFound("get %s: no such volume", q.Object)
	}
	return answer(v.describe())
}

func (f *Fake) createVolume(q request) (reply, error) {
	var asked volume.CreateOptions
	if err := q.decode(&asked); err != nil {
		return reply{}, err
	}
	asked.Name, asked.Driver = cmp.Or(asked.Name, f.m.id()), cmp.Or(asked.Driver, "local")
	switch v := f.m.volumes[asked.Name]; {
	case v != nil && v.driver != asked.Driver:
		return reply{}, conflict("create %s: conflict: volume name must be unique", asked.Name)
	case v != nil:
		return made(v.describe()) // with its old options
	case asked.Driver != "local":
		return reply{}, notFound("create %s: error looking up volume plugin %s: plugin %q not found", asked.Name, asked.Driver, asked.Driver)
	}
	v := &vol{name: asked.Name, driver: asked.Driver, created: time.Now(), options: asked.DriverOpts, labels: asked.Labels}
	f.m.volumes[v.name] = v
	f.changed("volume", "create", v.name, map[string]string{"driver": v.driver})
	return made(v.describe())
}

// usersOf lists the containers that have a volume, running or not.
func (m *machine) usersOf(name string) []string {
	var out []string
	for _, c := range m.sorted() {
		for _, x := range c.mounts {
			if x.Name == name && name != "" {
				out = append(out, c.id)
			}
		}
	}
	return slices.Compact(out)
}

func (f *Fake) removeVolume(q request) (reply, error) {
	if f.m.volumes[q.Object] == nil {
		if q.yes("force") {
			return done()
		}
		return reply{}, notFound("get %s: no such volume", q.Object)
	}
	if users := f.m.usersOf(q.Object); len(users) > 0 {
		return reply{}, conflict("remove %s: volume is in use - %s", q.Object, fmt.Sprint(users))
	}
	delete(f.m.volumes, q.Object)
	f.changed("volume", "destroy", q.Object, map[string]string{"driver": "local"})
	return done()
}
