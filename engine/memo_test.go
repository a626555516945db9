package engine

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"

	"deckhand/reconcile"
)

// What may have changed is asked for again, and nothing else; without events
// everything is.
func TestALookAsksOnlyForWhatMayHaveChanged(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var m memo
	asked := func(at time.Time) kind {
		k, l := m.ask(at)
		m.fill(k, l, at)
		return k
	}
	if k := asked(now); k != everything {
		t.Errorf("without events only %b is asked for", k)
	}
	if k := asked(now); k != everything {
		t.Errorf("without events a list is believed: %b", k)
	}
	m.follow(true)
	if k := asked(now); k != everything {
		t.Errorf("the first look with events asks for %b", k)
	}
	if k := asked(now); k != 0 {
		t.Errorf("nothing changed, and %b is asked for", k)
	}
	m.touch(touchedBy(reconcile.Stop{}))
	if k := asked(now); k != containers {
		t.Errorf("after a stop %b is asked for", k)
	}
	m.touch(changedBy(events.NetworkEventType))
	if k := asked(now); k != networks|containers {
		t.Errorf("after a change of a network %b is asked for", k)
	}
	k, l := m.ask(now)
	m.touch(images) // while the engine answers
	m.fill(k, l, now)
	if k := asked(now); k != images {
		t.Errorf("a change during a look is forgotten: %b", k)
	}
	m.touch(volumes)
	k, _ = m.ask(now)
	m.failed(k)
	if k := asked(now); k != volumes {
		t.Errorf("a look that failed is believed: %b", k)
	}
	if k := asked(now.Add(memoryAge + time.Second)); k != everything {
		t.Errorf("an old look is believed: %b", k)
	}
	m.follow(false)
	if k := asked(now); k != everything {
		t.Errorf("after the events ended %b is asked for", k)
	}
}
