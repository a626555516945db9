package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// sure gives a value that cannot have failed.
func sure[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestLocalModeIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	store, shot, pushed := sure[*Store](t), sure[*Snapshot](t), sure[*Pushed](t)
	done := func(err error) { t.Helper(); must(t, err) }
	s := store(Open(path, Options{}))
	if a, b := shot(s.Local.Snapshot()), pushed(s.Local.Pushed()); a != nil || b != nil {
		t.Fatalf("a new store remembers %v %v", a, b)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	wantShot := Snapshot{Containers: []string{"c"}, Images: []string{"sha256:i"}, Networks: []string{"n"}, Volumes: []string{"v"}, Taken: at}
	wantDoc := Pushed{Document: []byte(`{"local":{}}`), Device: "d", Name: "kitchen", Config: true, Offset: 7, AcceptedAt: at}
	done(s.Local.PutSnapshot(wantShot))
	done(s.AcceptPushed(wantDoc, map[string]state.Spec{"v1:h": {}}))
	done(s.Close())
	s = store(Open(path, Options{}))
	defer func() { done(s.Close()) }()
	if diff := cmp.Diff(&wantShot, shot(s.Local.Snapshot())); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&wantDoc, pushed(s.Local.Pushed())); diff != "" {
		t.Errorf("target (-want +got):\n%s", diff)
	}
	if specs := sure[map[string]state.Spec](t)(s.Specs.All()); len(specs) != 1 {
		t.Errorf("specs: %v", specs)
	}
	done(s.Local.DropPushed())
	if shot(s.Local.Snapshot()) == nil {
		t.Error("the snapshot went with the target")
	}
	done(s.Local.DropSnapshot())
	if still := shot(s.Local.Snapshot()); still != nil {
		t.Errorf("dropped, and still there: %v", still)
	}
}
