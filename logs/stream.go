package logs

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// What waits for one listener: more is dropped, the oldest first, and counted.
const (
	listenerLines = 2000
	listenerBytes = 512 << 10
)

// ErrClosed is given to who reads on after Close.
var ErrClosed = errors.New("the listener is closed")

// Stream hands each line to everybody who listens at that moment. Nobody who
// listens slowly holds up the others or the sender. The zero value is ready for
// use, by several goroutines.
type Stream struct {
	mu        sync.Mutex
	listeners map[*Listener]bool
	ended     bool
}

// Send hands a line to all listeners. It never waits.
func (s *Stream) Send(l Line) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for x := range s.listeners {
		x.add(l)
	}
}

// Listen begins to listen. Close the listener when it is not read any more.
func (s *Stream) Listen() *Listener {
	l := &Listener{stream: s, wake: make(chan struct{}, 1), closed: make(chan struct{})}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		l.once.Do(func() { close(l.closed) })
		return l
	}
	if s.listeners == nil {
		s.listeners = map[*Listener]bool{}
	}
	s.listeners[l] = true
	return l
}

// End closes all listeners, also those who come later.
func (s *Stream) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = true
	for l := range s.listeners {
		l.once.Do(func() { close(l.closed) })
	}
	clear(s.listeners)
}

// Listeners is how many listen now.
func (s *Stream) Listeners() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.listeners)
}

// Listener gets the lines of a stream from the moment on at which it was made.
type Listener struct {
	stream *Stream
	wake   chan struct{}
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex
	lines   []Line
	bytes   int
	dropped int
}

func (l *Listener) add(x Line) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, x)
	l.bytes += len(x.Message)
	for len(l.lines) > listenerLines || l.bytes > listenerBytes {
		l.bytes -= len(l.lines[0].Message)
		l.lines[0] = Line{} // its text is let go at once
		l.lines = l.lines[1:]
		l.dropped++
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Read waits for lines and gives all that have come since the last time. If some
// had to be dropped because they were not read in time, the first line says so.
func (l *Listener) Read(ctx context.Context) ([]Line, error) {
	for {
		if lines := l.take(); len(lines) > 0 {
			return lines, nil
		}
		select {
		case <-l.wake:
		case <-l.closed:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (l *Listener) take() []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	if l.dropped > 0 {
		lines = append([]Line{{
			Message: fmt.Sprintf("Warning: Suppressed %d message(s) due to slow reading", l.dropped),
			At:      time.Now().UnixMilli(), System: true, Stderr: true,
		}}, lines...)
	}
	l.lines, l.bytes, l.dropped = nil, 0, 0
	return lines
}

// Close ends listening and lets go of what waits.
func (l *Listener) Close() {
	l.once.Do(func() {
		l.stream.mu.Lock()
		delete(l.stream.listeners, l)
		l.stream.mu.Unlock()
		close(l.closed)
	})
}
