package supervisor

import (
	"context"
	"sync"
	"time"

	"deckhand/reconcile/run"
)

const (
	// signEvery is how often the engine is asked for a sign of life. Nothing else is
	// asked of it while nothing happens, and one that hangs closes no connection.
	signEvery = time.Minute
	// signAgain is the same while it gives none.
	signAgain = 10 * time.Second
)

// sign knows when the engine last gave a sign of life. The zero value is ready.
type sign struct {
	mu   sync.Mutex
	good time.Time // the last one
	at   time.Time // when it was last asked
	err  error     // nil: it answered then
}

// note remembers an answer; first: it is the first one that failed.
func (s *sign) note(err error, now time.Time) (first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = err != nil && s.err == nil
	s.at, s.err = now, err
	if err == nil {
		s.good = now
	}
	return first
}

// silent says since when the engine does not answer, or refuses to, and why; nil:
// it answers. A look that succeeded since is a sign too.
func (s *sign) silent(st run.Status, started time.Time) (since time.Time, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err = st.Err
	if err == nil && !st.Looked.After(s.at) {
		err = s.err
	}
	for _, good := range []time.Time{s.good, st.Looked, started} {
		if good.After(since) {
			since = good
		}
	}
	return since, err
}

// watchEngine asks the engine for signs of life until ctx ends.
func (s *Supervisor) watchEngine(ctx context.Context) {
	for wait := time.Duration(0); pause(ctx, wait); {
		err := s.runner.Status().Err
		if err == nil {
			err = s.engine.Ping(ctx)
		}
		if ctx.Err() != nil {
			return
		}
		if s.sign.note(err, time.Now()) {
			s.runner.Look() // what people see says it too
		}
		if wait = signEvery; err != nil {
			wait = signAgain
		}
	}
}
