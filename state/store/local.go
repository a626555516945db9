package store

import (
	"time"

	"deckhand/state"
)

const (
	localBucket    = "local"
	snapshotInside = "snapshot"
	pushedInside   = "target"
)

// Snapshot is what was on the engine when local mode began: IDs of containers,
// images and networks, names of volumes, each sorted.
type Snapshot struct {
	Containers []string  `json:"containers,omitempty"`
	Images     []string  `json:"images,omitempty"`
	Networks   []string  `json:"networks,omitempty"`
	Volumes    []string  `json:"volumes,omitempty"`
	Taken      time.Time `json:"taken"`
}

// Pushed is a target that somebody sent to the device itself.
type Pushed struct {
	Document   []byte    `json:"document"`         // the bytes that arrived
	Device     string    `json:"device"`           // under which UUID it was read
	Name       string    `json:"name,omitempty"`   // of the device then, for a document without one
	Config     bool      `json:"config,omitempty"` // its name and configuration are younger than the cloud's
	Offset     int64     `json:"offset,omitempty"` // added to the numbers of its apps, which the cloud's have too
	AcceptedAt time.Time `json:"acceptedAt"`
}

// localEntry is a value of the bucket: one of the two.
type localEntry struct {
	Snapshot *Snapshot `json:"snapshot,omitempty"`
	Pushed   *Pushed   `json:"pushed,omitempty"`
}

// Local remembers what local mode has to put back, and what was sent to the
// device in it. A snapshot that is there while local mode is off has still to be
// put back.
type Local struct{ b bucket[localEntry] }

// Snapshot is the one that was taken when local mode began; nil: there is none.
func (l Local) Snapshot() (*Snapshot, error) {
	v, _, err := l.b.get(snapshotInside)
	return v.Snapshot, err
}

// PutSnapshot remembers a snapshot.
func (l Local) PutSnapshot(s Snapshot) error {
	return l.b.put(snapshotInside, localEntry{Snapshot: &s})
}

// DropSnapshot forgets the snapshot: all that came since is gone.
func (l Local) DropSnapshot() error { return l.b.remove(snapshotInside) }

// Pushed is the last target that was sent to the device; nil: there is none.
func (l Local) Pushed() (*Pushed, error) {
	v, _, err := l.b.get(pushedInside)
	return v.Pushed, err
}

// PutPushed remembers a target that was sent to the device.
func (l Local) PutPushed(p Pushed) error { return l.b.put(pushedInside, localEntry{Pushed: &p}) }

// DropPushed forgets it.
func (l Local) DropPushed() error { return l.b.remove(pushedInside) }

// AcceptPushed remembers a target that was sent to the device and the specs of
// its services, in one write.
func (s *Store) AcceptPushed(p Pushed, specs map[string]state.Spec) error {
	doc, err := s.Local.b.edit(map[string]localEntry{pushedInside: {Pushed: &p}}, nil)
	if err != nil {
		return err
	}
	of, err := s.Specs.b.edit(specs, nil)
	if err != nil {
		return err
	}
	return s.apply(doc, of)
}
