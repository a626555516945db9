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
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"deckhand/cloud/bucket"
	"deckhand/cloud/model"
	"deckhand/cloud/registry"
	"deckhand/version"
)

// Names in the file.
const (
	aboutName    = "backup.json"
	databaseName = "cloud.db"
	dumpName     = "database.dump"
	checksName   = "checksums.json"
)

// About says what a backup is.
type About struct {
	Format   int       `json:"format"` // 1
	Made     time.Time `json:"made"`
	Version  string    `json:"version"` // of the program
	Database string    `json:"database"`
	Schema   int64     `json:"schema"`
	Images   bool      `json:"images"`
	Storage  string    `json:"storage,omitempty"` // the bucket that has the images
	Cloud    string    `json:"cloud"`             // its ID
}

const (
	format     = 1
	sqliteKind = "sqlite"
	postgres   = "postgresql"
)

// Source is a cloud.
type Source struct {
	DataDir     string
	Database    string // URL of PostgreSQL; "" for the file in DataDir
	RegistryDir string
	// RegistryStorage is the address of the bucket that has the images; "" when they are
	// in the folder. They are not copied from there.
	RegistryStorage string
	Images          bool // copy the images and assets of releases, too
}

// Write copies the cloud, which may be running, to w. All that was acknowledged
// before Write began is in the copy.
func Write(ctx context.Context, from Source, w io.Writer) (err error) {
	storage, err := bucketOf(from)
	if err != nil {
		return err
	}
	db, err := model.OpenBeside(ctx, model.Config{Path: filepath.Join(from.DataDir, "cloud.db"), Database: from.Database})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if !from.Images {
		return write(ctx, db, from, storage, w)
	}
	// The database is copied first, and then nothing that it needs may go.
	err = db.Hold(ctx, registry.CollectionLease, func(ctx context.Context) error { return write(ctx, db, from, "", w) })
	if _, held := errors.AsType[*model.HeldError](err); held {
		return fmt.Errorf("the registry is being cleared up: %w", err)
	}
	return err
}

// bucketOf is the bucket that has the images.
func bucketOf(from Source) (string, error) {
	if from.RegistryStorage == "" {
		return "", nil
	}
	a, err := bucket.ParseAddress(from.RegistryStorage)
	if err != nil {
		return "", fmt.Errorf("read --registry-storage: %w", err)
	}
	if from.Images {
		return "", fmt.Errorf("the images are in %s, from where they are not copied: leave --images away, and keep older versions of objects or a replica with the means of the store", a)
	}
	return a.String(), nil
}

func write(ctx context.Context, db *model.DB, from Source, storage string, w io.Writer) error {
	about := About{Format: format, Made: time.Now().UTC(), Version: version.Version, Database: sqliteKind, Images: from.Images, Storage: storage}
	if db.Shared() {
		about.Database = postgres
	}
	schema, err := db.Schema(ctx)
	if err != nil {
		return err
	}
	about.Schema = schema.Version
	if about.Cloud, err = db.CloudID(ctx); err != nil {
		return err
	}
	packed, err := gzip.NewWriterLevel(w, gzip.BestSpeed)
	if err != nil {
		return err
	}
	a := &archive{tar: tar.NewWriter(packed), sums: map[string]string{}, made: about.Made}
	if err := a.document(aboutName, about); err != nil {
		return err
	}
	if err := a.database(ctx, db, from); err != nil {
		return err
	}
	if err := a.folder(ctx, filepath.Join(from.DataDir, "keys"), "keys"); err != nil {
		return fmt.Errorf("copy keys: %w", err)
	}
	if from.Images {
		// Uploads, locks and what is being removed are not worth a copy.
		if err := a.folder(ctx, filepath.Join(from.RegistryDir, "images"), "registry/images"); err != nil {
			return fmt.Errorf("copy images: %w", err)
		}
		if err := a.folder(ctx, filepath.Join(from.RegistryDir, "assets"), "registry/assets"); err != nil {
			return fmt.Errorf("copy assets of releases: %w", err)
		}
	}
	if err := a.document(checksName, a.sums); err != nil {
		return err
	}
	return errors.Join(a.tar.Close(), packed.Close())
}

// archive is a backup that is being written.
type archive struct {
	tar  *tar.Writer
	sums map[string]string // name → SHA-256 in hex
	made time.Time
}

func (a *archive) document(name string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return a.add(name, int64(len(b)), bytes.NewReader(b))
}

func (a *archive) add(name string, size int64, r io.Reader) error {
	if err := a.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: a.made, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.CopyN(a.tar, io.TeeReader(r, sum), size); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	a.sums[name] = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// killedAge is how old a copy is that nobody works on any more.
const killedAge = 24 * time.Hour

// forgetKilled removes what backups left that were killed.
func forgetKilled(dataDir string) error {
	left, err := filepath.Glob(filepath.Join(dataDir, ".backup-*"))
	for _, dir := range left {
		info, statErr := os.Stat(dir)
		if statErr == nil && time.Since(info.ModTime()) > killedAge {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}

func (a *archive) file(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	return a.add(name, info.Size(), f)
}

// database adds the database as it is at one moment.
func (a *archive) database(ctx context.Context, db *model.DB, from Source) (err error) {
	if err := forgetKilled(from.DataDir); err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	dir, err := os.MkdirTemp(from.DataDir, ".backup-") // mode 0700; beside the database, where there is room for one
	if err != nil {
		return fmt.Errorf("copy the database: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if db.Shared() {
		copied := filepath.Join(dir, dumpName)
		if err := run(ctx, "pg_dump", from.Database, "--format=custom", "--no-owner", "--no-privileges", "--file="+copied); err != nil {
			return err
		}
		return a.file(dumpName, copied)
	}
	copied := filepath.Join(dir, databaseName)
	if err := db.Snapshot(ctx, copied); err != nil {
		return err
	}
	return a.file(databaseName, copied)
}

// folder adds the files below a folder. Those that vanish meanwhile were not
// needed, or the images' database copy would name them.
func (a *archive) folder(ctx context.Context, dir, name string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case d.IsDir() && d.Name() == "_uploads":
			return fs.SkipDir
		case !d.Type().IsRegular() || strings.HasSuffix(path, ".tmp"):
			return nil
		}
		below, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		err = a.file(name+"/"+filepath.ToSlash(below), path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
}

// run runs a program of PostgreSQL on a database. The password goes by its
// environment: others can read a command line.
func run(ctx context.Context, program, database string, args ...string) error {
	path, err := exec.LookPath(program)
	if err != nil {
		return fmt.Errorf("%s is not installed: install the client programs of PostgreSQL (Debian: postgresql-client), in the server's version or newer", program)
	}
	u, err := url.Parse(database)
	if err != nil {
		return errors.New("read database URL: it looks like postgres://user:password@host:5432/name")
	}
	env := os.Environ()
	if password, ok := u.User.Password(); ok {
		env = append(env, "PGPASSWORD="+password)
		u.User = url.User(u.User.Username())
	}
	cmd := exec.CommandContext(ctx, path, append(args, "--dbname="+u.String())...) //nolint:gosec // the program's name is ours
	cmd.Env = env
	var said bytes.Buffer
	cmd.Stderr = &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(said.String()))
	}
	return nil
}

// WriteFile writes a backup to a file that only its owner may read. It appears under
// its name when it is whole, and replaces none.
func WriteFile(ctx context.Context, from Source, path string) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%s exists; choose another name", path)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	err = Write(ctx, from, f)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
