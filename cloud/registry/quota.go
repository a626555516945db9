package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"
	"golang.org/x/sync/errgroup"

	"deckhand/cloud/model"
)

// Owners are what a quota asks the database.
type Owners interface {
	OwnerOf(ctx context.Context, repository string) (model.Owner, error)
	RepositoriesOf(ctx context.Context, organization int64) ([]string, error)
}

// Quota is how much room the images of one organization may take together. A layer
// that several of its images share counts once.
type Quota struct {
	Bytes  int64 // of each organization; 0: no limit
	Owners Owners
}

// usageLife is how long what was counted is believed. What is pushed meanwhile
// through this server is added.
const usageLife = time.Minute

type quota struct {
	place place
	Quota
	mu    sync.Mutex
	known map[int64]*usage
}

type usage struct {
	counted time.Time
	bytes   int64
}

// admit is asked before a blob of some size is added to a repository. The error is
// the protocol's DENIED, with a text for people.
func (q *quota) admit(ctx context.Context, repository string, size int64) error {
	parts := imageRule.FindStringSubmatch(repository)
	if q == nil || q.Bytes <= 0 || parts == nil {
		return nil
	}
	owner, err := q.Owners.OwnerOf(ctx, parts[1])
	if errors.Is(err, model.ErrNotFound) {
		return nil // a token for it was signed, and its image has just been deleted
	}
	if err != nil {
		return fmt.Errorf("whose image is %s: %w", repository, err)
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	used, err := q.used(ctx, owner.ID)
	if err != nil {
		return fmt.Errorf("how much room do the images of %s take: %w", owner.Handle, err)
	}
	if used.bytes+size > q.Bytes {
		return errcode.ErrorCodeDenied.WithMessage(fmt.Sprintf(
			"the images of organization %s would take %s, and it may have %s; delete releases that are not needed any more: their room is free after the grace period",
			owner.Handle, Size(used.bytes+size), Size(q.Bytes)))
	}
	used.bytes += size
	return nil
}

// used counts what the images of an organization take.
func (q *quota) used(ctx context.Context, organization int64) (*usage, error) {
	if u := q.known[organization]; u != nil && time.Since(u.counted) < usageLife {
		return u, nil
	}
	repositories, err := q.Owners.RepositoriesOf(ctx, organization)
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var mu sync.Mutex
	err = eachOf(ctx, repositories, func(ctx context.Context, name string) error {
		found, err := q.blobsOf(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		for _, digest := range found {
			seen[digest] = true
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	u := &usage{counted: time.Now()}
	err = eachOf(ctx, slices.Collect(maps.Keys(seen)), func(ctx context.Context, digest string) error {
		size, err := q.place.size(ctx, blobFile(digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		u.bytes += size
		return err
	})
	if err != nil {
		return nil, err
	}
	q.known[organization] = u
	return u, nil
}

// blobsOf are the digests of all that a repository has.
func (q *quota) blobsOf(ctx context.Context, name string) ([]string, error) {
	v, err := q.place.within(ctx, repositoryDir(name))
	if err != nil {
		return nil, err
	}
	layers, err := digests(ctx, v, layersDir(name))
	if err != nil {
		return nil, err
	}
	manifests, err := digests(ctx, v, revisionsDir(name))
	return append(layers, manifests...), err
}

// eachOf calls do with each of names, with some at the same time.
func eachOf(ctx context.Context, names []string, do func(context.Context, string) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, name := range names {
		group.Go(func() error { return do(ctx, name) })
	}
	return group.Wait()
}

// Size is a number of bytes for people.
func Size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	value, names := float64(n), "KMGTPE"
	for i := range names {
		if value /= unit; value < unit || i == len(names)-1 {
			return fmt.Sprintf("%.1f %ciB", value, names[i])
		}
	}
	return ""
}

var (
	// uploadFile is where an upload is kept until it is whole.
	uploadFile = regexp.MustCompile(`/repositories/(.+)/_uploads/[^/]+/data$`)
	// uploadPath is where an upload begins.
	uploadPath = regexp.MustCompile(`^/v2/(.+)/blobs/uploads/?$`)
)

// admitMove is admit for an upload that becomes a blob.
func (q *quota) admitMove(ctx context.Context, driver storagedriver.StorageDriver, from, to string) error {
	parts := uploadFile.FindStringSubmatch(from)
	if q == nil || parts == nil || !strings.Contains(to, "/blobs/") {
		return nil
	}
	info, err := driver.Stat(ctx, from)
	if err != nil {
		return nil //nolint:nilerr // the move says it better
	}
	return q.admit(ctx, parts[1], info.Size())
}

// uploads refuses to begin an upload where no room is left, before it is sent.
func (q *quota) uploads(next http.Handler) http.Handler {
	if q == nil || q.Bytes <= 0 {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parts := uploadPath.FindStringSubmatch(r.URL.Path)
		if parts == nil || r.Method != http.MethodPost {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(&judged{ResponseWriter: w, judge: func(header http.Header) error {
			if header.Get("Docker-Upload-Uuid") == "" {
				return nil // mounted
			}
			return q.admit(r.Context(), parts[1], 0)
		}}, r)
	})
}
