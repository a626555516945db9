package supervisor

import (
	"context"
	"net"
	"net/netip"
	"time"

	"deckhand/discovery"
)

// dnsFirst is how long DNS has for a name that the network itself may resolve. Where
// no server answers there is time left for the network.
const dnsFirst = 4 * time.Second

// lookup gives the addresses of a host.
type lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// newResolver finds the cloud.
func newResolver() lookup {
	dns := func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	return resolver(dns, discovery.Lookup)
}

// resolver asks DNS, so that entries which owners make there count, and for a name
// that ends in .local the network when DNS does not know it. The error is that of DNS,
// which says more.
func resolver(dns, local lookup) lookup {
	return func(ctx context.Context, host string) ([]netip.Addr, error) {
		if !discovery.IsLocal(host) {
			return dns(ctx, host)
		}
		limited, cancel := context.WithTimeout(ctx, dnsFirst)
		defer cancel()
		all, err := dns(limited, host)
		if err == nil && len(all) > 0 || ctx.Err() != nil {
			return all, err
		}
		if found, bad := local(ctx, host); bad == nil {
			return found, nil
		}
		return all, err
	}
}
