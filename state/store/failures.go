package store

import "deckhand/state"

const failuresBucket = "failures"

// Failures remembers what went wrong and when it may be tried again, so that a
// restart does not forget a back-off.
type Failures struct{ b bucket[state.Failure] }

func newFailures(s *Store) Failures { return Failures{bucket[state.Failure]{s, failuresBucket}} }

// PutAll replaces all failures; keys are those of plan steps.
func (f Failures) PutAll(all map[string]state.Failure) error { return f.b.replace(all) }

// All lists the failures by step key.
func (f Failures) All() (map[string]state.Failure, error) { return f.b.all() }

// Clear forgets every failure.
func (f Failures) Clear() error { return f.b.replace(nil) }
