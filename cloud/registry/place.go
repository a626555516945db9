package registry

import (
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	storagedriver "github.com/distribution/distribution/v3/registry/storage/driver"

	"deckhand/cloud/bucket"
)

// Storage says where images are.
type Storage struct {
	// Dir is the folder of the images, made when missing. With a bucket it has only
	// what a server needs for itself.
	Dir string
	// Bucket is where the images are when they are not in the folder.
	Bucket *bucket.Store
}

// open makes the place; remember is for how long a use that was noted is not noted
// again, in a place where that takes time.
func (s Storage) open(remember time.Duration) place {
	if s.Bucket != nil {
		return newGenerations(s.Bucket, remember)
	}
	return folder{s.Dir}
}

// view is what is in a place. Files and folders are named as the library names them,
// see root. Looking uses nothing. What is not there is fs.ErrNotExist.
type view interface {
	// list is the names in a folder, in no order; none when there is no folder.
	list(ctx context.Context, dir string) ([]string, error)
	stat(ctx context.Context, file string) (stat, error)
	read(ctx context.Context, file string) ([]byte, error)
	// young says whether something in a folder was used or made after the limit.
	young(ctx context.Context, dir string, limit time.Time) (bool, error)
}

// stat is what a place knows of a file.
type stat struct {
	size int64     // bytes
	used time.Time // by the place's clock: when somebody last asked for it, or it was made
}

// place is where manifests, blobs and links are: a folder, or a bucket.
//
// What keeps clearing up safe is the promise between use and discard: when both meet
// at one file, then either use fails as if it had not been there, or it is there
// afterwards.
type place interface {
	view
	fmt.Stringer // for people
	// driver is the place as the library sees it: all that it asks for, it uses.
	driver() (storagedriver.StorageDriver, error)
	// within is a view of a folder that is made at once, if that is cheaper.
	within(ctx context.Context, dir string) (view, error)
	// use notes that somebody counts on files. The error is fs.ErrNotExist when one is
	// not there.
	use(ctx context.Context, files []string) error
	// size is stat's; it may be remembered.
	size(ctx context.Context, file string) (int64, error)
	// clock is the time as stat has it; a folder is not written to when dry is set.
	clock(ctx context.Context, dry bool) (time.Time, error)
	// owner is whose the place is. If it is nobody's and claim is set, it is id's.
	owner(ctx context.Context, id string, claim bool) (string, error)
	// restore ends what a run that was killed had begun.
	restore(ctx context.Context) error
	// discard takes a folder away unless something in it was used after the limit.
	discard(ctx context.Context, dir string, limit time.Time) (bool, error)
	// empty removes for good what was discarded.
	empty(ctx context.Context) error
	// tidy removes what no file needs of those that a view of everything shows.
	tidy(ctx context.Context, all view, limit time.Time) error
}

// root is the library's folder. Below it are
//
//	blobs/sha256/<2>/<64>/data                              content by digest
//	repositories/<name>/_layers/sha256/<64>/link            who may read which blob
//	repositories/<name>/_manifests/revisions/sha256/<64>/link
//	repositories/<name>/_manifests/tags/<tag>/current/link
//	repositories/<name>/_manifests/tags/<tag>/index/sha256/<64>/link
//	repositories/<name>/_uploads/<id>/{data,startedat,…}
const root = "/docker/registry/v2"

const (
	allRepositories = root + "/repositories"
	allBlobs        = root + "/blobs/sha256"
)

// The folders of a repository, a blob's folder and its file; digest is 64 hex.
func repositoryDir(name string) string { return allRepositories + "/" + name }
func layersDir(name string) string     { return repositoryDir(name) + "/_layers/sha256" }
func revisionsDir(name string) string  { return repositoryDir(name) + "/_manifests/revisions/sha256" }
func tagsDir(name string) string       { return repositoryDir(name) + "/_manifests/tags" }
func uploadsDir(name string) string    { return repositoryDir(name) + "/_uploads" }
func blobDir(digest string) string     { return path.Join(allBlobs, digest[:2], digest) }
func blobFile(digest string) string    { return blobDir(digest) + "/data" }
func linkIn(dir, digest string) string { return path.Join(dir, digest, "link") }

var (
	hexRule = regexp.MustCompile(`^[0-9a-f]{64}$`)
	// imageRule is an image's repository, and what belongs to it: its build cache.
	imageRule = regexp.MustCompile(`^(v2/[0-9a-f]{32})(-[0-9]{1,4})?$`)
)

// hexOf is a digest without its algorithm; ok is false for what this registry does
// not store.
func hexOf(digest string) (hex string, ok bool) {
	hex, ok = strings.CutPrefix(digest, "sha256:")
	return hex, ok && hexRule.MatchString(hex)
}

// digests are the names in a folder that are digests.
func digests(ctx context.Context, v view, dir string) ([]string, error) {
	names, err := v.list(ctx, dir)
	found := names[:0]
	for _, name := range names {
		if hexRule.MatchString(name) {
			found = append(found, name)
		}
	}
	return found, err
}

// repositories are the names of all repositories.
func repositories(ctx context.Context, v view) ([]string, error) {
	var all []string
	var visit func(name string) error
	visit = func(name string) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		names, err := v.list(ctx, path.Join(allRepositories, name))
		if err != nil {
			return err
		}
		own := func(name string) bool { return strings.HasPrefix(name, "_") }
		if slices.ContainsFunc(names, own) {
			all = append(all, name)
		}
		for _, below := range names {
			if own(below) {
				continue
			}
			if err := visit(path.Join(name, below)); err != nil {
				return err
			}
		}
		return nil
	}
	return all, visit("")
}

// eachBlob calls visit with the digest of each blob.
func eachBlob(ctx context.Context, v view, visit func(digest string) error) error {
	prefixes, err := v.list(ctx, allBlobs)
	if err != nil {
		return err
	}
	for _, prefix := range prefixes {
		found, err := digests(ctx, v, path.Join(allBlobs, prefix))
		if err != nil {
			return err
		}
		for _, digest := range found {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if err := visit(digest); err != nil {
				return err
			}
		}
	}
	return nil
}

// counting is a place as the library sees it, which knows of the quota.
type counting struct {
	storagedriver.StorageDriver
	quota *quota
}

// Move is how an upload becomes a blob, and where it is known how large that is.
func (c counting) Move(ctx context.Context, from, to string) error {
	if err := c.quota.admitMove(ctx, c.StorageDriver, from, to); err != nil {
		_ = c.Delete(ctx, path.Dir(from)) // else it goes with other old uploads
		return err
	}
	return c.StorageDriver.Move(ctx, from, to)
}
