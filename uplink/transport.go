package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"deckhand/state"
)

const (
	// dialBudget is how long one address may take to answer. Attempts overlap, so
	// that many addresses do not add up.
	dialBudget = 30 * time.Second
	// dialStagger is after what silence of one address the next is tried beside it.
	// A tenth of a second more costs nothing; less would double the connections of
	// slow links.
	dialStagger = 500 * time.Millisecond
	// keepAlive keeps the entry of a router alive under a request that the cloud
	// holds; most routers forget after some minutes.
	keepAlive = 2 * time.Minute
	// idleFor is how long a connection that nobody uses stays open.
	idleFor = 20 * time.Second
)

// TransportConfig says what lies between the device and its cloud.
type TransportConfig struct {
	// Authorities gives root certificates, in PEM, that count beside the
	// system's; nil: none. It is asked for each request, so that a change counts.
	Authorities func() []byte
	// Clock gives the time that certificates are checked with, and whether the
	// device's own clock is known to be wrong; nil: the device's clock.
	Clock func() (now time.Time, wrong bool)
	// Answered is told of each answer; verified says that a certificate was
	// accepted for it. Nil: nobody is told.
	Answered func(verified bool)
	// Failed is told of each request without an answer, but for those that were
	// given up. Nil: nobody is told.
	Failed func(error)

	// Resolve gives the addresses of a host; nil: those that DNS has.
	Resolve func(ctx context.Context, host string) ([]netip.Addr, error)

	// The rest is for tests.

	Dial        func(ctx context.Context, address netip.AddrPort) (net.Conn, error)
	Environment func(name string) string // variables that name certificates
}

// Transport is a network of bad quality made usable: an address which swallows
// packets costs little, new certificate authorities and new addresses of the
// device count at once, and a clock that was never set is told from a bad
// certificate. Proxies are those of the environment: HTTPS_PROXY, HTTP_PROXY,
// NO_PROXY. It may be used by several goroutines.
type Transport struct {
	c TransportConfig

	mu    sync.Mutex
	roots fingerprint
	http  *http.Transport
}

// fingerprint tells whether certificates were replaced.
type fingerprint struct {
	text  string // of the certificates that were given
	files string // names, sizes and times of files
}

// NewTransport makes a transport. It opens no connection.
func NewTransport(c TransportConfig) *Transport {
	if c.Authorities == nil {
		c.Authorities = func() []byte { return nil }
	}
	if c.Clock == nil {
		c.Clock = func() (time.Time, bool) { return time.Now(), false }
	}
	if c.Answered == nil {
		c.Answered = func(bool) {}
	}
	if c.Failed == nil {
		c.Failed = func(error) {}
	}
	if c.Resolve == nil {
		c.Resolve = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if c.Dial == nil {
		d := &net.Dialer{Timeout: dialBudget, KeepAlive: keepAlive}
		c.Dial = func(ctx context.Context, a netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", a.String())
		}
	}
	if c.Environment == nil {
		c.Environment = os.Getenv
	}
	return &Transport{c: c}
}

// RoundTrip implements http.RoundTripper: one request, whatever happens.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := t.current().RoundTrip(r)
	if err != nil {
		err = t.explain(err)
		if r.Context().Err() == nil {
			t.c.Failed(err)
		}
		return nil, err
	}
	t.c.Answered(answer.TLS != nil)
	return answer, nil
}

// CloseIdleConnections closes what nobody uses; the next request connects anew.
// Call it when the addresses of the device have changed.
func (t *Transport) CloseIdleConnections() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.http != nil {
		t.http.CloseIdleConnections()
	}
}

// Probe opens a TCP connection to where a request to a URL would go, the proxy
// if there is one, and closes it.
func (t *Transport) Probe(ctx context.Context, endpoint string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, endpoint, nil)
	if err != nil {
		return state.Classify(state.ClassInvalid, err)
	}
	u := r.URL
	if proxy, err := http.ProxyFromEnvironment(r); err == nil && proxy != nil {
		u = proxy
	}
	conn, err := t.dial(ctx, "tcp", hostPort(u))
	if err != nil {
		return state.Classify(errorClass(err), err)
	}
	return conn.Close()
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// current is the transport with the certificates of this moment.
func (t *Transport) current() *http.Transport {
	given := t.c.Authorities()
	now := fingerprint{string(given), t.certificateFiles()}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.http != nil && t.roots == now {
		return t.http
	}
	if t.http != nil {
		t.http.CloseIdleConnections() // they were opened with the old certificates
	}
	t.roots = now
	t.http = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         t.dial,
		TLSClientConfig:     &tls.Config{RootCAs: t.pool(given), Time: func() time.Time { now, _ := t.c.Clock(); return now }, MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:   true,
		TLSHandshakeTimeout: DefaultTimeout,
		IdleConnTimeout:     idleFor,
		MaxIdleConns:        4,
	}
	return t.http
}

// certificateFiles notes what the named files of certificates are like now.
func (t *Transport) certificateFiles() string {
	var b strings.Builder
	for _, name := range []string{"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "BALENA_ROOT_CA"} {
		value := t.c.Environment(name)
		if value == "" {
			continue
		}
		fmt.Fprintf(&b, "%s=%s", name, value)
		if info, err := os.Stat(value); err == nil {
			fmt.Fprintf(&b, " %d %d", info.Size(), info.ModTime().UnixNano())
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// pool is the system's authorities with those of the environment and given.
func (t *Transport) pool(given []byte) *x509.CertPool {
	pool := t.systemPool()
	if b, err := os.ReadFile(t.c.Environment("NODE_EXTRA_CA_CERTS")); err == nil {
		pool.AppendCertsFromPEM(b)
	}
	pool.AppendCertsFromPEM([]byte(t.c.Environment("BALENA_ROOT_CA")))
	pool.AppendCertsFromPEM(given)
	return pool
}

// systemPool reads SSL_CERT_FILE itself: the library reads it only once.
func (t *Transport) systemPool() *x509.CertPool {
	if name := t.c.Environment("SSL_CERT_FILE"); name != "" {
		pool := x509.NewCertPool()
		if b, err := os.ReadFile(name); err == nil && pool.AppendCertsFromPEM(b) {
			return pool
		}
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		return x509.NewCertPool()
	}
	return pool
}

// errClock is what a person has to know when certificates do not fit the time.
var errClock = errors.New("the device's clock is wrong")

// explain tells a wrong clock from a wrong certificate.
func (t *Transport) explain(err error) error {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if !ok || invalid.Reason != x509.Expired {
		return err
	}
	now, wrong := t.c.Clock()
	if wrong || invalid.Cert != nil && now.Before(invalid.Cert.NotBefore) {
		return state.Classify(state.ClassClock, fmt.Errorf("%w (it shows %s): %w", errClock, time.Now().UTC().Format(time.DateOnly), err))
	}
	return err
}

// dial connects to the first of a host's addresses that answers. IPv6 and IPv4
// take turns; the next address is tried beside the others when they are silent,
// and at once when they have failed.
func (t *Transport) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	addresses, err := t.resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q of %s: %w", port, host, err)
	}
	return t.race(ctx, addresses, uint16(n))
}

func (t *Transport) resolve(ctx context.Context, host string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{a}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, DefaultTimeout)
	defer cancel()
	all, err := t.c.Resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, &net.DNSError{Err: "the name has no address", Name: host, IsNotFound: true}
	}
	return takeTurns(all), nil
}

// takeTurns orders addresses so that families alternate, beginning with that of
// the resolver's first.
func takeTurns(all []netip.Addr) []netip.Addr {
	var first, second []netip.Addr
	for _, a := range all {
		a = a.Unmap()
		if a.Is4() == all[0].Unmap().Is4() {
			first = append(first, a)
		} else {
			second = append(second, a)
		}
	}
	var out []netip.Addr
	for i := range max(len(first), len(second)) {
		out = append(out, first[min(i, len(first)):min(i+1, len(first))]...)
		out = append(out, second[min(i, len(second)):min(i+1, len(second))]...)
	}
	return out
}

type attempt struct {
	conn net.Conn
	err  error
}

// race runs overlapping attempts; whoever loses is closed.
func (t *Transport) race(ctx context.Context, addresses []netip.Addr, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan attempt)
	started, running := 0, 0
	defer func() {
		cancel()
		go func(losers int) { // they end as soon as the kernel lets them
			for range losers {
				if a := <-ended; a.conn != nil {
					_ = a.conn.Close()
				}
			}
		}(running)
	}()
	next := func() {
		a := netip.AddrPortFrom(addresses[started], port)
		started, running = started+1, running+1
		go func() {
			ctx, cancel := context.WithTimeout(ctx, dialBudget)
			defer cancel()
			conn, err := t.c.Dial(ctx, a)
			ended <- attempt{conn, err}
		}()
	}
	next()
	stagger := time.NewTicker(dialStagger)
	defer stagger.Stop()
	var failures []error
	for {
		select {
		case a := <-ended:
			running--
			if a.err == nil {
				return a.conn, nil
			}
			failures = append(failures, a.err)
			if started < len(addresses) {
				next()
			} else if running == 0 {
				return nil, worst(failures)
			}
		case <-stagger.C:
			if started < len(addresses) {
				next()
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// worst is the failure that says most: one address that refuses tells more than
// another family that is not there at all.
func worst(all []error) error {
	i := slices.IndexFunc(all, func(err error) bool {
		n, ok := errors.AsType[net.Error](err)
		return ok && n.Timeout() || isRefused(err)
	})
	return all[max(i, 0)]
}
