// Package doctor looks at a cloud, running or not, for what its owner should know,
// and says for each thing found what to do. It repairs nothing.
package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"deckhand/build"
	"deckhand/cloud/bucket"
	"deckhand/cloud/model"
	"deckhand/cloud/registry"
)

// Level is how bad a finding is.
type Level string

const (
	// OK is fine.
	OK Level = "ok"
	// Warning becomes a problem, or is one for some.
	Warning Level = "warning"
	// Error is a problem.
	Error Level = "error"
)

// Finding is what one look found.
type Finding struct {
	Check string `json:"check"`
	Level Level  `json:"level"`
	Text  string `json:"text"`
	Do    string `json:"do,omitempty"` // what to do about it
}

// Patient is the cloud to look at.
type Patient struct {
	DataDir, Database, RegistryDir string
	RegistryStorage                string // the bucket of the images; "": they are in RegistryDir
	TLSCert, TLSKey                string // "" when a proxy does TLS
	Engine                         string // that builds
	Grace                          time.Duration
	Now                            func() time.Time // time.Now when nil
}

// Limits of what is fine.
const (
	freeWarning, freeError = 0.10, 0.03 // of a disk
	certificateWarning     = 30 * 24 * time.Hour
	clockWarning           = 10 * time.Second
	bucketClockWarning     = 5 * time.Minute // stores refuse 15
	engineTime             = 10 * time.Second
	mostImages             = 20 // that are named
)

// visit is one look at a cloud.
type visit struct {
	Patient
	findings []Finding
}

func (v *visit) add(check string, level Level, do, text string, args ...any) {
	v.findings = append(v.findings, Finding{Check: check, Level: level, Text: fmt.Sprintf(text, args...), Do: do})
}

// Examine looks at everything.
func Examine(ctx context.Context, p Patient) []Finding {
	if p.Now == nil {
		p.Now = time.Now
	}
	v := &visit{Patient: p}
	v.database(ctx)
	v.disk("disk of the data", p.DataDir)
	if p.RegistryStorage == "" && p.RegistryDir != filepath.Join(p.DataDir, "registry") {
		v.disk("disk of the images", p.RegistryDir)
	}
	v.permissions()
	v.certificate()
	v.engine(ctx)
	return v.findings
}

// Worst is the highest level of the findings.
func Worst(findings []Finding) Level {
	worst := OK
	for _, f := range findings {
		if f.Level == Error || worst == OK {
			worst = f.Level
		}
	}
	return worst
}

func (v *visit) database(ctx context.Context) {
	db, err := model.OpenBeside(ctx, model.Config{Path: filepath.Join(v.DataDir, "cloud.db"), Database: v.Database, Now: v.Now})
	if err != nil {
		v.add("database", Error, "do what the message says; the last resort is deckhand-cloud restore with a backup", "%s", err)
		return
	}
	defer db.Close()
	schema, err := db.Schema(ctx)
	if err != nil {
		v.add("database", Error, "look at the message", "%s", err)
		return
	}
	v.add("database", OK, "", "answers; its schema has version %d, as this program", schema.Version)
	problems, err := db.Integrity(ctx)
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, problem := range problems {
		v.add("integrity of the database", Error, "stop the cloud and restore a backup with deckhand-cloud restore", "%s", problem)
	}
	if len(problems) == 0 {
		v.add("integrity of the database", OK, "", "is whole, and all rows refer to rows that exist")
	}
	v.clock(ctx, db)
	if storage, ok := v.storage(ctx); ok {
		v.images(ctx, db, storage)
		v.garbage(ctx, db, storage)
	}
}

func (v *visit) clock(ctx context.Context, db *model.DB) {
	const check, do = "clock", "let this machine and the database's keep the time with NTP (timedatectl): sessions, tokens and certificates go by it"
	ahead, err := db.ClockAhead(ctx)
	switch {
	case err != nil:
		v.add(check, Error, "look at the message", "%s", err)
	case ahead.Abs() > clockWarning && db.Shared():
		v.add(check, Error, do, "the database's clock differs from ours by %s", ahead.Round(time.Second))
	case ahead > clockWarning:
		v.add(check, Error, do, "our clock goes back: the newest row was written %s from now", ahead.Round(time.Second))
	default:
		v.add(check, OK, "", "agrees with the database")
	}
}

// storage opens where the images are; false: it cannot be used.
func (v *visit) storage(ctx context.Context) (registry.Storage, bool) {
	const check = "bucket of the images"
	s := registry.Storage{Dir: v.RegistryDir}
	if v.RegistryStorage == "" {
		return s, true
	}
	a, err := bucket.ParseAddress(v.RegistryStorage)
	if err == nil {
		s.Bucket, err = bucket.Open(ctx, a)
	}
	if err == nil {
		err = s.Bucket.Check(ctx)
	}
	if err != nil {
		v.add(check, Error, "correct --registry-storage, or do what the message says", "%s", err)
		return s, false
	}
	now, err := s.Bucket.Clock(ctx)
	if ahead := now.Sub(v.Now()); err == nil && ahead.Abs() > bucketClockWarning {
		v.add(check, Warning, "let this machine keep the time with NTP (timedatectl): the store refuses requests whose time is wrong", "%s answers; its clock differs from ours by %s", s.Bucket, ahead.Round(time.Second))
		return s, true
	}
	v.add(check, OK, "", "%s answers", s.Bucket)
	return s, true
}

func (v *visit) images(ctx context.Context, db *model.DB, storage registry.Storage) {
	const check = "images of releases"
	stored, err := db.StoredImages(ctx, v.Now())
	if err != nil {
		v.add(check, Error, "look at the message", "%s", err)
		return
	}
	images, err := registry.Look(ctx, storage)
	if err != nil {
		v.add(check, Error, "look at the message", "%s", err)
		return
	}
	good, bad := 0, 0
	for _, i := range stored {
		if !i.Done || i.ContentHash == "" {
			continue
		}
		err := images.Complete(ctx, i.Repository, i.ContentHash)
		if err == nil {
			good++
			continue
		}
		if bad++; bad <= mostImages {
			v.add(check, Error, "push the release again, or delete it; devices that do not have the image cannot run it", "release %s: %s", i.Release, err)
		}
	}
	if bad > mostImages {
		v.add(check, Error, "see above; perhaps --registry-dir is another folder, or a backup was restored without images", "%d more", bad-mostImages)
	}
	if bad == 0 {
		v.add(check, OK, "", "all %d are in the registry", good)
	}
}

func (v *visit) garbage(ctx context.Context, db *model.DB, storage registry.Storage) {
	const check = "images that no release needs"
	found, err := registry.NewCollector(registry.CollectorConfig{Storage: storage, Records: db, Grace: v.Grace}).Look(ctx)
	switch {
	case err != nil:
		v.add(check, Error, "look at the message", "%s", err)
	case found.Blobs > 0:
		v.add(check, Warning, "free the room with deckhand-cloud gc; a running cloud does it by itself, see --gc-interval", "%d blobs with %s, of %s", found.Blobs, registry.Size(found.Bytes), registry.Size(found.Bytes+found.KeptBytes))
	default:
		v.add(check, OK, "", "none; %d blobs have %s", found.KeptBlobs, registry.Size(found.KeptBytes))
	}
	for _, name := range found.Unreadable {
		v.add("manifests in the registry", Error, "push the release again; until then nothing of the repository is cleared up", "one of %s cannot be read", name)
	}
}

func (v *visit) disk(check, dir string) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			v.add(check, Error, "look at the message", "%s: %s", dir, err)
		}
		return
	}
	size, free := float64(s.Blocks)*float64(s.Bsize), float64(s.Bavail)*float64(s.Bsize)
	level, do := OK, ""
	if share := free / size; share < freeWarning {
		level, do = Warning, "free room: delete releases and run deckhand-cloud gc, or move the folder to a larger disk"
		if share < freeError {
			level = Error
		}
	}
	v.add(check, level, do, "%s of %s are free", registry.Size(int64(free)), registry.Size(int64(size)))
	if s.Files > 0 && float64(s.Ffree)/float64(s.Files) < freeError {
		v.add(check, Error, "delete small files, or make the file system anew with more inodes", "%d of %d inodes are free", s.Ffree, s.Files)
	}
}

// permissions looks whether others can read secrets.
func (v *visit) permissions() {
	const check = "permissions of secrets"
	open := 0
	look := func(path string) {
		info, err := os.Stat(path)
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			open++
			v.add(check, Error, "chmod go= "+path+"; if others may have read it, also remove it, which ends all sessions or tokens made with it", "others can use %s (%s)", path, info.Mode().Perm())
		}
	}
	for _, name := range []string{"keys", "cloud.db", "cloud.db-wal"} {
		look(filepath.Join(v.DataDir, name))
	}
	entries, err := os.ReadDir(filepath.Join(v.DataDir, "keys"))
	if err != nil && (v.Database == "" || !errors.Is(err, fs.ErrNotExist)) { // servers on PostgreSQL have them there
		open++
		v.add(check, Error, "restore the folder from a backup; a start without it makes new keys, and everybody must log in again", "%s", err)
	}
	for _, e := range entries {
		look(filepath.Join(v.DataDir, "keys", e.Name()))
	}
	if v.TLSKey != "" {
		look(v.TLSKey)
	}
	if open == 0 {
		v.add(check, OK, "", "only the owner can read keys and database")
	}
}

func (v *visit) certificate() {
	const check = "TLS certificate"
	if v.TLSCert == "" {
		return
	}
	pair, err := tls.LoadX509KeyPair(v.TLSCert, v.TLSKey)
	if err != nil {
		v.add(check, Error, "give the files of one certificate with --tls-cert and --tls-key, as PEM", "%s", err)
		return
	}
	leaf, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		v.add(check, Error, "make a new certificate", "%s", err)
		return
	}
	const renew = "renew it, and start the cloud again: it reads it only then"
	now, until := v.Now(), leaf.NotAfter.Format(time.DateOnly)
	switch {
	case now.After(leaf.NotAfter):
		v.add(check, Error, renew, "ended on %s", until)
	case now.Before(leaf.NotBefore):
		v.add(check, Error, "check the clock", "begins only on %s", leaf.NotBefore.Format(time.DateOnly))
	case leaf.NotAfter.Sub(now) < certificateWarning:
		v.add(check, Warning, renew, "ends on %s", until)
	default:
		v.add(check, OK, "", "is good until %s", until)
	}
}

func (v *visit) engine(ctx context.Context) {
	const check = "engine that builds"
	if v.Engine == "" {
		return
	}
	engine, err := build.NewEngine(v.Engine)
	if err == nil {
		ctx, cancel := context.WithTimeout(ctx, engineTime)
		defer cancel()
		var arch string
		arch, err = engine.Arch(ctx)
		if err == nil {
			v.add(check, OK, "", "answers; it builds for %s", arch)
		}
		err = errors.Join(err, engine.Close())
	}
	if err != nil {
		v.add(check, Warning, "start the engine, or name another one with --engine; all but builds works without, as do builds elsewhere", "%s", err)
	}
}
