package builder

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"deckhand/build"
	"deckhand/build/event"
)

const (
	beatAfter  = 15 * time.Second // of silence on the wire: something that readers ignore
	speakAfter = 60 * time.Second // without news: something that people see
)

// sink is where a build's events go besides the overview log.
type sink interface {
	write(e event.Event) error
	beat() error  // keeps the connection open, says nothing
	close() error // ends the stream properly; without it the reader knows that it was cut
}

// stream numbers a build's events and hands them to its client. It is used by many
// goroutines; a client that went away is remembered and no longer written to.
type stream struct {
	mu       sync.Mutex
	out      sink // nil for detached builds
	gone     bool // the client does not read any more
	sequence event.Sequence
	wrote    time.Time
	said     time.Time
	overview *hosted
	log      strings.Builder
	states   map[string]string // service → state
}

func newStream(out sink) *stream {
	now := time.Now()
	return &stream{out: out, wrote: now, said: now, overview: newHosted(), states: map[string]string{}}
}

// emit sends one event.
func (s *stream) emit(e event.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.sequence.Stamp(&e, now)
	if e.Type == event.ServiceState {
		s.states[e.Service] = e.State
	}
	if e.Type != event.EngineLine && e.Type != event.Log && e.Type != event.Progress {
		s.note(e)
	}
	s.said = now
	s.send(func() error { return s.out.write(e) })
}

func (s *stream) send(do func() error) {
	if s.out == nil || s.gone {
		return
	}
	s.gone = do() != nil
	s.wrote = time.Now()
}

// note adds what an event says about the build as a whole to the overview log.
func (s *stream) note(e event.Event) {
	for _, m := range s.overview.messages(e) {
		if m.Message != "" && !m.Replace && s.log.Len() < 900_000 {
			s.log.WriteString(build.Plain(m.Message) + "\n")
		}
	}
}

// overviewWith is the overview log as it will be once e has been said.
func (s *stream) overviewWith(e event.Event) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	copied := *s.overview
	text := s.log.String()
	for _, m := range copied.messages(e) {
		if m.Message != "" {
			text += build.Plain(m.Message) + "\n"
		}
	}
	return text
}

// keepAlive writes when nothing else was for a while, until stop is closed.
func (s *stream) keepAlive(stop <-chan struct{}) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case now := <-tick.C:
			s.tick(now)
		}
	}
}

func (s *stream) tick(now time.Time) {
	s.mu.Lock()
	speak := now.Sub(s.said) > speakAfter
	if !speak && now.Sub(s.wrote) > beatAfter {
		s.send(func() error { return s.out.beat() })
	}
	var running []string
	for _, name := range slices.Sorted(maps.Keys(s.states)) {
		if st := s.states[name]; st == event.Building || st == event.Pulling || st == event.Pushing {
			running = append(running, name)
		}
	}
	s.mu.Unlock()
	if speak {
		s.emit(event.Event{Type: event.Heartbeat, Running: running})
	}
}

// close ends the client's stream properly.
func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.send(func() error { return s.out.close() })
}

// flusher writes and flushes at once, so that every event is seen when it happens.
type flusher struct {
	w  io.Writer
	rc *http.ResponseController
}

func newFlusher(w http.ResponseWriter) flusher { return flusher{w, http.NewResponseController(w)} }

func (f flusher) put(b []byte) error {
	if _, err := f.w.Write(b); err != nil {
		return err
	}
	return f.rc.Flush()
}

// array is the sink for balena's own tools: one JSON array, element by element.
type array struct {
	out    flusher
	words  *hosted
	opened bool
}

func (a *array) write(e event.Event) error {
	for _, m := range a.words.messages(e) {
		if err := a.element(m); err != nil {
			return err
		}
	}
	return nil
}

func (a *array) element(m message) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	lead := "\n,\n"
	if !a.opened {
		lead, a.opened = "[\n", true
	}
	return a.out.put(append([]byte(lead), data...))
}

func (a *array) beat() error {
	if !a.opened {
		return nil
	}
	return a.out.put([]byte("\n"))
}

func (a *array) close() error {
	if !a.opened {
		return a.out.put([]byte("[\n]\n"))
	}
	return a.out.put([]byte("\n]\n"))
}

// lines is the sink for our own tools: one event a line.
type lines struct{ out flusher }

func (l *lines) write(e event.Event) error {
	if e.Type == event.EngineLine {
		return nil
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	return l.out.put(append(data, '\n'))
}

func (l *lines) beat() error  { return l.out.put([]byte("\n")) }
func (l *lines) close() error { return nil }
