package asset

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/bucket"
	"deckhand/cloud/model"
)

// Config says where the files are.
type Config struct {
	// Dir is made when missing. Servers that share a database share it, unless the files
	// are in a bucket.
	Dir string
	// Bucket is where the files are; nil: in Dir.
	Bucket *bucket.Store
	DB     *model.DB
	// Limit is the size in bytes of the largest file; DefaultLimit when 0.
	Limit int64
}

// DefaultLimit is the size in bytes of the largest file: an OS image fits.
const DefaultLimit = 4 << 30

const (
	maxParts = 10_000
	// uploadLife is how long an upload may take.
	uploadLife = 24 * time.Hour
)

// Store is the files of all releases.
type Store struct {
	shelf shelf
	dir   string // of what is being received
	db    *model.DB
	limit int64
}

// New opens the store.
func New(cfg Config) (*Store, error) {
	s := &Store{shelf: folder{cfg.Dir}, dir: cfg.Dir, db: cfg.DB, limit: cfg.Limit}
	subs := []string{files, uploads, partial}
	if cfg.Bucket != nil {
		s.shelf, subs = inBucket{cfg.Bucket, cfg.Dir}, []string{partial}
	}
	if s.limit == 0 {
		s.limit = DefaultLimit
	}
	for _, sub := range subs {
		if err := os.MkdirAll(filepath.Join(s.dir, sub), 0o700); err != nil {
			return nil, fmt.Errorf("open assets: %w", err)
		}
	}
	return s, nil
}

// partial has what is being received.
const partial = "partial"

// newName is 128 random bits: nobody guesses it.
func newName() string {
	b := make([]byte, 16)
	rand.Read(b) // never fails since Go 1.24
	return hex.EncodeToString(b)
}

// Receive stores a whole file. It is removed after a while unless an asset is
// given it; Discard removes it at once. A *answer.BodyError says that it is too
// large.
func (s *Store) Receive(body io.Reader, filename, contentType string) (model.AssetFile, error) {
	f := model.AssetFile{ID: newName(), Filename: cleanName(filename), ContentType: cleanType(contentType)}
	got, err := s.receive(body, s.limit)
	if err != nil {
		return f, fmt.Errorf("store file: %w", err)
	}
	defer os.Remove(got.path)
	f.Size = got.size
	if err := s.shelf.whole(context.Background(), f.ID, partName(1, got.sum), got); err != nil {
		return f, fmt.Errorf("store file: %w", err)
	}
	return f, nil
}

// Discard removes a file that no asset was given.
func (s *Store) Discard(f model.AssetFile) error {
	return s.shelf.discard(context.Background(), f.ID)
}

// received is content in a file of its own.
type received struct {
	path, sum string
	size      int64
}

// receive reads up to limit bytes into a file; the caller moves or removes it.
func (s *Store) receive(body io.Reader, limit int64) (got received, err error) {
	f, err := os.CreateTemp(filepath.Join(s.dir, partial), "")
	if err != nil {
		return got, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	sum := sha256.New()
	from := &source{Reader: body}
	n, err := io.Copy(io.MultiWriter(f, sum), io.LimitReader(from, limit+1))
	if from.broken {
		err = &answer.BodyError{Status: http.StatusBadRequest, Reason: fmt.Sprintf("The content ended too early: %v.", err)}
	}
	if err == nil && n > limit {
		err = &answer.BodyError{Status: http.StatusRequestEntityTooLarge, Reason: fmt.Sprintf("This has more than %d bytes.", limit)}
	}
	if err == nil {
		err = f.Sync()
	}
	return received{f.Name(), hex.EncodeToString(sum.Sum(nil)), n}, errors.Join(err, f.Close())
}

// source tells whether it was at fault.
type source struct {
	io.Reader
	broken bool
}

func (s *source) Read(b []byte) (int, error) {
	n, err := s.Reader.Read(b)
	s.broken = err != nil && !errors.Is(err, io.EOF)
	return n, err
}

func partName(n int64, sum string) string { return fmt.Sprintf("%05d-%s", n, sum) }

// cleanName is a file name without folders and characters that no terminal should
// see.
func cleanName(name string) string {
	name = name[strings.LastIndexAny(name, `/\`)+1:]
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	if name == "" || len(name) > 255 {
		return "asset"
	}
	return name
}

func cleanType(contentType string) string {
	if kind, parameters, err := mime.ParseMediaType(contentType); err == nil && len(contentType) <= 255 {
		if clean := mime.FormatMediaType(kind, parameters); clean != "" {
			return clean
		}
	}
	return "application/octet-stream"
}

// grace is how long what no asset needs stays: it may be about to be given one.
const grace = time.Hour

// Run removes what no asset needs, every ten minutes until the context ends.
func (s *Store) Run(ctx context.Context, failed func(error)) error {
	tick := time.NewTicker(10 * time.Minute)
	defer tick.Stop()
	for {
		if _, err := s.Collect(ctx, grace); err != nil && ctx.Err() == nil {
			failed(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Collect removes what no asset needs and nobody wrote to for as long as grace, and
// says how many files and parts of files that were.
func (s *Store) Collect(ctx context.Context, grace time.Duration) (removed int, err error) {
	id, err := s.db.CloudID(ctx)
	var owner string
	if err == nil {
		owner, err = s.shelf.owner(ctx, id)
	}
	if err == nil && owner != id {
		// Its database would need none of what is there.
		err = errors.New("the files belong to another cloud; give each cloud a place of its own, or remove the file with cloud-id in its name there when they are to be ours")
	}
	if err == nil {
		removed, err = s.shelf.collect(ctx, grace, func() (map[string]bool, error) { return s.db.StoredAssets(ctx) })
	}
	if err != nil {
		return removed, fmt.Errorf("clear up assets in %s: %w", s.shelf, err)
	}
	return removed, nil
}
