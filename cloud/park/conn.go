package park

import (
	"net"
	"sync"
)

// returned is a connection that the server has back.
type returned struct {
	net.Conn
	lot  *Lot
	text []byte // to be read first

	mu   sync.Mutex
	back *Back // until the request is there; nil: none was parked
}

// arrived takes what is known of the request, once: it is no longer on its way.
func (c *returned) arrived() *Back {
	c.mu.Lock()
	defer c.mu.Unlock()
	back := c.back
	c.back = nil
	return back
}

// Close is for the server, which may do so before the request is there.
func (c *returned) Close() error {
	if c.arrived() != nil {
		c.lot.leave()
	}
	return c.Conn.Close()
}

func (c *returned) Read(b []byte) (int, error) {
	if len(c.text) == 0 {
		return c.Conn.Read(b)
	}
	n := copy(b, c.text)
	if c.text = c.text[n:]; len(c.text) == 0 {
		c.text = nil // it has been read
	}
	return n, nil
}

// CloseWrite is for the server, which ends some connections in two steps.
func (c *returned) CloseWrite() error {
	if conn, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return conn.CloseWrite()
	}
	return nil
}

// Listener gives the server its requests back. It is closed when the server is shut
// down: drain the lot before.
func (l *Lot) Listener() net.Listener { return listener{l} }

type listener struct{ lot *Lot }

func (l listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.lot.ready:
		return c, nil
	case <-l.lot.closed:
		return nil, net.ErrClosed
	}
}

func (l listener) Close() error {
	l.lot.shut.Do(func() { close(l.lot.closed) })
	return nil
}

func (l listener) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "park" }
func (address) String() string  { return "park" }
