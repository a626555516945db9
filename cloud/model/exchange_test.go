package model_test

import (
	"strings"
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

// What a server wrote right before it was killed is seen by those who look at another
// one, though it did not come to tell them.
func TestTheLastWordsOfAServerAreHeard(t *testing.T) {
	if !postgres.Wanted() {
		return // a database file has one server
	}
	cfg := cloudtest.Database(t)
	gone, err := model.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	there := opened(t, cfg)
	f := fleet(t, there, owner(t, there, "alice"), "kitchen")
	d, err := there.RegisterDevice(t.Context(), model.NewDevice{Fleet: f.ID, UUID: strings.Repeat("a", 32), DeviceType: "generic-amd64", Key: "key-of-the-device"})
	if err != nil {
		t.Fatal(err)
	}
	follower := there.Changes().Watch(model.Topic{Kind: model.DeviceLog, ID: d.ID})
	waiting := there.Changes().Watch(model.Topic{Kind: model.DeviceTarget, ID: d.ID})
	gone.FallSilent()
	if err := gone.AppendLogs(t.Context(), d.ID, []model.LogLine{{Message: "the last words"}}); err != nil {
		t.Fatal(err)
	}
	if err := gone.Close(); err != nil {
		t.Fatal(err)
	}
	told(t, follower, "the last words")
	if lines, err := there.Logs(t.Context(), d.ID, 0, time.Time{}, 10); err != nil || len(lines) != 1 {
		t.Errorf("%d lines, %v", len(lines), err)
	}
	select {
	case <-waiting.C():
		t.Error("a device was told, whose news are part of the commit")
	default:
	}
}
