package compose

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/state"
)

// implicit is the network of services that name none. It exists exactly when a
// service uses it.
const implicit = "default"

// network builds a declared network.
func (b *builder) network(name string, c types.NetworkConfig) {
	at := "networks." + name
	spec := state.NetworkSpec{
		Driver:     orElse(c.Driver, "bridge"),
		DriverOpts: plain(c.DriverOpts),
		EnableIPv6: c.EnableIPv6 != nil && *c.EnableIPv6,
		Internal:   c.Internal,
		Labels:     b.labels(at, c.Labels),
	}
	if spec.Driver == "overlay" {
		b.reject(at+".driver", "overlay: "+whySwarm)
	}
	if c.Ipam.Driver != "default" {
		spec.IPAMDriver = c.Ipam.Driver
	}
	for i, pool := range c.Ipam.Config {
		if s, ok := b.subnet(at+".ipam.config["+strconv.Itoa(i)+"]", pool); ok {
			spec.IPAM = append(spec.IPAM, s)
		}
	}
	slices.SortStableFunc(spec.IPAM, func(x, y state.Subnet) int { return strings.Compare(x.Subnet, y.Subnet) })
	b.project.Networks[name] = state.Network{Name: name, Spec: spec, Hash: spec.Hash()}
}

// subnet checks addresses here: an engine takes wrong ones and fails later.
func (b *builder) subnet(at string, pool *types.IPAMPool) (state.Subnet, bool) {
	if pool == nil || pool.Subnet == "" && pool.Gateway == "" && pool.IPRange == "" {
		return state.Subnet{}, false
	}
	s := state.Subnet{
		Subnet:  b.prefix(at+".subnet", pool.Subnet),
		Gateway: b.address(at+".gateway", pool.Gateway),
		IPRange: b.prefix(at+".ip_range", pool.IPRange),
	}
	for host, ip := range pool.AuxiliaryAddresses {
		put(&s.Aux, host, b.address(join(at+".aux_addresses", host), ip))
	}
	if net, err := netip.ParsePrefix(s.Subnet); err == nil {
		if gw, err := netip.ParseAddr(s.Gateway); err == nil && !net.Contains(gw) {
			b.reject(at+".gateway", s.Gateway+" is not in "+s.Subnet)
		}
	} else if s.Gateway != "" || s.IPRange != "" {
		b.reject(at, "gateway and ip_range need a subnet")
	}
	return s, true
}

func (b *builder) prefix(at, text string) string {
	if text == "" {
		return ""
	}
	p, err := netip.ParsePrefix(strings.TrimSpace(text))
	if err != nil {
		b.reject(at, "want a subnet such as 10.1.0.0/24, got "+strconv.Quote(clip(text)))
		return ""
	}
	return p.Masked().String()
}

// attach builds everything about a service's network.
func (b *builder) attach(name string, c *types.ServiceConfig, spec *state.Spec) {
	at := "services." + name
	spec.Hostname, spec.Domainname = c.Hostname, c.DomainName
	spec.MacAddress = b.mac(at+".mac_address", c.MacAddress)
	for host, addresses := range c.ExtraHosts {
		for _, a := range addresses {
			spec.ExtraHosts = append(spec.ExtraHosts, host+":"+a)
		}
	}
	spec.ExtraHosts = set(spec.ExtraHosts)
	for i, d := range c.DNS {
		spec.DNS = append(spec.DNS, b.address(at+".dns["+strconv.Itoa(i)+"]", d))
	}
	spec.DNSSearch = append(spec.DNSSearch, c.DNSSearch...)
	spec.DNSOpt = set(c.DNSOpts)

	joined := c.Networks
	mode := strings.ReplaceAll(strings.TrimSpace(c.NetworkMode), ": ", ":")
	switch {
	case mode != "" && len(joined) > 0:
		b.reject(at+".network_mode", "cannot be set together with networks")
	case mode == "host", mode == "none", mode == "bridge":
		spec.NetworkMode = mode
	case strings.HasPrefix(mode, "service:"), strings.HasPrefix(mode, "container:"):
		b.own(at+".network_mode", mode)
	case mode != "":
		joined = map[string]*types.ServiceNetworkConfig{mode: nil} // upstream's way to name one network
	case len(joined) == 0:
		joined = map[string]*types.ServiceNetworkConfig{implicit: nil}
	}
	if spec.NetworkMode == "" {
		b.joinNetworks(name, joined, spec)
	}
	if spec.NetworkMode == "host" || spec.NetworkMode == "none" {
		if b.around[name].ports != nil {
			b.ignore(at+".ports", "no port is published with network_mode "+spec.NetworkMode)
		}
		return
	}
	spec.Ports = b.ports(at, b.around[name].ports)
}

func (b *builder) joinNetworks(name string, joined map[string]*types.ServiceNetworkConfig, spec *state.Spec) {
	order := types.ContainerSpec{Networks: joined}
	for i, n := range order.NetworksByPriority() {
		at := "services." + name + ".networks." + n
		if _, ok := b.project.Networks[n]; !ok && n != implicit {
			b.reject(at, "the network is not declared under networks")
			continue
		} else if !ok {
			b.network(implicit, types.NetworkConfig{})
		}
		if i == 0 {
			spec.MainNetwork = n
		}
		c := joined[n]
		if c == nil {
			c = &types.ServiceNetworkConfig{}
		}
		a := state.Attachment{
			Aliases: set(append([]string{name}, c.Aliases...)),
			IPv4:    b.address(at+".ipv4_address", c.Ipv4Address),
			IPv6:    b.address(at+".ipv6_address", c.Ipv6Address),
		}
		for j, ip := range c.LinkLocalIPs {
			a.LinkLocalIP = append(a.LinkLocalIP, b.address(at+".link_local_ips["+strconv.Itoa(j)+"]", ip))
		}
		a.LinkLocalIP = set(a.LinkLocalIP)
		put(&spec.Networks, n, a)
	}
}
