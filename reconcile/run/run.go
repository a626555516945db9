package run

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/state"
)

// Device is what the loop looks at and changes.
type Device interface {
	// Observe looks at the whole device. It is called often and must be cheap.
	Observe(ctx context.Context) (state.World, error)
	// Do carries out one step. Twice is safe; a step that is already done is no
	// error. It may report bytes through progress.
	Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error
	// Watch sends a hint whenever a look is worth while, until ctx ends.
	Watch(ctx context.Context) <-chan struct{}
}

// Memory keeps what must survive the process.
type Memory interface {
	Failures() map[reconcile.Key]state.Failure
	SaveFailures(map[reconcile.Key]state.Failure) error
}

// Config says what to run.
type Config struct {
	Device Device
	Memory Memory // nil: failures are forgotten with the process
	Limits Limits // zero: DefaultLimits
	Log    zerolog.Logger
	// Event is called for every step that starts or ends, from one goroutine.
	Event func(Event)
}

// Event is a step that started, ended or failed.
type Event struct {
	Node  reconcile.Node
	At    time.Time
	Ended bool
	Took  time.Duration
	Err   error
}

// Running is a step on its way.
type Running struct {
	Node        reconcile.Node
	Since       time.Time
	Done, Total int64 // bytes; zero when unknown
}

// Status is where the loop stands.
type Status struct {
	Target   state.Target
	HasGoal  bool // a target was set
	World    state.World
	Plan     reconcile.Plan
	Running  []Running
	Failures map[reconcile.Key]state.Failure
	Looked   time.Time // the last successful look
	Settled  bool      // nothing to do and nothing running, as seen by that look
	Err      error     // the last look failed
}

// Runner is the loop. Create it with New, give it a target, call Run.
type Runner struct {
	cfg     Config
	kick    chan struct{}
	done    chan result
	flights map[reconcile.Key]flight
	ended   map[reconcile.Key]bool // succeeded since the last look
	blinks  int                    // looks that failed in a row
	pulse   pulse

	mu       sync.Mutex
	target   state.Target
	hasGoal  bool
	goal     int // counts targets
	status   Status
	progress map[reconcile.Key][2]int64
	failures map[reconcile.Key]state.Failure
	cancels  map[reconcile.Key]context.CancelFunc
	made     map[reconcile.Key][]time.Time // when containers were made for this target, see loops
	changed  chan struct{}                 // closed and replaced on every change of status
}

type result struct {
	key reconcile.Key
	err error
}

// New makes a loop.
func New(cfg Config) *Runner {
	if cfg.Limits == (Limits{}) {
		cfg.Limits = DefaultLimits()
	}
	if cfg.Event == nil {
		cfg.Event = func(Event) {}
	}
	r := &Runner{
		cfg: cfg, kick: make(chan struct{}, 1), done: make(chan result),
		flights: map[reconcile.Key]flight{}, ended: map[reconcile.Key]bool{}, made: map[reconcile.Key][]time.Time{},
		progress: map[reconcile.Key][2]int64{}, failures: map[reconcile.Key]state.Failure{},
		cancels: map[reconcile.Key]context.CancelFunc{}, changed: make(chan struct{}),
	}
	if cfg.Memory != nil {
		maps.Copy(r.failures, cfg.Memory.Failures())
	}
	return r
}

// SetTarget gives the loop something new to reach. What failed on the way to
// the old target is tried again at once.
func (r *Runner) SetTarget(t state.Target) {
	r.mu.Lock()
	r.target, r.hasGoal = t, true
	r.goal++
	r.mu.Unlock()
	r.Retry()
}

// RestoreTarget gives the loop the target it had before the process started;
// back-off goes on where it was.
func (r *Runner) RestoreTarget(t state.Target) {
	r.mu.Lock()
	r.target, r.hasGoal = t, true
	r.mu.Unlock()
	r.Look()
}

// Retry forgets every failure and looks again: somebody asked for something.
func (r *Runner) Retry() {
	r.mu.Lock()
	clear(r.failures)
	clear(r.made)
	r.mu.Unlock()
	r.save()
	r.Look()
}

// Look asks for another pass.
func (r *Runner) Look() {
	r.pulse.ask()
	select {
	case r.kick <- struct{}{}:
	default:
	}
}

// Status is a copy of where the loop stands.
func (r *Runner) Status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.status
	s.Failures = maps.Clone(r.failures)
	s.Running = slices.Clone(s.Running)
	for i, f := range s.Running {
		s.Running[i].Done, s.Running[i].Total = r.progress[f.Node.Key][0], r.progress[f.Node.Key][1]
	}
	return s
}

// Changed is closed at the next change of the status.
func (r *Runner) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.changed
}

// Run works until ctx ends. Then it cancels what can be cancelled and waits for
// the rest; containers stay as they are.
func (r *Runner) Run(ctx context.Context) error {
	hints := r.cfg.Device.Watch(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	for ctx.Err() == nil {
		r.pulse.work()
		next := r.pass(ctx, &wg)
		r.pulse.rest(next)
		hints = r.wait(ctx, hints, next)
	}
	r.drain()
	return nil
}

// pass looks, plans and starts. It returns when the next pass is due even if
// nothing happens; zero means only when something happens.
func (r *Runner) pass(ctx context.Context, wg *sync.WaitGroup) time.Time {
	world, err := r.cfg.Device.Observe(ctx)
	now := time.Now()
	if err != nil {
		return r.blind(err, now)
	}
	r.blinks = 0
	r.mu.Lock()
	target, hasGoal, goal := r.target, r.hasGoal, r.goal
	facts := reconcile.Facts{Now: now, Failures: maps.Clone(r.failures)}
	r.mu.Unlock()
	var plan reconcile.Plan
	if hasGoal {
		if plan, err = reconcile.Make(world, target, facts); err != nil {
			r.cfg.Log.Error().Err(err).Msg("cannot plan; the device stays as it is")
			r.publish(func(s *Status) { s.Err, s.World, s.Settled = err, world, false })
			return now.Add(time.Minute)
		}
	}
	if r.unshown(plan, now) || r.loops(plan, now) {
		return now
	}
	r.forget(plan)
	r.age(plan, now)
	start, cancel := choose(plan, r.flights, goal, r.cfg.Limits, now)
	for _, k := range cancel {
		r.cancel(k)
	}
	for _, n := range start {
		r.launch(ctx, wg, flight{node: n, goal: goal, since: now})
	}
	r.publish(func(s *Status) {
		*s = Status{
			Target: target, HasGoal: hasGoal, World: world, Plan: plan, Looked: now,
			Settled: hasGoal && plan.Steps() == 0 && len(r.flights) == 0,
		}
		for _, k := range slices.Sorted(maps.Keys(r.flights)) {
			s.Running = append(s.Running, Running{Node: r.flights[k].node, Since: r.flights[k].since})
		}
	})
	return r.due(plan, now)
}

// blind is a pass in which the engine did not answer.
func (r *Runner) blind(err error, now time.Time) time.Time {
	r.blinks++
	if r.blinks == 1 {
		r.cfg.Log.Warn().Err(err).Msg("cannot look at the device; trying until the engine answers")
	}
	r.publish(func(s *Status) { s.Err, s.Settled = err, false })
	return now.Add(min(time.Second<<min(r.blinks-1, 10), 10*time.Second))
}

// unshown remembers steps that ended well and are planned again all the same: a
// fault of ours. They rest like failures, so that it cannot become a loop.
func (r *Runner) unshown(p reconcile.Plan, now time.Time) bool {
	found := false
	for _, n := range p.Ready() {
		if r.ended[n.Key] {
			r.fail(n, errors.New("it was done but does not show on the device"), now)
			found = true
		}
	}
	clear(r.ended)
	return found
}

// A container that is made so often is made for nothing: what is seen of it is
// not what was asked for, and that is our fault.
const (
	loopCount = 5
	loopTime  = time.Hour
)

// loops lets the making of such a container rest like a failure. What serves
// now stays up, since a container stops only when the next one is made.
func (r *Runner) loops(p reconcile.Plan, now time.Time) bool {
	r.mu.Lock()
	var often []reconcile.Node
	for _, n := range p.Ready() {
		times := slices.DeleteFunc(r.made[n.Key], func(t time.Time) bool { return now.Sub(t) > loopTime })
		if len(times) == 0 {
			delete(r.made, n.Key)
			continue
		}
		r.made[n.Key] = times
		if _, running := r.flights[n.Key]; len(times) < loopCount || running {
			continue
		}
		often = append(often, n)
	}
	r.mu.Unlock()
	for _, n := range often {
		r.fail(n, fmt.Errorf("made %d times within %s, and still planned (%s); what runs is left alone", loopCount, loopTime, n.Why), now)
	}
	return len(often) > 0
}

// forget drops failures of steps that are done or no longer on the way.
func (r *Runner) forget(p reconcile.Plan) {
	planned := make(map[reconcile.Key]bool, len(p.Nodes))
	for _, n := range p.Nodes {
		planned[n.Key] = true
	}
	r.mu.Lock()
	before := len(r.failures)
	maps.DeleteFunc(r.failures, func(k reconcile.Key, _ state.Failure) bool { return !planned[k] })
	changed := len(r.failures) != before
	r.mu.Unlock()
	if changed {
		r.save()
	}
}

// age notes since when a running step is no longer asked for.
func (r *Runner) age(p reconcile.Plan, now time.Time) {
	ready := map[reconcile.Key]bool{}
	for _, n := range p.Ready() {
		ready[n.Key] = true
	}
	for k, f := range r.flights {
		switch {
		case ready[k]:
			f.stale = time.Time{}
		case f.stale.IsZero():
			f.stale = now
		}
		r.flights[k] = f
	}
}

// due is when time alone makes another pass worth while.
func (r *Runner) due(p reconcile.Plan, now time.Time) time.Time {
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, w := range p.Waiting {
		if !w.Until.IsZero() { // a lock: the device's hint comes when it is given up
			sooner(w.Until)
		}
	}
	for _, f := range r.flights {
		if t := f.since.Add(slow); t.After(now) {
			sooner(t)
		}
		if !f.stale.IsZero() && !f.cancelled && f.node.Step.Traits().Lane == reconcile.Download {
			sooner(f.stale.Add(lateDownload))
		}
	}
	return next
}

// restless is the shortest time between two looks that only hints ask for.
const restless = 100 * time.Millisecond

// wait returns when another pass is worth while.
func (r *Runner) wait(ctx context.Context, hints <-chan struct{}, due time.Time) <-chan struct{} {
	looked := time.Now()
	var timer <-chan time.Time
	if !due.IsZero() {
		timer = time.After(time.Until(due))
	}
	for {
		select {
		case <-ctx.Done():
			return hints
		case x := <-r.done:
			r.pulse.work()
			r.land(x)
			r.landMore()
			return hints
		case <-r.kick:
			return hints
		case <-timer:
			return hints
		case _, open := <-hints:
			if !open {
				hints = nil // ctx is ending
				continue
			}
			if rest := restless - time.Since(looked); rest > 0 {
				timer = time.After(rest) // something may end first
				continue
			}
			return hints
		}
	}
}

// landMore takes what else has ended meanwhile: one look serves all.
func (r *Runner) landMore() {
	for {
		select {
		case x := <-r.done:
			r.land(x)
		default:
			return
		}
	}
}

func (r *Runner) launch(ctx context.Context, wg *sync.WaitGroup, f flight) {
	n := f.node
	// Only what can be interrupted ends with the process's context: the rest
	// is short and leaves the device tidy.
	sctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.flights[n.Key] = f
	r.mu.Lock()
	r.cancels[n.Key] = cancel
	r.mu.Unlock()
	r.cfg.Log.Info().Str("step", n.Title()).Str("why", n.Why.String()).Msg("start")
	r.cfg.Event(Event{Node: n, At: f.since})
	wg.Go(func() {
		err := r.cfg.Device.Do(sctx, n.Step, func(done, total int64) { r.note(n.Key, done, total) })
		r.done <- result{n.Key, err}
	})
}

func (r *Runner) cancel(k reconcile.Key) {
	f := r.flights[k]
	if f.cancelled {
		return
	}
	f.cancelled = true
	r.flights[k] = f
	r.mu.Lock()
	r.cancels[k]()
	r.mu.Unlock()
}

// land takes a step that ended.
func (r *Runner) land(x result) {
	f := r.flights[x.key]
	now := time.Now()
	delete(r.flights, x.key)
	r.mu.Lock()
	r.cancels[x.key]()
	delete(r.cancels, x.key)
	delete(r.progress, x.key)
	r.mu.Unlock()
	e := Event{Node: f.node, At: now, Ended: true, Took: now.Sub(f.since), Err: x.err}
	switch {
	case f.cancelled && x.err != nil:
		e.Err = state.Classify(state.ClassCancelled, x.err)
		r.cfg.Log.Info().Str("step", f.node.Title()).Msg("cancelled")
	case x.err != nil:
		r.fail(f.node, x.err, now)
	default:
		if _, ok := f.node.Step.(reconcile.Create); ok {
			r.mu.Lock()
			r.made[x.key] = append(r.made[x.key], now)
			r.mu.Unlock()
		}
		r.ended[x.key] = true // an earlier failure is forgotten when the effect shows
		r.cfg.Log.Info().Str("step", f.node.Title()).Int64("took_ms", e.Took.Milliseconds()).Msg("done")
	}
	r.cfg.Event(e)
}

// fail remembers a failure and when to try again.
func (r *Runner) fail(n reconcile.Node, err error, now time.Time) {
	class := state.ClassOf(err)
	text := err.Error()
	if e, ok := errors.AsType[*state.Error](err); ok {
		text = e.Err.Error()
	}
	r.mu.Lock()
	f := r.failures[n.Key]
	f.Class, f.Text, f.Attempt = class, text, f.Attempt+1
	f.Next = now.Add(backOff(class, f.Attempt, rand.Float64))
	r.failures[n.Key] = f
	r.mu.Unlock()
	r.cfg.Log.Warn().Str("step", n.Title()).Str("class", string(class)).Int("attempt", f.Attempt).
		Time("next", f.Next).Str("advice", class.Advice()).Msg(text)
	r.save()
}

func (r *Runner) save() {
	if r.cfg.Memory == nil {
		return
	}
	r.mu.Lock()
	all := maps.Clone(r.failures)
	r.mu.Unlock()
	if err := r.cfg.Memory.SaveFailures(all); err != nil {
		r.cfg.Log.Warn().Err(err).Msg("cannot remember failures; they are forgotten if the process ends")
	}
}

func (r *Runner) note(k reconcile.Key, done, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.progress[k] != [2]int64{done, total} {
		r.progress[k] = [2]int64{done, total}
		r.announce()
	}
}

func (r *Runner) publish(change func(*Status)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(&r.status)
	r.announce()
}

// announce wakes everybody who waits for a change; the lock is held.
func (r *Runner) announce() {
	close(r.changed)
	r.changed = make(chan struct{})
}

// drain ends the loop: interruptible steps are cancelled, the rest is waited for.
func (r *Runner) drain() {
	for k, f := range r.flights {
		if f.node.Step.Traits().Interruptible {
			r.cancel(k)
		}
	}
	for len(r.flights) > 0 {
		r.land(<-r.done)
	}
}
