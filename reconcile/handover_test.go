package reconcile_test

import (
	"testing"

	"deckhand/reconcile"
	"deckhand/state"
)

// The engine dates containers by the second: the old and the new one may have the
// same date, and the old one must not stop for that.
func TestContainersOfOneSecondAreHandedOver(t *testing.T) {
	old, next := state.Spec{User: "1"}, state.Spec{User: "2"}
	c := func(id string, release int64, s *state.Spec) state.Container {
		commit := map[int64]string{1: "r1", 2: "r2"}[release]
		return state.Container{
			ID: id, Name: state.ContainerName("web", 1, release, commit), Service: "web", ImageID: 1, ReleaseID: release, Commit: commit,
			Image: "i", Hash: s.Hash(), Spec: s, Phase: state.Running, Created: 7,
		}
	}
	now := state.World{
		Apps: map[string]state.AppNow{"a": {UUID: "a", ID: 1, Commit: "r1", Locked: []string{"web"},
			Containers: []state.Container{c("c1", 1, &old), c("c2", 2, &next)}}},
		Images: map[string]state.Image{"i": {ID: "i", Refs: []string{"web:1"}}},
	}
	web := state.Service{Name: "web", Image: "web:1", ImageID: 1, Running: true, Strategy: "hand-over", Spec: next, Hash: next.Hash()}
	want := state.Target{Apps: map[string]state.App{"a": {UUID: "a", ID: 1, Name: "shop", Commit: "r2", ReleaseID: 2, Services: map[string]state.Service{"web": web}}}}
	p, err := reconcile.Make(now, want, reconcile.Facts{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range p.Ready() {
		if _, stops := n.Step.(reconcile.Stop); stops {
			t.Fatalf("the old container stops before the new one has taken over:\n%s", p)
		}
	}
}
