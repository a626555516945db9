package engine

import (
	"sync"
	"time"

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

// memoryAge is how long a list is believed without asking again, should an event
// get lost.
const memoryAge = time.Minute

// memo keeps what the engine last answered, so that a look asks only for what may
// have changed since: a list of fifty containers takes the engine longer than
// some of our steps. It is believed only while the event stream is open, and
// never after a step of ours that touches its objects.
type memo struct {
	mu     sync.Mutex
	open   bool // the event stream tells what others change
	stale  kind
	last   lists
	filled time.Time // when everything was last asked for
}

// follow begins or ends the time in which events tell of every change.
func (m *memo) follow(open bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.open, m.stale = open, everything
}

// touch notes that objects may have changed.
func (m *memo) touch(k kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stale |= k
}

// ask says what is to be asked for. What changes from now on is asked for again
// the next time.
func (m *memo) ask(now time.Time) (kind, lists) {
	m.mu.Lock()
	defer m.mu.Unlock()
	k := m.stale
	if !m.open || now.Sub(m.filled) > memoryAge {
		k = everything
	}
	m.stale = 0
	return k, m.last
}

// fill keeps the answers, and failed forgets that anybody asked.
func (m *memo) fill(k kind, l lists, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = l
	if k == everything {
		m.filled = now
	}
}

func (m *memo) failed(k kind) { m.touch(k) }

// touchedBy says which lists show the effect of a step.
func touchedBy(s reconcile.Step) kind {
	switch s.(type) {
	case reconcile.Fetch, reconcile.RemoveImage:
		return images
	case reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateAPINetwork:
		return networks | containers
	case reconcile.CreateVolume, reconcile.RemoveVolume:
		return volumes
	case reconcile.Create, reconcile.Remove:
		return containers | volumes // anonymous ones come and go with them
	case reconcile.Start, reconcile.Await, reconcile.Handover, reconcile.Stop, reconcile.Rename:
		return containers
	case reconcile.Commit, reconcile.Fulfil, reconcile.TakeLocks, reconcile.ReleaseLocks,
		reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
	}
	return 0
}

// changedBy says which lists show what an event tells.
func changedBy(t events.Type) kind {
	switch t {
	case events.ContainerEventType:
		return containers
	case events.NetworkEventType:
		return networks | containers // a container's networks are in its own entry
	case events.VolumeEventType:
		return volumes
	case events.ImageEventType:
		return images
	}
	return everything
}
