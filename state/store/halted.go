package store

const haltedBucket = "halted"

// Halted remembers which containers we stopped ourselves. Those may be started
// again; one that ended by itself, or that a person stopped, is left alone.
type Halted struct{ b bucket[bool] }

// Put records a container before it is stopped.
func (h Halted) Put(containerID string) error { return h.b.put(containerID, true) }

// Remove forgets containers.
func (h Halted) Remove(containerIDs ...string) error { return h.b.remove(containerIDs...) }

// All gives the set of container IDs.
func (h Halted) All() (map[string]bool, error) { return h.b.all() }
