package discovery

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

func loopback(t *testing.T) []net.Interface {
	t.Helper()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	return []net.Interface{*lo}
}

// A device that answers in the network is found by its name, in any case of letters;
// a name that nobody has is not found, and in time.
func TestLookup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, Config{
			Enabled: func() bool { return true }, Changed: func() <-chan struct{} { return nil },
			Bus: "unix:path=/nonexistent/bus", Name: func() string { return "cloud" }, Port: 22222,
			Interfaces: []string{"lo"}, Log: zerolog.Nop(),
		})
	}()
	defer func() { cancel(); <-ended }()
	for _, name := range []string{"cloud.local", "Cloud.LOCAL."} {
		found, err := lookup(ctx, loopback(t), name)
		if err != nil || !slices.ContainsFunc(found, func(a netip.Addr) bool { return a.IsLoopback() }) {
			t.Errorf("%s: %v, %v", name, found, err)
		}
	}
	began := time.Now()
	_, err := lookup(ctx, loopback(t), "nobody.local")
	if dns, ok := errors.AsType[*net.DNSError](err); !ok || !dns.IsNotFound || time.Since(began) > askAtMost+2*time.Second {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	if _, err := lookup(ctx, nil, "cloud.local"); err == nil {
		t.Error("found in no network")
	}
	given, up := context.WithCancel(ctx)
	up()
	if _, err := lookup(given, loopback(t), "nobody.local"); err == nil {
		t.Error("found although nobody waits")
	}
}

func TestLocalNames(t *testing.T) {
	for name, want := range map[string]bool{
		"cloud.local": true, "Cloud.LOCAL.": true, "a.b.local": true, "local": false, ".local": false, "cloud.local.example": false, "notlocal": false, "x.alocal": false,
	} {
		if IsLocal(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}
