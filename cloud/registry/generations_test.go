package registry

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"github.com/distribution/distribution/v3/registry/storage/driver/inmemory"

	"deckhand/cloud/bucket"
)

// between is a store in memory that lets something happen just before a write or a
// removal.
type between struct {
	storagedriver.StorageDriver
	before func(what, name string)
}

func (b *between) happen(what, name string) {
	if do := b.before; do != nil {
		do(what, name)
	}
}

func (b *between) PutContent(ctx context.Context, name string, content []byte) error {
	b.happen("put", name)
	return b.StorageDriver.PutContent(ctx, name, content)
}

func (b *between) Delete(ctx context.Context, name string) error {
	b.happen("delete", name)
	return b.StorageDriver.Delete(ctx, name)
}

func (b *between) Move(ctx context.Context, from, to string) error {
	b.happen("move", from)
	return b.StorageDriver.Move(ctx, from, to)
}

var (
	someDigest = strings.Repeat("ab", 32)
	someBlob   = blobFile(someDigest)
)

// bucketWithBlob has one blob.
func bucketWithBlob(t *testing.T) (*between, *generations, storagedriver.StorageDriver) {
	t.Helper()
	store := &between{StorageDriver: inmemory.New()}
	g := newGenerations(bucket.New(store, bucket.Address{Bucket: "memory"}), 0)
	library, err := g.driver()
	if err == nil {
		err = library.PutContent(t.Context(), someBlob, []byte("content"))
	}
	if err != nil {
		t.Fatal(err)
	}
	return store, g, library
}

// later is a limit that all that was done before is older than.
func later() time.Time { return time.Now() }

func wantBlob(t *testing.T, library storagedriver.StorageDriver, want bool) {
	t.Helper()
	b, err := library.GetContent(t.Context(), someBlob)
	_, missing := errors.AsType[storagedriver.PathNotFoundError](err)
	if want && (err != nil || string(b) != "content") || !want && !missing {
		t.Errorf("the blob is %q %v, want it there: %v", b, err, want)
	}
}

func discarded(t *testing.T, g *generations, limit time.Time, want bool) {
	t.Helper()
	if gone, err := g.discard(t.Context(), blobDir(someDigest), limit); err != nil || gone != want {
		t.Errorf("discarded: %v %v, want %v", gone, err, want)
	}
}

func objects(t *testing.T, g *generations) []string {
	t.Helper()
	found, err := g.store.Objects(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range found {
		names = append(names, o.Path)
	}
	return names
}

func TestWhatWasNotUsedGoesWithoutATrace(t *testing.T) {
	_, g, library := bucketWithBlob(t)
	wantBlob(t, library, true)
	discarded(t, g, time.Now().Add(-time.Hour), false)
	if slices.ContainsFunc(objects(t, g), func(name string) bool { return strings.HasSuffix(name, goingMark) }) {
		t.Error("what is young was condemned")
	}
	discarded(t, g, later(), true)
	wantBlob(t, library, false)
	if left := objects(t, g); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// Somebody asks after it was listed and before it is condemned: he was told that it is
// there, so it stays.
func TestUsedJustBeforeItIsCondemned(t *testing.T) {
	store, g, library := bucketWithBlob(t)
	limit := later()
	store.before = func(what, name string) {
		if what == "put" && strings.HasSuffix(name, goingMark) {
			store.before = nil
			if _, err := library.Stat(t.Context(), someBlob); err != nil {
				t.Error(err)
			}
		}
	}
	discarded(t, g, limit, false)
	wantBlob(t, library, true)
}

// Somebody asks while it is removed: he has a copy that nobody removes.
func TestUsedWhileItIsRemoved(t *testing.T) {
	store, g, library := bucketWithBlob(t)
	store.before = func(what, _ string) {
		if what == "delete" {
			store.before = nil
			if _, err := library.Stat(t.Context(), someBlob); err != nil {
				t.Error(err)
			}
		}
	}
	discarded(t, g, later(), true)
	wantBlob(t, library, true)
}

// It is condemned and removed between the two looks of who asks: he is told so.
func TestRemovedWhileItIsAskedFor(t *testing.T) {
	store, g, library := bucketWithBlob(t)
	limit := later()
	store.before = func(what, name string) {
		if what == "put" && strings.HasSuffix(name, usedMark) {
			store.before = nil
			discarded(t, g, limit, true)
		}
	}
	wantBlob(t, library, false)
}

// It is condemned between the two looks of who asks, by somebody who saw no use of it
// and removes it after that: who was told that it is there has a copy.
func TestCondemnedWhileItIsAskedFor(t *testing.T) {
	store, g, library := bucketWithBlob(t)
	var seen listing
	store.before = func(what, name string) {
		if what != "put" || !strings.HasSuffix(name, usedMark) {
			return
		}
		store.before = nil
		seen = must(g.listing(t.Context(), root))
		must(g.condemn(t.Context(), seen))
	}
	if _, err := library.Stat(t.Context(), someBlob); err != nil {
		t.Fatal(err)
	}
	for _, f := range seen.files {
		for _, p := range f.parts {
			if err := g.remove(t.Context(), f, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	wantBlob(t, library, true)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A server that was killed after it condemned: who asks gets it, and the next time it
// is removed if nobody does.
func TestKilledAfterItWasCondemned(t *testing.T) {
	_, g, library := bucketWithBlob(t)
	condemned := must(g.condemn(t.Context(), must(g.listing(t.Context(), root))))
	if s, err := g.stat(t.Context(), someBlob); err != nil || s.size != 7 {
		t.Errorf("%+v %v", s, err)
	}
	wantBlob(t, library, true)
	for _, name := range objects(t, g) {
		if condemned[name] {
			t.Errorf("%s is still there", name)
		}
	}
	// The old one's marks are nobody's now.
	all := must(g.within(t.Context(), root))
	if err := g.tidy(t.Context(), all, later()); err != nil {
		t.Error(err)
	}
	if left := objects(t, g); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	discarded(t, g, later(), true)
	wantBlob(t, library, false)
}

// A server that was thought dead goes on with its removal after somebody has pushed
// the blob again: what was pushed stays.
func TestRemovedLate(t *testing.T) {
	store, g, library := bucketWithBlob(t)
	upload := uploadsDir("v2/x") + "/1/data"
	store.before = func(what, _ string) {
		if what != "delete" {
			return
		}
		store.before = nil
		discarded(t, g, later(), true) // another server
		wantBlob(t, library, false)
		if err := errors.Join(library.PutContent(t.Context(), upload, []byte("content")), library.Move(t.Context(), upload, someBlob)); err != nil {
			t.Error(err)
		}
	}
	discarded(t, g, later(), true)
	wantBlob(t, library, true)
}

func TestAPlaceInABucketIsLookedAt(t *testing.T) {
	_, g, library := bucketWithBlob(t)
	for _, name := range []string{"v2/a", "v2/a-0", "v2/b/c"} {
		if err := library.PutContent(t.Context(), linkIn(layersDir(name), someDigest), []byte("sha256:"+someDigest)); err != nil {
			t.Fatal(err)
		}
	}
	v := must(g.within(t.Context(), root))
	names, err := repositories(t.Context(), v)
	if slices.Sort(names); err != nil || !slices.Equal(names, []string{"v2/a", "v2/a-0", "v2/b/c"}) {
		t.Errorf("repositories are %v %v", names, err)
	}
	live, err := repositories(t.Context(), g)
	if slices.Sort(live); err != nil || !slices.Equal(live, names) {
		t.Errorf("asked one by one they are %v %v", live, err)
	}
	var blobs []string
	err = eachBlob(t.Context(), v, func(digest string) error { blobs = append(blobs, digest); return nil })
	if err != nil || !slices.Equal(blobs, []string{someDigest}) {
		t.Errorf("blobs are %v %v", blobs, err)
	}
	if _, err := v.stat(t.Context(), linkIn(layersDir("v2/b"), someDigest)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a link that is not there: %v", err)
	}
}
