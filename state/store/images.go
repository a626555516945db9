package store

import (
	"maps"
	"slices"
)

const imagesBucket = "images"

// Images remembers which images we fetched; only those may be removed again.
type Images struct{ b bucket[bool] }

// Put records a canonical reference before its download starts, so that a crash
// leaves no image without an owner; and an ID before the image is removed.
func (i Images) Put(ref string) error { return i.b.put(ref, true) }

// Remove forgets references and IDs.
func (i Images) Remove(refs ...string) error { return i.b.remove(refs...) }

// All lists the references and IDs in order.
func (i Images) All() ([]string, error) {
	all, err := i.b.all()
	return slices.Sorted(maps.Keys(all)), err
}
