package localapi

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"deckhand/state"
)

// Supervisor answers the questions of deckhand's own commands. The values are
// encoded as JSON.
type Supervisor interface {
	// Status is what deckhand status prints.
	Status() any
	// Plan is what would be done now; with a target document, what would be
	// done if the cloud sent that. It changes nothing.
	Plan(ctx context.Context, document []byte) (any, error)
	// Snapshot is everything that a plan can be made from elsewhere.
	Snapshot(ctx context.Context) (any, error)
	// Explain says why a service, SERVICE or APP/SERVICE, was restarted, and
	// why it does not update.
	Explain(service string) (any, error)
	// Request takes a wish beside the target, a JSON document: it is written
	// down when Request returns, and done after.
	Request(ctx context.Context, document []byte) (any, error)
}

// ControlConfig connects the socket with the supervisor.
type ControlConfig struct {
	Supervisor Supervisor
	Log        func(Request) // may be nil
}

// Control makes the API of deckhand's own socket. It asks for no key: serve it
// on a listener of ListenControl only.
func Control(c ControlConfig) http.Handler {
	k := &control{c.Supervisor}
	return &router{
		routes: k.routes(),
		enter:  func(r *http.Request) (*http.Request, bool, error) { return r, true, nil },
		tooBad: func(w http.ResponseWriter, err error) { problem(w, state.Classify(state.ClassInvalid, err)) },
		log:    c.Log,
	}
}

type control struct{ s Supervisor }

func (c *control) status(w http.ResponseWriter, _ *http.Request, _ []byte) {
	answer(w, http.StatusOK, c.s.Status())
}

func (c *control) plan(w http.ResponseWriter, r *http.Request, _ []byte) {
	respond(w)(c.s.Plan(r.Context(), nil))
}

func (c *control) planFor(w http.ResponseWriter, r *http.Request, body []byte) {
	if len(body) == 0 {
		problem(w, state.Classify(state.ClassInvalid, errors.New("the request has no body; it must be a target document")))
		return
	}
	respond(w)(c.s.Plan(r.Context(), body))
}

func (c *control) snapshot(w http.ResponseWriter, r *http.Request, _ []byte) {
	respond(w)(c.s.Snapshot(r.Context()))
}

func (c *control) explain(w http.ResponseWriter, r *http.Request, _ []byte) {
	service := r.URL.Query().Get("service")
	if service == "" {
		problem(w, state.Classify(state.ClassInvalid, errors.New("name a service: /v3/explain?service=APP/SERVICE")))
		return
	}
	respond(w)(c.s.Explain(service))
}

func (c *control) request(w http.ResponseWriter, r *http.Request, body []byte) {
	respond(w)(c.s.Request(r.Context(), body))
}

func respond(w http.ResponseWriter) func(any, error) {
	return func(v any, err error) {
		if err != nil {
			problem(w, err)
			return
		}
		answer(w, http.StatusOK, v)
	}
}

// Problem is the body of an answer that is not a success.
type Problem struct {
	Class state.Class `json:"class"`
	Error string      `json:"error"`
}

func problem(w http.ResponseWriter, err error) {
	p := Problem{Class: state.ClassOf(err), Error: err.Error()}
	status := http.StatusInternalServerError
	if p.Class == state.ClassInvalid {
		status = http.StatusBadRequest
	}
	answer(w, status, p)
}

// ListenControl listens on a unix socket that only its owner can use. What a
// crash left at path is replaced, so hold the instance lock before.
func ListenControl(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	l, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
