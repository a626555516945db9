package park

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// reply is the answer to a request that was parked, kept until it is whole. It takes the
// connection from the server, which would keep its buffers and a stack for as long as the
// client rests before its next request.
type reply struct {
	conn   net.Conn
	header http.Header
	status int
	body   *bytes.Buffer
}

var buffers = sync.Pool{New: func() any { return new(bytes.Buffer) }}

func takeBuffer() *bytes.Buffer {
	b, _ := buffers.Get().(*bytes.Buffer)
	return b
}

func giveBack(b *bytes.Buffer) {
	const most = 64 << 10 // bytes; larger ones are not worth keeping
	if b.Cap() <= most {
		b.Reset()
		buffers.Put(b)
	}
}

// answer serves a request that is back, and lets its connection rest. It is not ok when
// the connection cannot be had.
func (l *Lot) answer(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
	if !r.ProtoAtLeast(1, 1) {
		return false
	}
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return false
	}
	more, conn := unread(conn, buffered)
	a := &reply{conn: conn, header: http.Header{}, body: takeBuffer()}
	defer giveBack(a.body)
	rests := false
	defer func() { // also when the handler gives up
		if !rests {
			conn.Close()
		}
	}()
	next.ServeHTTP(a, r)
	closes := r.Close || l.closes() || a.header.Get("Connection") == "close"
	if a.send(r, closes) != nil || closes {
		return true
	}
	if rests = true; len(more) > 0 {
		go l.hand(conn, more, nil)
		return true
	}
	l.rest(conn)
	return true
}

// Header implements http.ResponseWriter.
func (a *reply) Header() http.Header { return a.header }

// WriteHeader implements http.ResponseWriter.
func (a *reply) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

// Write implements http.ResponseWriter.
func (a *reply) Write(b []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(b)
}

// SetReadDeadline is for http.ResponseController.
func (a *reply) SetReadDeadline(t time.Time) error { return a.conn.SetReadDeadline(t) }

// SetWriteDeadline is for http.ResponseController.
func (a *reply) SetWriteDeadline(t time.Time) error { return a.conn.SetWriteDeadline(t) }

// send writes the answer.
func (a *reply) send(r *http.Request, closes bool) error {
	a.WriteHeader(http.StatusOK)
	a.header.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	if a.header.Get("Content-Type") == "" && a.body.Len() > 0 {
		a.header.Set("Content-Type", http.DetectContentType(a.body.Bytes()))
	}
	answer := http.Response{
		StatusCode: a.status, ProtoMajor: 1, ProtoMinor: 1, Header: a.header, Request: r, Close: closes,
		ContentLength: int64(a.body.Len()), Body: io.NopCloser(bytes.NewReader(a.body.Bytes())),
	}
	out := takeBuffer()
	defer giveBack(out)
	if err := answer.Write(out); err != nil {
		return err
	}
	_, err := out.WriteTo(a.conn)
	return err
}

func (l *Lot) closes() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.draining
}

// rest waits for the next request of a connection, which the server then reads.
func (l *Lot) rest(conn net.Conn) {
	until := time.Time{}
	if l.idle > 0 {
		until = time.Now().Add(l.idle)
	}
	conn.SetDeadline(until) //nolint:errcheck // the read says so
	l.mu.Lock()
	draining := l.draining
	if !draining {
		l.resting[conn] = struct{}{}
	}
	l.mu.Unlock()
	if draining {
		conn.Close()
		return
	}
	go l.wait(conn)
}

func (l *Lot) wait(conn net.Conn) {
	var next [1]byte
	n, _ := conn.Read(next[:])
	l.mu.Lock()
	delete(l.resting, conn)
	l.mu.Unlock()
	if n == 0 {
		conn.Close()
		return
	}
	l.hand(conn, next[:], nil)
}
