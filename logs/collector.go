package logs

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/state"
)

// Container is what the engine says about a container whose log is to be read.
type Container struct {
	TTY     bool
	Running bool   // a process of it is alive now
	Run     int64  // when its last run began, in nanoseconds since 1970
	Level   string // BALENA_LOGS_LEVEL of its environment
}

// Record is one line as the engine has it.
type Record struct {
	At     int64 // nanoseconds since 1970
	Stderr bool
	Text   []byte // valid until the function that gets it returns
}

// Request says what to read of a container's log.
type Request struct {
	TTY    bool
	Since  time.Time // inclusive; zero: from the beginning
	Follow bool      // go on until the container ends
}

// Engine keeps the logs of containers.
type Engine interface {
	// LogState fails with class not-found when there is no such container.
	LogState(ctx context.Context, container string) (Container, error)
	// ReadLog hands over each line until the log ends or take gives an error. It
	// fails with class invalid when the container's log cannot be read at all.
	ReadLog(ctx context.Context, container string, r Request, take func(Record) error) error
	// Ready waits until the engine answers.
	Ready(ctx context.Context) error
}

// Cursors remembers how far each container was read.
type Cursors interface {
	All() (map[string]Cursor, error)
	Save(moved map[string]Cursor, gone []string) error
}

// Source is a container whose log is to be read.
type Source struct {
	Container string // engine ID
	Up        bool   // it runs, or is about to
	Service   string
	ServiceID int64
	AppUUID   string
	AppID     int64
}

// CollectorConfig says what a collector reads and where its lines go.
type CollectorConfig struct {
	Engine  Engine
	Cursors Cursors
	Outbox  *Outbox
	Stream  *Stream // nil: nobody listens
	Log     zerolog.Logger
}

// saveEvery is how often cursors are written down. After a crash the lines of that
// time are read again.
const saveEvery = 30 * time.Second

// Collector reads the logs of containers: one reader for each, from where the last
// one ended.
type Collector struct {
	cfg CollectorConfig

	mu      sync.Mutex
	known   map[string]Cursor // what an earlier process has read
	began   int64             // when logs were first read on this device, nanoseconds
	wanted  []Source
	readers map[string]*reader
	stored  map[string]bool // containers with a cursor in the store
	change  chan struct{}
}

// begin is the key of the time at which logs were first read on this device: of
// containers that were there before, nobody wants to read all they ever wrote.
const begin = "begin"

// NewCollector reads the cursors. A store that cannot be read costs lines of the
// past, not of the future.
func NewCollector(c CollectorConfig) *Collector {
	x := &Collector{cfg: c, readers: map[string]*reader{}, stored: map[string]bool{}, change: make(chan struct{}, 1)}
	all, err := c.Cursors.All()
	if err != nil {
		c.Log.Warn().Err(err).Msg("cannot read how far logs were read; lines may come twice")
	}
	x.known = all
	if x.known == nil {
		x.known = map[string]Cursor{}
	}
	for id := range x.known {
		x.stored[id] = true
	}
	now := time.Now().UnixNano()
	if first, ok := x.known[begin]; ok && first.At <= now {
		x.began = first.At
		return x
	}
	x.began = now
	x.stored[begin] = true
	if err := c.Cursors.Save(map[string]Cursor{begin: {At: now}}, nil); err != nil {
		c.Log.Warn().Err(err).Msg("cannot remember since when logs are read")
	}
	return x
}

// Sync says which containers there are.
func (x *Collector) Sync(all []Source) {
	x.mu.Lock()
	was := map[string]bool{}
	for _, s := range x.wanted {
		was[s.Container] = s.Up
	}
	x.wanted = append([]Source{}, all...)
	for _, s := range all {
		if r := x.readers[s.Container]; r != nil && s.Up && !was[s.Container] {
			r.wake()
		}
	}
	x.mu.Unlock()
	kick(x.change)
}

// Started says that a container was started; empty: any may have been.
func (x *Collector) Started(container string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for id, r := range x.readers {
		if container == "" || container == id {
			r.wake()
		}
	}
}

// Finish waits until all that a container which has ended wrote is read, or ctx
// ends. A container that is not read, or runs, is not waited for.
func (x *Collector) Finish(ctx context.Context, container string) {
	x.mu.Lock()
	r := x.readers[container]
	x.mu.Unlock()
	if r == nil {
		return
	}
	r.wake()
	r.waitIdle(ctx)
}

// Run reads until ctx ends and all readers have.
func (x *Collector) Run(ctx context.Context) {
	var readers sync.WaitGroup
	var due <-chan time.Time
	for {
		select {
		case <-x.change:
			x.launch(ctx, &readers)
		case <-x.cfg.Outbox.Moved():
			if due == nil {
				due = time.After(saveEvery)
			}
		case <-x.cfg.Outbox.Urgent():
			x.Save()
		case <-due:
			due = nil
			x.Save()
		case <-ctx.Done():
			readers.Wait()
			return
		}
	}
}

// launch starts readers of containers that have none.
func (x *Collector) launch(ctx context.Context, all *sync.WaitGroup) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, s := range x.wanted {
		if x.readers[s.Container] != nil || ctx.Err() != nil {
			continue
		}
		r := newReader(s)
		x.readers[s.Container] = r
		cur, known := x.from(s.Container)
		all.Go(func() {
			reading{x.cfg, r, s, x.began}.run(ctx, cur, known)
			x.mu.Lock()
			delete(x.readers, s.Container)
			x.mu.Unlock()
			r.end()
		})
	}
}

// from is where a reader goes on: behind what is safe; the lock is held.
func (x *Collector) from(container string) (Cursor, bool) {
	cur, known := x.known[container]
	if c, ok := x.cfg.Outbox.Resume(container); ok && c.Pos > cur.Pos {
		cur, known = c, true
	}
	return cur, known
}

// Save writes down how far logs are safe, and forgets containers that are gone.
func (x *Collector) Save() {
	x.mu.Lock()
	there := map[string]bool{begin: true}
	for _, s := range x.wanted {
		there[s.Container] = true
	}
	for id := range x.readers {
		there[id] = true
	}
	looked := x.wanted != nil
	x.mu.Unlock()
	moved := x.cfg.Outbox.Unsaved()
	maps.DeleteFunc(moved, func(id string, _ Cursor) bool { return strings.HasPrefix(id, systemPrefix) || looked && !there[id] })
	var gone []string
	for id := range x.stored {
		if looked && !there[id] {
			gone = append(gone, id)
		}
	}
	if err := x.cfg.Cursors.Save(moved, gone); err != nil {
		x.cfg.Log.Warn().Err(err).Msg("cannot remember how far logs were read; lines may come twice after a restart")
		return
	}
	for id := range moved {
		x.stored[id] = true
	}
	for _, id := range gone {
		delete(x.stored, id)
	}
	if looked {
		x.cfg.Outbox.Forget(func(id string) bool { return !there[id] })
	}
}

// reader is the goroutine that reads one container.
type reader struct {
	of     Source
	poke   chan struct{}
	ended  chan struct{}
	mu     sync.Mutex
	asked  int           // how often it was asked to look
	seen   int           // up to which time of those it has read to the end
	looked chan struct{} // closed and replaced whenever seen changes
}

func newReader(s Source) *reader {
	return &reader{of: s, poke: make(chan struct{}, 1), ended: make(chan struct{}), looked: make(chan struct{}), asked: 1}
}

// wake asks the reader to look at its container again.
func (r *reader) wake() {
	r.mu.Lock()
	r.asked++
	r.mu.Unlock()
	kick(r.poke)
}

// begins says how often the reader was asked to look: this look is for all.
func (r *reader) begins() int {
	select {
	case <-r.poke:
	default:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked
}

// rests notes that what was asked for up to a number is read.
func (r *reader) rests(asked int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seen = asked
	close(r.looked)
	r.looked = make(chan struct{})
}

func (r *reader) end() { close(r.ended) }

// waitIdle waits until everything asked for so far is read.
func (r *reader) waitIdle(ctx context.Context) {
	r.mu.Lock()
	goal := r.asked
	r.mu.Unlock()
	for {
		r.mu.Lock()
		done, looked := r.seen >= goal, r.looked
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-looked:
		case <-r.ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// reading is what a reader works with.
type reading struct {
	CollectorConfig
	r     *reader
	of    Source
	began int64
}

// How long a reader waits when it comes no further, from the second time on.
const (
	retryFirst = time.Second
	retryMost  = 30 * time.Second
)

// run reads until the container is gone or ctx ends.
func (x reading) run(ctx context.Context, cur Cursor, known bool) {
	var wait time.Duration
	for ctx.Err() == nil {
		asked, before := x.r.begins(), cur
		again, err := x.pass(ctx, &cur, known)
		known = known || cur != Cursor{}
		if cur != before {
			wait = 0
		}
		class := state.ClassOf(err)
		switch {
		case err != nil && class == state.ClassNotFound:
			return
		case err == nil && !again, err != nil && class == state.ClassInvalid:
			x.complain(err)
			x.r.rests(asked)
			wait = 0
			select {
			case <-x.r.poke:
			case <-ctx.Done():
			}
		default:
			if err != nil {
				_ = x.Engine.Ready(ctx) // it fails only with ctx
			}
			pause(ctx, wait)
			wait = min(max(2*wait, retryFirst), retryMost)
		}
	}
}

func (x reading) complain(err error) {
	if err != nil {
		x.Log.Warn().Err(err).Str("service", x.of.Service).Msg("the log of a container cannot be read")
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// pass reads what there is; again: the container ran, so there may be more.
func (x reading) pass(ctx context.Context, cur *Cursor, known bool) (again bool, err error) {
	c, err := x.Engine.LogState(ctx, x.of.Container)
	if err != nil {
		return false, err
	}
	level := strings.ToLower(strings.TrimSpace(c.Level))
	if level == "none" {
		return false, nil
	}
	onlyErrors := level == "err" || level == "error"
	since, leave, err := x.resume(ctx, c, *cur, known)
	if err != nil {
		return false, err
	}
	err = x.Engine.ReadLog(ctx, x.of.Container, Request{TTY: c.TTY, Since: since, Follow: c.Running}, func(r Record) error {
		if leave(r.At) {
			return nil
		}
		next := cur.after(c.Run, r.At)
		if r.Stderr || !onlyErrors {
			if !x.take(ctx, r, next) {
				return errStopped
			}
		}
		*cur = next
		return nil
	})
	if errors.Is(err, errStopped) {
		err = ctx.Err()
	}
	return c.Running, err
}

// resume says from which time on to read, and which lines to leave out.
func (x reading) resume(ctx context.Context, c Container, cur Cursor, known bool) (since time.Time, leave func(at int64) bool, err error) {
	switch {
	case cur.At == 0 && !known && x.began <= time.Now().UnixNano():
		return time.Unix(0, x.began), func(int64) bool { return false }, nil
	case cur.At == 0:
		return time.Time{}, func(int64) bool { return false }, nil
	case !cur.doubtful(c.Run):
		left := cur.Count
		return time.Unix(0, cur.At), func(at int64) bool {
			if at != cur.At {
				left = 0
			}
			left--
			return left >= 0
		}, nil
	}
	since = time.Unix(0, max(c.Run-early, 0))
	lines, old, seen := 0, 0, 0
	err = x.Engine.ReadLog(ctx, x.of.Container, Request{TTY: c.TTY, Since: since}, func(r Record) error {
		if lines++; cur.of(r.At, &seen) {
			old = lines
		}
		return nil
	})
	return since, func(int64) bool { old--; return old >= 0 }, err
}

var errStopped = errors.New("stopped")

func (x reading) take(ctx context.Context, r Record, next Cursor) bool {
	l := Line{
		Message: Clean(r.Text), At: r.At / int64(time.Millisecond), Stderr: r.Stderr,
		Service: x.of.Service, ServiceID: x.of.ServiceID, AppUUID: x.of.AppUUID, AppID: x.of.AppID, Container: x.of.Container,
	}
	if x.Stream != nil {
		x.Stream.Send(l)
	}
	return x.Outbox.Put(ctx, x.of.Container, l, next)
}
