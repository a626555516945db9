package run

import (
	"sync"
	"time"
)

// Pulse tells whether the loop is alive. A loop that waits for an event, a lock or
// a download rests; one that works, or has something to do, soon has done it.
type Pulse struct {
	Busy time.Time // since when it works without a pause; zero: it rests
	Due  time.Time // since when, or from when on, there is something to do; zero: nothing
}

// Stalled says since when the loop does not do what it should; zero: it is well.
// patience is how long a pass may take.
func (p Pulse) Stalled(now time.Time, patience time.Duration) time.Time {
	for _, since := range []time.Time{p.Busy, p.Due} {
		if !since.IsZero() && now.Sub(since) > patience {
			return since
		}
	}
	return time.Time{}
}

// pulse is a Pulse that the loop writes and others read. It has a lock of its own,
// so that a reader does not wait for what the loop waits for.
type pulse struct {
	mu sync.Mutex
	Pulse
}

func (p *pulse) work() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Pulse = Pulse{Busy: time.Now()}
}

// rest begins a pause until due, at the latest.
func (p *pulse) rest(due time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.Pulse = Pulse{Due: due}
}

// ask notes that somebody wants a pass.
func (p *pulse) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); p.Busy.IsZero() && (p.Due.IsZero() || p.Due.After(now)) {
		p.Due = now
	}
}

// Pulse says whether the loop is alive.
func (r *Runner) Pulse() Pulse {
	r.pulse.mu.Lock()
	defer r.pulse.mu.Unlock()
	return r.pulse.Pulse
}
