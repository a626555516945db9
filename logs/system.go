package logs

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"sync"
	"time"
)

// systemPrefix begins the source of the supervisor's own lines. Each process has
// a source of its own: nothing is read again after a restart, and clocks go back.
const systemPrefix = "system-"

// mostSaid is how many lines of the supervisor wait to be taken.
const mostSaid = 1000

// Journal takes what the supervisor says about its doing. Say never waits.
type Journal struct {
	id     string
	outbox *Outbox
	stream *Stream

	mu      sync.Mutex
	lines   []Line
	dropped int
	wake    chan struct{}
}

// NewJournal makes the source of the supervisor's own lines.
func NewJournal(outbox *Outbox, stream *Stream) *Journal {
	b := make([]byte, 6)
	_, _ = rand.Read(b) // it never fails
	return &Journal{id: systemPrefix + hex.EncodeToString(b), outbox: outbox, stream: stream, wake: make(chan struct{}, 1)}
}

// Say takes a line; its time and kind are filled in.
func (j *Journal) Say(l Line) {
	l.At, l.System, l.Message = time.Now().UnixMilli(), true, Clean([]byte(l.Message))
	j.stream.Send(l)
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.lines) >= mostSaid {
		j.lines = j.lines[1:]
		j.dropped++
	}
	j.lines = append(j.lines, l)
	kick(j.wake)
}

// Run hands lines on until ctx ends.
func (j *Journal) Run(ctx context.Context) {
	var cur Cursor
	for {
		for _, l := range j.take() {
			cur = cur.after(0, l.At*int64(time.Millisecond))
			j.outbox.Put(ctx, j.id, l, cur)
		}
		select {
		case <-j.wake:
		case <-ctx.Done():
			for _, l := range j.take() { // the last words
				cur = cur.after(0, l.At*int64(time.Millisecond))
				j.outbox.Put(ctx, j.id, l, cur)
			}
			return
		}
	}
}

func (j *Journal) take() []Line {
	j.mu.Lock()
	defer j.mu.Unlock()
	lines := j.lines
	if j.dropped > 0 {
		j.outbox.lost(lines[0], j.dropped)
		g := gap{j.dropped, lines[0].At, lines[0].At}
		lines = append([]Line{entry{line: lines[0], gap: &g}.message()}, lines...)
	}
	j.lines, j.dropped = nil, 0
	return lines
}
