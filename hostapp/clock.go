package hostapp

import (
	"fmt"
	"sync"
	"time"
)

// floorStep is how much later a good time has to be for it to be written down:
// certificates are valid for months, and flash wears out.
const floorStep = 24 * time.Hour

// ClockMemory keeps the last good time over restarts; store.Clock is one.
type ClockMemory interface {
	Last() (time.Time, error)
	Put(t time.Time) error
}

// Clock is the device's clock with a floor: a time that is certainly over. Many
// boards have no battery and start in the past; certificates do not fit then. It
// may be used by several goroutines.
type Clock struct {
	memory ClockMemory
	now    func() time.Time

	mu    sync.Mutex
	floor time.Time
}

// NewClock makes a clock. built is when this program was made, zero if that is
// not known; now is the device's own clock, nil for the usual one. The clock works
// although err says that the memory does not.
func NewClock(built time.Time, memory ClockMemory, now func() time.Time) (c *Clock, err error) {
	if now == nil {
		now = time.Now
	}
	c = &Clock{memory: memory, now: now, floor: built}
	last, err := memory.Last()
	if last.After(c.floor) {
		c.floor = last
	}
	return c, err
}

// Now is the time, or the floor while the device's clock shows less: wrong is true
// then.
func (c *Clock) Now() (t time.Time, wrong bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t = c.now(); t.Before(c.floor) {
		return c.floor, true
	}
	return t, false
}

// Good notes that the clock is right: a certificate was valid. It is written down
// now and then.
func (c *Clock) Good() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.now()
	if t.Sub(c.floor) < floorStep {
		return nil
	}
	if err := c.memory.Put(t); err != nil {
		return fmt.Errorf("remember the time: %w", err)
	}
	c.floor = t
	return nil
}
