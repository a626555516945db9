package store

const adoptedBucket = "adopted"

// Adopted remembers containers of another supervisor that are, setting by
// setting, what we would have made, with the hash of the spec they match. They
// carry no such hash themselves, and to write one they would have to restart.
type Adopted struct{ b bucket[string] }

// All lists the hashes by container ID.
func (a Adopted) All() (map[string]string, error) { return a.b.all() }

// Put records that a container is what the spec with the hash asks for.
func (a Adopted) Put(containerID, hash string) error { return a.b.put(containerID, hash) }

// Remove forgets containers.
func (a Adopted) Remove(containerIDs ...string) error { return a.b.remove(containerIDs...) }
