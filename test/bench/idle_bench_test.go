//go:build bench

package bench

import (
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"
)

// The most that a device at rest may cost.
const (
	pushKiB, pollKiB = 20, 5 // KiB sent in an hour
	idleCPU          = 20 * time.Millisecond
)

// idle: what a settled device with 50 services sends and works while nothing
// happens, and what it asks the engine. The engine is asked through a proxy, the
// bytes are those inside of TCP.
func idle(t *testing.T, b *bench) {
	p := newProxy(t, b.engine)
	out := b.table("Nothing happens: the program for some minutes",
		"cloud", "services", "watched", "KiB sent an hour", "target", "KiB received an hour", "requests", "own CPU, ms a minute", "target", "engine calls")
	for _, n := range b.sizes(50) {
		for _, way := range []struct {
			name  string
			plain bool
			most  float64
		}{{"holds questions", false, pushKiB}, {"asked every hour", true, pollKiB}} {
			watched := time.Duration(b.rounds(3)) * time.Minute
			r := alike(n, b.unique("idle"), "bench:1")
			d := b.settle(t, p.host, r, way.plain)
			<-time.After(40 * time.Second) // the last reports go out, garbage goes
			p.take()
			w := d.wire
			sent, received, asked, own := w.in.Load(), w.out.Load(), d.requests.Load(), cpu(t, d.process.PID)
			<-time.After(watched)
			hour := func(bytes int64) float64 { return float64(bytes) / 1024 * float64(time.Hour) / float64(watched) }
			up, down := hour(w.in.Load()-sent), hour(w.out.Load()-received)
			if way.plain { // and one question, which was not in the time that was watched
				up += float64(d.question.Load()) / 1024
			}
			minute := time.Duration(float64(cpu(t, d.process.PID)-own) * float64(time.Minute) / float64(watched))
			calls := p.take()
			out.row(way.name, n, watched.String(), fmt.Sprintf("%.1f", up), fmt.Sprintf("< %g", way.most), fmt.Sprintf("%.1f", down),
				d.requests.Load()-asked, fmt.Sprintf("%.1f", float64(minute.Microseconds())/1000), fmt.Sprintf("< %d", idleCPU.Milliseconds()), len(calls))
			if len(calls) > 0 {
				t.Errorf("%s: engine calls while nothing happens: %v", way.name, calls)
			}
			if up > way.most {
				t.Errorf("%s: %.1f KiB in an hour, at most %g", way.name, up, way.most)
			}
			if minute > idleCPU {
				t.Logf("%s: %v of processor time in a minute, meant to be below %v", way.name, minute, idleCPU)
			}
			d.stop(t)
			b.sweep(t)
		}
	}
}

// settle starts a device whose cloud has had a release before, and waits until it
// runs.
func (b *bench) settle(t *testing.T, engine string, r release, plain bool) *device {
	t.Helper()
	d := b.unpack(t)
	d.plain = plain
	d.offer(t, r)
	values := d.values()
	values["appUpdatePollInterval"] = time.Hour.Milliseconds()
	b.boot(t, d, engine, values)
	d.settled(t, r.commit)
	return d
}

// wire counts what passes between a device and its cloud.
type wire struct {
	net.Listener
	in, out atomic.Int64 // bytes from and to the device
}

// Accept implements net.Listener.
func (w *wire) Accept() (net.Conn, error) {
	c, err := w.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &metered{c, w}, nil
}

type metered struct {
	net.Conn
	w *wire
}

// Read implements io.Reader.
func (c *metered) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.w.in.Add(int64(n))
	return n, err
}

// Write implements io.Writer.
func (c *metered) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.w.out.Add(int64(n))
	return n, err
}
