package builder

import (
	"maps"
	"sync"
)

// Stats are figures of this server since its start.
type Stats struct {
	Running, Waiting int
	Ended            map[string]int // by status
}

type ended struct {
	mu sync.Mutex
	by map[string]int
}

func (e *ended) add(status string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.by == nil {
		e.by = map[string]int{}
	}
	e.by[status]++
}

// Stats are the figures now.
func (b *Builder) Stats() Stats {
	b.ended.mu.Lock()
	defer b.ended.mu.Unlock()
	return Stats{Running: len(b.slots), Waiting: int(b.waiting.Load()), Ended: maps.Clone(b.ended.by)}
}
