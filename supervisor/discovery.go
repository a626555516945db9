package supervisor

import (
	"cmp"
	"context"
	"net"
	"os"
	"path/filepath"

	"deckhand/discovery"
	"deckhand/version"
)

// sshPort is where owners log in to the host; the service under which tools look
// for devices names it.
const sshPort = 22

// announce lets tools in the device's own network find it, unless its owner hides
// it or nobody there could talk to it.
func (s *Supervisor) announce(ctx context.Context) {
	bus := os.Getenv("DBUS_SYSTEM_BUS_ADDRESS")
	if bus == "" {
		bus = "unix:path=" + filepath.Join(cmp.Or(s.cfg.HostRoot, "/"), "run/dbus/system_bus_socket")
	}
	discovery.Run(ctx, discovery.Config{
		Enabled:  func() bool { return s.reachable() && s.settings().Discoverability },
		Changed:  s.runner.Changed,
		BalenaOS: s.host.OSID == "balena-os", Bus: bus, Name: s.networkName, Port: sshPort,
		Text: []string{"deckhand=" + version.Version}, Log: s.cfg.Log,
	})
}

// reachable reports whether the API is open to other machines.
func (s *Supervisor) reachable() bool {
	host, _, err := net.SplitHostPort(s.listenAddress())
	if err != nil {
		return false
	}
	ip := net.ParseIP(host)
	return (host == "" || ip != nil && !ip.IsLoopback()) && s.openToNetwork()
}

// networkName is the device's name in its network.
func (s *Supervisor) networkName() string {
	v := s.values()
	name := v.Hostname
	if name == "" {
		name, _ = os.Hostname()
	}
	if name == "" || name == "localhost" {
		name = "deckhand-" + v.UUID[:min(7, len(v.UUID))]
	}
	return name
}
