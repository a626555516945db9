package store

const pinBucket = "pin"

// Pin is a release that the device is to stay on.
type Pin struct {
	Fleet  int64  `json:"app"`
	Commit string `json:"commit"`
}

// Pins remembers the wish of the disk image to be pinned to its release, until
// the cloud has heard of it.
type Pins struct{ b bucket[Pin] }

// Wanted is the wish; ok is false when there is none.
func (p Pins) Wanted() (pin Pin, ok bool, err error) { return p.b.get("wanted") }

// Put records the wish in place of an earlier one.
func (p Pins) Put(pin Pin) error { return p.b.put("wanted", pin) }

// Clear forgets it.
func (p Pins) Clear() error { return p.b.remove("wanted") }
