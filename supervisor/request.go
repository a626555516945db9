package supervisor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
)

// Request is a wish of the owner or of a program on the device, beside the
// target. It is written down before anything is done about it, and done even if
// the supervisor or the device restarts in between.
type Request struct {
	Kind     RequestKind    `json:"kind"`
	App      string         `json:"app,omitempty"`      // name, UUID or number; an override may leave it empty: every app
	Services []string       `json:"services,omitempty"` // empty: all of the app's
	For      state.Duration `json:"for,omitempty"`      // an override: how long; zero: forceFor
	By       string         `json:"by,omitempty"`       // who asks, for people; empty: the owner
}

// RequestKind is what is asked for.
type RequestKind string

// The kinds of requests.
const (
	RequestRestart     RequestKind = "restart"
	RequestStop        RequestKind = "stop"
	RequestStart       RequestKind = "start"
	RequestPurge       RequestKind = "purge"
	RequestOverride    RequestKind = "override"     // break update locks for a while
	RequestEndOverride RequestKind = "end-override" // no longer
	RequestRetry       RequestKind = "retry"        // ask the cloud now, and try again what failed
)

// Accepted says what will be done about a request.
type Accepted struct {
	Text   string    `json:"text"`             // for people
	Joined bool      `json:"joined,omitempty"` // the same is on its way already
	Until  time.Time `json:"until,omitzero"`   // of an override
}

const (
	// forceFor is how long locks may be broken by somebody who names no time:
	// long enough for the download of a large update.
	forceFor = time.Hour
	// forceMost keeps a mistyped time from lasting for ever.
	forceMost = 30 * 24 * time.Hour
	owner     = "the owner" // who has the control socket
)

// Restart replaces the containers of services by new ones, in the order of their
// dependencies.
func (s *Supervisor) Restart(ctx context.Context, r Request) (Accepted, error) {
	return s.intent(ctx, state.Restart, r)
}

// Stop keeps services stopped, over restarts of supervisor and device, until
// they are started or a new release comes.
func (s *Supervisor) Stop(ctx context.Context, r Request) (Accepted, error) {
	return s.intent(ctx, state.Stop, r)
}

// Start runs services that were stopped or have ended.
func (s *Supervisor) Start(ctx context.Context, r Request) (Accepted, error) {
	return s.intent(ctx, state.Start, r)
}

// Purge deletes the volumes of an app with the data in them and makes them anew.
func (s *Supervisor) Purge(ctx context.Context, r Request) (Accepted, error) {
	if len(r.Services) > 0 {
		return Accepted{}, state.Classify(state.ClassInvalid, errors.New("volumes belong to the app; name it without a service"))
	}
	return s.intent(ctx, state.Purge, r)
}

// Force allows to break update locks of an app, or of every app, for a while.
func (s *Supervisor) Force(ctx context.Context, r Request) (Accepted, error) {
	app, name, err := s.requestedApp(ctx, r)
	if err != nil {
		return Accepted{}, err
	}
	length := cmp.Or(time.Duration(r.For), forceFor)
	if length < 0 || length > forceMost {
		return Accepted{}, state.Classify(state.ClassInvalid, fmt.Errorf("an override lasts more than nothing and up to %d days", int(forceMost.Hours()/24)))
	}
	until := s.device.Now().Add(length).UTC()
	o := store.Override{Override: state.Override{App: app, By: cmp.Or(r.By, owner), Until: until}}
	if err := s.device.allow(o); err != nil {
		return Accepted{}, fmt.Errorf("write the override down: %w", state.Classify(state.ClassSpace, err))
	}
	text := fmt.Sprintf("update locks of %s may be broken for %s", name, length)
	s.journal.Allow(string(RequestOverride), app, o.By, text)
	s.retry(app)
	return Accepted{Text: text, Until: until}, nil
}

// EndForce takes the permission to break update locks back.
func (s *Supervisor) EndForce(ctx context.Context, r Request) (Accepted, error) {
	app, name, err := s.requestedApp(ctx, r)
	if err != nil {
		return Accepted{}, err
	}
	n, err := s.device.disallow(func(o store.Override) bool { return o.App == app })
	if err != nil {
		return Accepted{}, state.Classify(state.ClassSpace, err)
	}
	text := "update locks of " + name + " hold again"
	if n == 0 {
		return Accepted{Text: "there was no override for " + name, Joined: true}, nil
	}
	s.journal.Allow(string(RequestEndOverride), app, cmp.Or(r.By, owner), text)
	s.runner.Look()
	return Accepted{Text: text}, nil
}

// Request does what a request asks for.
func (s *Supervisor) Request(ctx context.Context, r Request) (Accepted, error) {
	switch r.Kind {
	case RequestRestart:
		return s.Restart(ctx, r)
	case RequestStop:
		return s.Stop(ctx, r)
	case RequestStart:
		return s.Start(ctx, r)
	case RequestPurge:
		return s.Purge(ctx, r)
	case RequestOverride:
		return s.Force(ctx, r)
	case RequestEndOverride:
		return s.EndForce(ctx, r)
	case RequestRetry:
		s.update(false, false)
		s.retry("")
		return Accepted{Text: "the cloud is asked now, and what failed is tried again"}, nil
	}
	return Accepted{}, state.Classify(state.ClassInvalid, fmt.Errorf("kind: %q is not known; use restart, stop, start, purge, override, end-override or retry", r.Kind))
}

// requestedApp is the UUID and the name of the app that a request may name.
func (s *Supervisor) requestedApp(ctx context.Context, r Request) (uuid, name string, err error) {
	if r.App == "" {
		return "", "every app", nil
	}
	w, err := s.device.Observe(ctx)
	if err != nil {
		return "", "", err
	}
	t := s.device.target()
	uuid, err = history.FindApp(t, w, r.App)
	return uuid, cmp.Or(t.Apps[uuid].Name, uuid), state.Classify(state.ClassInvalid, err)
}

func (s *Supervisor) intent(ctx context.Context, kind state.IntentKind, r Request) (Accepted, error) {
	w, err := s.device.Observe(ctx)
	if err != nil {
		return Accepted{}, err
	}
	x, err := newWish(s.device.target(), w, kind, r)
	if err != nil {
		return Accepted{}, state.Classify(state.ClassInvalid, err)
	}
	x.at = s.device.Now().UTC()
	g, err := s.device.ask(x)
	if err != nil {
		return Accepted{}, err
	}
	if !g.joined {
		services := r.Services
		s.journal.Wish(string(kind), x.now.UUID, services, x.by, g.text)
	}
	s.retry(x.now.UUID)
	return Accepted{Text: g.text, Joined: g.joined}, nil
}

// newWish checks that what a request names exists.
func newWish(t state.Target, w state.World, kind state.IntentKind, r Request) (wish, error) {
	uuid, err := history.FindApp(t, w, r.App)
	if err != nil {
		return wish{}, err
	}
	x := wish{kind: kind, by: cmp.Or(r.By, owner), now: w.Apps[uuid], want: t.Apps[uuid], named: len(r.Services) > 0}
	x.now.UUID, x.name = uuid, cmp.Or(x.want.Name, uuid)
	known := history.ServicesOf(x.want, x.now)
	x.services = known
	if x.named {
		x.services = slices.Compact(slices.Sorted(slices.Values(r.Services)))
	}
	for _, s := range x.services {
		if !slices.Contains(known, s) {
			return wish{}, fmt.Errorf("%s has no service %s; it has %s", x.name, s, cmp.Or(strings.Join(known, ", "), "none"))
		}
	}
	return x, nil
}

// retry tries again at once what failed: somebody asked.
func (s *Supervisor) retry(app string) {
	if err := s.device.retryHandovers(app); err != nil {
		s.cfg.Log.Warn().Err(err).Msg("cannot forget failed hand-overs; they are not tried again yet")
	}
	s.runner.Retry()
}

// readRequest decodes a request that came over the socket.
func readRequest(body []byte) (Request, error) {
	var r Request
	d := json.NewDecoder(strings.NewReader(string(body)))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, state.Classify(state.ClassInvalid, fmt.Errorf("read the request: %w", err))
	}
	return r, nil
}
