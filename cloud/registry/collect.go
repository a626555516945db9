package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
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
// (see touching and generations) before it answers; what was to be removed and is used
// at that moment stays, see trash and generations. Links are removed before the blobs
// that they lead to, so a manifest that is there has all its parts; see also guard. A
// push that finds something missing uploads it again.
type Collector struct {
	place   place
	records Records
	grace   time.Duration
	log     zerolog.Logger
}

// CollectorConfig says what is cleared up.
type CollectorConfig struct {
	Storage
	Records Records
	Grace   time.Duration // at least that long nothing is removed that was in use; zero: none
	Log     zerolog.Logger
}

// NewCollector makes a collector; it does nothing yet.
func NewCollector(cfg CollectorConfig) *Collector {
	return &Collector{place: cfg.open(0), records: cfg.Records, grace: cfg.Grace, log: cfg.Log}
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
	view  view
	dry   bool
	limit time.Time // of the place's clock: what was used later stays
	since time.Time // of the database's clock: images made later stay

	needed map[string]bool // blobs
	done   Collection
}

func (c *Collector) collect(ctx context.Context, dry bool) (Collection, error) {
	s := &sweep{Collector: c, dry: dry, since: c.records.Now().Add(-c.grace), needed: map[string]bool{}}
	if ok, err := c.used(ctx); !ok || err != nil {
		return s.done, err
	}
	if err := c.claim(ctx, dry); err != nil {
		return s.done, err
	}
	if !dry {
		if err := c.place.restore(ctx); err != nil {
			return s.done, err
		}
	}
	now, err := c.place.clock(ctx, dry)
	if err != nil {
		return s.done, err
	}
	s.limit = now.Add(-c.grace)
	if s.view, err = c.place.within(ctx, root); err != nil {
		return s.done, err
	}
	if !dry {
		if err := c.place.tidy(ctx, s.view, s.limit); err != nil {
			return s.done, err
		}
	}
	return s.done, s.run(ctx)
}

// used says whether anything was ever pushed.
func (c *Collector) used(ctx context.Context) (bool, error) {
	names, err := c.place.list(ctx, root)
	return len(names) > 0, err
}

// claim makes sure that the place is this cloud's: another one's database would need
// none of what is there.
func (c *Collector) claim(ctx context.Context, dry bool) error {
	id, err := c.records.CloudID(ctx)
	if err != nil {
		return err
	}
	owner, err := c.place.owner(ctx, id, !dry)
	switch {
	case err != nil:
		return err
	case owner != id && owner != "":
		return fmt.Errorf("the images in %s belong to another cloud: their database is another one than ours; give each cloud a folder or prefix of its own, or remove cloud-id there when the images are to be ours", c.place)
	}
	return nil
}

func (s *sweep) run(ctx context.Context) error {
	names, err := repositories(ctx, s.view)
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
		k := &keeper{view: s.view, name: name, limit: s.limit}
		parts := imageRule.FindStringSubmatch(name)
		if parts == nil { // not made by this program, so none of its business
			k.all = true
		} else if hash, ok := images[parts[1]]; ok {
			if name == parts[1] {
				k.hash, _ = hexOf(hash)
			}
		} else if young, err := s.view.young(ctx, repositoryDir(name), s.limit); err != nil {
			return err
		} else if young {
			k.all = true
		} else {
			dropped = append(dropped, name)
			continue
		}
		if err := k.mark(ctx, s.needed); err != nil {
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
				gone, err = s.discard(ctx, repositoryDir(name))
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
	return s.empty(ctx)
}

// discard takes a folder away, or says whether it would.
func (s *sweep) discard(ctx context.Context, dir string) (bool, error) {
	if s.dry {
		young, err := s.view.young(ctx, dir, s.limit)
		return !young && err == nil, err
	}
	return s.place.discard(ctx, dir, s.limit)
}

func (s *sweep) empty(ctx context.Context) error {
	if s.dry {
		return nil
	}
	return s.place.empty(ctx)
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
		}{{revisionsDir(k.name), &s.done.Manifests}, {layersDir(k.name), &s.done.Links}} {
			if err := s.dropOf(ctx, of.dir, k.keeps, of.count); err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
		}
	}
	return s.empty(ctx)
}

// dropOf removes the digests in a folder that are not kept.
func (s *sweep) dropOf(ctx context.Context, dir string, kept map[string]bool, count *int) error {
	found, err := digests(ctx, s.view, dir)
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
		gone, err := s.discard(ctx, path.Join(dir, digest))
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
		ids, err := s.view.list(ctx, uploadsDir(k.name))
		if err != nil {
			return err
		}
		for _, id := range ids {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			gone, err := s.discard(ctx, path.Join(uploadsDir(k.name), id))
			if err != nil {
				return fmt.Errorf("%s: %w", k.name, err)
			}
			if gone {
				s.done.Uploads++
			}
		}
	}
	return s.empty(ctx)
}

func (s *sweep) dropBlobs(ctx context.Context) error {
	err := eachBlob(ctx, s.view, func(digest string) error {
		info, err := s.view.stat(ctx, blobFile(digest))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		gone := false
		if !s.needed[digest] {
			if gone, err = s.discard(ctx, blobDir(digest)); err != nil {
				return err
			}
		}
		if gone {
			s.done.Blobs++
			s.done.Bytes += info.size
		} else {
			s.done.KeptBlobs++
			s.done.KeptBytes += info.size
		}
		return nil
	})
	return errors.Join(err, s.empty(ctx))
}

// keeper finds what of a repository stays.
type keeper struct {
	view  view
	name  string
	hash  string    // of the image's manifest, if it is known
	limit time.Time // links that were used later stay
	all   bool      // everything

	keeps      map[string]bool // manifests and layers
	unreadable bool
}

// mark notes in needed the blobs that the repository needs.
func (k *keeper) mark(ctx context.Context, needed map[string]bool) error {
	k.keeps = map[string]bool{}
	roots, err := k.roots(ctx)
	if err != nil {
		return err
	}
	for _, digest := range roots {
		if err := k.keep(ctx, digest, 0); err != nil {
			return err
		}
	}
	layers, err := digests(ctx, k.view, layersDir(k.name))
	if err != nil {
		return err
	}
	for _, digest := range layers {
		if k.all || k.unreadable || k.used(ctx, linkIn(layersDir(k.name), digest)) {
			k.keeps[digest] = true
		}
	}
	for digest := range k.keeps {
		needed[digest] = true
	}
	return nil
}

// roots are the manifests that are asked for by name, or were lately.
func (k *keeper) roots(ctx context.Context) ([]string, error) {
	revisions, err := digests(ctx, k.view, revisionsDir(k.name))
	if err != nil {
		return nil, err
	}
	current, err := k.tagged(ctx)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, digest := range revisions {
		if k.all || digest == k.hash || current[digest] || k.used(ctx, linkIn(revisionsDir(k.name), digest)) {
			roots = append(roots, digest)
		}
	}
	return roots, nil
}

// tagged are the digests that tags stand for.
func (k *keeper) tagged(ctx context.Context) (map[string]bool, error) {
	tags, err := k.view.list(ctx, tagsDir(k.name))
	if err != nil {
		return nil, err
	}
	current := map[string]bool{}
	for _, tag := range tags {
		b, err := k.view.read(ctx, path.Join(tagsDir(k.name), tag, "current", "link"))
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
func (k *keeper) keep(ctx context.Context, digest string, depth int) error {
	if k.keeps[digest] || depth > deepest {
		return nil
	}
	k.keeps[digest] = true
	m, err := readManifest(ctx, k.view, digest)
	if err != nil {
		// Whatever it is, nothing is removed on a guess.
		k.unreadable = true
		return nil //nolint:nilerr // told by unreadable
	}
	for _, blob := range m.blobs {
		k.keeps[blob] = true
	}
	for _, part := range m.manifests {
		if _, err := k.view.stat(ctx, linkIn(revisionsDir(k.name), part)); errors.Is(err, fs.ErrNotExist) {
			continue // only some platforms of an index were pushed
		}
		if err := k.keep(ctx, part, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (k *keeper) used(ctx context.Context, link string) bool {
	s, err := k.view.stat(ctx, link)
	return err == nil && s.used.After(k.limit)
}
