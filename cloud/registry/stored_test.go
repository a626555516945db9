package registry_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"deckhand/cloud/bucket"
	"deckhand/cloud/registry"
	"deckhand/test/s3"
)

// stored is where the images of a test are: in a folder, or in a bucket when
// DECKHAND_TEST_IMAGES is "s3". The suite is the same.
type stored struct {
	registry.Storage
	t       testing.TB
	address string // of the bucket; "" for the folder
	name    string // of the bucket
}

func newStored(t testing.TB) stored {
	t.Helper()
	s := stored{t: t}
	if s3.Wanted() {
		s.name, s.address = s3.One(t).Bucket(t)
	}
	s.Storage = storageOf(t.TempDir(), s.address)
	return s
}

func storageOf(dir, address string) registry.Storage {
	if address == "" {
		return registry.Storage{Dir: dir}
	}
	a, err := bucket.ParseAddress(address)
	if err != nil {
		panic(err)
	}
	b, err := bucket.Open(context.Background(), a)
	if err != nil {
		panic(err)
	}
	return registry.Storage{Dir: dir, Bucket: b}
}

// root is the library's folder as it is on this machine's disk.
func (s stored) root() string {
	if s.Bucket == nil {
		return filepath.Join(s.Dir, "images/docker/registry/v2")
	}
	return filepath.Join(s3.One(s.t).Dir, s.name, "images/docker/registry/v2")
}

// data is the file that a blob's content is in.
func (s stored) data(digest v1.Hash) string {
	s.t.Helper()
	data := filepath.Join(s.root(), "blobs/sha256", digest.Hex[:2], digest.Hex, "data")
	if s.Bucket == nil {
		return data
	}
	entries, err := os.ReadDir(data)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.Contains(e.Name(), ".") {
			return filepath.Join(data, e.Name())
		}
	}
	s.t.Fatalf("no generation in %s", data)
	return ""
}

// age makes all that is in the registry look as if nobody had asked for it in days.
func (s stored) age() {
	s.t.Helper()
	old := time.Now().Add(-72 * time.Hour)
	if s.Bucket != nil {
		s3.One(s.t).Age(s.t, s.name, old)
		return
	}
	err := filepath.WalkDir(s.root(), func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chtimes(path, old, old)
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s stored) complete(repository, digest string) error {
	images, err := registry.Look(s.t.Context(), s.Storage)
	if err != nil {
		return err
	}
	return images.Complete(s.t.Context(), repository, digest)
}

// killStep is how much later each process is killed that clears up.
func (s stored) killStep() time.Duration {
	if s.Bucket == nil {
		return time.Millisecond
	}
	return 150 * time.Millisecond
}

// left is what clearing up has begun and not ended.
func (s stored) left() (left []string) {
	s.t.Helper()
	dir := filepath.Join(s.Dir, "discarded", "aside")
	if s.Bucket != nil {
		dir = s.root()
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && (s.Bucket == nil && path != dir || strings.HasSuffix(path, ".going")) {
			left = append(left, path)
		}
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return left
}
