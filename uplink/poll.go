package uplink

import (
	"context"
	"crypto/sha256"
	"math/rand/v2"
	"sync"
	"time"

	"deckhand/state"
)

const (
	firstBackoff  = 15 * time.Second // after the first failure; doubles
	defaultJitter = time.Minute
	// spacing is the least time between the starts of two requests, whoever
	// asks for them.
	spacing = time.Second
	// shortHold is how soon a held request may come back empty. After shortHolds such
	// in a row the cloud is taken not to hold requests after all; one that stops
	// answers early too.
	shortHold  = 15 * time.Second
	shortHolds = 3
	// longestHold is how long a request is held at most, after holds that came back
	// whole: fewer questions an hour. Something between us and the cloud may cut
	// long ones off; then it is Wait again for as long as holdAgain.
	longestHold = 4 * time.Minute
	holdAgain   = 12 * time.Hour
)

// Source answers what the target is; Client is one.
type Source interface {
	Target(ctx context.Context, etag string, wait time.Duration) (Answer, error)
}

// Trigger is a wish for a poll right now.
type Trigger struct {
	Force  bool // apply whatever locks are held
	Cancel bool // give up what is being applied
	Own    bool // nobody asked: the device itself has a reason
}

// PollConfig says when to poll and whom to tell.
type PollConfig struct {
	Source   Source
	Interval func() time.Duration // asked before each wait, so that changes count
	Jitter   time.Duration        // the most that is added to Interval by chance; 0: one minute; < 0: none
	Wait     time.Duration        // how long the cloud may hold a request, at first; 0: it may not
	Instant  func() bool          // whether news are wanted before Interval is over, asked for each request; nil: yes
	ETag     string               // of the document that OnTarget has accepted before, if any
	Later    bool                 // the first poll comes after Interval, not at once

	// OnTarget gets a new document. An error of class invalid means that the
	// document is refused and will not be asked for again; after any other
	// error it is asked for again.
	OnTarget func(ctx context.Context, body []byte, etag string) error
	// OnTrigger is told that a triggered poll has succeeded, after OnTarget,
	// also when nothing changed. May be nil.
	OnTrigger func(Trigger)
	// OnCalls is told that calls may wait at the cloud; it must not block. May be
	// nil.
	OnCalls func()
	// OnError is told every failure once, and when the next attempt comes. May
	// be nil.
	OnError func(err error, next time.Duration)
}

// Poller keeps the device up to date with its target.
type Poller struct {
	c    PollConfig
	wake chan struct{}

	mu          sync.Mutex
	trigger     *Trigger           // waiting to be served
	release     context.CancelFunc // ends the request that the cloud holds
	lastSuccess time.Time

	// Only Run uses the rest.
	etag     string
	seen     [sha256.Size]byte // of the last body, for clouds without ETags
	failures int
	holds    bool          // the cloud holds requests, or was not yet asked to
	short    int           // how many in a row came back empty too soon
	grown    time.Duration // how long a request may be held by now
	cutOff   time.Time     // when a hold longer than Wait last failed
}

// NewPoller makes a poller; Run starts it.
func NewPoller(c PollConfig) *Poller {
	switch {
	case c.Jitter == 0:
		c.Jitter = defaultJitter
	case c.Jitter < 0:
		c.Jitter = 0
	}
	return &Poller{c: c, wake: make(chan struct{}, 1), etag: c.ETag, lastSuccess: time.Now(), holds: c.Wait > 0, grown: c.Wait}
}

// Trigger asks for a poll now. Wishes that come while one is waiting are joined
// with it; a request that the cloud is holding is given up.
func (p *Poller) Trigger(t Trigger) {
	p.mu.Lock()
	if p.trigger == nil {
		p.trigger = &Trigger{Own: true}
	}
	p.trigger.Force = p.trigger.Force || t.Force
	p.trigger.Cancel = p.trigger.Cancel || t.Cancel
	p.trigger.Own = p.trigger.Own && t.Own
	if p.release != nil {
		p.release()
	}
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// LastSuccess is when the cloud last answered properly; before the first time
// it is when the poller was made.
func (p *Poller) LastSuccess() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lastSuccess
}

// Run polls until ctx ends, and returns its error.
func (p *Poller) Run(ctx context.Context) error {
	var next time.Time // zero: at once
	if p.c.Later {
		next = time.Now().Add(p.pause())
	}
	for {
		if err := p.sleep(ctx, time.Until(next)); err != nil {
			return err
		}
		started := time.Now()
		wait, again := p.poll(ctx, next)
		if err := ctx.Err(); err != nil {
			return err
		}
		if again {
			next = time.Now().Add(wait)
		}
		// Whatever happens, the cloud is not hammered.
		if err := pause(ctx, spacing-time.Since(started)); err != nil {
			return err
		}
	}
}

// sleep waits until a poll is due or wished for.
func (p *Poller) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			return nil
		case <-p.wake:
			if p.wished() {
				return nil
			}
		}
	}
}

func (p *Poller) wished() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trigger != nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(max(d, 0))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// poll makes one request. wait is the time to the next one; reset is false when
// the one that was planned for due stays planned.
func (p *Poller) poll(ctx context.Context, due time.Time) (wait time.Duration, reset bool) {
	trigger := p.take()
	patience := p.patience(trigger)
	request, done := p.hold(ctx, patience > 0)
	started := time.Now()
	answer, err := p.c.Source.Target(request, p.etag, patience)
	interrupted := request.Err() != nil
	done()
	if ctx.Err() != nil {
		return 0, false
	}
	if err != nil && interrupted {
		return 0, true // a trigger is waiting; no failure
	}
	if err != nil && patience > p.c.Wait {
		p.grown, p.cutOff = p.c.Wait, time.Now()
		return 0, true // perhaps only the hold was too long; the next one tells
	}
	if err != nil {
		return p.failed(err, trigger, due)
	}
	p.succeeded()
	changed, err := p.use(ctx, answer)
	if err != nil && state.ClassOf(err) != state.ClassInvalid {
		return p.failed(err, trigger, due)
	}
	p.failures = 0
	if answer.Called && p.c.OnCalls != nil {
		p.c.OnCalls()
	}
	if patience > 0 && !changed && !answer.Called {
		// News come at once from any cloud; only waiting for none shows which
		// kind it is.
		p.judge(answer.Held, patience, time.Since(started))
	}
	wait = p.pause()
	if p.holds && p.etag != "" && p.instant() {
		wait = 0
	}
	if err != nil {
		p.tell(err, wait)
	} else if trigger != nil && p.c.OnTrigger != nil {
		p.c.OnTrigger(*trigger)
	}
	return wait, true
}

func (p *Poller) take() *Trigger {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.trigger
	p.trigger = nil
	return t
}

// patience is how long the cloud may hold the request. A trigger wants an
// answer now, and so does a device that has nothing yet.
func (p *Poller) patience(t *Trigger) time.Duration {
	if t != nil || p.etag == "" || !p.instant() {
		return 0
	}
	if p.grown <= p.c.Wait {
		return p.c.Wait
	}
	return max(p.c.Wait, min(p.grown, p.c.Interval()))
}

// judge says from a request that brought no news whether the cloud holds requests.
func (p *Poller) judge(held bool, patience, took time.Duration) {
	if took >= min(shortHold, patience/2) {
		p.short = 0
	} else {
		p.short++
	}
	p.holds = held && p.short < shortHolds
	p.grow(patience, took)
}

// grow lets the next request be held longer than this one, which was held for as
// long as it might be.
func (p *Poller) grow(patience, held time.Duration) {
	if held >= patience-time.Second && (p.cutOff.IsZero() || time.Since(p.cutOff) > holdAgain) {
		p.grown = min(2*patience, longestHold)
	}
}

func (p *Poller) instant() bool { return p.c.Instant == nil || p.c.Instant() }

// hold makes the context of a request; a trigger ends it when it may be held.
func (p *Poller) hold(ctx context.Context, held bool) (context.Context, func()) {
	request, cancel := context.WithCancel(ctx)
	p.mu.Lock()
	if held {
		p.release = cancel
		if p.trigger != nil {
			cancel() // it came in between
		}
	}
	p.mu.Unlock()
	return request, func() {
		p.mu.Lock()
		p.release = nil
		p.mu.Unlock()
		cancel()
	}
}

func (p *Poller) succeeded() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lastSuccess = time.Now()
}

// use hands a new document on and remembers what need not be asked for again.
// A refused document is remembered too.
func (p *Poller) use(ctx context.Context, a Answer) (changed bool, err error) {
	if !a.Modified {
		return false, nil
	}
	sum := sha256.Sum256(a.Body)
	if sum == p.seen {
		p.etag = a.ETag
		return false, nil
	}
	err = p.c.OnTarget(ctx, a.Body, a.ETag)
	if err == nil || state.ClassOf(err) == state.ClassInvalid {
		p.etag, p.seen = a.ETag, sum
	}
	return true, err
}

// failed counts a failure and says when to try again. A failed trigger does not
// touch the plan: it was an extra.
func (p *Poller) failed(err error, t *Trigger, due time.Time) (wait time.Duration, reset bool) {
	if t != nil && time.Until(due) > 0 {
		p.tell(err, time.Until(due))
		return 0, false
	}
	wait = backoff(p.failures, p.c.Interval(), RetryAfter(err))
	p.failures++
	p.tell(err, wait)
	return wait, true
}

func (p *Poller) tell(err error, next time.Duration) {
	if p.c.OnError != nil {
		p.c.OnError(err, next)
	}
}

// pause is the time between two polls when all is well.
func (p *Poller) pause() time.Duration {
	d := p.c.Interval()
	if p.c.Jitter > 0 {
		d += rand.N(p.c.Jitter)
	}
	return d
}

// backoff is the wait after n earlier failures: it doubles up to most, and is
// longer when the cloud asks for it.
func backoff(n int, most, asked time.Duration) time.Duration {
	d := firstBackoff << min(n, 20)
	return min(max(d, asked), most)
}
