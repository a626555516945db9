package store

import (
	"fmt"
	"time"
)

const clockBucket = "clock"

const lastGood = "last-good"

// Clock remembers a time that is certainly over, for devices whose clock starts
// in the past.
type Clock struct{ b bucket[time.Time] }

// Last is the last time that was known to be right; zero when there is none.
func (c Clock) Last() (time.Time, error) {
	t, _, err := c.b.get(lastGood)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the last good time: %w", err)
	}
	return t, nil
}

// Put replaces it.
func (c Clock) Put(t time.Time) error { return c.b.put(lastGood, t.UTC()) }
