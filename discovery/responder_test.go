package discovery

import (
	"context"
	"io"
	"log"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/mdns"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// look is one search in the network of this machine alone.
func look(t *testing.T, service string) []*mdns.ServiceEntry {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skipf("no loopback interface: %v", err)
	}
	found := make(chan *mdns.ServiceEntry, 16)
	err = mdns.Query(&mdns.QueryParam{
		Service: service, Domain: "local", Timeout: 300 * time.Millisecond, Interface: lo, Entries: found,
		DisableIPv6: true, Logger: log.New(io.Discard, "", 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	close(found)
	var out []*mdns.ServiceEntry
	for e := range found {
		out = append(out, e)
	}
	return out
}

func TestADeviceIsFoundUntilItIsHidden(t *testing.T) {
	var on atomic.Bool
	changed := make(chan chan struct{}, 1)
	changed <- make(chan struct{})
	hint := func() { old := <-changed; changed <- make(chan struct{}); close(old) }
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, Config{
			Enabled: on.Load, Changed: func() <-chan struct{} { c := <-changed; changed <- c; return c },
			Bus: "unix:path=/nonexistent/bus", Name: func() string { return "kitchen" }, Port: 22222, Text: []string{"deckhand=1"},
			Interfaces: []string{"lo"}, Log: zerolog.Nop(),
		})
	}()
	defer func() { cancel(); <-ended }()
	on.Store(true)
	hint()
	for _, service := range []string{"_balena-device._sub._ssh._tcp", "_resin-device._sub._ssh._tcp", "_ssh._tcp"} {
		deadline := time.Now().Add(10 * time.Second)
		for {
			entries := look(t, service)
			if len(entries) == 1 {
				e := entries[0]
				if e.Name != "kitchen._ssh._tcp.local." || e.Host != "kitchen.local." || e.Port != 22222 || e.Info != "deckhand=1" || !e.AddrV4.IsLoopback() {
					t.Errorf("%s: %+v", service, e)
				}
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: nobody answers", service)
			}
		}
	}
	if others := look(t, "_printer._tcp"); len(others) > 0 {
		t.Errorf("it answers for others: %+v", others[0])
	}
	on.Store(false)
	hint()
	for deadline := time.Now().Add(10 * time.Second); len(look(t, "_balena-device._sub._ssh._tcp")) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("it is found although it is hidden")
		}
	}
}

// Clients differ in what they need in one answer: all of it is in each.
func TestAnAnswerIsWhole(t *testing.T) {
	l := &listener{r: &responder{c: Config{Port: 22222}, name: "my.kitchen"}, iface: net.Interface{Name: "lo", Index: 1}, group: groups[0]}
	ask := func(name string, class dnsmessage.Class, port uint16) ([]dnsmessage.Resource, dnsmessage.Header, netip.AddrPort) {
		t.Helper()
		q := dnsmessage.Message{Header: dnsmessage.Header{ID: 7}, Questions: []dnsmessage.Question{{Name: dnsmessage.MustNewName(name), Type: dnsmessage.TypePTR, Class: class}}}
		packet, err := q.Pack()
		if err != nil {
			t.Fatal(err)
		}
		reply, to := l.reply(packet, netip.AddrPortFrom(netip.MustParseAddr("192.0.2.9"), port))
		var m dnsmessage.Message
		if reply == nil {
			return nil, m.Header, to
		}
		if err := m.Unpack(reply); err != nil {
			t.Fatal(err)
		}
		return m.Answers, m.Header, to
	}
	answers, h, to := ask("_RESIN-device._sub._ssh._tcp.local.", dnsmessage.ClassINET, 5353)
	kinds := map[dnsmessage.Type]int{}
	for _, a := range answers {
		kinds[a.Header.Type]++
	}
	if !h.Response || h.ID != 0 || to != groups[0] || kinds[dnsmessage.TypePTR] != 4 || kinds[dnsmessage.TypeSRV] != 1 || kinds[dnsmessage.TypeTXT] != 1 {
		t.Errorf("%+v to %s, %v", h, to, kinds)
	}
	if _, _, to := ask("_ssh._tcp.local.", dnsmessage.ClassINET|unicast, 5353); to.Addr() != netip.MustParseAddr("192.0.2.9") {
		t.Errorf("who asks for an answer of its own gets it at %s", to)
	}
	if _, h, to := ask("my-kitchen.local.", dnsmessage.ClassANY, 40000); to.Port() != 40000 || h.ID != 7 {
		t.Errorf("a simple client gets %+v at %s", h, to)
	}
	for _, name := range []string{"other.local.", "_http._tcp.local.", "."} {
		if answers, _, _ := ask(name, dnsmessage.ClassINET, 5353); answers != nil {
			t.Errorf("%s: %v", name, answers)
		}
	}
	for _, junk := range []string{"", "x", strings.Repeat("\xff", 600), "\x00\x07\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00"} {
		if reply, _ := l.reply([]byte(junk), netip.AddrPort{}); reply != nil {
			t.Errorf("%q is answered", junk)
		}
	}
}
