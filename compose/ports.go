package compose

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-connections/nat"

	"deckhand/state"
)

// maxPorts bounds the published ports of a document: one line may ask for 65535.
const maxPorts = 1 << 16

// portForm keeps a short form as text and writes the long form's parts as text;
// ports reads both.
func portForm(s *screen, path string, v any) (any, bool) {
	if m, ok := v.(map[string]any); ok {
		return m, true
	}
	return text(s, path, v)
}

// ports reads the screened ports of a service. They do not go through
// compose-go, which makes one object for each port of a range.
func (b *builder) ports(at string, in any) []state.Port {
	list, _ := in.([]any)
	var out []state.Port
	for i, v := range list {
		where := at + ".ports[" + strconv.Itoa(i) + "]"
		short, err := shortPort(v)
		if err != nil {
			b.reject(where, err.Error())
			continue
		}
		if b.portsLeft <= 0 {
			b.reject(where, fmt.Sprintf("more than %d published ports", maxPorts))
			return nil
		}
		ports, err := b.expand(short)
		if err != nil {
			b.reject(where, err.Error())
			continue
		}
		b.portsLeft -= len(ports)
		out = append(out, ports...)
	}
	slices.SortFunc(out, func(x, y state.Port) int {
		return cmp.Or(x.Target-y.Target, x.Published-y.Published,
			strings.Compare(x.HostIP, y.HostIP), strings.Compare(x.Protocol, y.Protocol))
	})
	return slices.Compact(out)
}

// shortPort writes the long form of a port the short way.
func shortPort(v any) (string, error) {
	m, ok := v.(map[string]any)
	if !ok {
		t, _ := v.(string)
		return strings.TrimSpace(t), nil
	}
	part := func(name string) string { t, _ := m[name].(string); return t }
	target, published, ip := part("target"), part("published"), part("host_ip")
	if target == "" {
		return "", fmt.Errorf("target is missing")
	}
	if strings.ContainsAny(target+published, ":/") {
		return "", fmt.Errorf("want port numbers, got %s and %s", clip(target), clip(published))
	}
	short := target
	if published != "" || ip != "" {
		short = published + ":" + short
	}
	if ip != "" {
		if strings.Contains(ip, ":") && !strings.HasPrefix(ip, "[") {
			ip = "[" + ip + "]"
		}
		short = ip + ":" + short
	}
	if proto := part("protocol"); proto != "" {
		short += "/" + proto
	}
	return short, nil
}

// expand reads [ip:][host:]container[/protocol]. In a release a port without a
// host port is published under its own number; in a compose file the engine
// chooses one (0).
func (b *builder) expand(short string) ([]state.Port, error) {
	mappings, err := nat.ParsePortSpec(short)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", clip(short), err)
	}
	out := make([]state.Port, 0, len(mappings))
	for _, m := range mappings {
		p := state.Port{Target: m.Port.Int(), Protocol: m.Port.Proto()}
		if p.Target == 0 {
			return nil, fmt.Errorf("%s: 0 is not a port of a container", clip(short))
		}
		switch host := m.Binding.HostPort; {
		case strings.Contains(host, "-"):
			return nil, fmt.Errorf("%s: a range of host ports needs a range of container ports of the same length", clip(short))
		case host != "":
			p.Published, err = strconv.Atoi(host)
		case !b.file:
			p.Published = p.Target
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", clip(short), err)
		}
		if m.Binding.HostIP != "" {
			p.HostIP = net.ParseIP(m.Binding.HostIP).String()
		}
		out = append(out, p)
	}
	return out, nil
}

// expose reads ports that are open without being published. They are noted on
// the container; services of one network reach each other's ports anyway.
func (b *builder) expose(at string, in []string) []string {
	var out []string
	for i, text := range in {
		where := at + "[" + strconv.Itoa(i) + "]"
		proto, numbers := nat.SplitProtoPort(strings.TrimSpace(text))
		from, to, err := nat.ParsePortRange(numbers)
		switch {
		case err != nil || from == 0 || !slices.Contains([]string{"tcp", "udp", "sctp"}, strings.ToLower(proto)):
			b.reject(where, "want a port such as 80 or 53/udp, got "+strconv.Quote(clip(text)))
			continue
		case b.portsLeft < int(to-from):
			b.reject(where, fmt.Sprintf("more than %d ports", maxPorts))
			return nil
		}
		b.portsLeft -= int(to-from) + 1
		for n := from; n <= to; n++ {
			out = append(out, strconv.FormatUint(n, 10)+"/"+strings.ToLower(proto))
		}
	}
	return set(out)
}

// portClashes warns of host ports that two services publish.
func (b *builder) portClashes(names []string) {
	owner := map[state.Port]string{}
	for _, name := range names {
		warned := false
		for _, p := range b.project.Services[name].Spec.Ports {
			p.Target = 0
			if other, taken := owner[p]; taken && other != name && p.Published != 0 && !warned {
				warned = true
				b.warn("services."+name+".ports", fmt.Sprintf("the host's port %d/%s is also published by %s; only one of them can start", p.Published, p.Protocol, other))
				continue
			}
			owner[p] = name
		}
	}
}
