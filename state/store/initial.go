package store

const initialBucket = "initial"

// Initial remembers which cloud was told the configuration and the name that the
// device came with.
type Initial struct{ b bucket[string] }

// Told is what Put was given last; empty when nothing.
func (i Initial) Told() (string, error) {
	place, _, err := i.b.get("told")
	return place, err
}

// Put records the cloud that was told, and the device in it.
func (i Initial) Put(place string) error { return i.b.put("told", place) }

// Clear forgets it: the next cloud is told again.
func (i Initial) Clear() error { return i.b.remove("told") }
