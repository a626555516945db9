package supervisor

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

// DNS goes first, and the network is asked for .local names only, also where no server
// answers and the whole has ten seconds.
func TestResolver(t *testing.T) {
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	unknown := errors.New("unknown to DNS")
	knows := func(context.Context, string) ([]netip.Addr, error) { return []netip.Addr{one}, nil }
	fails := func(context.Context, string) ([]netip.Addr, error) { return nil, unknown }
	silent := func(ctx context.Context, _ string) ([]netip.Addr, error) { <-ctx.Done(); return nil, unknown }
	network := func(ctx context.Context, _ string) ([]netip.Addr, error) {
		return []netip.Addr{two}, ctx.Err()
	}
	for name, c := range map[string]struct {
		host       string
		dns, local lookup
		want       netip.Addr // zero: the error of DNS
	}{
		"known to DNS":           {"cloud.local", knows, network, one},
		"known to the network":   {"cloud.local", fails, network, two},
		"no server answers":      {"cloud.local", silent, network, two},
		"known to nobody":        {"cloud.local", fails, fails, netip.Addr{}},
		"not for the network":    {"cloud.test", fails, network, netip.Addr{}},
		"for DNS, which has all": {"cloud.test", knows, fails, one},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), probeDoubt)
				defer cancel()
				began := time.Now()
				got, err := resolver(c.dns, c.local)(ctx, c.host)
				if !c.want.IsValid() {
					if !errors.Is(err, unknown) {
						t.Errorf("%v, %v", got, err)
					}
					return
				}
				if err != nil || len(got) != 1 || got[0] != c.want || time.Since(began) > dnsFirst {
					t.Errorf("%v, %v after %v", got, err, time.Since(began))
				}
			})
		})
	}
}
