package model

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Statuses of a release and of an image.
const (
	StatusRunning   = "running"   // being built
	StatusSuccess   = "success"   // built and pushed
	StatusFailed    = "failed"    // the user's build failed
	StatusError     = "error"     // the builder failed
	StatusCancelled = "cancelled" // somebody stopped it
)

// Release is one version of a fleet's software: a composition and an image
// per service.
type Release struct {
	ID, Fleet   int64
	Commit      string
	Status      string
	Source      string // cloud (built here) or local (pushed ready-made)
	BuildLog    string
	Semver      string // major.minor.patch[-prerelease][+build]
	RawVersion  string // Semver with revision or draft time, as people see it
	Revision    int64  // how many final releases of the same semver came before
	Composition json.RawMessage
	Final       bool // false: a draft, which is never followed automatically
	StartedAt   time.Time
	EndedAt     time.Time
	CreatedAt   time.Time
}

// Image is what one service of a release is made of.
type Image struct {
	ID, Release, ServiceID int64
	Service                string
	Location               string // <registry host>/v2/<32 hex>
	ContentHash            string // sha256:<64 hex> of the manifest; empty until pushed
	Status                 string
	ProjectType            string
	ErrorMessage           string
	BuildLog               string
	Dockerfile             string
	Size                   int64 // bytes
	StartedAt              time.Time
	EndedAt                time.Time
	PushedAt               time.Time
}

const releaseQuery = `
	SELECT id, belongs_to__application, "commit", status, source, coalesce(build_log, ''), composition,
	       semver_major, semver_minor, semver_patch, semver_prerelease, semver_build, variant, revision,
	       start_timestamp, end_timestamp, created_at
	FROM release`

func scanRelease(row interface{ Scan(...any) error }) (Release, error) {
	var r Release
	var v version
	var composition string
	var started, ended, created sql.NullInt64
	err := row.Scan(&r.ID, &r.Fleet, &r.Commit, &r.Status, &r.Source, &r.BuildLog, &composition,
		&v.Major, &v.Minor, &v.Patch, &v.Prerelease, &v.Build, &v.Variant, &v.Revision, &started, &ended, &created)
	r.Composition = json.RawMessage(composition)
	r.StartedAt, r.EndedAt, r.CreatedAt = fromMillis(started), fromMillis(ended), fromMillis(created)
	r.Semver, r.RawVersion = v.semver(), v.raw(created.Int64)
	r.Revision, r.Final = v.Revision.Int64, v.Revision.Valid
	return r, err
}

// ReleaseByID finds a release by id.
func (db *DB) ReleaseByID(ctx context.Context, id int64) (Release, error) {
	r, err := scanRelease(db.read.QueryRowContext(ctx, releaseQuery+` WHERE id = ?`, id))
	return r, notFound(err, "release %d", id)
}

// NewRelease describes a release whose build begins now.
type NewRelease struct {
	Fleet       int64
	Commit      string // hex, up to 40 characters
	Source      string // cloud or local
	Composition json.RawMessage
	Final       bool
	Semver      string // 0.0.0 when empty
	User        int64  // who made it; 0: unknown
}

// maxDocument is the size in bytes up to which compositions and logs are kept.
const maxDocument = 1_000_000

// CreateRelease adds a release with status running. One that is built here (source
// cloud) is this server's to build: see KeepBuild.
func (db *DB) CreateRelease(ctx context.Context, n NewRelease) (Release, error) {
	var r Release
	err := db.update(ctx, func(t *txn) error {
		by, err := t.forUser(ctx, n.User)
		if err != nil {
			return err
		}
		id, err := t.create(ctx, by, "release", Values{
			"belongs_to__application": n.Fleet, "commit": n.Commit, "composition": n.Composition, "status": StatusRunning,
			"source": n.Source, "is_final": n.Final, "semver": n.Semver, "start_timestamp": t.now,
		})
		if err != nil {
			return err
		}
		if n.Source == "cloud" {
			if err := t.leaseBuild(ctx, id, db.server); err != nil {
				return err
			}
		}
		r, err = scanRelease(t.QueryRowContext(ctx, releaseQuery+` WHERE id = ?`, id))
		return err
	})
	if err != nil {
		return Release{}, fmt.Errorf("create release: %w", err)
	}
	return r, nil
}

// NewImage describes the image of one service of a release.
type NewImage struct {
	Release     int64
	Service     string
	Labels      map[string]string
	Environment map[string]string
}

// AddImage adds an image with status running and a new random location to
// the release. The service is added to the fleet when it is new.
func (db *DB) AddImage(ctx context.Context, n NewImage) (Image, error) {
	var id int64
	err := db.update(ctx, func(t *txn) error {
		by, err := t.forRelease(ctx, n.Release)
		if err != nil {
			return err
		}
		service, err := t.service(ctx, by, n.Release, n.Service)
		if err != nil {
			return err
		}
		if id, err = t.create(ctx, by, "image", Values{"is_a_build_of__service": service, "status": StatusRunning, "start_timestamp": t.now}); err != nil {
			return err
		}
		part, err := t.create(ctx, by, "image__is_part_of__release", Values{"image": id, "is_part_of__release": n.Release})
		if err != nil {
			return err
		}
		return t.decorate(ctx, by, part, n.Labels, n.Environment)
	})
	if err != nil {
		return Image{}, fmt.Errorf("add image of service %s: %w", n.Service, err)
	}
	return db.ImageByID(ctx, id)
}

// forRelease is the cloud working on a release, for the user who began it.
func (t *txn) forRelease(ctx context.Context, release int64) (writer, error) {
	var user int64
	err := t.QueryRowContext(ctx, `SELECT coalesce(is_created_by__user, 0) FROM release WHERE id = ?`, release).Scan(&user)
	if err != nil {
		return writer{}, notFound(err, "release %d", release)
	}
	return t.forUser(ctx, user)
}

// forImage is the cloud working on an image, for the user whose release it is.
func (t *txn) forImage(ctx context.Context, image int64) (writer, error) {
	release, err := t.found(ctx, `SELECT is_part_of__release FROM image__is_part_of__release WHERE image = ? ORDER BY id LIMIT 1`, image)
	if err != nil {
		return writer{}, err
	}
	if release == 0 {
		return writer{}, fmt.Errorf("image %d: %w", image, ErrNotFound)
	}
	return t.forRelease(ctx, release)
}

// service is the service of that name in the release's fleet, made when missing.
func (t *txn) service(ctx context.Context, by writer, release int64, name string) (int64, error) {
	var fleet int64
	if err := t.QueryRowContext(ctx, `SELECT belongs_to__application FROM release WHERE id = ?`, release).Scan(&fleet); err != nil {
		return 0, notFound(err, "release %d", release)
	}
	id, err := t.found(ctx, `SELECT id FROM service WHERE application = ? AND service_name = ?`, fleet, name)
	if err != nil || id != 0 {
		return id, err
	}
	return t.create(ctx, by, "service", Values{"application": fleet, "service_name": name})
}

func (t *txn) decorate(ctx context.Context, by writer, part int64, labels, environment map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if _, err := t.create(ctx, by, "image_label", Values{"release_image": part, "label_name": name, "value": labels[name]}); err != nil {
			return fmt.Errorf("label %s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if _, err := t.create(ctx, by, "image_environment_variable", Values{"release_image": part, "name": name, "value": environment[name]}); err != nil {
			return fmt.Errorf("environment variable %s: %w", name, err)
		}
	}
	return nil
}

const imageQuery = `
	SELECT i.id, p.is_part_of__release, s.id, s.service_name, i.is_stored_at__image_location, coalesce(i.content_hash, ''), i.status,
	       coalesce(i.project_type, ''), coalesce(i.error_message, ''), coalesce(i.build_log, ''), coalesce(i.dockerfile, ''),
	       coalesce(i.image_size, 0), i.start_timestamp, i.end_timestamp, i.push_timestamp
	FROM image i
	JOIN image__is_part_of__release p ON p.image = i.id
	JOIN service s ON s.id = i.is_a_build_of__service`

func (db *DB) scanImage(row interface{ Scan(...any) error }) (Image, error) {
	var i Image
	var repository string
	var started, ended, pushed sql.NullInt64
	err := row.Scan(&i.ID, &i.Release, &i.ServiceID, &i.Service, &repository, &i.ContentHash, &i.Status,
		&i.ProjectType, &i.ErrorMessage, &i.BuildLog, &i.Dockerfile, &i.Size, &started, &ended, &pushed)
	i.Location = db.location(repository)
	i.StartedAt, i.EndedAt, i.PushedAt = fromMillis(started), fromMillis(ended), fromMillis(pushed)
	return i, err
}

// ImageByID finds an image by id.
func (db *DB) ImageByID(ctx context.Context, id int64) (Image, error) {
	i, err := db.scanImage(db.read.QueryRowContext(ctx, imageQuery+` WHERE i.id = ?`, id))
	return i, notFound(err, "image %d", id)
}

// Images lists the images of a release by service name.
func (db *DB) Images(ctx context.Context, release int64) ([]Image, error) {
	rows, err := db.read.QueryContext(ctx, imageQuery+` WHERE p.is_part_of__release = ? ORDER BY s.service_name, i.id`, release)
	if err != nil {
		return nil, err
	}
	return collect(rows, db.scanImage)
}

// StartImage notes that the build of an image really begins now: it may have
// waited for its turn since AddImage.
func (db *DB) StartImage(ctx context.Context, id int64) error {
	return db.update(ctx, func(t *txn) error {
		return t.changeImage(ctx, id, Values{"start_timestamp": t.now})
	})
}

// changeImage changes an image that is being built; others stay as they are.
func (t *txn) changeImage(ctx context.Context, id int64, v Values) error {
	by, err := t.forImage(ctx, id)
	if err != nil {
		return err
	}
	_, err = t.change(ctx, by, "image", Selection{SQL: `t.id = ? AND t.status = 'running'`, Args: []any{id}}, v)
	return err
}

// ImageResult is how the build of an image ended.
type ImageResult struct {
	Status       string
	ContentHash  string
	ProjectType  string
	ErrorMessage string
	BuildLog     string
	Dockerfile   string
	Size         int64     // bytes
	PushedAt     time.Time // required with status success
}

const (
	maxImageLog     = 1_500_000
	maxErrorMessage = 300_000
)

// FinishImage stores the end of an image's build, unless it ended already. Texts that are too long
// lose their beginning: the end is where the error is.
func (db *DB) FinishImage(ctx context.Context, id int64, r ImageResult) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("finish image %d: %w", id, err)
	}
	return db.update(ctx, func(t *txn) error {
		v := Values{"status": r.Status, "content_hash": text(r.ContentHash), "project_type": text(r.ProjectType),
			"error_message": text(tail(r.ErrorMessage, maxErrorMessage)), "build_log": text(tail(r.BuildLog, maxImageLog)),
			"dockerfile": text(tail(r.Dockerfile, maxDocument)), "image_size": ref(r.Size), "end_timestamp": t.now, "push_timestamp": nil}
		if !r.PushedAt.IsZero() {
			v["push_timestamp"] = r.PushedAt
		}
		return t.changeImage(ctx, id, v)
	})
}

func (r ImageResult) check() error {
	switch {
	case !finished(r.Status):
		return invalid("status", "status must be success, failed, error or cancelled.")
	case r.Status == StatusSuccess && r.ContentHash == "":
		return invalid("content_hash", "an image with status success needs its content hash.")
	}
	return nil
}

func finished(status string) bool {
	return slices.Contains([]string{StatusSuccess, StatusFailed, StatusError, StatusCancelled}, status)
}

// tail keeps the last n bytes of s, cut at a character.
func tail(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[len(s)-n:], "")
}

// FinishRelease stores the end of a release's build. A release whose build ended
// already, because it was cancelled or taken for abandoned, stays as it is. When a final release succeeds, its fleet's target
// follows in the same transaction, and devices are told.
func (db *DB) FinishRelease(ctx context.Context, id int64, status, buildLog string) (Release, error) {
	if !finished(status) {
		return Release{}, fmt.Errorf("finish release %d: %w", id, invalid("status", "status must be success, failed, error or cancelled."))
	}
	var r Release
	err := db.update(ctx, func(t *txn) error {
		if err := t.finishRelease(ctx, id, status, buildLog); err != nil {
			return err
		}
		var err error
		r, err = scanRelease(t.QueryRowContext(ctx, releaseQuery+` WHERE id = ?`, id))
		return notFound(err, "release %d", id)
	})
	if err != nil {
		return Release{}, fmt.Errorf("finish release %d: %w", id, err)
	}
	return r, nil
}

func (t *txn) finishRelease(ctx context.Context, id int64, status, buildLog string) error {
	by, err := t.forRelease(ctx, id)
	if err != nil {
		return err
	}
	v := Values{"status": status, "end_timestamp": t.now}
	if buildLog != "" {
		v["build_log"] = tail(buildLog, maxDocument)
	}
	_, err = t.change(ctx, by, "release", Selection{SQL: `t.id = ? AND t.status = 'running'`, Args: []any{id}}, v)
	return err
}

// CancelRelease stops a release that has not succeeded, with its images that
// are still being built. It says nothing when the release already ended well.
func (db *DB) CancelRelease(ctx context.Context, id int64) error {
	return db.update(ctx, func(t *txn) error {
		by, err := t.forRelease(ctx, id)
		if err != nil {
			return err
		}
		_, err = t.change(ctx, by, "release", Selection{SQL: `t.id = ? AND t.status NOT IN ('success', 'cancelled')`, Args: []any{id}},
			Values{"status": StatusCancelled, "end_timestamp": t.now})
		return err
	})
}

// LastSuccess is the newest successful release of a fleet and its images:
// what a new build takes its cache from.
func (db *DB) LastSuccess(ctx context.Context, fleet int64) (Release, []Image, error) {
	r, err := scanRelease(db.read.QueryRowContext(ctx,
		releaseQuery+` WHERE belongs_to__application = ? AND status = 'success' ORDER BY id DESC LIMIT 1`, fleet))
	if err != nil {
		return Release{}, nil, notFound(err, "successful release of fleet %d", fleet)
	}
	images, err := db.Images(ctx, r.ID)
	return r, images, err
}

// version is what a release's version is made of.
type version struct {
	Major, Minor, Patch        int64
	Prerelease, Build, Variant string
	Revision                   sql.NullInt64
}

var semverRule = regexp.MustCompile(`^(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?(?:\+([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?$`)

func parseSemver(s string) (version, error) {
	if s == "" {
		return version{}, nil
	}
	m := semverRule.FindStringSubmatch(s)
	if m == nil || len(m[4]) > 100 || len(m[5]) > 50 {
		return version{}, invalid("semver", "Invalid semver format")
	}
	v := version{Prerelease: m[4], Build: m[5]}
	for i, p := range []*int64{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.ParseInt(m[i+1], 10, 64)
		if err != nil {
			return version{}, invalid("semver", "Invalid semver format")
		}
		*p = n
	}
	return v, nil
}

func (v version) core() string {
	s := fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch)
	if v.Prerelease != "" {
		s += "-" + v.Prerelease
	}
	return s
}

func (v version) semver() string {
	if v.Build == "" {
		return v.core()
	}
	return v.core() + "+" + v.Build
}

// raw adds what tells releases of the same semver apart: the revision of a
// final one, the creation time (milliseconds) of a draft.
func (v version) raw(createdAt int64) string {
	s := v.core()
	if !v.Revision.Valid {
		separator := "-"
		if v.Prerelease != "" {
			separator = "."
		}
		s += separator + strconv.FormatInt(createdAt, 10)
	}
	var build []string
	if v.Build != "" {
		build = append(build, v.Build)
	}
	if v.Revision.Int64 > 0 {
		build = append(build, "rev"+strconv.FormatInt(v.Revision.Int64, 10))
	}
	if v.Variant != "" {
		build = append(build, v.Variant)
	}
	if len(build) > 0 {
		s += "+" + strings.Join(build, ".")
	}
	return s
}
