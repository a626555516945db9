package builder

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"deckhand/build"
)

// A server that is slow, or stands still in the middle, holds nobody for ever.
func TestSlowServersAreGivenUp(t *testing.T) {
	release := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			_, _ = w.Write(make([]byte, 100)) // of a tar
			_ = http.NewResponseController(w).Flush()
		}
		<-release
	}))
	defer server.Close()
	defer close(release)
	b := &Builder{fetcher: newFetcher([]netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, 1<<20), limits: build.DefaultLimits(), stopped: make(chan struct{})}
	b.fetcher.time = 200 * time.Millisecond
	for _, path := range []string{"/silent", "/half"} {
		if _, err := b.fetch(t.Context(), order{URL: server.URL + path}, t.TempDir()); !errors.Is(err, errSlow) {
			t.Errorf("%s: %v", path, err)
		}
	}
	// Nor does a client that left, or a builder that is stopped.
	b.fetcher.time = time.Minute
	left, leave := context.WithCancel(t.Context())
	leave()
	if _, err := b.fetch(left, order{URL: server.URL + "/half"}, t.TempDir()); !errors.Is(err, context.Canceled) {
		t.Errorf("the client left: %v", err)
	}
	close(b.stopped)
	if _, err := b.fetch(t.Context(), order{URL: server.URL + "/half"}, t.TempDir()); !errors.Is(err, errStopping) {
		t.Errorf("the builder stops: %v", err)
	}
}

// What is not the public internet is dialled only when the operator allows it.
func TestWhatMayBeDialled(t *testing.T) {
	allowed := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00:1::/32")}
	for address, want := range map[string]bool{
		"93.184.216.34:443":            true,
		"172.32.0.1:80":                true,
		"[2606:2800:21f:cb07::1]:443":  true,
		"10.1.2.3:80":                  true,
		"[fd00:1::5]:80":               true,
		"[::ffff:10.1.2.3]:80":         true,
		"10.2.0.1:80":                  false,
		"127.0.0.1:8480":               false,
		"127.8.8.8:80":                 false,
		"0.0.0.0:80":                   false,
		"169.254.169.254:80":           false,
		"172.31.255.255:80":            false,
		"192.168.1.1:80":               false,
		"100.64.0.1:80":                false,
		"198.19.0.1:80":                false,
		"224.0.0.1:80":                 false,
		"255.255.255.255:80":           false,
		"[::1]:80":                     false,
		"[::]:80":                      false,
		"[::ffff:127.0.0.1]:80":        false,
		"[::ffff:192.168.1.1]:80":      false,
		"[::127.0.0.1]:80":             false,
		"[64:ff9b::a00:1]:80":          false,
		"[2002:7f00:1::]:80":           false,
		"[2001:0:1:2:3:4:5:6]:80":      false,
		"[fe80::1%lo]:80":              false,
		"[fc00::1]:80":                 false,
		"[ff02::1]:80":                 false,
		"/var/run/docker.sock":         false,
		"metadata.google.internal:443": false,
	} {
		err := dialable(address, allowed)
		if err != nil && !errors.Is(err, errPrivate) || (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}
