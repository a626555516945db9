package store

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func openTags(t *testing.T) (path string, s *Store) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "deckhand.db")
	s, err := Open(path, Options{})
	must(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return path, s
}

func wantedTags(t *testing.T, s *Store, want map[string]string) {
	t.Helper()
	got, err := s.Tags.Wanted()
	must(t, err)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("wanted tags (-want +got):\n%s", d)
	}
}

func TestTagsAreQueuedOnce(t *testing.T) {
	_, s := openTags(t)
	set := func(value string, changes bool) {
		t.Helper()
		changed, err := s.Tags.Want(map[string]string{"k": value})
		must(t, err)
		if changed != changes {
			t.Errorf("k=%s: changed %v", value, changed)
		}
	}
	set("a", true)
	must(t, s.Tags.Confirm(map[string]string{"k": "a"}))
	wantedTags(t, s, map[string]string{})
	set("a", false) // the cloud has it
	set("b", true)
	set("a", true) // b may be on its way
	wantedTags(t, s, map[string]string{"k": "a"})
}

// What was sent is what is recorded: a value that was set meanwhile is still to
// be sent.
func TestAValueSetWhileAnotherIsOnItsWay(t *testing.T) {
	_, s := openTags(t)
	_, err := s.Tags.Want(map[string]string{"k": "a", "bad": "1"})
	must(t, err)
	_, err = s.Tags.Want(map[string]string{"k": "b"})
	must(t, err)
	must(t, s.Tags.Confirm(map[string]string{"k": "a"}))
	wantedTags(t, s, map[string]string{"k": "b", "bad": "1"})
	must(t, s.Tags.Drop(map[string]string{"k": "a", "bad": "1"}))
	wantedTags(t, s, map[string]string{"k": "b"})
	must(t, s.Tags.Confirm(map[string]string{"k": "b"}))
	changed, err := s.Tags.Want(map[string]string{"k": "b", "bad": "1"})
	must(t, err)
	if !changed {
		t.Error("a tag that was given up cannot be set again")
	}
	wantedTags(t, s, map[string]string{"bad": "1"})

	must(t, s.Tags.ForgetReported())
	_, err = s.Tags.Want(map[string]string{"k": "b"})
	must(t, err)
	wantedTags(t, s, map[string]string{"k": "b", "bad": "1"})
}

func TestTagsHaveAnEnd(t *testing.T) {
	_, s := openTags(t)
	many := map[string]string{}
	for i := range maxTags {
		many[fmt.Sprint(i)] = "x"
	}
	_, err := s.Tags.Want(many)
	must(t, err)
	if _, err := s.Tags.Want(map[string]string{"one more": "x"}); !errors.Is(err, ErrTooManyTags) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Tags.Want(map[string]string{"0": "y"}); err != nil {
		t.Errorf("a tag that is there cannot be changed: %v", err)
	}
}

// Everything a device still has to tell its cloud is there after a restart.
func TestWhatIsToBeToldSurvives(t *testing.T) {
	path, s := openTags(t)
	_, err := s.Tags.Want(map[string]string{"k": "v"})
	must(t, err)
	must(t, s.Pins.Put(Pin{Fleet: 7, Commit: "abc"}))
	must(t, s.Initial.Put("https://cloud device"))
	must(t, s.Close())
	s, err = Open(path, Options{})
	must(t, err)
	defer func() { _ = s.Close() }()
	wantedTags(t, s, map[string]string{"k": "v"})
	pin, ok, err := s.Pins.Wanted()
	must(t, err)
	told, err := s.Initial.Told()
	must(t, err)
	if !ok || pin != (Pin{7, "abc"}) || told != "https://cloud device" {
		t.Errorf("pin %v %v, told %q", pin, ok, told)
	}
	must(t, s.Pins.Clear())
	must(t, s.Initial.Clear())
	if _, ok, _ := s.Pins.Wanted(); ok {
		t.Error("the pin is still wanted")
	}
}
