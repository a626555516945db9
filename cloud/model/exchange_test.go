package model_test

import (
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/test/postgres"
)

// told waits until a watch is told.
func told(t *testing.T, w *model.Watch, what string) {
	t.Helper()
	select {
	case <-w.C():
	case <-time.After(10 * time.Second):
		t.Fatalf("not told of %s", what)
	}
}

func TestServersTellEachOther(t *testing.T) {
	if !postgres.Wanted() {
		// A file has one server; its own watchers are told.
		db := open(t)
		u := owner(t, db, "alice")
		w := db.Changes().Watch(model.OverviewTopic())
		fleet(t, db, u, "fleet")
		told(t, w, "its own change")
		return
	}
	cfg := cloudtest.Database(t)
	here, there := opened(t, cfg), opened(t, cfg)
	u := owner(t, here, "alice")
	f := fleet(t, here, u, "fleet")
	target, page := there.Changes().Watch(model.Topic{Kind: model.FleetTarget, ID: f.ID}), there.Changes().Watch(model.OverviewTopic())
	other := there.Changes().Watch(model.Topic{Kind: model.FleetTarget, ID: f.ID + 1})
	built(t, here, f, "abc", true, model.StatusSuccess, "web")
	told(t, target, "a new target")
	told(t, page, "what people look at")
	select {
	case <-other.C():
		t.Error("told of a fleet that did not change")
	default:
	}
	// Every connection is lost, as when the database starts anew.
	if err := postgres.Cluster(t).BreakAll(t.Context()); err != nil {
		t.Fatal(err)
	}
	told(t, other, "everything after a lost connection")
	if _, err := there.FleetByID(t.Context(), f.ID); err != nil {
		t.Errorf("after a lost connection: %v", err)
	}
}
