package logs

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Limits say how much waits for the cloud, and where. Zero fields have usual
// values.
type Limits struct {
	Source int           // bytes in memory for one source; 128 KiB
	Memory int           // bytes in memory for all; 1 MiB
	Disk   int64         // bytes on the disk, packed; 5 MiB
	Window int           // bytes that the cloud has not acknowledged; 256 KiB
	Grace  time.Duration // how long readers wait for a cloud that is away before the disk is used; 15 s
	Behind time.Duration // how long a source may be held up before lines of it are dropped; 1 min
}

func (l Limits) whole() Limits {
	l.Source, l.Memory, l.Window = cmp.Or(max(l.Source, 0), 128<<10), cmp.Or(max(l.Memory, 0), 1<<20), cmp.Or(max(l.Window, 0), 256<<10)
	l.Disk = cmp.Or(max(l.Disk, 0), 5<<20)
	l.Grace, l.Behind = cmp.Or(max(l.Grace, 0), 15*time.Second), cmp.Or(max(l.Behind, 0), time.Minute)
	return l
}

// OutboxConfig says where an outbox keeps what the cloud cannot take.
type OutboxConfig struct {
	Dir    string // folder for it; empty: memory only
	Limits Limits
	Log    zerolog.Logger
}

// Outbox holds lines for the cloud, a queue for each source. Queues are emptied
// in turn, so that a source which writes much delays itself only. A line stays
// until the cloud has it. While the cloud takes lines, a source with a full queue
// is held up at its reader: the engine keeps what it writes. When the cloud stays
// away, full queues go to the disk, and in the end the oldest lines of whoever
// wrote most are dropped; a line in their place says how many.
type Outbox struct {
	limits Limits
	log    zerolog.Logger
	spool  *spool // nil: there is none

	mu      sync.Mutex
	sources map[string]*source
	order   []*source // takes turns; the one at turn is next
	turn    int
	bytes   int      // of all queues
	loaded  int      // of all fronts
	flying  []flight // handed out, oldest first
	window  int      // bytes of them

	session *Session      // nil: the cloud is away
	away    time.Time     // since when
	off     bool          // nothing is for the cloud
	room    chan struct{} // closed and replaced whenever there may be room again
	pending chan struct{} // there may be lines to send
	moved   chan struct{} // there may be cursors to save
	urgent  chan struct{} // they are to be saved now
	losing  bool          // lines have left memory since the cloud is away
	unsaved map[string]Cursor
	broken  bool // the disk cannot be written to, and that was said
	tallies map[tallyKey]*Tally
}

// flight is a line on its way to the cloud.
type flight struct {
	of   *source
	size int
}

// source is one container, or the supervisor itself.
type source struct {
	id      string
	about   Line       // whom its lines are of; no message
	front   []entry    // was on its way, or is read back from the disk; older than all the rest
	disk    []*segment // on the disk, oldest first
	queue   []entry
	sent    int       // of front and then queue: handed out
	bytes   int       // of queue
	held    time.Time // since when its reader has had to wait
	late    bool      // so long that it is not waited for
	settled Cursor
}

// empty: nothing of the source waits.
func (x *source) empty() bool { return len(x.front)+len(x.disk)+len(x.queue) == 0 }

// flyingOfQueue is how many lines of the queue are handed out: they stay.
func (x *source) flyingOfQueue() int { return max(x.sent-len(x.front), 0) }

// entry is a line that waits, or what is left of dropped ones.
type entry struct {
	line Line
	cur  Cursor   // behind it
	gap  *gap     // nil: it is a line
	ends *segment // the segment whose last entry it is

	flown bool // it was on its way: the cloud may have it
}

// gap stands for lines that were dropped.
type gap struct {
	Lines    int
	From, To int64 // milliseconds since 1970, of the first and the last one
}

func (g gap) with(o gap) gap {
	if g.Lines == 0 {
		return o
	}
	return gap{g.Lines + o.Lines, min(g.From, o.From), max(g.To, o.To)}
}

const entryOverhead = 200 // bytes of an entry beside its text, about

func (e entry) size() int { return len(e.line.Message) + entryOverhead }

func (e entry) span() gap {
	if e.gap != nil {
		return *e.gap
	}
	return gap{1, e.line.At, e.line.At}
}

// OpenOutbox reads what an earlier process has left on the disk.
func OpenOutbox(c OutboxConfig) *Outbox {
	b := &Outbox{
		limits: c.Limits.whole(), log: c.Log, sources: map[string]*source{}, away: time.Now(),
		room: make(chan struct{}), pending: make(chan struct{}, 1), moved: make(chan struct{}, 1), urgent: make(chan struct{}, 1), unsaved: map[string]Cursor{},
		tallies: map[tallyKey]*Tally{},
	}
	if c.Dir == "" {
		return b
	}
	s, found, err := openSpool(c.Dir, b.limits.Disk)
	if err != nil {
		b.log.Warn().Err(err).Msg("logs cannot wait on the disk; an outage of the cloud costs more of them")
		return b
	}
	b.spool = s
	for _, g := range found {
		x := b.source(g.head.Source)
		x.about = g.head.About
		x.disk = append(x.disk, g)
		b.settle(x, g.head.Tail)
	}
	if len(found) > 0 {
		kick(b.pending)
	}
	return b
}

func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// source finds or makes a source; the lock is held.
func (b *Outbox) source(id string) *source {
	x := b.sources[id]
	if x == nil {
		x = &source{id: id}
		b.sources[id] = x
		b.order = append(b.order, x)
	}
	return x
}

// Resume gives the cursor behind the last line of a source that is safe: with the
// cloud, or on the disk.
func (b *Outbox) Resume(id string) (Cursor, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.sources[id]
	if x == nil || x.settled == (Cursor{}) {
		return Cursor{}, false
	}
	return x.settled, true
}

// Put takes a line; c is the cursor behind it. It waits while the source has more
// lines than it may have and the cloud is there to take them, or was a moment ago.
// It is false when ctx ended first: the line was not taken.
func (b *Outbox) Put(ctx context.Context, id string, l Line, c Cursor) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for {
		x := b.source(id)
		if b.off {
			b.came(l)
			b.settle(x, c)
			return true
		}
		x.about = l
		x.about.Message, x.about.At = "", 0
		if !b.full(x) {
			x.held, x.late = time.Time{}, x.late && !fresh(l)
			b.add(x, entry{line: l, cur: c})
			return true
		}
		if !b.patient(x) {
			if !b.shrink(x) {
				b.add(x, entry{line: l, cur: c}) // a single line is never too much
				return true
			}
			continue
		}
		if !b.wait(ctx) {
			return false
		}
	}
}

// fresh: a reader that was behind has caught up with it.
func fresh(l Line) bool { return time.Since(time.UnixMilli(l.At)) < 2*time.Second }

// came counts a line that was read.
func (b *Outbox) came(l Line) {
	t := b.tally(l)
	t.Read++
	t.Bytes += int64(len(l.Message))
}

func (b *Outbox) add(x *source, e entry) {
	b.came(e.line)
	x.queue = append(x.queue, e)
	b.weigh(x, e.size())
	kick(b.pending)
}

// weigh notes that a queue has grown or shrunk.
func (b *Outbox) weigh(x *source, bytes int) {
	x.bytes += bytes
	b.bytes += bytes
}

// full: a source has used up what it may have. Where memory is short, only those
// that use more than the average are asked to use less.
func (b *Outbox) full(x *source) bool {
	if x.bytes >= b.limits.Source {
		return true
	}
	if b.bytes < b.limits.Memory {
		return false
	}
	busy := 1
	for _, o := range b.order {
		if o.bytes > 0 && o != x {
			busy++
		}
	}
	return x.bytes*busy >= b.bytes
}

// patient: it makes sense to wait for room.
func (b *Outbox) patient(x *source) bool {
	if b.session == nil {
		return time.Since(b.away) < b.limits.Grace
	}
	if x.held.IsZero() {
		x.held = time.Now()
	}
	if time.Since(x.held) > b.limits.Behind {
		x.late = true
	}
	return !x.late || len(x.queue) == x.flyingOfQueue() // what is on its way lands or fails soon
}

// wait lets go of the lock until there may be room; false: ctx ended.
func (b *Outbox) wait(ctx context.Context) bool {
	room := b.room
	b.mu.Unlock()
	defer b.mu.Lock()
	again := time.NewTimer(time.Second) // patience ends by itself
	defer again.Stop()
	select {
	case <-room:
	case <-again.C:
	case <-ctx.Done():
		return false
	}
	return true
}

// roomAgain wakes those who wait for room.
func (b *Outbox) roomAgain() {
	close(b.room)
	b.room = make(chan struct{})
}

// shrink makes room in a full source: its queue goes to the disk, or its older
// half is dropped. False: there is nothing to be gained.
func (b *Outbox) shrink(x *source) bool {
	if b.session != nil {
		return b.drop(x)
	}
	b.lose()
	return b.spill(x, false) || b.drop(x)
}

// lose is called before lines leave memory while the cloud is away. What the cloud
// may have is written down first: after a crash it would be read again, and might
// then be counted as dropped.
func (b *Outbox) lose() {
	if b.losing {
		return
	}
	b.losing = true
	if b.spool != nil {
		for _, x := range b.order {
			b.secure(x)
		}
	}
	kick(b.urgent)
}

// drop replaces the older half of what is not on its way by a mark.
func (b *Outbox) drop(x *source) bool {
	from := x.flyingOfQueue()
	rest := x.queue[from:]
	n := min(max(len(rest)/2, 2), len(rest))
	if n == 0 || n == 1 && rest[0].gap != nil {
		return false
	}
	var g gap
	for _, e := range rest[:n] {
		g = g.with(e.span())
		b.weigh(x, -e.size())
	}
	lines, _ := linesOf(rest[:n])
	b.tally(x.about).Dropped += int64(lines)
	mark := entry{line: x.about, cur: rest[n-1].cur, gap: &g}
	clear(x.queue[from : from+n-1]) // their texts are let go at once
	x.queue[from+n-1] = mark
	x.queue = append(x.queue[:from:from], x.queue[from+n-1:]...)
	b.weigh(x, mark.size())
	return true
}

// spill moves the queue of a source to the disk; nothing of it is on its way. What
// comes before it has to be there first: a reader goes on behind the last line.
func (b *Outbox) spill(x *source, atAnyCost bool) bool {
	if b.spool == nil || len(x.queue) == 0 || !b.secure(x) {
		return false
	}
	g, err := b.write(b.spool.next, x, x.queue, atAnyCost)
	if err != nil {
		b.complain(err)
		return false
	}
	x.disk = append(x.disk, g)
	b.settle(x, g.head.Tail)
	b.weigh(x, -x.bytes)
	x.queue, x.sent = nil, min(x.sent, len(x.front))
	return true
}

// write makes a segment of a source's entries on the disk.
func (b *Outbox) write(number int64, x *source, entries []entry, atAnyCost bool) (*segment, error) {
	g, err := b.spool.write(number, x, entries, writing{atAnyCost, b.giveUp})
	if err == nil {
		b.tally(x.about).Spooled += g.size
	}
	return g, err
}

// secure writes a copy of what was on its way.
func (b *Outbox) secure(x *source) bool {
	if n := len(x.front); n == 0 || x.front[n-1].ends != nil {
		return true // there is a file that ends with it
	}
	from := 0
	for i, e := range x.front {
		if e.ends != nil {
			from = i + 1
		}
	}
	g, err := b.write(b.spool.next, x, x.front[from:], true)
	if err != nil {
		b.complain(err)
		return false
	}
	x.front[len(x.front)-1].ends = g
	b.settle(x, g.head.Tail)
	return true
}

func (b *Outbox) complain(err error) {
	if errors.Is(err, errWorn) {
		return
	}
	if !b.broken {
		b.log.Warn().Err(err).Msg("logs cannot be written to the disk; the oldest are dropped until the cloud takes some")
	}
	b.broken = true
}

// giveUp drops the oldest segment of the source that has most on the disk, and
// leaves a mark. False: only marks are left.
func (b *Outbox) giveUp() (bool, error) {
	var of *source
	at, most := 0, int64(0)
	for _, x := range b.order {
		first, size := slices.IndexFunc(x.disk, func(g *segment) bool { return !g.head.Gap && !g.head.Flown }), int64(0)
		for _, g := range x.disk {
			size += g.size
		}
		if first >= 0 && size > most {
			of, at, most = x, first, size
		}
	}
	if of == nil {
		return false, nil
	}
	g := of.disk[at]
	lines := g.head.Lines - g.marked
	merge := at > 0 && of.disk[at-1].head.Gap // one mark is enough
	if merge {
		was := of.disk[at-1].head
		all := gap{g.head.Lines, g.head.From, g.head.To}.with(gap{was.Lines, was.From, was.To})
		g.head.Lines, g.head.From, g.head.To = all.Lines, all.From, all.To
	}
	g.head.Gap = true
	if err := b.spool.store(g, nil); err != nil {
		return false, err
	}
	b.tally(of.about).Dropped += int64(lines)
	if merge {
		b.spool.remove(of.disk[at-1])
		of.disk = slices.Delete(of.disk, at-1, at)
	}
	return true, nil
}

// settle notes that everything up to a cursor is safe.
func (b *Outbox) settle(x *source, c Cursor) {
	if c.Pos <= x.settled.Pos {
		return
	}
	x.settled = c
	b.unsaved[x.id] = c
	kick(b.moved)
}

// Moved has a signal when there are cursors to save.
func (b *Outbox) Moved() <-chan struct{} { return b.moved }

// Urgent has a signal when cursors are to be saved at once.
func (b *Outbox) Urgent() <-chan struct{} { return b.urgent }

// Unsaved gives the cursors that have moved since it was last asked.
func (b *Outbox) Unsaved() map[string]Cursor {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.unsaved
	b.unsaved = map[string]Cursor{}
	return out
}

// SetOff says whether lines are for nobody: then they are safe at once. What waits
// goes on waiting, on the disk.
func (b *Outbox) SetOff(off bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if off == b.off {
		return
	}
	b.off = off
	if off {
		b.end(b.session)
		for _, x := range b.order {
			b.spill(x, true)
		}
		b.roomAgain()
		return
	}
	b.away = time.Now()
	kick(b.pending)
}

// Discard drops all that waits: the owner wants none of it in the cloud.
func (b *Outbox) Discard() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(b.session)
	for _, x := range b.order {
		for _, e := range append(x.front, x.queue...) {
			b.settle(x, e.cur)
			b.done(e)
		}
		for _, g := range x.disk {
			b.spool.remove(g)
		}
		b.weigh(x, -x.bytes)
		x.front, x.disk, x.queue = nil, nil, nil
	}
	b.loaded = 0
	b.roomAgain()
}

// done lets go of the file that ended with an entry.
func (b *Outbox) done(e entry) {
	if e.ends != nil {
		b.spool.remove(e.ends)
	}
}

// Forget lets go of sources that are gone, as far as nothing of them waits.
func (b *Outbox) Forget(gone func(id string) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.order = slices.DeleteFunc(b.order, func(x *source) bool {
		if !x.empty() || !gone(x.id) {
			return false
		}
		delete(b.sources, x.id)
		delete(b.unsaved, x.id)
		return true
	})
}

// Size is how many bytes of lines are in memory and on the disk.
func (b *Outbox) Size() (memory int, disk int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.spool != nil {
		disk = b.spool.size
	}
	return b.bytes + b.loaded, disk
}

// Close writes down what waits in memory. No reader and no session may be left.
func (b *Outbox) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.end(b.session)
	if b.spool == nil {
		return
	}
	for _, x := range b.order {
		b.unload(x)
		b.spill(x, true)
	}
}

// unload writes what is left of segments that were read back in place of them:
// some of it has been sent.
func (b *Outbox) unload(x *source) {
	if len(x.front) == 0 {
		return
	}
	at := b.spool.next
	if len(x.disk) > 0 {
		at = x.disk[0].number - 1
	}
	if _, err := b.write(at, x, x.front, true); err != nil {
		b.complain(err)
		return
	}
	for _, e := range x.front {
		if e.ends != nil && e.ends.number != at {
			b.done(e)
		}
	}
}
