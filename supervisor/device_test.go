package supervisor

import (
	"context"
	"errors"
	"path/filepath"
	"testing"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// brokenOff is an engine that ends while it removes an image: the names are
// gone, the image is not.
type brokenOff struct{ image state.Image }

func (e *brokenOff) Observe(context.Context) (state.World, error) {
	return state.World{Apps: map[string]state.AppNow{}, Images: map[string]state.Image{e.image.ID: e.image}}, nil
}

func (e *brokenOff) Do(_ context.Context, s reconcile.Step, _ func(done, total int64)) error {
	if _, ok := s.(reconcile.RemoveImage); ok {
		e.image.Refs = nil
		return errors.New("the transport is closing")
	}
	return nil
}

func (*brokenOff) Watch(context.Context) <-chan struct{} { return nil }

func (*brokenOff) Differences(context.Context, string, reconcile.Create) ([]state.Change, error) {
	return nil, errors.New("nobody asked for that")
}

func (*brokenOff) SupervisorKey(context.Context, string) (string, error) {
	return "", errors.New("nobody asked for that")
}

// An image whose removal broke off is still ours, also after a restart: nobody
// else would ever remove it.
func TestHalfRemovedImageStaysOurs(t *testing.T) {
	const id, ref = "sha256:1", "registry.test/a@sha256:2"
	path := filepath.Join(t.TempDir(), "deckhand.db")
	s, err := store.Open(path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := &brokenOff{state.Image{ID: id, Refs: []string{ref}}}
	d, err := newDevice(deviceConfig{Engine: e, Store: s})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Do(t.Context(), reconcile.Fetch{Image: ref}, nil); err != nil {
		t.Fatal(err)
	}
	if err := d.Do(t.Context(), reconcile.RemoveImage{ID: id, Refs: e.image.Refs}, nil); err == nil {
		t.Fatal("the engine's failure got lost")
	}
	for range 2 {
		w, err := d.Observe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !w.Images[id].Ours {
			t.Fatal("nobody owns the image any more")
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = store.Open(path, store.Options{}); err != nil {
			t.Fatal(err)
		}
		if d, err = newDevice(deviceConfig{Engine: e, Store: s}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// The cloud's target may come before anybody could look at the engine. What
// running containers were made of is not forgotten then: it is the reason that
// people read for their next change.
func TestATargetBeforeTheFirstLookForgetsNoSpec(t *testing.T) {
	s, err := store.Open(filepath.Join(t.TempDir(), "deckhand.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	applied := state.Spec{User: "old"}
	if err := s.Specs.Put(applied.Hash(), applied); err != nil {
		t.Fatal(err)
	}
	running := state.World{Apps: map[string]state.AppNow{"a": {UUID: "a", Containers: []state.Container{{ID: "c", Hash: applied.Hash()}}}}}
	d, err := newDevice(deviceConfig{Engine: &brokenOff{}, Store: s})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		world state.World
		kept  bool
	}{
		{"nobody has looked", state.World{}, true},
		{"its container runs", running, true},
		{"its container is gone", state.World{Apps: map[string]state.AppNow{}}, false},
	} {
		if err := d.tidy(state.Target{}, c.world); err != nil {
			t.Fatal(err)
		}
		stored, err := s.Specs.All()
		if err != nil {
			t.Fatal(err)
		}
		if _, kept := stored[applied.Hash()]; kept != c.kept {
			t.Errorf("%s: the spec is kept: %t, want %t", c.name, kept, c.kept)
		}
	}
}
