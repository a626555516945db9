package store

import "deckhand/state"

const handoversBucket = "handovers"

// Handovers remembers how the last hand-over of each service ended: the engine
// cannot show it.
type Handovers struct{ b bucket[state.Handover] }

// OfService is the key of a service of an app.
func OfService(app, service string) string { return app + "/" + service }

// All lists the outcomes by OfService.
func (h Handovers) All() (map[string]state.Handover, error) { return h.b.all() }

// Put records an outcome.
func (h Handovers) Put(key string, outcome state.Handover) error { return h.b.put(key, outcome) }

// Remove forgets outcomes.
func (h Handovers) Remove(keys ...string) error { return h.b.remove(keys...) }
