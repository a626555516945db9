package logs

import (
	"context"
	"fmt"
	"strconv"
	"time"
)

// Parcel is a line on its way to the cloud.
type Parcel struct {
	Line
	Source string // container or supervisor it is from
	Pos    int64  // grows within the source; the same when the line is sent again
}

// Mark names a parcel for those who may get it twice.
func (p Parcel) Mark() string { return p.Source + ":" + strconv.FormatInt(p.Pos, 10) }

// Session is one connection to the cloud. Lines that it took and did not settle
// are sent again by the next one.
type Session struct{ b *Outbox }

// Open begins a session, in place of an earlier one.
func (b *Outbox) Open() *Session {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(b.session)
	b.session = &Session{b}
	b.roomAgain()
	return b.session
}

// end takes back what a session has not settled; the lock is held.
func (b *Outbox) end(s *Session) {
	if s == nil || s != b.session {
		return
	}
	b.session, b.away, b.losing = nil, time.Now(), false
	for _, x := range b.order {
		b.recall(x)
		x.sent, x.held, x.late = 0, time.Time{}, false
	}
	b.flying, b.window = nil, 0
	kick(b.pending)
}

// recall sets apart what was on its way: the cloud may have it, so it must not be
// counted as dropped.
func (b *Outbox) recall(x *source) {
	n := x.flyingOfQueue()
	for _, e := range x.queue[:n] {
		b.weigh(x, -e.size())
		b.loaded += e.size()
	}
	x.front = append(x.front, x.queue[:n]...)
	x.queue = x.queue[n:]
	for i := range x.front[:min(x.sent, len(x.front))] {
		x.front[i].flown = true
	}
}

// Pending has a signal when there may be lines to send.
func (b *Outbox) Pending() <-chan struct{} { return b.pending }

// Waiting reports whether there are lines to send that no session has taken.
func (b *Outbox) Waiting() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.off {
		return false
	}
	for _, x := range b.order {
		if x.sent < len(x.front)+len(x.queue) || len(x.disk) > 0 {
			return true
		}
	}
	return false
}

// WaitPending waits until there are lines to send; it fails only when ctx ended.
func (b *Outbox) WaitPending(ctx context.Context) error {
	for !b.Waiting() {
		select {
		case <-b.pending:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Close ends the session.
func (s *Session) Close() {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.b.end(s)
}

// Alive is false when another session or none has taken its place.
func (s *Session) Alive() bool {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.b.session == s
}

const (
	turnLines = 16       // of one source before the next one has its turn
	batch     = 32 << 10 // bytes of one call of Next, about
)

// Next takes lines to send, of each source in turn; none: there are none, or too
// many are on their way.
func (s *Session) Next() []Parcel {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != s {
		return nil
	}
	// What may be there already goes first, so that it does not become more and
	// more.
	out := b.hand(nil, func(x *source) bool { return x.sent < len(x.front) })
	if len(out) > 0 {
		return out
	}
	return b.hand(out, func(*source) bool { return true })
}

// hand takes lines of the sources that may, in turn.
func (b *Outbox) hand(out []Parcel, may func(*source) bool) []Parcel {
	taken, idle := 0, 0
	for len(b.order) > 0 && idle < len(b.order) && taken < batch && b.window < b.limits.Window {
		b.turn %= len(b.order)
		x := b.order[b.turn]
		b.turn++
		n := len(out)
		for len(out)-n < turnLines && may(x) {
			p, size, ok := b.take(x)
			if !ok {
				break
			}
			out = append(out, p)
			taken += size
			b.window += size
			b.flying = append(b.flying, flight{x, size})
		}
		if idle++; len(out) > n {
			idle = 0
		}
	}
	return out
}

// take hands out the next line of a source, if there is one.
func (b *Outbox) take(x *source) (Parcel, int, bool) {
	if x.sent == len(x.front) && len(x.disk) > 0 && !b.load(x) {
		return Parcel{}, 0, false
	}
	var e entry
	switch i := x.sent - len(x.front); {
	case i < 0:
		e = x.front[x.sent]
	case i < len(x.queue):
		e = x.queue[i]
	default:
		return Parcel{}, 0, false
	}
	x.sent++
	return Parcel{Line: e.message(), Source: x.id, Pos: e.cur.Pos}, e.size(), true
}

// message is what people read of an entry.
func (e entry) message() Line {
	if e.gap == nil {
		return e.line
	}
	l := e.line
	text := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z") }
	of := "the supervisor"
	if l.Service != "" {
		of = l.Service
	}
	l.Message = fmt.Sprintf("Warning: Suppressed %d message(s) due to high load, of %s from %s to %s", e.gap.Lines, of, text(e.gap.From), text(e.gap.To))
	l.At, l.System, l.Stderr = e.gap.To, true, true
	return l
}

// load reads the oldest segment of a source back; false: not now.
func (b *Outbox) load(x *source) bool {
	if b.loaded >= b.limits.Window {
		return false
	}
	g := x.disk[0]
	entries, err := b.spool.read(g)
	if err != nil {
		// What it held is lost; how much that was is known.
		b.log.Warn().Err(err).Msg("logs that waited on the disk cannot be read")
		b.tally(x.about).Dropped += int64(g.head.Lines - g.marked)
		lost := gap{g.head.Lines, g.head.From, g.head.To}
		entries = []entry{{line: g.head.About, cur: g.head.Tail, gap: &lost}}
	}
	entries[len(entries)-1].ends = g
	for i := range entries {
		entries[i].flown = entries[i].flown || g.head.Flown
		b.loaded += entries[i].size()
	}
	x.disk, x.front = x.disk[1:], append(x.front, entries...)
	return true
}

// Settle notes that the cloud has the oldest n lines that the session took.
func (s *Session) Settle(n int) {
	b := s.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.session != s {
		return
	}
	for _, f := range b.flying[:min(n, len(b.flying))] {
		b.land(f)
	}
	b.flying = b.flying[min(n, len(b.flying)):]
	b.roomAgain()
	kick(b.pending)
}

// land lets go of the oldest line of a source.
func (b *Outbox) land(f flight) {
	x := f.of
	b.window -= f.size
	x.sent--
	var e entry
	if len(x.front) > 0 {
		e = x.front[0]
		x.front[0] = entry{}
		x.front = x.front[1:]
		b.loaded -= e.size()
	} else {
		e = x.queue[0]
		x.queue[0] = entry{}
		x.queue = x.queue[1:]
		b.weigh(x, -e.size())
	}
	if e.gap == nil {
		b.tally(x.about).Sent++
	}
	b.settle(x, e.cur)
	b.done(e)
}

// Flying is how many lines are on their way.
func (s *Session) Flying() int {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.b.session != s {
		return 0
	}
	return len(s.b.flying)
}
