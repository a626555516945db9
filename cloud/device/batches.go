package device

import (
	"sync"
	"time"
)

const (
	batchesIn    = 10 * time.Second
	batchesTaken = 15
	maxBatchers  = 10_000
)

// batches limits how many batches of log lines a device sends: 15 in 10 seconds.
type batches struct {
	mu      sync.Mutex
	devices map[int64]batchCount
}

type batchCount struct {
	since time.Time
	n     int
}

// take counts a batch; above 0 it is how long the device should wait instead.
func (b *batches) take(device int64, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.devices == nil {
		b.devices = map[int64]batchCount{}
	}
	c := b.devices[device]
	if now.Sub(c.since) >= batchesIn {
		c = batchCount{since: now}
	}
	if c.n >= batchesTaken {
		return c.since.Add(batchesIn).Sub(now)
	}
	c.n++
	keep(b.devices, maxBatchers, device, c)
	return 0
}
