package run

import (
	"time"

	"deckhand/state"
)

// backOff is how long a step rests after it failed for the n-th time in a row:
// doubling from one second, with a longer first rest for failures that only
// time or somebody else can mend. The cap is the default poll interval of a
// device, so that nothing waits for longer than for news.
func backOff(c state.Class, attempt int, random func() float64) time.Duration {
	base, limit := time.Second, 15*time.Minute
	switch c {
	case state.ClassLocked: // the next look shows who holds it, and then nothing is tried
		limit = base
	case state.ClassRateLimit:
		base = 30 * time.Second
	case state.ClassAuth, state.ClassNotFound, state.ClassSpace, state.ClassInvalid:
		base = 5 * time.Second
	case state.ClassNetwork, state.ClassDNS, state.ClassTLS, state.ClassClock, state.ClassEngine, state.ClassTimeout, state.ClassCancelled:
	}
	rest := base << min(attempt-1, 20)
	if rest <= 0 || rest > limit {
		rest = limit
	}
	return rest - time.Duration(random()*float64(rest)/4) // up to a quarter earlier: devices spread out
}
