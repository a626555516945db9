// Package park lets HTTP/1.1 requests wait for long at little cost. A request that is
// served keeps a grown stack, buffers for reading and writing and its contexts, some
// 27 KB; one that is parked keeps its connection, its own text and a small stack that
// sleeps in a read.
//
// When its wait is over, for whatever reason, its connection goes back to the HTTP server
// as if it had just been accepted, with the text of the request to be read again. So the
// ordinary way answers it; Back tells it that the request has waited. Then the connection
// waits for its next request at the same little cost.
package park

import (
	"bufio"
	"bytes"
	"context"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// Waiter is who waits with a request.
type Waiter interface {
	// Left is called once when the wait is over, before the request comes back.
	Left()
}

// Back is a request that was parked before.
type Back struct {
	Began  time.Time // when it first came
	Until  time.Time // when it need not wait any longer
	Waiter Waiter
	// Early says that the wait is not over: the request could not stay parked, and
	// waits where it is served.
	Early bool
}

// Lot is where the requests of one HTTP server are parked.
type Lot struct {
	left  func()
	ready chan net.Conn // go back to the server

	shut   sync.Once
	closed chan struct{}

	idle time.Duration // the longest pause between two requests of a connection

	mu       sync.Mutex
	spots    map[*Spot]struct{}
	resting  map[net.Conn]struct{} // wait for their next request
	taken    int                   // spots, and requests that are on their way in or out
	draining bool
	empty    chan struct{} // closed when draining and none is taken
}

// New makes a lot; left, unless nil, is called each time that a request leaves it.
// Attach it to a server, and serve its Listener too.
func New(left func()) *Lot {
	if left == nil {
		left = func() {}
	}
	return &Lot{left: left, ready: make(chan net.Conn), closed: make(chan struct{}), spots: map[*Spot]struct{}{}, resting: map[net.Conn]struct{}{}, empty: make(chan struct{})}
}

// Attach makes a server one whose requests can be parked. Call it before the server
// serves, when its handler and its limits are set.
func (l *Lot) Attach(server *http.Server) {
	connContext, next := server.ConnContext, server.Handler
	l.idle = server.IdleTimeout
	server.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		if connContext != nil {
			ctx = connContext(ctx, c)
		}
		at := &link{lot: l}
		at.conn, _ = c.(*returned)
		return context.WithValue(ctx, linkKey{}, at)
	}
	server.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r = arrived(r)
		back := BackOf(r)
		if back != nil {
			defer l.leave() // it is answered
		}
		if back == nil || back.Early || !l.answer(w, r, next) {
			next.ServeHTTP(w, r)
		}
	})
}

// link is what is known of a connection. Requests of HTTP/1 come one after the other;
// those of others leave it alone.
type link struct {
	lot   *Lot
	began time.Time // of the request that is served
	conn  *returned // until its first request is there
}

type (
	linkKey struct{}
	backKey struct{}
)

func linkOf(r *http.Request) *link {
	if r.ProtoMajor != 1 {
		return nil
	}
	at, _ := r.Context().Value(linkKey{}).(*link)
	return at
}

// arrived notes when a request came, and that one comes back: the first one of a
// connection that was handed back.
func arrived(r *http.Request) *http.Request {
	at := linkOf(r)
	if at == nil {
		return r
	}
	at.began = time.Now()
	if at.conn == nil {
		return r
	}
	back := at.conn.arrived()
	at.conn = nil
	if back == nil {
		return r // the connection only rested, or the server has closed it
	}
	ctx := r.Context()
	if !back.Early {
		// It waited until the server stopped, perhaps: the answer is to be made all
		// the same.
		ctx = context.WithoutCancel(ctx)
	}
	return r.WithContext(context.WithValue(ctx, backKey{}, back))
}

// BackOf is how a request has waited; nil: it was not parked.
func BackOf(r *http.Request) *Back {
	back, _ := r.Context().Value(backKey{}).(*Back)
	return back
}

// Spot is where one request is parked.
type Spot struct {
	lot  *Lot
	conn net.Conn
	text []byte // of the request, and what came after it
	back Back
	next [1]byte

	mu    sync.Mutex
	woken bool
	gone  bool // the connection is the server's again
}

// Takes says whether a request can be parked: it came over HTTP/1, to the lot's server,
// has no body, and was not parked before. A nil lot takes none.
func (l *Lot) Takes(r *http.Request) bool {
	at := linkOf(r)
	return l != nil && at != nil && at.lot == l && r.ContentLength == 0 && len(r.TransferEncoding) == 0 && BackOf(r) == nil
}

// Park takes a request from the server until a time, or until Wake. It is not ok when
// that is not possible, also because the lot is drained: the request has to be served
// where it is. When it is ok the handler must return and touch the answer no more.
func (l *Lot) Park(w http.ResponseWriter, r *http.Request, until time.Time, waiter Waiter) (*Spot, bool) {
	if !l.Takes(r) || !l.enter() {
		return nil, false
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		l.leave()
		return nil, false
	}
	s := &Spot{lot: l, conn: conn, text: text(r), back: Back{Began: linkOf(r).began, Until: until, Waiter: waiter}}
	more, conn := unread(conn, buffered)
	s.conn, s.text = conn, append(s.text, more...)
	if len(more) > 0 {
		// The next request is there already, so nothing can be waited for here.
		go s.leave(true)
		return s, true
	}
	s.conn.SetReadDeadline(until) //nolint:errcheck // the read says so
	l.add(s)
	go s.wait()
	return s, true
}

// unread is what the server has read of a connection, or should read first, beyond the
// request that it serves; and the connection itself.
func unread(conn net.Conn, buffered *bufio.ReadWriter) ([]byte, net.Conn) {
	more, _ := buffered.Reader.Peek(buffered.Reader.Buffered())
	if c, ok := conn.(*returned); ok {
		return append(bytes.Clone(more), c.text...), c.Conn
	}
	return bytes.Clone(more), conn
}

// text is a request as it came, or could have come.
func text(r *http.Request) []byte {
	var b bytes.Buffer
	b.WriteString(r.Method + " " + r.RequestURI + " " + r.Proto + "\r\n")
	if r.Host != "" {
		b.WriteString("Host: " + r.Host + "\r\n")
	}
	r.Header.Write(&b) //nolint:errcheck // a buffer takes everything
	b.WriteString("\r\n")
	return bytes.Clone(b.Bytes())
}

func (l *Lot) enter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		return false
	}
	l.taken++
	return true
}

func (l *Lot) add(s *Spot) {
	l.mu.Lock()
	l.spots[s] = struct{}{}
	draining := l.draining
	l.mu.Unlock()
	if draining {
		s.Wake()
	}
}

func (l *Lot) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.taken--; l.draining && l.taken == 0 {
		close(l.empty)
	}
}

// wait sleeps until the time is over, Wake is called, or the client says something or
// leaves.
func (s *Spot) wait() {
	n, _ := s.conn.Read(s.next[:]) // whatever it is, the wait is over
	s.text = append(s.text, s.next[:n]...)
	s.leave(n > 0)
}

// Wake ends the wait.
func (s *Spot) Wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.gone {
		return
	}
	s.woken = true
	s.conn.SetReadDeadline(time.Unix(1, 0)) //nolint:errcheck // then the read ends by itself
}

// leave hands the connection back to the server. early: the client sent more, which
// is no reason to answer.
func (s *Spot) leave(early bool) {
	s.mu.Lock()
	s.gone = true
	woken := s.woken
	s.mu.Unlock()
	l := s.lot
	l.mu.Lock()
	delete(l.spots, s)
	l.mu.Unlock()
	s.back.Waiter.Left()
	l.left()
	back := s.back
	back.Early = early && !woken
	l.hand(s.conn, s.text, &back)
}

// hand gives a connection to the server, which reads the text first.
func (l *Lot) hand(conn net.Conn, text []byte, back *Back) {
	conn.SetDeadline(time.Time{}) //nolint:errcheck // the server notices
	c := &returned{Conn: conn, lot: l, text: text, back: back}
	select {
	case l.ready <- c:
	case <-l.closed:
		c.Close()
	}
}

// Len is how many requests are parked.
func (l *Lot) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.spots)
}

// Drain ends all waits, and lets nobody park any more. It returns when all requests
// that were parked are answered, or when the context ends, with its error. A server
// that is shut down before drops them. Connections without a request are closed.
func (l *Lot) Drain(ctx context.Context) error {
	l.mu.Lock()
	if !l.draining {
		l.draining = true
		if l.taken == 0 {
			close(l.empty)
		}
	}
	resting := slices.Collect(maps.Keys(l.resting))
	spots := slices.Collect(maps.Keys(l.spots))
	l.mu.Unlock()
	for _, conn := range resting {
		conn.Close()
	}
	for _, s := range spots {
		s.Wake()
	}
	select {
	case <-l.empty:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
