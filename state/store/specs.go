package store

import "deckhand/state"

const specsBucket = "specs"

// Specs remembers the specs that containers were made with, by hash: the
// container carries only the hash, and a difference is told in fields.
type Specs struct{ b bucket[state.Spec] }

func newSpecs(s *Store) Specs { return Specs{bucket[state.Spec]{s, specsBucket}} }

// Put remembers one spec under the hash that its container is labelled with.
func (p Specs) Put(hash string, spec state.Spec) error { return p.b.put(hash, spec) }

// PutAll records several specs in one write.
func (p Specs) PutAll(specs map[string]state.Spec) error {
	return p.b.change(specs, nil)
}

// All lists the specs by hash.
func (p Specs) All() (map[string]state.Spec, error) { return p.b.all() }

// Prune forgets every spec whose hash is not to be kept.
func (p Specs) Prune(keep map[string]bool) error {
	return p.b.change(nil, func(hash string) bool { return !keep[hash] })
}
