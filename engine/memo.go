package engine

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"deckhand/reconcile"
)

// kind is a sort of objects that one list call shows.
type kind uint8

const (
	containers kind = 1 << iota
	images
	networks
	volumes
	everything = containers | images | networks | volumes
)

const (
	// memoryAge is how long a list is believed without asking again, should an
	// event get lost.
	memoryAge = time.Minute
	// mostNamed is how many containers are asked for by their IDs; for more the
	// whole list is quicker.
	mostNamed = 16
)

// question is what a look asks the engine for.
type question struct {
	kinds kind
	ids   []string // containers, where kinds does not include all of them
}

// memo keeps what the engine last answered, so that a look asks only for what may
// have changed since: a list of fifty containers takes the engine longer than
// some of our steps. It is believed only while the event stream is open, and
// never after a step of ours that touches its objects.
type memo struct {
	mu     sync.Mutex
	open   bool // the event stream tells what others change
	stale  kind
	named  map[string]bool // IDs of single containers that are stale
	last   lists
	filled time.Time // when everything was last asked for
}

// follow begins or ends the time in which events tell of every change.
func (m *memo) follow(open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open, m.stale = open, everything
}

// touch notes that objects may have changed: all of some kinds, or some
// containers.
func (m *memo) touch(q question) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale |= q.kinds
	if m.named == nil {
		m.named = map[string]bool{}
	}
	for _, id := range q.ids {
		m.named[id] = true
	}
}

// ask says what is to be asked for. What changes from now on is asked for again
// the next time.
func (m *memo) ask(now time.Time) (question, lists) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := question{kinds: m.stale}
	if !m.open || now.Sub(m.filled) > memoryAge {
		q.kinds = everything
	}
	if len(m.named) > mostNamed {
		q.kinds |= containers
	}
	if q.kinds&containers == 0 {
		q.ids = slices.Sorted(maps.Keys(m.named))
	}
	m.stale, m.named = 0, nil
	return q, m.last
}

// fill keeps the answers; after a look that failed, touch takes the question back.
func (m *memo) fill(q question, l lists, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = l
	if q.kinds == everything {
		m.filled = now
	}
}

// nameTaken reports whether a container had the name when the engine was last
// asked.
func (m *memo) nameTaken(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.last.containers, func(c container.Summary) bool { return containerName(c.Names) == name })
}

// renew puts the engine's answer about single containers into a list of all. The
// engine takes an ID for the beginning of one, so more may be in the answer.
func renew(all []container.Summary, ids []string, now []container.Summary) []container.Summary {
	asked := func(c container.Summary) bool { _, ok := slices.BinarySearch(ids, c.ID); return ok }
	out := make([]container.Summary, 0, len(all)+len(now))
	for _, c := range all {
		if !asked(c) {
			out = append(out, c)
		}
	}
	for _, c := range now {
		if asked(c) {
			out = append(out, c)
		}
	}
	return out
}

// touchedBy says what shows the effect of a step. A container that is made has no
// ID before; create names it.
func touchedBy(s reconcile.Step) question {
	one := func(id string) question {
		if id == "" { // the step finds it by other marks
			return question{kinds: containers}
		}
		return question{ids: []string{id}}
	}
	switch s := s.(type) {
	case reconcile.Fetch, reconcile.RemoveImage:
		return question{kinds: images}
	case reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateAPINetwork:
		return question{kinds: networks | containers}
	case reconcile.CreateVolume, reconcile.RemoveVolume:
		return question{kinds: volumes}
	case reconcile.Remove:
		return one(s.Container)
	case reconcile.Start:
		return one(s.Container)
	case reconcile.Stop:
		return one(s.Container)
	case reconcile.Rename:
		return one(s.Container)
	case reconcile.Await, reconcile.Handover:
		return question{kinds: containers}
	case reconcile.Create, reconcile.Commit, reconcile.Fulfil, reconcile.TakeLocks, reconcile.ReleaseLocks,
		reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return question{}
}

// failedBy says what may show what a step did before it failed.
func failedBy(s reconcile.Step) question {
	q := touchedBy(s)
	if _, create := s.(reconcile.Create); create || len(q.ids) > 0 {
		q.kinds |= containers
	}
	return q
}

// changedBy says what shows that of which an event tells.
func changedBy(m events.Message) question {
	switch m.Type {
	case events.ContainerEventType:
		return question{ids: []string{m.Actor.ID}}
	case events.NetworkEventType:
		if id := m.Actor.Attributes["container"]; id != "" { // it joined or left; its networks are in its own entry
			return question{ids: []string{id}}
		}
		return question{kinds: networks | containers}
	case events.VolumeEventType:
		return question{kinds: volumes}
	case events.ImageEventType:
		return question{kinds: images}
	}
	return question{kinds: everything}
}
