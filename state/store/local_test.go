package store

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

func TestLocalModeIsRemembered(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s.db")
	reopen := func(s *Store) *Store {
		t.Helper()
		if s != nil {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
		s, err := Open(path, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	s := reopen(nil)
	shot, err1 := s.Local.Snapshot()
	doc, err2 := s.Local.Pushed()
	if shot != nil || doc != nil || err1 != nil || err2 != nil {
		t.Fatalf("a new store remembers %v %v (%v %v)", shot, doc, err1, err2)
	}
	at := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	wantShot := Snapshot{Containers: []string{"c"}, Images: []string{"sha256:i"}, Networks: []string{"n"}, Volumes: []string{"v"}, Taken: at}
	wantDoc := Pushed{Document: []byte(`{"local":{}}`), Device: "d", Name: "kitchen", Config: true, AcceptedAt: at}
	if err := s.Local.PutSnapshot(wantShot); err != nil {
		t.Fatal(err)
	}
	if err := s.AcceptPushed(wantDoc, map[string]state.Spec{"v1:h": {}}); err != nil {
		t.Fatal(err)
	}
	s = reopen(s)
	defer func() { _ = s.Close() }()
	if shot, err1 = s.Local.Snapshot(); err1 != nil || !cmp.Equal(*shot, wantShot) {
		t.Errorf("snapshot: %+v %v", shot, err1)
	}
	if doc, err2 = s.Local.Pushed(); err2 != nil || !cmp.Equal(*doc, wantDoc) {
		t.Errorf("target: %+v %v", doc, err2)
	}
	if specs, err := s.Specs.All(); err != nil || len(specs) != 1 {
		t.Errorf("specs: %v %v", specs, err)
	}
	if err := s.Local.DropPushed(); err != nil {
		t.Fatal(err)
	}
	if shot, _ := s.Local.Snapshot(); shot == nil {
		t.Error("the snapshot went with the target")
	}
	if err := s.Local.DropSnapshot(); err != nil {
		t.Fatal(err)
	}
	if shot, err := s.Local.Snapshot(); shot != nil || err != nil {
		t.Errorf("dropped, and still there: %v %v", shot, err)
	}
}
