package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"deckhand/cloud/model"
)

// Records are what the collector asks the database.
type Records interface {
	// StoredImages are the images that must stay.
	StoredImages(ctx context.Context, since time.Time) ([]model.StoredImage, error)
	// Forget runs do unless the repository's image must stay.
	Forget(ctx context.Context, repository string, since time.Time, do func() error) (bool, error)
	// Hold does something that one server at a time may do.
	Hold(ctx context.Context, name string, do func(context.Context) error) error
	LastDone(ctx context.Context, name string) (time.Time, error)
	CloudID(ctx context.Context) (string, error)
	Now() time.Time
}

// CollectionLease is held by who clears up, or must not be cleared up under.
const CollectionLease = "registry collection"

// DefaultGrace is how long what nobody needs stays: longer than a push may take.
// Within it a release that was deleted by mistake can still be downloaded.
const DefaultGrace = 24 * time.Hour

// Collector removes from the registry what no release needs.
//
// How it stays safe: what must stay is found from the images in the database and
// their manifests. All else is looked at file by file. A file is left alone that
// somebody asked for within the grace period, which the storage notes in its time
// (see touching) before it answers. Each is first moved aside, then looked at once
// more, and moved back when somebody came in between. Links are removed before the
// blobs that they lead to, so a manifest that is there has all its parts; see also
// guard. A push that finds something missing uploads it again.
type Collector struct {
	layout
	records Records
	grace   time.Duration
	log     zerolog.Logger
}

// CollectorConfig says what is cleared up.
type CollectorConfig struct {
	Dir     string // that of Config
	Records Records
	Grace   time.Duration // at least that long nothing is removed that was in use; zero: none
	Log     zerolog.Logger
}

// NewCollector makes a collector; it does nothing yet.
func NewCollector(cfg CollectorConfig) *Collector {
	return &Collector{layout: layout{cfg.Dir}, records: cfg.Records, grace: cfg.Grace, log: cfg.Log}
}

// Collection is what was removed, or would be.
type Collection struct {
	Repositories int `json:"repositories"` // of images that no release has
	Manifests    int `json:"manifests"`    // that were replaced in a repository that stays
	Links        int `json:"links"`        // to layers of those
	Uploads      int `json:"uploads"`      // that nobody ended
	Blobs        int `json:"blobs"`
	// Bytes is how much room the blobs took.
	Bytes int64 `json:"bytes"`
	// KeptBlobs and KeptBytes are what is there after it.
	KeptBlobs int   `json:"kept_blobs"`
	KeptBytes int64 `json:"kept_bytes"`
	// Unreadable are repositories with manifests that could not be read; all of
	// theirs was kept.
	Unreadable []string `json:"unreadable,omitempty"`
}

// Empty says that there was nothing to remove.
func (c Collection) Empty() bool {
	return c.Repositories+c.Manifests+c.Links+c.Uploads+c.Blobs == 0
}

// Collect clears up once. The error is a *model.HeldError when another server does.
func (c *Collector) Collect(ctx context.Context) (Collection, error) {
	var done Collection
	err := c.records.Hold(ctx, CollectionLease, func(ctx context.Context) (err error) {
		done, err = c.collect(ctx, false)
		return err
	})
	return done, wrapCollect(err)
}

// Look says what Collect would remove.
func (c *Collector) Look(ctx context.Context) (Collection, error) {
	done, err := c.collect(ctx, true)
	return done, wrapCollect(err)
}

func wrapCollect(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("clear up the registry: %w", err)
}

// Run clears up whenever the last time is an interval ago, whoever did it, until
// the context ends. Done hears of each time.
func (c *Collector) Run(ctx context.Context, interval time.Duration, done func(Collection, error)) error {
	tick := time.NewTicker(min(interval, time.Minute))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		last, err := c.records.LastDone(ctx, CollectionLease)
		if err == nil && c.records.Now().Sub(last) < interval {
			continue
		}
		if err == nil {
			var collection Collection
			collection, err = c.Collect(ctx)
			if _, held := errors.AsType[*model.HeldError](err); held || ctx.Err() != nil {
				continue
			}
			done(collection, err)
			continue
		}
		if ctx.Err() == nil {
			done(Collection{}, wrapCollect(err))
		}
	}
}

// sweep is one time of clearing up.
type sweep struct {
	*Collector
	dry   bool
	limit time.Time // of the file system's clock: what was used later stays
	since time.Time // of the database's clock: images made later stay
	trash trash

	needed map[string]bool // blobs
	done   Collection
}

func (c *Collector) collect(ctx context.Context, dry bool) (Collection, error) {
	s := &sweep{Collector: c, dry: dry, since: c.records.Now().Add(-c.grace), needed: map[string]bool{}, trash: trash{layout: c.layout, dry: dry}}
	if _, err := os.Stat(c.root()); errors.Is(err, fs.ErrNotExist) {
		return s.done, nil // nothing was ever pushed
	}
	if err := c.claim(ctx, dry); err != nil {
		return s.done, err
	}
	now := time.Now()
	if !dry {
		if err := s.trash.restore(); err != nil {
			return s.done, err
		}
		var err error
		if now, err = clock(c.dir); err != nil {
			return s.done, err
		}
	}
	s.limit = now.Add(-c.grace)
	s.trash.limit = s.limit
	err := s.run(ctx)
	return s.done, err
}

// claim makes sure that the folder is this cloud's: another one's database would
// need none of what is there.
func (c *Collector) claim(ctx context.Context, dry bool) error {
	id, err := c.records.CloudID(ctx)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, "cloud-id")
	if _, err := os.Stat(path); dry && errors.Is(err, fs.ErrNotExist) {
		return nil // nobody's yet
	}
	owner, err := once(path, id+"\n")
	switch {
	case err != nil:
		return err
	case strings.TrimSpace(owner) != id:
		return fmt.Errorf("the images in %s belong to another cloud: their database is another one than ours; give each cloud a folder of its own, or remove %s when the images are to be ours", c.dir, path)
	}
	return nil
}

func (s *sweep) run(ctx context.Context) error {
	names, err := s.repositories(ctx)
	if err != nil {
		return err
	}
	// After the list: an image whose repository is in it has its row.
	stored, err := s.records.StoredImages(ctx, s.since)
	if err != nil {
		return err
	}
	images := make(map[string]string, len(stored))
	for _, i := range stored {
		images[i.Repository] = i.ContentHash
	}
	var kept []*keeper
	var dropped []string
	for _, name := range names {
		k := &keeper{layout: s.layout, name: name, limit: s.limit}
		parts := imageRule.FindStringSubmatch(name)
		if parts == nil { // not made by this program, so none of its business
			k.all = true
		} else if hash, ok := images[parts[1]]; ok {
			if name == parts[1] {
				k.hash, _ = hexOf(hash)
			}
		} else if young, err := s.trash.young(s.repository(name)); err != nil {
			return err
		} else if young {
			k.all = true
		} else {
			dropped = append(dropped, name)
			continue
		}
		if err := k.mark(s.needed); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if k.unreadable {
			s.done.Unreadable = append(s.done.Unreadable, name)
		}
		kept = append(kept, k)
	}
	return errors.Join(s.dropRepositories(ctx, dropped), s.dropLinks(ctx, kept), s.dropUploads(ctx, kept), s.dropBlobs(ctx))
}

func (s *sweep) dropRepositories(ctx context.Context, names []string) error {
	for _, name := range names {
		if s.dry {
			s.done.Repositories++
			continue
		}
		gone := false
		_, err := s.records.Forget(ctx, imageRule.FindStringSubmatch(name)[1], s.since, func() (err error) {
			if !gone {
				gone, err = s.trash.discard(s.repository(name))
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if gone {
			s.done.Repositories++
			s.log.Info().Str("repository", name).Msg("image removed: no release has it")
		}
	}
	return s.trash.empty()
}

// dropLinks removes what was replaced in repositories that stay: manifests first.
func (s *sweep) dropLinks(ctx context.Context, kept []*keeper) error {
	for _, k := range kept {
		if k.all || k.unreadable {
			continue
		}
		for _, of := range []struct {
			dir   string
			count *int
		}{{s.revisions(k.name), &s.done.Manifests}, {s.layers(k.name), &s.done.Links}} {
			if err := s.dropOf(ctx, of.dir, k.keeps, of.count); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	return s.trash.empty()
}

// dropOf removes the digests in a folder that are not kept.
func (s *sweep) dropOf(ctx context.Context, dir string, kept map[string]bool, count *int) error {
	found, err := digests(dir)
	if err != nil {
		return err
	}
	for _, digest := range found {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if kept[digest] {
			continue
		}
		gone, err := s.trash.discard(filepath.Join(dir, digest))
		if err != nil {
			return err
		}
		if gone {
			*count++
		}
	}
	return nil
}

// dropUploads removes uploads that nobody goes on with.
func (s *sweep) dropUploads(ctx context.Context, kept []*keeper) error {
	for _, k := range kept {
		ids, err := list(s.uploads(k.name))
		if err != nil {
			return err
		}
		for _, id := range ids {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			gone, err := s.trash.discard(filepath.Join(s.uploads(k.name), id))
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			if gone {
				s.done.Uploads++
			}
		}
	}
	return s.trash.empty()
}

func (s *sweep) dropBlobs(ctx context.Context) error {
	err := s.allBlobs(ctx, func(digest string) error {
		info, err := os.Stat(filepath.Join(s.blob(digest), "data"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		gone := false
		if !s.needed[digest] {
			if gone, err = s.trash.discard(s.blob(digest)); err != nil {
				return err
			}
		}
		if gone {
			s.done.Blobs++
			s.done.Bytes += info.Size()
		} else {
			s.done.KeptBlobs++
			s.done.KeptBytes += info.Size()
		}
		return nil
	})
	return errors.Join(err, s.trash.empty())
}

// keeper finds what of a repository stays.
type keeper struct {
	layout
	name  string
	hash  string    // of the image's manifest, if it is known
	limit time.Time // links that were used later stay
	all   bool      // everything

	keeps      map[string]bool // manifests and layers
	unreadable bool
}

// mark notes in needed the blobs that the repository needs.
func (k *keeper) mark(needed map[string]bool) error {
	k.keeps = map[string]bool{}
	roots, err := k.roots()
	if err != nil {
		return err
	}
	for _, digest := range roots {
		if err := k.keep(digest, 0); err != nil {
			return err
		}
	}
	layers, err := digests(k.layers(k.name))
	if err != nil {
		return err
	}
	for _, digest := range layers {
		if k.all || k.unreadable || k.used(filepath.Join(k.layers(k.name), digest)) {
			k.keeps[digest] = true
		}
	}
	for digest := range k.keeps {
		needed[digest] = true
	}
	return nil
}

// roots are the manifests that are asked for by name, or were lately.
func (k *keeper) roots() ([]string, error) {
	revisions, err := digests(k.revisions(k.name))
	if err != nil {
		return nil, err
	}
	current, err := k.tagged()
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, digest := range revisions {
		if k.all || digest == k.hash || current[digest] || k.used(filepath.Join(k.revisions(k.name), digest)) {
			roots = append(roots, digest)
		}
	}
	return roots, nil
}

// tagged are the digests that tags stand for.
func (k *keeper) tagged() (map[string]bool, error) {
	tags, err := list(k.tags(k.name))
	if err != nil {
		return nil, err
	}
	current := map[string]bool{}
	for _, tag := range tags {
		b, err := os.ReadFile(filepath.Join(k.tags(k.name), tag, "current", "link"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if hex, ok := hexOf(strings.TrimSpace(string(b))); ok {
			current[hex] = true
		}
	}
	return current, nil
}

// keep notes a manifest and what it refers to.
func (k *keeper) keep(digest string, depth int) error {
	if k.keeps[digest] || depth > deepest {
		return nil
	}
	k.keeps[digest] = true
	m, err := k.readManifest(digest)
	if err != nil {
		// Whatever it is, nothing is removed on a guess.
		k.unreadable = true
		return nil //nolint:nilerr // told by unreadable
	}
	for _, blob := range m.blobs {
		k.keeps[blob] = true
	}
	for _, part := range m.manifests {
		if _, err := os.Stat(filepath.Join(k.revisions(k.name), part, "link")); errors.Is(err, fs.ErrNotExist) {
			continue // only some platforms of an index were pushed
		}
		if err := k.keep(part, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) used(dir string) bool {
	info, err := os.Stat(filepath.Join(dir, "link"))
	return err == nil && info.ModTime().After(k.limit)
}
