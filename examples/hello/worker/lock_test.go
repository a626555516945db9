package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestTheLockIsTakenAndGivenUp(t *testing.T) {
	w := &work{path: filepath.Join(t.TempDir(), "updates.lock")}
	for range 2 { // the second one only makes it longer
		if err := w.begin(time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(w.path); err != nil {
		t.Error(err)
	}
	w.end()
	w.end()
	if _, err := os.Stat(w.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestTheLockOfSomebodyElseIsLeftAlone(t *testing.T) {
	w := &work{path: filepath.Join(t.TempDir(), "updates.lock")}
	if err := w.begin(time.Hour); err != nil {
		t.Fatal(err)
	}
	// Somebody breaks it: theirs takes its place.
	theirs := w.path + ".theirs"
	if err := errors.Join(os.WriteFile(theirs, nil, 0o600), os.Rename(theirs, w.path)); err != nil {
		t.Fatal(err)
	}
	w.end()
	if _, err := os.Stat(w.path); err != nil {
		t.Error(err)
	}
	if err := w.begin(time.Hour); !errors.Is(err, os.ErrExist) {
		t.Errorf("taken all the same: %v", err)
	}
}
