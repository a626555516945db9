package device

import "sync/atomic"

// Stats are figures of this server since its start.
type Stats struct {
	Held   int64 // requests that are being held now
	Hits   int64 // states that were known
	Misses int64 // states that had to be made
}

type counts struct{ held, hits, misses atomic.Int64 }

// Stats are the figures now.
func (d *Device) Stats() Stats {
	return Stats{Held: d.counts.held.Load(), Hits: d.targets.counts.hits.Load(), Misses: d.targets.counts.misses.Load()}
}
