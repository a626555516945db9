package report

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
)

// Interface is a network interface with its addresses.
type Interface struct {
	Name      string
	Up        bool
	Addresses []net.IP
}

// Interfaces lists the network interfaces of this host in the kernel's order. It
// asks the kernel twice, however many there are: each container has one.
func Interfaces() ([]Interface, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	addresses, err := addressesByIndex()
	if err != nil {
		return nil, err
	}
	out := make([]Interface, 0, len(all))
	for _, i := range all {
		out = append(out, Interface{Name: i.Name, Up: i.Flags&net.FlagUp != 0, Addresses: addresses[i.Index]})
	}
	return out, nil
}

// addressesByIndex lists the addresses of all interfaces by the interface's number.
func addressesByIndex() (map[int][]net.IP, error) {
	answer, err := syscall.NetlinkRIB(syscall.RTM_GETADDR, syscall.AF_UNSPEC)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", os.NewSyscallError("netlinkrib", err))
	}
	messages, err := syscall.ParseNetlinkMessage(answer)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[int][]net.IP{}
	for _, m := range messages {
		if m.Header.Type != syscall.RTM_NEWADDR || len(m.Data) < syscall.SizeofIfAddrmsg {
			continue
		}
		index := int(binary.NativeEndian.Uint32(m.Data[4:])) // of struct ifaddrmsg
		attributes, err := syscall.ParseNetlinkRouteAttr(&m)
		if err != nil {
			return nil, fmt.Errorf("list addresses: %w", err)
		}
		if ip := ownAddress(attributes); ip != nil {
			out[index] = append(out[index], ip)
		}
	}
	return out, nil
}

// ownAddress is this side's address: at the end of a point-to-point link the other
// side's stands beside it.
func ownAddress(all []syscall.NetlinkRouteAttr) net.IP {
	var ip net.IP
	for _, a := range all {
		if len(a.Value) != net.IPv4len && len(a.Value) != net.IPv6len {
			continue
		}
		switch a.Attr.Type {
		case syscall.IFA_LOCAL:
			return net.IP(a.Value)
		case syscall.IFA_ADDRESS:
			ip = net.IP(a.Value)
		}
	}
	return ip
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
