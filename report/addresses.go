package report

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Interface is a network interface with its addresses.
type Interface struct {
	Name      string
	Up        bool
	Addresses []net.IP
}

// Interfaces lists the network interfaces of this host in the kernel's order.
func Interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var out []Interface
	for _, i := range all {
		addresses, err := i.Addrs()
		if err != nil {
			continue // it has just gone
		}
		x := Interface{Name: i.Name, Up: i.Flags&net.FlagUp != 0}
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok {
				x.Addresses = append(x.Addresses, n.IP)
			}
		}
		out = append(out, x)
	}
	return out, nil
}

var ownInterfaces = regexp.MustCompile(`^((balena|docker|rce|tun)[0-9]+|resin-vpn|lo|resin-dns|supervisor0|(balena|resin)-redsocks|br-[0-9a-f]{12})$`)

// IPAddresses are the addresses under which the device can be reached,
// space-separated: no loopback, no link-local IPv6, and none of the interfaces
// that the engine, the VPN and the supervisor make.
func IPAddresses(all []Interface) string {
	var out []string
	for _, i := range all {
		if !i.Up || ownInterfaces.MatchString(i.Name) {
			continue
		}
		for _, ip := range i.Addresses {
			if ip.IsLoopback() || ip.IsUnspecified() || ip.To4() == nil && ip.IsLinkLocalUnicast() {
				continue
			}
			if s := ip.String(); !slices.Contains(out, s) {
				out = append(out, s)
			}
		}
	}
	return strings.Join(out, " ")
}

// MACAddresses are the hardware addresses of the Ethernet and wireless
// interfaces, in upper case, space-separated. dir is /sys/class/net of the host;
// what cannot be read is left out.
func MACAddresses(dir string) string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return ""
	}
	var out []string
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if ownInterfaces.MatchString(e.Name()) || sysValue(path, "type") != "1" {
			continue
		}
		if _, err := os.Lstat(filepath.Join(path, "master")); err == nil {
			continue // a port of a bridge, for example of a container
		}
		mac, err := net.ParseMAC(sysValue(path, "address"))
		if err != nil {
			continue
		}
		if s := strings.ToUpper(mac.String()); !slices.Contains(out, s) {
			out = append(out, s)
		}
	}
	return strings.Join(out, " ")
}

func sysValue(dir, name string) string {
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
