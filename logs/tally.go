package logs

// Tally counts the lines of a service since the process began.
type Tally struct {
	AppUUID, Service string // both empty: the supervisor's own lines, and those of services beyond mostTallies

	Read    int64 // lines that came
	Bytes   int64 // of their text
	Sent    int64 // lines that the cloud acknowledged
	Dropped int64 // lines that were given up, since there was no room for them
	Spooled int64 // bytes that were written to the disk, packed
}

// mostTallies bounds what is counted one by one, over all services that ever were.
const mostTallies = 200

type tallyKey struct{ app, service string }

// tally is where the lines of a source are counted; the lock is held.
func (b *Outbox) tally(about Line) *Tally {
	k := tallyKey{about.AppUUID, about.Service}
	if about.System {
		k = tallyKey{}
	}
	t := b.tallies[k]
	if t == nil && len(b.tallies) >= mostTallies {
		k = tallyKey{}
		t = b.tallies[k]
	}
	if t == nil {
		t = &Tally{AppUUID: k.app, Service: k.service}
		b.tallies[k] = t
	}
	return t
}

// Tallies gives what was counted, for each service, in no order.
func (b *Outbox) Tallies() []Tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Tally, 0, len(b.tallies))
	for _, t := range b.tallies {
		out = append(out, *t)
	}
	return out
}

// lost counts lines that never came to a queue.
func (b *Outbox) lost(about Line, lines int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tally(about)
	t.Read += int64(lines)
	t.Dropped += int64(lines)
}

// linesOf is how many of these are lines, and how many are marks' for dropped ones.
func linesOf(entries []entry) (lines, marked int) {
	for _, e := range entries {
		if e.gap != nil {
			marked += e.gap.Lines
		} else {
			lines++
		}
	}
	return lines, marked
}
