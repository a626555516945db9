package device

import (
	"context"
	"net/http"
	"runtime"
	"sync"
	"time"

	"deckhand/cloud/model"
	"deckhand/cloud/park"
)

// news are the parked questions about which something may have changed. A few workers
// look at them: ten thousand devices that are told of a release at once must not take
// ten thousand goroutines to find out.
type news struct {
	mu      sync.Mutex
	queue   []*waiter
	workers int // they end when there is nothing to look at
}

// waiter is a question that waits parked. At any time at most one goroutine looks at
// it.
type waiter struct {
	held
	leave func()

	spot *park.Spot // set before it first rests

	// With the lock of news:
	changes *model.Watch
	state   waiting
}

type waiting byte

const (
	looked  waiting = iota // somebody looks at it
	again                  // and something changed meanwhile
	resting                // nobody has to look
	queued                 // somebody will look
	ended                  // it waits no longer
)

// park has the question wait parked, unless it has an answer already. Neither: it must
// wait where it is.
func (q *held) park(w http.ResponseWriter, r *http.Request, until time.Time, leave func()) (f finding, parked bool, err error) {
	p := &waiter{held: *q, leave: leave}
	p.changes = p.db.Changes().Call(p.changed, p.watched()...)
	if f, err = p.seek(r.Context()); err != nil || f.answer {
		p.end()
		return f, false, err
	}
	p.counts.held.Add(1)
	spot, ok := p.lot.Park(w, r, until, p)
	if !ok {
		p.counts.held.Add(-1)
		p.end()
		return f, false, nil
	}
	p.rest(spot)
	return f, true, nil
}

// seek looks until it is clear that the right topics are watched.
func (p *waiter) seek(ctx context.Context) (finding, error) {
	for {
		f, err := p.look(ctx)
		if err != nil || f.answer || !f.others || !p.watchOthers() {
			return f, err
		}
	}
}

// watchOthers watches the topics that decide now; it is false when the question waits
// no longer.
func (p *waiter) watchOthers() bool {
	changes, n := p.db.Changes().Call(p.changed, p.watched()...), &p.news
	n.mu.Lock()
	gone := p.state == ended
	if !gone {
		p.changes, changes = changes, p.changes
	}
	n.mu.Unlock()
	changes.Stop()
	return !gone
}

// changed is called by the feed.
func (p *waiter) changed() {
	n := &p.news
	n.mu.Lock()
	defer n.mu.Unlock()
	switch p.state {
	case looked:
		p.state = again
	case resting:
		n.add(p)
	case again, queued, ended:
	}
}

// add needs the lock.
func (n *news) add(p *waiter) {
	p.state = queued
	n.queue = append(n.queue, p)
	if n.workers < 2*runtime.GOMAXPROCS(0) {
		n.workers++
		go n.work()
	}
}

func (n *news) work() {
	for p := n.next(); p != nil; p = n.next() {
		p.visit()
	}
}

// next is a question to look at; nil: there is none, and the worker ends.
func (n *news) next() *waiter {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.queue) > 0 {
		p := n.queue[0]
		n.queue[0], n.queue = nil, n.queue[1:]
		if p.state == queued {
			p.state = looked
			return p
		}
	}
	n.queue = nil
	n.workers--
	return nil
}

// visit looks at a question, and ends its wait when it has an answer: the request that
// comes back gives it, an error too.
func (p *waiter) visit() {
	ctx, cancel := context.WithTimeout(context.Background(), answerGrace)
	defer cancel()
	if f, err := p.seek(ctx); err != nil || f.answer {
		p.spot.Wake()
		return
	}
	p.rest(p.spot)
}

// rest is for when a look found nothing; what changed meanwhile is looked at.
func (p *waiter) rest(spot *park.Spot) {
	n := &p.news
	n.mu.Lock()
	defer n.mu.Unlock()
	switch p.state {
	case again:
		p.spot = spot
		n.add(p)
	case looked:
		p.spot = spot
		p.state = resting
	case resting, queued, ended:
	}
}

// end stops looking.
func (p *waiter) end() {
	n := &p.news
	n.mu.Lock()
	p.state = ended
	changes := p.changes
	n.mu.Unlock()
	changes.Stop()
}

// Left is called when the request comes back.
func (p *waiter) Left() {
	p.end()
	p.counts.held.Add(-1)
	p.leave()
}
