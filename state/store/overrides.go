package store

import (
	"cmp"
	"maps"
	"slices"

	"deckhand/state"
)

const overridesBucket = "overrides"

// everyApp is the key of the override for all apps; no UUID looks like it.
const everyApp = "*"

// Override is a permission to break update locks as it was given.
type Override struct {
	state.Override
	Once bool `json:"once,omitempty"` // it ends when the device is as it was asked to be, if not before
}

// Overrides remembers permissions to break update locks: one for each app and
// one for all of them.
type Overrides struct{ b bucket[Override] }

// All lists the overrides, that for every app first, then by app.
func (o Overrides) All() ([]Override, error) {
	all, err := o.b.all()
	return slices.SortedFunc(maps.Values(all), func(a, b Override) int { return cmp.Compare(a.App, b.App) }), err
}

// Put records a permission in place of an earlier one for the same app.
func (o Overrides) Put(v Override) error { return o.b.put(cmp.Or(v.App, everyApp), v) }

// Remove takes the permissions for apps back; an empty name is that for all apps.
func (o Overrides) Remove(apps ...string) error {
	keys := make([]string, len(apps))
	for i, a := range apps {
		keys[i] = cmp.Or(a, everyApp)
	}
	return o.b.remove(keys...)
}

func (o Override) sameAs(earlier Override) bool {
	return o.App == earlier.App && o.By == earlier.By && o.Until.Equal(earlier.Until)
}
