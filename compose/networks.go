package compose

import (
	"maps"
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
		Attachable: c.Attachable,
		Labels:     b.labels(at, c.Labels),

		IPAMOptions: plain(c.Ipam.Options),
	}
	b.driver(at, &spec)
	if c.Ipam.Driver != "default" {
		spec.IPAMDriver = c.Ipam.Driver
	}
	for i, pool := range c.Ipam.Config {
		if s, ok := b.subnet(at+".ipam.config["+strconv.Itoa(i)+"]", pool); ok {
			spec.IPAM = append(spec.IPAM, s)
		}
	}
	if spec.EnableIPv6 && !slices.ContainsFunc(spec.IPAM, func(s state.Subnet) bool { return strings.Contains(s.Subnet, ":") }) {
		b.warn(at+".enable_ipv6", "needs an IPv6 subnet under ipam.config, unless the engine was given address pools for IPv6")
	}
	slices.SortStableFunc(spec.IPAM, func(x, y state.Subnet) int { return strings.Compare(x.Subnet, y.Subnet) })
	b.project.Networks[name] = state.Network{Name: name, Spec: spec, Hash: spec.Hash()}
}

// driver refuses networks that no device can make.
func (b *builder) driver(at string, spec *state.NetworkSpec) {
	switch spec.Driver {
	case "bridge", "macvlan", "ipvlan":
	case "overlay":
		b.reject(at+".driver", "overlay: "+whySwarm)
	case "host", "none", "null":
		b.reject(at+".driver", spec.Driver+": use network_mode in the services")
	default:
		b.warn(at+".driver", clip(spec.Driver)+": balenaEngine has the drivers bridge, macvlan and ipvlan only")
	}
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
	spec.Expose = b.expose(at+".expose", c.Expose)
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
		spec.NetworkMode = mode
		b.share(name, c, spec)
		return
	case mode != "":
		joined = map[string]*types.ServiceNetworkConfig{mode: nil} // upstream's way to name one network
	case len(joined) == 0:
		joined = map[string]*types.ServiceNetworkConfig{implicit: nil}
	}
	if spec.NetworkMode == "" {
		b.joinNetworks(name, joined, spec)
	}
	b.hostNetwork(at, spec)
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
		external := b.outside.networks[n]
		if _, ok := b.project.Networks[n]; !ok && external == "" && n != implicit {
			b.reject(at, "the network is not declared under networks")
			continue
		} else if !ok && external == "" {
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

			External:   external,
			DriverOpts: plain(c.DriverOpts),
		}
		if external == "" {
			b.inSubnet(at+".ipv4_address", a.IPv4, n)
			b.inSubnet(at+".ipv6_address", a.IPv6, n)
		}
		for j, ip := range c.LinkLocalIPs {
			a.LinkLocalIP = append(a.LinkLocalIP, b.address(at+".link_local_ips["+strconv.Itoa(j)+"]", ip))
		}
		a.LinkLocalIP = set(a.LinkLocalIP)
		put(&spec.Networks, n, a)
	}
}

// inSubnet checks an address of a service against the network's subnets: the
// engine gives out addresses of those it was told only.
func (b *builder) inSubnet(at, address, network string) {
	a, err := netip.ParseAddr(address)
	if err != nil {
		return // none, or refused already
	}
	for _, pool := range b.project.Networks[network].Spec.IPAM {
		if p, err := netip.ParsePrefix(pool.Subnet); err == nil && p.Contains(a) {
			return
		}
	}
	b.reject(at, address+" is in no subnet under networks."+network+".ipam.config")
}

// share uses the network of another container, with which a service has nothing
// of a network of its own. What the engine would refuse is refused here.
func (b *builder) share(name string, c *types.ServiceConfig, spec *state.Spec) {
	at, with := "services."+name, " cannot be set with network_mode "+clip(spec.NetworkMode)
	_, owner, _ := strings.Cut(spec.NetworkMode, ":")
	switch {
	case owner == "":
		b.reject(at+".network_mode", "names no service or container")
	case spec.NetworkOwner() == name:
		b.reject(at+".network_mode", "a service cannot use its own network as another's")
	case spec.NetworkOwner() != "" && !b.isService(owner):
		b.reject(at+".network_mode", "there is no service "+clip(owner))
	}
	for attribute, set := range map[string]bool{
		"hostname": c.Hostname != "", "mac_address": c.MacAddress != "", "extra_hosts": len(c.ExtraHosts) > 0, "dns": len(c.DNS) > 0,
		"ports": b.around[name].ports != nil, "expose": len(c.Expose) > 0,
	} {
		if set {
			b.reject(at+"."+attribute, attribute+with+"; set it where the network is")
		}
	}
	for attribute, set := range map[string]bool{"dns_search": len(c.DNSSearch) > 0, "dns_opt": len(c.DNSOpts) > 0} {
		if set {
			b.ignore(at+"."+attribute, "counts where the network is")
		}
	}
	spec.DNSSearch, spec.DNSOpt = nil, nil
}

// hostNetwork refuses what the engine refuses of services that have the host's
// network or name.
func (b *builder) hostNetwork(at string, spec *state.Spec) {
	if spec.NetworkMode == "host" {
		if spec.MacAddress != "" {
			b.reject(at+".mac_address", "cannot be set with network_mode host")
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Sysctls)) {
			if strings.HasPrefix(name, "net.") {
				b.reject(join(at+".sysctls", name), "would change the host; it cannot be set with network_mode host")
			}
		}
	}
	if spec.Uts == "host" && spec.Hostname != "" {
		b.reject(at+".hostname", "cannot be set with uts host")
	}
}
