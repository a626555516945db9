package store

import (
	"cmp"
	"maps"
	"slices"

	"deckhand/state"
)

const intentsBucket = "intents"

// Intents remembers what people and programs asked for beside the target, until
// it is done.
type Intents struct{ b bucket[state.Intent] }

// All lists the intents, oldest first.
func (i Intents) All() ([]state.Intent, error) {
	all, err := i.b.all()
	return slices.SortedFunc(maps.Values(all), func(a, b state.Intent) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.ID, b.ID))
	}), err
}

// Change writes intents and forgets others, all of it or nothing: one wish may
// take the place of another.
func (i Intents) Change(put []state.Intent, forget ...string) error {
	values := map[string]state.Intent{}
	for _, x := range put {
		values[x.ID] = x
	}
	return i.b.change(values, func(id string) bool { return slices.Contains(forget, id) })
}
