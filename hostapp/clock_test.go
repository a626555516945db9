package hostapp

import (
	"errors"
	"testing"
	"time"
)

type clockMemory struct {
	last time.Time
	err  error
	puts int
}

func (m *clockMemory) Last() (time.Time, error) { return m.last, m.err }

func (m *clockMemory) Put(t time.Time) error {
	if m.err == nil {
		m.last, m.puts = t, m.puts+1
	}
	return m.err
}

// A board without a battery starts in 1970 each time; what it has learned counts.
func TestAClockHasAFloor(t *testing.T) {
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	m := &clockMemory{}
	now := time.Unix(0, 0)
	boot := func(at time.Time) *Clock {
		t.Helper()
		now = at
		c, err := NewClock(built, m, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	expect := func(c *Clock, want time.Time, wrong bool) {
		t.Helper()
		if got, bad := c.Now(); !got.Equal(want) || bad != wrong {
			t.Errorf("%v wrong=%v, want %v wrong=%v", got, bad, want, wrong)
		}
	}
	c := boot(time.Unix(0, 0))
	expect(c, built, true)
	now = built.Add(100 * 24 * time.Hour) // a time server was reached
	expect(c, now, false)
	for range 50 { // two days of answers
		if err := c.Good(); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
	if m.puts != 3 {
		t.Errorf("%d writes", m.puts)
	}
	floor := m.last
	c = boot(time.Unix(1000, 0))
	expect(c, floor, true)
	if err := c.Good(); err != nil || !m.last.Equal(floor) {
		t.Errorf("a wrong clock was believed: %v %v", m.last, err)
	}
}

func TestAClockWorksWithoutItsMemory(t *testing.T) {
	m := &clockMemory{err: errors.New("disk")}
	built := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	c, err := NewClock(built, m, func() time.Time { return time.Unix(0, 0) })
	if err == nil {
		t.Error("no error")
	}
	if got, wrong := c.Now(); !wrong || !got.Equal(built) {
		t.Errorf("%v %v", got, wrong)
	}
}
