package system

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Proxy passes TCP connections on, and can cut them off as a broken network
// does: it is put in front of a listener to see what a device does then.
type Proxy struct {
	Addr string // where it listens, on loopback; stays the same over Cut and Mend

	mu     sync.Mutex
	to     string
	listen net.Listener // nil while cut
	conns  map[net.Conn]bool
	slow   atomic.Int64 // bytes a second towards the client; 0: as fast as it goes
	passed atomic.Int64 // bytes towards clients
}

// NewProxy listens on a free port; To says where connections go.
func NewProxy() (*Proxy, error) {
	p := &Proxy{conns: map[net.Conn]bool{}}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("start proxy: %w", err)
	}
	p.Addr = l.Addr().String()
	p.serve(l)
	return p, nil
}

// To names the address connections are passed on to.
func (p *Proxy) To(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.to = addr
}

// Slow limits each connection towards the client; 0 lifts the limit.
func (p *Proxy) Slow(bytesPerSecond int64) { p.slow.Store(bytesPerSecond) }

// Passed is the number of bytes that went towards clients so far.
func (p *Proxy) Passed() int64 { return p.passed.Load() }

// Cut closes the listener and every connection; new ones are refused.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen != nil {
		_ = p.listen.Close() // nothing listens then either
		p.listen = nil
	}
	for c := range p.conns {
		_ = c.Close() // that is the point
	}
	clear(p.conns)
}

// Mend listens again at the same address, if it was cut.
func (p *Proxy) Mend() error {
	p.mu.Lock()
	whole := p.listen != nil
	p.mu.Unlock()
	if whole {
		return nil
	}
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", p.Addr)
	if err != nil {
		return fmt.Errorf("mend proxy: %w", err)
	}
	p.serve(l)
	return nil
}

func (p *Proxy) serve(l net.Listener) {
	p.mu.Lock()
	p.listen = l
	p.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // cut
			}
			go p.pass(c)
		}
	}()
}

func (p *Proxy) pass(c net.Conn) {
	defer c.Close()
	p.mu.Lock()
	to := p.to
	p.mu.Unlock()
	d := net.Dialer{Timeout: 10 * time.Second}
	s, err := d.DialContext(context.Background(), "tcp", to)
	if err != nil {
		return
	}
	defer s.Close()
	if !p.hold(c, s) {
		return
	}
	defer p.drop(c, s)
	go func() {
		_, _ = io.Copy(s, c) // ends with either side
		_ = s.Close()
	}()
	_, _ = io.Copy(throttled{c, p}, s) // ends with either side
}

// hold remembers connections so that Cut finds them.
func (p *Proxy) hold(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.listen == nil {
		return false
	}
	for _, c := range conns {
		p.conns[c] = true
	}
	return true
}

func (p *Proxy) drop(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// throttled writes in small pieces with a pause after each.
type throttled struct {
	net.Conn
	p *Proxy
}

// Write implements io.Writer.
func (t throttled) Write(b []byte) (int, error) {
	done := 0
	for done < len(b) {
		piece := b[done:min(done+16<<10, len(b))]
		n, err := t.Conn.Write(piece)
		done += n
		t.p.passed.Add(int64(n))
		if err != nil {
			return done, err
		}
		if limit := t.p.slow.Load(); limit > 0 {
			<-time.After(time.Duration(n) * time.Second / time.Duration(limit))
		}
	}
	return done, nil
}
