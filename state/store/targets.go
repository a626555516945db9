package store

import (
	"bytes"
	"time"

	"deckhand/state"
)

const targetsBucket = "targets"

// Target is a target document as it was accepted.
type Target struct {
	Document   []byte    `json:"document"`       // the bytes that arrived
	ETag       string    `json:"etag,omitempty"` // for the next conditional request to Source
	Source     string    `json:"source"`         // API endpoint, or "local"
	AcceptedAt time.Time `json:"acceptedAt"`
}

// Targets remembers the last accepted target, so that a device without a network
// goes on towards it.
type Targets struct{ b bucket[Target] }

// Last is the last accepted target; ok is false when there is none.
func (t Targets) Last() (last Target, ok bool, err error) { return t.b.get("last") }

// Put replaces the last accepted target.
func (t Targets) Put(target Target) error { return t.b.put("last", target) }

// Clear forgets the target.
func (t Targets) Clear() error { return t.b.remove("last") }

// Accept remembers a target and the specs of its services, in one write.
func (s *Store) Accept(target Target, specs map[string]state.Spec) error {
	doc, err := s.Targets.b.edit(map[string]Target{"last": target}, nil)
	if err != nil {
		return err
	}
	of, err := s.Specs.b.edit(specs, nil)
	if err != nil {
		return err
	}
	return s.apply(doc, of)
}

func (t Target) sameAs(earlier Target) bool {
	return bytes.Equal(t.Document, earlier.Document) && t.Source == earlier.Source
}
