package localapi

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"deckhand/state"
)

// EventsConfig bounds a stream of events. Zero values stand for the defaults.
type EventsConfig struct {
	Keep      int           // events kept for clients that come back; 256
	Clients   int           // at most, at the same time; 16
	Each      int           // of them with the key of one service; 4
	Buffer    int           // events that a client may lag behind; 64
	KeepAlive time.Duration // between comments that keep a quiet connection open; 15 s
	Patience  time.Duration // with a client that does not read; 10 s
}

// Events passes changes on to clients as server-sent events. Publish never waits
// for a client: one that is too slow is dropped, and may come back with the ID
// of the last event it has.
type Events struct {
	cfg  EventsConfig
	name string // of this stream; its IDs mean nothing to another one

	mu      sync.Mutex
	last    uint64
	ring    []event // oldest first
	clients map[*listener]bool
	closed  bool
}

// event is one change.
type event struct {
	n    uint64
	app  int64 // who may see it; 0: everybody
	kind string
	data []byte
}

// listener is one client.
type listener struct {
	scope  Scope
	events chan event // closed: the client was dropped, or the stream has ended
}

// NewEvents makes a stream; begun tells it from that of an earlier process.
func NewEvents(cfg EventsConfig, begun time.Time) *Events {
	or := func(n *int, usual int) {
		if *n == 0 {
			*n = usual
		}
	}
	or(&cfg.Keep, 256)
	or(&cfg.Clients, 16)
	or(&cfg.Each, 4)
	or(&cfg.Buffer, 64)
	if cfg.KeepAlive == 0 {
		cfg.KeepAlive = 15 * time.Second
	}
	if cfg.Patience == 0 {
		cfg.Patience = 10 * time.Second
	}
	return &Events{cfg: cfg, name: strconv.FormatInt(begun.UnixMilli(), 36), clients: map[*listener]bool{}}
}

// Publish tells everybody who may see the app of a change; app 0 is the device.
// The data is encoded as JSON.
func (e *Events) Publish(app int64, kind string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		return // ours are plain structs
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.last++
	x := event{n: e.last, app: app, kind: kind, data: b}
	e.ring = append(e.ring, x)
	if n := len(e.ring) - e.cfg.Keep; n > 0 {
		e.ring = append(e.ring[:0], e.ring[n:]...)
	}
	for l := range e.clients {
		if !l.sees(x) {
			continue
		}
		select {
		case l.events <- x:
		default:
			e.drop(l)
		}
	}
}

func (l *listener) sees(x event) bool { return x.app == 0 || l.scope.All || x.app == l.scope.App }

// drop ends a client's stream; the lock is held.
func (e *Events) drop(l *listener) {
	if e.clients[l] {
		delete(e.clients, l)
		close(l.events)
	}
}

// Close ends the streams of all clients; there are no new ones.
func (e *Events) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.closed = true
	for l := range e.clients {
		e.drop(l)
	}
}

// join adds a client that has seen the events up to an ID. Not resumed: what it
// has missed is not known, and it has to be told everything, as of event last.
func (e *Events) join(s Scope, lastID string) (l *listener, missed []event, last uint64, resumed bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.closed {
		return nil, nil, 0, false, state.Classify(state.ClassCancelled, fmt.Errorf("the supervisor is ending"))
	}
	same := 0
	for o := range e.clients {
		if o.scope == s {
			same++
		}
	}
	if len(e.clients) >= e.cfg.Clients || !s.All && same >= e.cfg.Each {
		return nil, nil, 0, false, state.Classify(state.ClassRateLimit, fmt.Errorf("%d clients follow the events already; close one", len(e.clients)))
	}
	l = &listener{scope: s, events: make(chan event, e.cfg.Buffer)}
	e.clients[l] = true
	n, known := e.parse(lastID)
	if !known {
		return l, nil, e.last, false, nil
	}
	for _, x := range e.ring {
		if x.n > n && l.sees(x) {
			missed = append(missed, x)
		}
	}
	return l, missed, e.last, true, nil
}

func (e *Events) leave(l *listener) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.drop(l)
}

func (e *Events) id(n uint64) string { return e.name + "-" + strconv.FormatUint(n, 10) }

// parse reads an ID of ours behind which no event is lost; the lock is held.
func (e *Events) parse(id string) (n uint64, known bool) {
	number, ours := strings.CutPrefix(id, e.name+"-")
	n, err := strconv.ParseUint(number, 10, 64)
	if !ours || err != nil || n > e.last {
		return 0, false
	}
	return n, n == e.last || len(e.ring) > 0 && e.ring[0].n <= n+1
}

// v3Events streams changes until the client goes, is too slow, or the supervisor
// ends. Who cannot go on where it was gets the whole status first.
func (a *api) v3Events(w http.ResponseWriter, r *http.Request, _ []byte) {
	e, s := a.c.Events, scopeOf(r)
	if r.Method == http.MethodHead {
		w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
		w.WriteHeader(http.StatusOK)
		return
	}
	l, missed, last, resumed, err := e.join(s, r.Header.Get("Last-Event-ID"))
	if err != nil {
		w.Header().Set("Retry-After", "30")
		failed3(w, err)
		return
	}
	defer e.leave(l)
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Connection", "close") // the deadlines below are not for another request
	out := &eventWriter{w: w, c: http.NewResponseController(w), patience: e.cfg.Patience}
	defer out.hurry() // what net/http has still to write
	if !resumed {
		status, err := json.Marshal(a.c.V3.StatusOf(s))
		if err != nil {
			return
		}
		missed = []event{{n: last, kind: "status", data: status}}
	}
	for _, x := range missed {
		out.event(e.id(x.n), x)
	}
	if !out.flush() {
		return
	}
	alive := time.NewTicker(e.cfg.KeepAlive)
	defer alive.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			out.buffer.WriteString(": still here\n\n")
		case x, open := <-l.events:
			if !open {
				return
			}
			out.event(e.id(x.n), x)
		}
		if !out.flush() {
			return
		}
	}
}

// eventWriter writes to one client, which may not read.
type eventWriter struct {
	w        http.ResponseWriter
	c        *http.ResponseController
	patience time.Duration
	buffer   bytes.Buffer
}

// event adds an event; JSON has no line ends.
func (o *eventWriter) event(id string, x event) {
	fmt.Fprintf(&o.buffer, "id: %s\nevent: %s\ndata: %s\n\n", id, x.kind, x.data)
}

// flush sends what was added; false: the client is gone or does not read.
func (o *eventWriter) flush() bool {
	o.hurry()
	_, err := o.w.Write(o.buffer.Bytes())
	o.buffer.Reset()
	return err == nil && o.c.Flush() == nil
}

// hurry bounds the next writes; a writer without deadlines is one of a test.
func (o *eventWriter) hurry() { _ = o.c.SetWriteDeadline(time.Now().Add(o.patience)) }
