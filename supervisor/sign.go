package supervisor

import (
	"context"
	"sync"
	"time"

	"deckhand/reconcile/run"
)

const (
	// signEvery is how old a sign of life of the engine may be for who asks how the
	// device is. While nobody asks and nothing happens, the engine is left alone; one
	// that hangs closes no connection.
	signEvery = time.Minute
	// signAgain is how soon it is asked again while it gives none.
	signAgain = 10 * time.Second
)

// sign knows when the engine last gave a sign of life.
type sign struct {
	wanted chan struct{} // somebody asks how the device is

	mu  sync.Mutex
	bad time.Time // when it was first asked without an answer
	at  time.Time // when it was last asked
	err error     // nil: it answered then
}

func newSign() *sign { return &sign{wanted: make(chan struct{}, 1)} }

// want asks for a sign of life, if the last one is old: of the engine, or a look that
// succeeded.
func (s *sign) want(looked, now time.Time) {
	s.mu.Lock()
	old := now.Sub(s.at) > signEvery && now.Sub(looked) > signEvery
	s.mu.Unlock()
	if !old {
		return
	}
	select {
	case s.wanted <- struct{}{}:
	default: // it is being asked
	}
}

// note remembers an answer to a question of that time; first: it is the first one
// that failed.
func (s *sign) note(err error, asked time.Time) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if first = err != nil && s.err == nil; first {
		s.bad = asked
	}
	s.at, s.err = asked, err
	return first
}

// silent says since when the engine does not answer, or refuses to, and why; nil:
// it answers. A look that succeeded since is a sign too.
func (s *sign) silent(st run.Status, started time.Time) (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case st.Err != nil && st.Looked.After(started):
		return st.Looked, st.Err
	case st.Err != nil:
		return started, st.Err
	case s.err != nil && !st.Looked.After(s.at):
		return s.bad, s.err
	}
	return time.Time{}, nil
}

// watchEngine asks the engine for a sign of life when somebody wants one, and goes on
// until there is one, until ctx ends.
func (s *Supervisor) watchEngine(ctx context.Context) {
	for {
		select {
		case <-s.sign.wanted:
		case <-ctx.Done():
			return
		}
		for {
			asked := time.Now()
			err := s.runner.Status().Err
			if err == nil {
				err = s.engine.Ping(ctx)
			}
			if ctx.Err() != nil {
				return
			}
			if s.sign.note(err, asked) {
				s.runner.Look() // what people see says it too
			}
			if err == nil || !pause(ctx, signAgain) {
				break
			}
		}
	}
}
