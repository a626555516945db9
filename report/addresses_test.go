package report

import (
	"net"
	"slices"
	"testing"
)

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
