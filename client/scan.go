package client

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/mdns"

	"deckhand/state"
)

// Found is a device that announces itself in the network.
type Found struct {
	Name    string `json:"name"` // as in kitchen.local
	Address string `json:"address"`
	Version string `json:"version,omitempty"` // of deckhand; empty: another supervisor
}

// The service under which devices announce themselves, by both of its names.
var deviceServices = [...]string{"_balena-device._sub._ssh._tcp", "_resin-device._sub._ssh._tcp"}

// Scan looks for devices on all networks of this machine for as long as it is told.
func Scan(ctx context.Context, long time.Duration) ([]Found, error) {
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	const need = net.FlagUp | net.FlagMulticast
	s := search{found: map[string]Found{}}
	var wg sync.WaitGroup
	for _, i := range interfaces {
		if i.Flags&need != need || i.Flags&net.FlagLoopback != 0 {
			continue
		}
		for _, service := range deviceServices {
			wg.Go(func() { s.on(ctx, i, service, long) })
		}
	}
	wg.Wait()
	return slices.SortedFunc(maps.Values(s.found), func(a, b Found) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Address, b.Address))
	}), ctx.Err()
}

// search collects what several questions find.
type search struct {
	mu    sync.Mutex
	found map[string]Found // by name
}

// on asks on one network. One that does not allow it has no devices.
func (s *search) on(ctx context.Context, i net.Interface, service string, long time.Duration) {
	entries := make(chan *mdns.ServiceEntry, 64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range entries {
			s.add(e)
		}
	}()
	_ = mdns.QueryContext(ctx, &mdns.QueryParam{
		Service: service, Domain: "local", Timeout: long, Interface: &i, Entries: entries, Logger: log.New(io.Discard, "", 0),
	})
	close(entries)
	<-done
}

func (s *search) add(e *mdns.ServiceEntry) {
	f := Found{Name: strings.TrimSuffix(e.Host, ".")}
	if e.AddrV4 != nil {
		f.Address = e.AddrV4.String()
	} else if e.AddrV6IPAddr != nil {
		f.Address = e.AddrV6IPAddr.String()
	}
	for _, field := range e.InfoFields {
		if v, ok := strings.CutPrefix(field, "deckhand="); ok {
			f.Version = v
		}
	}
	if f.Name == "" || f.Address == "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, known := s.found[f.Name]; !known || f.Version != "" {
		s.found[f.Name] = f
	}
}

const lookUpTime = 3 * time.Second

// lookUp gives the address of a name: that of the name servers, else that which a device
// announces itself.
func lookUp(ctx context.Context, name string) (string, error) {
	if _, err := netip.ParseAddr(name); err == nil {
		return name, nil
	}
	asked, cancel := context.WithTimeout(ctx, lookUpTime)
	defer cancel()
	if addrs, err := net.DefaultResolver.LookupHost(asked, name); err == nil && len(addrs) > 0 {
		return addrs[0], nil
	}
	devices, err := Scan(ctx, lookUpTime)
	if err != nil {
		return "", err
	}
	for _, d := range devices {
		if strings.EqualFold(d.Name, strings.TrimSuffix(name, ".")) {
			return d.Address, nil
		}
	}
	return "", state.Classify(state.ClassDNS, fmt.Errorf("nobody in the network is called %s; deckctl scan lists the devices there are, or give its address", name))
}
