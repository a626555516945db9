package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"deckhand/cloud/model"
)

// Target is where a cloud is to be.
type Target struct {
	DataDir  string // missing or empty
	Database string // URL of an empty PostgreSQL database, for a backup of one
	// RegistryDir is where the images go; "registry" in DataDir when empty.
	RegistryDir string
}

// maxDocument bounds the documents in a backup, in bytes: the checksums name every
// file.
const maxDocument = 1 << 30

// Restore makes a cloud of a backup. Nothing is put in place before all of the
// backup was read and found whole.
func Restore(ctx context.Context, r io.Reader, to Target) (_ About, err error) {
	if err := empty(ctx, to); err != nil {
		return About{}, err
	}
	if err := os.MkdirAll(to.DataDir, 0o700); err != nil {
		return About{}, err
	}
	dir, err := os.MkdirTemp(to.DataDir, ".restore-")
	if err != nil {
		return About{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	u := &unpacking{dir: dir, sums: map[string]string{}}
	if err := u.read(ctx, r); err != nil {
		return About{}, fmt.Errorf("the backup is damaged: %w; use another one", err)
	}
	if err := u.check(ctx, to); err != nil {
		return About{}, err
	}
	return u.about, u.place(ctx, to)
}

// empty refuses to write over a cloud.
func empty(ctx context.Context, to Target) error {
	for _, dir := range []string{to.DataDir, to.RegistryDir} {
		if dir == "" {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if len(entries) > 0 {
			return fmt.Errorf("%s is not empty; give a folder that is, with --data-dir or --registry-dir", dir)
		}
	}
	if to.Database == "" {
		return nil
	}
	ok, err := model.IsEmpty(ctx, to.Database)
	if err == nil && !ok {
		err = errors.New("the database is not empty; make a new one with createdb")
	}
	return err
}

// unpacking is a backup that is being read into a folder.
type unpacking struct {
	dir   string
	about About
	sums  map[string]string
}

func (u *unpacking) read(ctx context.Context, r io.Reader) error {
	packed, err := gzip.NewReader(r)
	if err != nil {
		return fmt.Errorf("it is no backup: %w", err)
	}
	files := tar.NewReader(packed)
	for n := 0; ; n++ {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return errors.New("its end is missing")
		}
		if err != nil {
			return err
		}
		switch {
		case n == 0:
			if err := u.begin(h, files); err != nil {
				return err
			}
		case h.Name == checksName:
			if err := u.compare(h, files); err != nil {
				return err
			}
			// The rest holds the checksum of the packed data.
			_, err := io.Copy(io.Discard, packed)
			return err
		default:
			if err := u.file(h, files); err != nil {
				return err
			}
		}
	}
}

func (u *unpacking) begin(h *tar.Header, r io.Reader) error {
	if h.Name != aboutName {
		return errors.New("it is no backup of a cloud")
	}
	b, err := document(h, r)
	if err != nil {
		return err
	}
	u.note(h.Name, b)
	if err := json.Unmarshal(b, &u.about); err != nil {
		return err
	}
	if u.about.Format != format {
		return fmt.Errorf("its format %d is not known to this program: use a newer deckhand-cloud", u.about.Format)
	}
	return nil
}

func (u *unpacking) note(name string, b []byte) {
	sum := sha256.Sum256(b)
	u.sums[name] = hex.EncodeToString(sum[:])
}

func document(h *tar.Header, r io.Reader) ([]byte, error) {
	if h.Size > maxDocument {
		return nil, fmt.Errorf("%s has %d bytes", h.Name, h.Size)
	}
	return io.ReadAll(r)
}

func (u *unpacking) compare(h *tar.Header, r io.Reader) error {
	b, err := document(h, r)
	if err != nil {
		return err
	}
	want := map[string]string{}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(&want); err != nil {
		return err
	}
	if !maps.Equal(want, u.sums) {
		return errors.New("checksums differ")
	}
	return nil
}

// wanted says which files belong into a backup.
func wanted(name string) bool {
	return path.Clean(name) == name && filepath.IsLocal(name) &&
		(name == databaseName || name == dumpName || strings.HasPrefix(name, "keys/") || strings.HasPrefix(name, "registry/images/") || strings.HasPrefix(name, "registry/assets/"))
}

func (u *unpacking) file(h *tar.Header, r io.Reader) error {
	if !wanted(h.Name) || h.Typeflag != tar.TypeReg {
		return fmt.Errorf("%q does not belong into it", h.Name)
	}
	to := filepath.Join(u.dir, filepath.FromSlash(h.Name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), r)
	if err == nil {
		err = f.Sync()
	}
	u.sums[h.Name] = hex.EncodeToString(sum.Sum(nil))
	return errors.Join(err, f.Close())
}

// check makes sure that this program can use what was unpacked.
func (u *unpacking) check(ctx context.Context, to Target) error {
	newest, err := model.NewestSchema()
	if err != nil {
		return err
	}
	if u.about.Schema > newest {
		return fmt.Errorf("the backup has schema %d and this program knows %d: it was made by a newer deckhand-cloud (%s); use that one", u.about.Schema, newest, u.about.Version)
	}
	switch {
	case u.about.Database == postgres && to.Database == "":
		return errors.New("the backup is of a PostgreSQL database: give an empty one with --database")
	case u.about.Database == sqliteKind && to.Database != "":
		return errors.New("the backup is of a database file and cannot go into PostgreSQL: leave --database away")
	case u.about.Database == sqliteKind:
		if _, err := model.CheckFile(ctx, filepath.Join(u.dir, databaseName)); err != nil {
			return fmt.Errorf("the database in the backup: %w", err)
		}
	}
	return nil
}

// place puts everything where it belongs, the database last: without one there is
// no cloud yet.
func (u *unpacking) place(ctx context.Context, to Target) error {
	move := func(name, into string) error {
		err := os.Rename(filepath.Join(u.dir, name), into)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if err := move("keys", filepath.Join(to.DataDir, "keys")); err != nil {
		return err
	}
	images := to.RegistryDir
	if images == "" {
		images = filepath.Join(to.DataDir, "registry")
	}
	if u.about.Images {
		if err := os.MkdirAll(images, 0o700); err != nil {
			return err
		}
		for _, what := range []string{"images", "assets"} {
			if err := move("registry/"+what, filepath.Join(images, what)); err != nil {
				return fmt.Errorf("%w; the folder of the images must be on the disk of --data-dir to restore into it", err)
			}
		}
	}
	if u.about.Database == postgres {
		return run(ctx, "pg_restore", to.Database, "--no-owner", "--no-privileges", "--exit-on-error", "--single-transaction", filepath.Join(u.dir, dumpName))
	}
	return move(databaseName, filepath.Join(to.DataDir, databaseName))
}
