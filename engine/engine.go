// Package engine looks at and changes the device's container engine. It is the
// only package that imports the engine's client.
//
//	Observe  one cheap look: at most four list calls, whatever the number of containers
//	Do       one step of a plan; safe to repeat and to interrupt
//	Watch    hints that another look is worth while
//
// The oldest supported engine speaks API 1.41 (Docker 20.10, balenaEngine
// 20.10). Nothing is sent that such an engine would ignore without a word.
package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/docker/docker/api/types/versions"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/sockets"
	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/state"
)

const (
	minimumAPI  = "1.41"
	pingTimeout = 10 * time.Second
	callTimeout = 2 * time.Minute // calls that should be quick, on a slow device under load

	backoffFirst = 100 * time.Millisecond
	backoffMost  = 5 * time.Second
)

// Config says which engine to use and on whose behalf.
type Config struct {
	Host     string                // unix:///… or tcp://…
	Identity func() state.Identity // what containers are told about the device; asked at each creation
	RunDir   string                // folder on the host that holds services' lock folders; empty: none are mounted
	Project  string                // label of the objects to see and make; empty for the supervisor proper
	HostRoot string                // where the host's root folder is mounted for us; empty: /

	// Auth gives the credentials for a registry; ok is false for none.
	Auth func(registry string) (user, password string, ok bool)

	// API is the network on which services reach the supervisor. What is
	// empty has balena's value; other values are for engines side by side.
	API APINetwork

	// Features gives what a service's labels may ask for; asked at each
	// creation. Nil: the device has nothing of it.
	Features func(app reconcile.App, service string) Features

	// Started is told when a container was started; an empty ID: any may have
	// been. It must not wait. May be nil.
	Started func(container string)

	// Transport carries requests in place of a connection to Host: tests put a
	// simulated engine here. Nil: a connection is made.
	Transport http.RoundTripper

	Log zerolog.Logger
}

// Engine is a container engine. Its methods may be called concurrently.
type Engine struct {
	cfg       Config
	transport *http.Transport
	calls     atomic.Int64
	available atomic.Bool

	mu     sync.Mutex
	client *client.Client // nil until the engine answered, and after it went away

	looking sync.Mutex // one look at a time
	memo    memo       // what the last look saw

	networks sync.Mutex // the engine's check for duplicate names needs one creator at a time

	loggedMu sync.Mutex
	logged   map[string]bool // objects whose oddity was logged already

	refusals refusals
	space    space
	limits   limits
}

// limits are the times after which the engine's own patience is not trusted.
type limits struct {
	stop  time.Duration // a stop, beyond the container's grace period
	force time.Duration // a kill or a removal by force
	ask   time.Duration // the registry, for the size of an image
}

// Info describes the engine.
type Info struct {
	Name       string // balenaEngine or Docker
	Version    string
	APIVersion string // the one in use
}

// New prepares the connection; it does not wait for the engine, see Ready.
func New(cfg Config) (*Engine, error) {
	host, err := client.ParseHostURL(cfg.Host)
	if err != nil {
		return nil, fmt.Errorf("engine host %q: %w; use unix:///path or tcp://address:port", cfg.Host, err)
	}
	tr := &http.Transport{MaxIdleConns: 6, MaxIdleConnsPerHost: 6, IdleConnTimeout: 30 * time.Second}
	if err := sockets.ConfigureTransport(tr, host.Scheme, host.Host); err != nil {
		return nil, fmt.Errorf("engine host %q: %w", cfg.Host, err)
	}
	if cfg.Identity == nil {
		cfg.Identity = func() state.Identity { return state.Identity{} }
	}
	if cfg.Auth == nil {
		cfg.Auth = func(string) (string, string, bool) { return "", "", false }
	}
	if cfg.Features == nil {
		cfg.Features = func(reconcile.App, string) Features { return Features{} }
	}
	cfg.API = cfg.API.whole()
	e := &Engine{cfg: cfg, transport: tr, logged: map[string]bool{},
		limits: limits{stop: 20 * time.Second, force: 20 * time.Second, ask: 10 * time.Second}}
	e.space.registries = registries{auth: cfg.Auth, client: newRegistryClient()}
	return e, nil
}

// Close frees the connections.
func (e *Engine) Close() error {
	e.transport.CloseIdleConnections()
	e.space.registries.client.CloseIdleConnections()
	return nil
}

// local reports whether the engine is on this machine, so that its folders are
// ours as well.
func (e *Engine) local() bool {
	return strings.HasPrefix(e.cfg.Host, "unix://") && e.cfg.Transport == nil
}

// Calls is the number of requests sent to the engine so far.
func (e *Engine) Calls() int64 { return e.calls.Load() }

// Available reports whether the engine answered when it was last asked.
func (e *Engine) Available() bool { return e.available.Load() }

// Ready waits until the engine answers or ctx ends. An engine that is too old
// is an error at once.
func (e *Engine) Ready(ctx context.Context) error {
	for wait := backoffFirst; ; wait = min(2*wait, backoffMost) {
		err := e.Ping(ctx)
		if err == nil || state.ClassOf(err) == state.ClassInvalid {
			return err
		}
		if !sleep(ctx, wait) {
			return state.Classify(state.ClassEngine, fmt.Errorf("wait for engine at %s: %w (%w)", e.cfg.Host, context.Cause(ctx), err))
		}
	}
}

// Ping asks the engine for a sign of life, which must come within ten seconds.
func (e *Engine) Ping(ctx context.Context) error {
	c, err := e.connected(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if _, err := c.Ping(ctx); err != nil {
		return e.fail("ask engine for a sign of life", err)
	}
	e.available.Store(true)
	return nil
}

// Info asks the engine who it is.
func (e *Engine) Info(ctx context.Context) (Info, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return Info{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	v, err := c.ServerVersion(ctx)
	if err != nil {
		return Info{}, e.fail("ask engine for its version", err)
	}
	names := v.Platform.Name
	for _, part := range v.Components {
		names += " " + part.Name
	}
	name := "Docker"
	if strings.Contains(strings.ToLower(names), "balena") {
		name = "balenaEngine"
	}
	return Info{Name: name, Version: v.Version, APIVersion: c.ClientVersion()}, nil
}

// connected gives the client. The first caller after a break asks the engine
// for its version: it may have been updated meanwhile.
func (e *Engine) connected(ctx context.Context) (*client.Client, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.client != nil {
		return e.client, nil
	}
	c, err := client.NewClientWithOpts(client.WithHost(e.cfg.Host),
		client.WithHTTPClient(&http.Client{Transport: counter{e}, CheckRedirect: client.CheckRedirect}))
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("connect to engine: %w", err))
	}
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	ping, err := c.Ping(ctx)
	if err != nil {
		e.available.Store(false)
		return nil, fmt.Errorf("connect to engine: %w", classify(err))
	}
	if err := supported(ping.APIVersion); err != nil {
		return nil, err
	}
	c.NegotiateAPIVersionPing(ping)
	e.client = c
	e.available.Store(true)
	return c, nil
}

func supported(api string) error {
	switch {
	case api == "":
		return state.Classify(state.ClassEngine, errors.New("connect to engine: the answer names no API version; is there a proxy in front of the socket?"))
	case versions.LessThan(api, minimumAPI):
		return state.Classify(state.ClassInvalid, fmt.Errorf("connect to engine: it speaks API %s, needed is %s (Docker or balenaEngine 20.10) or newer", api, minimumAPI))
	}
	return nil
}

// lost forgets the client, so that the next call asks for the version again.
func (e *Engine) lost() {
	e.available.Store(false)
	e.mu.Lock()
	e.client = nil
	e.mu.Unlock()
	e.refusals.forget() // the engine may start containers while nobody looks
	e.space.forget()
	e.transport.CloseIdleConnections()
}

// fail says what was tried and sorts the error; after a broken connection the
// engine may be another version.
func (e *Engine) fail(what string, err error) error {
	if client.IsErrConnectionFailed(err) {
		e.lost()
	}
	return fmt.Errorf("%s: %w", what, classify(err))
}

// once is true the first time it is asked about key.
func (e *Engine) once(key string) bool {
	e.loggedMu.Lock()
	defer e.loggedMu.Unlock()
	if e.logged[key] {
		return false
	}
	if len(e.logged) > 1000 {
		clear(e.logged)
	}
	e.logged[key] = true
	return true
}

// counter counts requests.
type counter struct{ e *Engine }

// RoundTrip implements http.RoundTripper.
func (c counter) RoundTrip(r *http.Request) (*http.Response, error) {
	c.e.calls.Add(1)
	if t := c.e.cfg.Transport; t != nil {
		return t.RoundTrip(r)
	}
	return c.e.transport.RoundTrip(r)
}

// sleep waits; it is false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// label reads a label of ours in its present or its older form.
func label(labels map[string]string, key string) string {
	return cmp.Or(labels[key], labels[strings.Replace(key, "io.balena.", "io.resin.", 1)])
}

func supervised(labels map[string]string) bool {
	_, now := labels[state.LabelSupervised]
	_, old := labels["io.resin.supervised"]
	return now || old
}

// ours reports whether an object belongs to the supervisor or, with a project
// name, to that project.
func (e *Engine) ours(labels map[string]string) bool {
	return supervised(labels) && labels[state.LabelProject] == e.cfg.Project
}
