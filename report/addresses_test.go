package report

import (
	"encoding/binary"
	"net"
	"slices"
	"syscall"
	"testing"
)

// A container that comes or goes makes nobody look at all addresses.
func TestMessagesAboutAddresses(t *testing.T) {
	message := func(family, scope byte) []byte {
		b := make([]byte, syscall.NLMSG_HDRLEN+syscall.SizeofIfAddrmsg)
		binary.NativeEndian.PutUint32(b, uint32(len(b)))
		binary.NativeEndian.PutUint16(b[4:], syscall.RTM_NEWADDR)
		b[syscall.NLMSG_HDRLEN], b[syscall.NLMSG_HDRLEN+3] = family, scope
		return b
	}
	local := message(syscall.AF_INET6, syscall.RT_SCOPE_LINK)
	for _, c := range []struct {
		name  string
		bytes []byte
		want  bool
	}{
		{"IPv6 of a link", local, false},
		{"two of a link", append(slices.Clone(local), local...), false},
		{"IPv6", message(syscall.AF_INET6, syscall.RT_SCOPE_UNIVERSE), true},
		{"IPv4", message(syscall.AF_INET, syscall.RT_SCOPE_UNIVERSE), true},
		{"IPv4 of a link, which is reported", message(syscall.AF_INET, syscall.RT_SCOPE_LINK), true},
		{"one of many", append(slices.Clone(local), message(syscall.AF_INET, syscall.RT_SCOPE_UNIVERSE)...), true},
		{"nonsense", make([]byte, syscall.NLMSG_HDRLEN), true},
	} {
		if got := tells(c.bytes); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

// One question for all interfaces gives what one for each does.
func TestInterfacesOfThisMachine(t *testing.T) {
	got, err := Interfaces()
	must(t, err)
	all, err := net.Interfaces()
	must(t, err)
	if len(got) != len(all) {
		t.Fatalf("%d interfaces, want %d", len(got), len(all)) // one may come or go: run it again
	}
	for i, x := range all {
		addresses, err := x.Addrs()
		must(t, err)
		var want, have []string
		for _, a := range addresses {
			if n, ok := a.(*net.IPNet); ok {
				want = append(want, n.IP.String())
			}
		}
		for _, ip := range got[i].Addresses {
			have = append(have, ip.String())
		}
		if got[i].Name != x.Name || got[i].Up != (x.Flags&net.FlagUp != 0) || !slices.Equal(have, want) {
			t.Errorf("%s: %+v, want %v", x.Name, got[i], want)
		}
	}
}
