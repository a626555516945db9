package localapi

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"net/http"
	"regexp"
)

// Keys says who may use the device API.
type Keys interface {
	// Open reports whether nobody needs a key now: the device has no cloud, or
	// is in local mode.
	Open() bool
	// Global is the key that opens the whole API; empty: there is none yet.
	Global() string
	// Services are the keys of services; each shows its own app only.
	Services() ([]ServiceKey, error)
	// Renew replaces the key of a service, or with an empty name the global one.
	// The old key opens nothing any more when it returns.
	Renew(ctx context.Context, app int64, service string) (key string, err error)
}

// ServiceKey is a key that was given to a service.
type ServiceKey struct {
	Key     string
	AppID   int64
	Service string
}

// caller is who makes a request.
type caller struct {
	all     bool   // may see every app
	app     int64  // else only this one
	service string // whose key it is; empty: nobody's, or the global one
	key     string // that opened the API; empty: none was needed
}

// may reports whether the caller may see and touch an app.
func (c caller) may(app int64) bool { return c.all || app == c.app }

type callerKey struct{}

// callerOf is who makes a request that the router let in.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// enter finds out who makes a request, which carries that from then on. Not ok:
// nobody who may.
func (a *api) enter(r *http.Request) (_ *http.Request, ok bool, err error) {
	c, ok, err := a.identify(r)
	if err == nil && !ok && requestKey(r) != "" && !a.strangers.may(r.RemoteAddr) {
		err = errTooOften
	}
	return r.WithContext(context.WithValue(r.Context(), callerKey{}, c)), ok, err
}

func (a *api) identify(r *http.Request) (c caller, ok bool, err error) {
	if a.c.Keys.Open() {
		return caller{all: true}, true, nil
	}
	got := requestKey(r)
	if equal(a.c.Keys.Global(), got) {
		return caller{all: true, key: got}, true, nil
	}
	all, err := a.c.Keys.Services()
	if err != nil {
		return c, false, err
	}
	for _, k := range all {
		if equal(k.Key, got) {
			c, ok = caller{app: k.AppID, service: k.Service, key: got}, true // no early end: time tells nothing
		}
	}
	return c, ok, nil
}

// equal compares keys in a time that does not tell how far they agree.
func equal(want, got string) bool {
	if want == "" || got == "" {
		return false
	}
	x, y := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got)) // lengths do not show either
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

var authorization = regexp.MustCompile(`(?i)^(?:apikey|bearer) ([0-9a-z_]+)$`)

// requestKey is the key of a request, in the query or in the header.
func requestKey(r *http.Request) string {
	if keys := r.URL.Query()["apikey"]; len(keys) == 1 && keys[0] != "" {
		return keys[0]
	}
	if m := authorization.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		return m[1]
	}
	return ""
}
