package localapi

import (
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Wrong keys cost an address a token each. A program with an old key in its
// environment asks less often than they come back.
const (
	strangerTokens = 30
	strangerEvery  = time.Second // a token comes back
	strangersKnown = 1024        // addresses that are remembered
)

var errTooOften = errors.New("too many wrong keys from this address; wait, then use the right one")

// strangers counts wrong keys by address, so that nobody can fill the log and
// the processor with guesses.
type strangers struct {
	now func() time.Time

	mu   sync.Mutex
	seen map[netip.Addr]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

func newStrangers() *strangers { return &strangers{now: time.Now, seen: map[netip.Addr]bucket{}} }

// may takes a token of an address; false: it has none left.
func (s *strangers) may(remote string) bool {
	var from netip.Addr // requests over a socket without addresses share one
	if a, err := netip.ParseAddrPort(remote); err == nil {
		from = a.Addr().Unmap()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	b, known := s.seen[from]
	if !known {
		s.forget(now)
		b = bucket{strangerTokens, now}
	}
	b.left, b.at = min(strangerTokens, b.left+now.Sub(b.at).Seconds()/strangerEvery.Seconds()), now
	ok := b.left >= 1
	if ok {
		b.left--
	}
	s.seen[from] = b
	return ok
}

// forget makes room: it drops addresses that have all their tokens again, and if
// that is nobody, all.
func (s *strangers) forget(now time.Time) {
	if len(s.seen) < strangersKnown {
		return
	}
	for a, b := range s.seen {
		if now.Sub(b.at) >= strangerTokens*strangerEvery {
			delete(s.seen, a)
		}
	}
	if len(s.seen) >= strangersKnown {
		clear(s.seen)
	}
}
