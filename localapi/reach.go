package localapi

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"deckhand/state"
)

// nearby are the interfaces behind which are only the device's own containers,
// and its cloud.
func nearby() []string {
	return []string{"lo", state.APINetworkName, "docker0", "balena0", "resin-vpn", "tun0"}
}

// Reach says from where the device API can be reached, whatever keys there are.
type Reach struct {
	// Network reports whether the device's network may connect now. The device
	// itself, its containers and its VPN always may.
	Network func() bool
	// Refused is told who may not. May be nil.
	Refused func(from netip.Addr)
}

// Guard lets only those connections of a listener through that Reach allows;
// others are closed before anything is read.
func Guard(l net.Listener, r Reach) net.Listener { return &guarded{Listener: l, reach: r} }

type guarded struct {
	net.Listener
	reach Reach
}

// Accept implements net.Listener.
func (g *guarded) Accept() (net.Conn, error) {
	for {
		c, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		from := remote(c)
		if g.reach.Network() || isNear(from) {
			return c, nil
		}
		if t, ok := c.(*net.TCPConn); ok {
			_ = t.SetLinger(0) // a reset, as from a port that nobody listens on
		}
		_ = c.Close()
		if g.reach.Refused != nil {
			g.reach.Refused(from)
		}
	}
}

// remote is the address of the other end; not valid: it has none.
func remote(c net.Conn) netip.Addr {
	a, err := netip.ParseAddrPort(c.RemoteAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// isNear reports whether an address is the device's own, or the way to it leads
// through one of the interfaces nearby. The way back counts, and not the address
// that was called: a host takes packets for any of its addresses from anywhere.
func isNear(from netip.Addr) bool {
	if !from.IsValid() {
		return false
	}
	if from.IsLoopback() || interfaceOf(from) != "" {
		return true
	}
	return slices.Contains(nearby(), interfaceOf(wayTo(from)))
}

// wayTo is our address on the way to another one; not valid: there is no way.
// Nothing is sent.
func wayTo(to netip.Addr) netip.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	const discard = 9
	c, err := new(net.Dialer).DialContext(ctx, "udp", netip.AddrPortFrom(to, discard).String())
	if err != nil {
		return netip.Addr{}
	}
	defer func() { _ = c.Close() }()
	a, err := netip.ParseAddrPort(c.LocalAddr().String())
	if err != nil {
		return netip.Addr{}
	}
	return a.Addr().Unmap()
}

// interfaceOf is the interface that has an address; empty: none of ours.
func interfaceOf(a netip.Addr) string {
	all, err := net.Interfaces()
	if err != nil || !a.IsValid() {
		return ""
	}
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil || a.Zone() != "" && a.Zone() != i.Name {
			continue
		}
		for _, x := range addresses {
			if p, err := netip.ParsePrefix(x.String()); err == nil && p.Addr().Unmap().WithZone("") == a.WithZone("") {
				return i.Name
			}
		}
	}
	return ""
}
