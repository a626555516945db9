package uplink

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"deckhand/state"
)

// world is a network of addresses: each answers after some time, refuses, or
// swallows what is sent to it.
type world struct {
	mu    sync.Mutex
	start time.Time
	calls []string
	takes map[string]time.Duration // silent < 0; absent: refused
}

func (w *world) dial(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
	w.mu.Lock()
	w.calls = append(w.calls, fmt.Sprintf("%v %s", time.Since(w.start), a))
	takes, ok := w.takes[a.Addr().String()]
	w.mu.Unlock()
	if !ok {
		return nil, &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", errors.New("refused"))}
	}
	wait := time.After(takes)
	if takes < 0 {
		wait = nil
	}
	select {
	case <-wait:
		here, there := net.Pipe()
		_ = there.Close()
		return here, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func TestAnAddressThatSwallowsPackets(t *testing.T) {
	const silent = -1
	for name, c := range map[string]struct {
		resolved string
		takes    map[string]time.Duration
		within   time.Duration
		calls    int
		failed   bool
	}{
		"IPv6 is swallowed":         {"2001:db8::1 192.0.2.1", map[string]time.Duration{"2001:db8::1": silent, "192.0.2.1": 3 * time.Second}, 4 * time.Second, 2, false},
		"IPv6 only":                 {"2001:db8::1", map[string]time.Duration{"2001:db8::1": time.Second}, time.Second, 1, false},
		"five of one family":        {"192.0.2.1 192.0.2.2 192.0.2.3 192.0.2.4 192.0.2.5", map[string]time.Duration{"192.0.2.1": silent, "192.0.2.2": silent, "192.0.2.3": silent, "192.0.2.4": silent, "192.0.2.5": time.Second}, 3 * time.Second, 5, false},
		"refused, the next at once": {"192.0.2.9 192.0.2.1", map[string]time.Duration{"192.0.2.1": 0}, 0, 2, false},
		"a slow link is waited for": {"192.0.2.1", map[string]time.Duration{"192.0.2.1": 20 * time.Second}, 20 * time.Second, 1, false},
		"nobody answers":            {"2001:db8::1 192.0.2.1", map[string]time.Duration{"2001:db8::1": silent, "192.0.2.1": silent}, 31 * time.Second, 2, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &world{start: time.Now(), takes: c.takes}
				tr := NewTransport(TransportConfig{Dial: w.dial, Resolve: func(context.Context, string) (all []netip.Addr, err error) {
					for a := range strings.FieldsSeq(c.resolved) {
						all = append(all, netip.MustParseAddr(a))
					}
					return all, nil
				}})
				err := tr.Probe(t.Context(), "https://cloud.test")
				if (err != nil) != c.failed || time.Since(w.start) > c.within || len(w.calls) != c.calls {
					t.Errorf("after %v: %v; %v", time.Since(w.start), err, w.calls)
				}
				if c.failed && state.ClassOf(err) != state.ClassTimeout {
					t.Errorf("class %s", state.ClassOf(err))
				}
			})
		})
	}
}

func TestWhereAProbeGoes(t *testing.T) {
	for endpoint, want := range map[string]string{
		"https://192.0.2.1":           "192.0.2.1:443",
		"http://192.0.2.1/with/path":  "192.0.2.1:80",
		"https://192.0.2.1:8443":      "192.0.2.1:8443",
		"https://[2001:db8::1]:8443/": "[2001:db8::1]:8443",
		"https://[2001:db8::1]":       "[2001:db8::1]:443",
	} {
		w := &world{start: time.Now(), takes: map[string]time.Duration{"192.0.2.1": 0, "2001:db8::1": 0}}
		if err := NewTransport(TransportConfig{Dial: w.dial}).Probe(t.Context(), endpoint); err != nil || len(w.calls) != 1 || !strings.HasSuffix(w.calls[0], " "+want) {
			t.Errorf("%s: %v %v", endpoint, err, w.calls)
		}
	}
}

func TestFamiliesTakeTurns(t *testing.T) {
	var in []netip.Addr
	for _, a := range []string{"::1", "::2", "::3", "10.0.0.1", "::ffff:10.0.0.2"} {
		in = append(in, netip.MustParseAddr(a))
	}
	if got := fmt.Sprint(takeTurns(in)); got != "[::1 10.0.0.1 ::2 10.0.0.2 ::3]" {
		t.Error(got)
	}
}

// authority signs a certificate for loopback that is valid in a span of time.
func authority(t *testing.T, from, to time.Time) (root []byte, server tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: from, NotAfter: to, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func encrypted(t *testing.T, certificate tls.Certificate) *httptest.Server {
	t.Helper()
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func ask(t *testing.T, tr *Transport, url string) error {
	t.Helper()
	c, err := New(Config{Endpoint: url, UUID: testUUID, Transport: tr, Timeout: 5 * time.Second})
	must(t, err)
	_, err = c.Target(t.Context(), "", 0)
	return err
}

// A private authority counts from the next request on, and no longer when it is
// taken away.
func TestPrivateAuthorities(t *testing.T) {
	now := time.Now()
	root, certificate := authority(t, now.Add(-time.Hour), now.Add(time.Hour))
	s := encrypted(t, certificate)
	file := filepath.Join(t.TempDir(), "ca.pem")
	environment := map[string]string{}
	var given []byte
	tr := NewTransport(TransportConfig{Authorities: func() []byte { return given }, Environment: func(name string) string { return environment[name] }})
	trusted := func(what string, want bool) {
		t.Helper()
		err := ask(t, tr, s.URL)
		if (err == nil) != want || !want && state.ClassOf(err) != state.ClassTLS {
			t.Errorf("%s: %v", what, err)
		}
	}
	trusted("nothing", false)
	given = root
	trusted("config.json", true)
	given = nil
	trusted("taken away", false)
	for _, name := range []string{"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"} {
		clear(environment)
		environment[name] = file
		must(t, os.RemoveAll(file))
		trusted(name+" without the file", false)
		must(t, os.WriteFile(file, root, 0o600))
		trusted(name, true)
	}
	clear(environment)
	environment["BALENA_ROOT_CA"] = string(root)
	trusted("BALENA_ROOT_CA", true)
}

func TestAClockThatIsWrong(t *testing.T) {
	now := time.Now()
	year := 365 * 24 * time.Hour
	for name, c := range map[string]struct {
		from, to  time.Time
		clock     time.Time
		wrong     bool
		class     state.Class
		succeeded bool
	}{
		"right":                            {now.Add(-year), now.Add(year), now, false, "", true},
		"not yet valid: it is the clock":   {now.Add(-year), now.Add(year), now.Add(-2 * year), false, state.ClassClock, false},
		"expired, clock before the floor":  {now.Add(-year), now.Add(-time.Hour), now, true, state.ClassClock, false},
		"expired, the clock may be right":  {now.Add(-year), now.Add(-time.Hour), now, false, state.ClassTLS, false},
		"before the floor, which is valid": {now.Add(-year), now.Add(year), now.Add(-time.Hour), true, "", true},
	} {
		t.Run(name, func(t *testing.T) {
			root, certificate := authority(t, c.from, c.to)
			s := encrypted(t, certificate)
			tr := NewTransport(TransportConfig{
				Authorities: func() []byte { return root }, Clock: func() (time.Time, bool) { return c.clock, c.wrong },
			})
			err := ask(t, tr, s.URL)
			if (err == nil) != c.succeeded || err != nil && state.ClassOf(err) != c.class {
				t.Errorf("%v", err)
			}
			if c.class == state.ClassClock && !strings.Contains(fmt.Sprint(err), "clock is wrong (it shows ") {
				t.Errorf("%v", err)
			}
		})
	}
}

// The environment is read once in a process, so this needs another one.
func TestProxyOfTheEnvironment(t *testing.T) {
	if os.Getenv("UPLINK_TEST_CHILD") != "" {
		tr := NewTransport(TransportConfig{Resolve: func(context.Context, string) ([]netip.Addr, error) { return nil, nil }})
		fmt.Println("probe", tr.Probe(t.Context(), "http://cloud.invalid"), "ask", ask(t, tr, "http://cloud.invalid"), "without", state.ClassOf(ask(t, tr, "http://direct.invalid")))
		return
	}
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Host != "cloud.invalid" {
			w.WriteHeader(http.StatusTeapot)
		}
		_, _ = w.Write([]byte("{}"))
	}))
	defer proxy.Close()
	cmd := exec.Command(os.Args[0], "-test.run", "^TestProxyOfTheEnvironment$", "-test.v")
	cmd.Env = append(os.Environ(), "UPLINK_TEST_CHILD=1", "HTTP_PROXY="+proxy.URL, "NO_PROXY=direct.invalid")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "probe <nil> ask <nil> without dns\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestConnectionsCloseWhenTheNetworkChanges(t *testing.T) {
	var mu sync.Mutex
	opened := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	defer s.Close()
	tr := NewTransport(TransportConfig{Dial: func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		opened++
		return new(net.Dialer).DialContext(ctx, "tcp", a.String())
	}})
	for _, close := range []bool{false, true, false} {
		must(t, ask(t, tr, s.URL))
		if close {
			tr.CloseIdleConnections()
		}
	}
	if opened != 2 {
		t.Errorf("%d connections, want 2", opened)
	}
}
