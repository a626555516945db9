package auth

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"deckhand/cloud/answer"
)

// Limits are how often clients may do things before they are told to wait. They
// are far above what well-behaved ones do.
type Limits struct {
	// WrongCredentials is for sessions and keys that are not valid, for each
	// address (IPv6: each /64).
	WrongCredentials Rate
	// UserWrites, DeviceWrites and FleetWrites are for requests other than GET
	// of one user, device, or of all holders of provisioning keys of a fleet.
	UserWrites, DeviceWrites, FleetWrites Rate
	// GuestWrites is for those without a valid credential, for each address.
	GuestWrites Rate
}

// DefaultLimits are generous: a device reports every ten seconds at most, the
// official command line limits itself to six requests a second, and a factory
// may start thousands of devices at once.
func DefaultLimits() Limits {
	return Limits{
		WrongCredentials: Rate{Burst: 200, PerSecond: 1},
		UserWrites:       Rate{Burst: 5_000, PerSecond: 100},
		DeviceWrites:     Rate{Burst: 500, PerSecond: 10},
		FleetWrites:      Rate{Burst: 20_000, PerSecond: 1_000},
		GuestWrites:      Rate{Burst: 1_000, PerSecond: 20},
	}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	for _, rate := range []struct{ is, byDefault *Rate }{
		{&l.WrongCredentials, &d.WrongCredentials}, {&l.UserWrites, &d.UserWrites}, {&l.DeviceWrites, &d.DeviceWrites},
		{&l.FleetWrites, &d.FleetWrites}, {&l.GuestWrites, &d.GuestWrites},
	} {
		if rate.is.Burst == 0 {
			*rate.is = *rate.byDefault
		}
	}
	return l
}

// maxCredential is the length in bytes of the longest session or key.
const maxCredential = 4096

// visit is what Guard knows of a request.
type visit struct {
	address string // of the client
	limited string // by which it is limited
	actor   Actor
	err     error // of Authenticate
}

type visitKey struct{}

func visitOf(ctx context.Context) *visit {
	v, _ := ctx.Value(visitKey{}).(*visit)
	return v
}

// Guard stands before all routes: it finds out who asks, once, and refuses with
// 429 who asks too often.
func (a *Auth) Guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v := &visit{address: a.address(r)}
		v.limited = network(v.address)
		ctx := context.WithValue(r.Context(), visitKey{}, v)
		v.actor, v.err = a.identify(ctx, credential(r))
		tooMany, refused := errors.AsType[*TooManyAttempts](v.err)
		if !refused && r.Method != http.MethodGet && r.Method != http.MethodHead && r.Method != http.MethodOptions {
			tooMany, refused = a.mayWrite(v)
		}
		if refused {
			answerTooMany(w, tooMany)
			return
		}
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// identify is Identify where no credential is not a wrong one.
func (a *Auth) identify(ctx context.Context, secret string) (Actor, error) {
	if secret == "" || a.isBuilder(secret) {
		return Actor{}, ErrUnauthenticated
	}
	return a.Identify(ctx, secret)
}

// Authenticate finds the caller of a request by its Authorization header
// (Bearer session or key, Basic with the key as password) or its apikey
// query parameter. Without a valid credential the actor has kind None and
// the error is ErrUnauthenticated.
func (a *Auth) Authenticate(r *http.Request) (Actor, error) {
	if v := visitOf(r.Context()); v != nil {
		return v.actor, v.err
	}
	return a.identify(r.Context(), credential(r))
}

// credential is the session or key of a request, "" when there is none.
func credential(r *http.Request) string {
	scheme, value, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	switch strings.ToLower(scheme) {
	case "bearer":
		return strings.TrimSpace(value)
	case "basic":
		_, password, _ := r.BasicAuth()
		return password
	}
	if !strings.Contains(r.URL.RawQuery, "apikey") {
		return ""
	}
	return r.URL.Query().Get("apikey")
}

// mayTry says whether an unknown credential is looked up for this address.
func (a *Auth) mayTry(ctx context.Context) error {
	v := visitOf(ctx)
	if v == nil {
		return nil
	}
	if wait := a.wrong.wait(v.limited, a.limits.WrongCredentials, a.db.Now()); wait > 0 {
		return &TooManyAttempts{Wait: wait}
	}
	return nil
}

// invalid counts a credential that is not valid and returns the error.
func (a *Auth) invalid(ctx context.Context, secret string) error {
	if v := visitOf(ctx); v != nil && secret != "" {
		a.wrong.take(v.limited, a.limits.WrongCredentials, a.db.Now())
	}
	return ErrUnauthenticated
}

// mayWrite counts a write; refused is true when it is one too many.
func (a *Auth) mayWrite(v *visit) (tooMany *TooManyAttempts, refused bool) {
	name, rate := "actor "+strconv.FormatInt(v.actor.ActorID, 10), a.limits.GuestWrites
	switch v.actor.Kind {
	case None:
		name = v.limited
	case User:
		rate = a.limits.UserWrites
	case Device:
		rate = a.limits.DeviceWrites
	case Fleet:
		rate = a.limits.FleetWrites
	case VPN:
		name, rate = "vpn", a.limits.FleetWrites
	}
	wait := a.writes.take(name, rate, a.db.Now())
	return &TooManyAttempts{Wait: wait}, wait > 0
}

// ClientAddress is the address a request comes from, without the port.
func ClientAddress(r *http.Request) string {
	if v := visitOf(r.Context()); v != nil {
		return v.address
	}
	return peer(r)
}

// network is what one client can be expected to have: an address, of IPv6 its
// first half.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Unmap().Is4() {
		return address
	}
	half, err := ip.WithZone("").Prefix(64)
	if err != nil {
		return address
	}
	return half.String()
}

// peer is the address at the other end of the connection.
func peer(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// address is the client's, as told by the last proxy that is trusted.
func (a *Auth) address(r *http.Request) string {
	client := peer(r)
	hops := strings.Split(strings.Join(r.Header.Values("X-Forwarded-For"), ","), ",")
	for i := len(hops) - 1; i >= 0 && a.trusted(client); i-- {
		hop, err := netip.ParseAddr(strings.TrimSpace(hops[i]))
		if err != nil {
			break
		}
		client = hop.Unmap().String()
	}
	return client
}

func (a *Auth) trusted(address string) bool {
	ip, err := netip.ParseAddr(address)
	return err == nil && slices.ContainsFunc(a.proxies, func(p netip.Prefix) bool { return p.Contains(ip.Unmap()) })
}

// Require authenticates and answers 401, 429 or 500 itself when that fails.
// With kinds given the actor must be of one of them.
func (a *Auth) Require(w http.ResponseWriter, r *http.Request, kinds ...Kind) (Actor, bool) {
	actor, err := a.Authenticate(r)
	tooMany, refused := errors.AsType[*TooManyAttempts](err)
	switch {
	case errors.Is(err, ErrUnauthenticated):
	case refused:
		answerTooMany(w, tooMany)
		return Actor{}, false
	case err != nil:
		answer.Failure(w, r, err)
		return Actor{}, false
	case len(kinds) == 0 || slices.Contains(kinds, actor.Kind):
		return actor, true
	}
	answer.Empty(w, http.StatusUnauthorized)
	return Actor{}, false
}
