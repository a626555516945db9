// Package bucket opens a place in a bucket of an S3-compatible store, for what servers
// without a common folder share: images, and files of releases.
//
// It asks little of a store: who reads or lists after a write sees it, and each object
// has the time of its writing by the store's own clock. Nothing is renamed, and no
// write depends on what was there.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	s3 "github.com/distribution/distribution/v3/registry/storage/driver/s3-aws"
)

// Store is a place in a bucket. Paths begin with a slash.
type Store struct {
	storagedriver.StorageDriver
	address Address
}

// New is a store in which the driver keeps the objects.
func New(driver storagedriver.StorageDriver, a Address) *Store { return &Store{driver, a} }

// Open makes a store; it does not ask the bucket anything: see Check.
func Open(ctx context.Context, a Address) (*Store, error) {
	parameters := map[string]any{
		"bucket": a.Bucket, "region": a.Region, "rootdirectory": "/" + a.Prefix, "forcepathstyle": a.PathStyle,
		"useragent": "deckhand-cloud",
		// Not every store has classes. Buckets at Amazon that have no access lists take
		// this one, which says nothing.
		"storageclass": "NONE", "objectacl": "bucket-owner-full-control",
	}
	if a.Endpoint != "" {
		parameters["regionendpoint"] = a.Endpoint
	}
	driver, err := s3.FromParameters(ctx, parameters)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", a, err)
	}
	return New(driver, a), nil
}

// String is the store's address for people.
func (s *Store) String() string { return s.address.String() }

// Address is where the store is.
func (s *Store) Address() Address { return s.address }

// checkTime bounds how long the store may take to answer the first time.
const checkTime = 20 * time.Second

// Check writes and lists in the bucket. The error is an *UnusableError.
func (s *Store) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	if _, err := s.Clock(ctx); err != nil {
		return unusable(s.address, err)
	}
	return nil
}

// Missing says whether an error means that there is no such object, to the library or
// to us.
func Missing(err error) bool {
	_, ok := errors.AsType[storagedriver.PathNotFoundError](err)
	return ok || errors.Is(err, fs.ErrNotExist)
}

// Object is what a listing says of one.
type Object struct {
	Path    string
	Size    int64
	Changed time.Time // by the store's clock, to the second
}

// Objects are all below a folder, by their paths; none when there is no such folder.
func (s *Store) Objects(ctx context.Context, dir string) ([]Object, error) {
	var all []Object
	err := s.Walk(ctx, dir, func(info storagedriver.FileInfo) error {
		if !info.IsDir() {
			all = append(all, Object{info.Path(), info.Size(), info.ModTime()})
		}
		return nil
	})
	if err != nil && !Missing(err) {
		return nil, fmt.Errorf("list %s in %s: %w", dir, s, err)
	}
	slices.SortFunc(all, func(a, b Object) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// Remove removes one object, if it is there.
func (s *Store) Remove(ctx context.Context, file string) error {
	if err := s.Delete(ctx, file); err != nil && !Missing(err) {
		return fmt.Errorf("remove %s in %s: %w", file, s, err)
	}
	return nil
}

const (
	clockDir  = "/clock"
	clockFile = clockDir + "/now"
)

// Clock is the time by which the store dates its objects.
func (s *Store) Clock(ctx context.Context) (time.Time, error) {
	if err := s.PutContent(ctx, clockFile, nil); err != nil {
		return time.Time{}, fmt.Errorf("read the clock of %s: %w", s, err)
	}
	found, err := s.Objects(ctx, clockDir)
	if err != nil {
		return time.Time{}, err
	}
	if len(found) == 0 {
		return time.Time{}, fmt.Errorf("read the clock of %s: what was written is not listed; the store has to be strongly consistent", s)
	}
	return found[0].Changed, nil
}

// Owner is whose the place is, as the file says; empty: nobody's.
func (s *Store) Owner(ctx context.Context, file string) (string, error) {
	b, err := s.GetContent(ctx, file)
	if Missing(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read %s in %s: %w", file, s, err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Claim writes whose the place is unless that is known, and gives the owner. Of two
// that come at the same moment the second wins, and the first learns it the next time.
func (s *Store) Claim(ctx context.Context, file, owner string) (string, error) {
	now, err := s.Owner(ctx, file)
	if err != nil || now != "" {
		return now, err
	}
	if err := s.PutContent(ctx, file, []byte(owner+"\n")); err != nil {
		return "", fmt.Errorf("write %s in %s: %w", file, s, err)
	}
	return s.Owner(ctx, file)
}
