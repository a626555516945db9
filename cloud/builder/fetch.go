package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"
)

// fetcher gets project archives from addresses that users give. The cloud stands where
// its users do not: what it fetches for them comes from the public internet, or from
// networks that the operator named.
type fetcher struct {
	client *http.Client
	most   int64         // bytes of an archive
	time   time.Duration // for all of an archive
}

const (
	fetchTime      = 30 * time.Minute
	fetchDialTime  = 15 * time.Second
	fetchFirstByte = time.Minute
	fetchRedirects = 5
)

func newFetcher(allowed []netip.Prefix, most int64) *fetcher {
	// What is dialled is checked, after names were resolved and for each redirect. A proxy
	// would dial what nobody checked, so the environment's is not used.
	dialer := &net.Dialer{Timeout: fetchDialTime, Control: func(_, address string, _ syscall.RawConn) error {
		return dialable(address, allowed)
	}}
	return &fetcher{most: most, time: fetchTime, client: &http.Client{
		Transport: &http.Transport{
			DialContext: dialer.DialContext, TLSHandshakeTimeout: fetchDialTime, ResponseHeaderTimeout: fetchFirstByte,
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(next *http.Request, before []*http.Request) error {
			if len(before) > fetchRedirects {
				return fmt.Errorf("there are more than %d redirects", fetchRedirects)
			}
			return fetchable(next.URL)
		},
	}}
}

// errSlow ends what takes too long.
var errSlow = errors.New("the archive did not arrive in time")

// errPrivate refuses an address that only the cloud can reach.
var errPrivate = errors.New("the address is not one of the public internet; the operator of this cloud can allow its network with --fetch-from")

// dialable refuses addresses, with their port, that are neither public nor allowed.
func dialable(address string, allowed []netip.Prefix) error {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return errPrivate
	}
	ip := at.Addr().WithZone("").Unmap()
	if public(ip) || slices.ContainsFunc(allowed, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return nil
	}
	return errPrivate
}

// special are networks that are not the public internet, or lead out of it in disguise,
// as registered by IANA.
var special = func() []netip.Prefix {
	var all []netip.Prefix
	for _, network := range []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
		"192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/3",
		"2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
	} {
		all = append(all, netip.MustParsePrefix(network))
	}
	return all
}()

// publicSix has all public addresses of IPv6.
var publicSix = netip.MustParsePrefix("2000::/3")

func public(ip netip.Addr) bool {
	if ip.Is6() && !publicSix.Contains(ip) {
		return false
	}
	return !slices.ContainsFunc(special, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// fetchable refuses what is no address of a web server.
func fetchable(u *url.URL) error {
	switch {
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("only http and https are fetched, not %q", u.Scheme)
	case u.Hostname() == "":
		return errors.New("the URL has no host")
	}
	return nil
}

// get begins to fetch an archive. The caller closes what it returns.
func (f *fetcher) get(ctx context.Context, address string) (io.ReadCloser, error) {
	u, err := url.Parse(address)
	if err != nil || address == "" {
		return nil, errors.New("fetch the project: url must be the http or https address of a tar archive")
	}
	if err := fetchable(u); err != nil {
		return nil, fmt.Errorf("fetch the project: %w", err)
	}
	body, err := f.open(ctx, u)
	if err != nil {
		// Only the host: the rest of an address may hold secrets.
		return nil, fmt.Errorf("fetch the project from %s: %w", u.Host, err)
	}
	return body, nil
}

func (f *fetcher) open(ctx context.Context, u *url.URL) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "deckhand-cloud")
	req.Header.Set("Accept", "application/gzip, application/x-tar, */*")
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := f.client.Do(req)
	if err != nil {
		return nil, plainly(why(ctx, err))
	}
	switch {
	case resp.StatusCode != http.StatusOK:
		err = fmt.Errorf("the answer is %s", resp.Status)
	case resp.ContentLength > f.most:
		err = f.tooLarge()
	default:
		return resp.Body, nil
	}
	_ = resp.Body.Close()
	return nil, err
}

// plainly leaves out of an error what the cloud knows and its users need not: addresses
// behind names, and what stands in a URL.
func plainly(err error) error {
	if errors.Is(err, errPrivate) {
		return errPrivate
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok {
		return fmt.Errorf("the name %s cannot be resolved", unknown.Name)
	}
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return failed.Err
	}
	return err
}

// why is what ended a fetch: what it was cancelled for, before what came of that.
func why(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

func (f *fetcher) tooLarge() error {
	return fmt.Errorf("the archive is larger than %d MB", f.most>>20)
}
