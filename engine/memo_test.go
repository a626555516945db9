package engine

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
)

// What may have changed is asked for again, and nothing else; without events
// everything is.
func TestALookAsksOnlyForWhatMayHaveChanged(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	var m memo
	asks := func(what string, at time.Time, want question) {
		t.Helper()
		got, l := m.ask(at)
		m.fill(got, l, at)
		if got.kinds != want.kinds || !slices.Equal(got.ids, want.ids) {
			t.Errorf("%s: %04b and containers %q are asked for, want %04b and %q", what, got.kinds, got.ids, want.kinds, want.ids)
		}
	}
	all := question{kinds: everything}
	one := question{ids: []string{"a"}}
	asks("without events", now, all)
	asks("without events nothing is believed", now, all)
	m.follow(true)
	asks("the first look with events", now, all)
	asks("nothing changed", now, question{})
	m.touch(touchedBy(reconcile.Stop{Container: "a"}))
	asks("after a stop", now, one)
	m.touch(failedBy(reconcile.Stop{Container: "a"}))
	asks("after a stop that failed", now, question{kinds: containers})
	m.touch(failedBy(reconcile.Create{}))
	asks("after a create whose answer may be lost", now, question{kinds: containers})
	m.touch(touchedBy(reconcile.Start{}))
	asks("after a start that looks for its container", now, question{kinds: containers})
	m.touch(changedBy(events.Message{Type: events.NetworkEventType, Action: "create"}))
	asks("after a network was made", now, question{kinds: networks | containers})
	m.touch(changedBy(events.Message{Type: events.NetworkEventType, Action: "connect", Actor: events.Actor{Attributes: map[string]string{"container": "a"}}}))
	asks("after a container joined a network", now, one)
	m.touch(changedBy(events.Message{Type: events.ContainerEventType, Actor: events.Actor{ID: "b"}}))
	m.touch(one)
	asks("after changes of two containers", now, question{ids: []string{"a", "b"}})
	for i := range mostNamed + 1 {
		m.touch(question{ids: []string{strconv.Itoa(i)}})
	}
	asks("after changes of many containers", now, question{kinds: containers})

	q, l := m.ask(now)
	m.touch(question{kinds: images, ids: []string{"a"}}) // while the engine answers
	m.fill(q, l, now)
	asks("a change during a look", now, question{kinds: images, ids: []string{"a"}})
	m.touch(question{kinds: volumes, ids: []string{"a"}})
	q, _ = m.ask(now)
	m.touch(q)
	asks("after a look that failed", now, question{kinds: volumes, ids: []string{"a"}})
	m.touch(one)
	asks("an old look", now.Add(memoryAge+time.Second), all)
	asks("after it", now.Add(memoryAge+time.Second), question{})
	m.touch(one)
	m.follow(false)
	asks("after the events ended", now, all)
}

// The answer about single containers takes the place of what was known of them.
func TestRenew(t *testing.T) {
	list := func(ids ...string) (out []container.Summary) {
		for _, id := range ids {
			out = append(out, container.Summary{ID: id})
		}
		return out
	}
	was := list("a", "b", "c")
	now := list("b", "d", "d2")
	now[0].State = "running"
	got := renew(was, []string{"a", "b", "d"}, now)
	want := append(list("c"), now[:2]...)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(list("a", "b", "c"), was); d != "" {
		t.Errorf("what was known has changed: %s", d)
	}
}
