package model

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
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

var commitRule = regexp.MustCompile(`^[0-9a-f]{1,40}$`)

func (n NewRelease) check() (version, error) {
	v, err := parseSemver(n.Semver)
	switch {
	case err != nil:
		return v, err
	case !commitRule.MatchString(n.Commit):
		return v, invalid("commit", "commit must be up to 40 lower-case hex characters.")
	case n.Source != "cloud" && n.Source != "local":
		return v, invalid("source", "source must be cloud or local.")
	case len(n.Composition) > maxDocument:
		return v, invalid("composition", "composition must not be longer than %d bytes.", maxDocument)
	}
	var document map[string]json.RawMessage
	if err := json.Unmarshal(n.Composition, &document); err != nil || document == nil {
		return v, invalid("composition", "composition must be a JSON object.")
	}
	return v, nil
}

// CreateRelease adds a release with status running.
func (db *DB) CreateRelease(ctx context.Context, n NewRelease) (Release, error) {
	v, err := n.check()
	if err != nil {
		return Release{}, fmt.Errorf("create release: %w", err)
	}
	var r Release
	err = db.update(ctx, func(t *txn) error {
		if n.Final {
			if v.Revision, err = t.nextRevision(ctx, n.Fleet, v); err != nil {
				return err
			}
		}
		var finalized any
		if n.Final {
			finalized = millis(t.now)
		}
		id, err := t.insert(ctx, `
			INSERT INTO release (created_at, belongs_to__application, is_created_by__user, "commit", composition, status, source,
				start_timestamp, update_timestamp, semver_major, semver_minor, semver_patch, semver_prerelease, semver_build, revision, is_finalized_at__date)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
			millis(t.now), n.Fleet, ref(n.User), n.Commit, string(n.Composition), StatusRunning, n.Source,
			millis(t.now), millis(t.now), v.Major, v.Minor, v.Patch, v.Prerelease, v.Build, v.Revision, finalized)
		if err != nil {
			return missingReference(err, fmt.Sprintf("fleet %d", n.Fleet))
		}
		t.announce(OverviewTopic())
		r, err = scanRelease(t.QueryRowContext(ctx, releaseQuery+` WHERE id = ?`, id))
		return err
	})
	if err != nil {
		return Release{}, fmt.Errorf("create release: %w", err)
	}
	return r, nil
}

// nextRevision is one more than the highest of the fleet's final releases
// with the same version; the first is 0.
func (t *txn) nextRevision(ctx context.Context, fleet int64, v version) (sql.NullInt64, error) {
	var n sql.NullInt64
	err := t.QueryRowContext(ctx, `
		SELECT coalesce(max(revision), -1) + 1 FROM release
		WHERE belongs_to__application = ? AND semver_major = ? AND semver_minor = ? AND semver_patch = ?
		  AND semver_prerelease = ? AND variant = ?`,
		fleet, v.Major, v.Minor, v.Patch, v.Prerelease, v.Variant).Scan(&n)
	return n, err
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
	if n.Service == "" || len(n.Service) > 63 {
		return Image{}, fmt.Errorf("add image: %w", invalid("service_name", "A service name has 1 to 63 characters."))
	}
	var id int64
	err := db.update(ctx, func(t *txn) error {
		service, err := t.service(ctx, n.Release, n.Service)
		if err != nil {
			return err
		}
		if id, err = t.insert(ctx, `
			INSERT INTO image (created_at, is_a_build_of__service, is_stored_at__image_location, status, start_timestamp)
			VALUES (?, ?, ?, ?, ?)`, millis(t.now), service, "v2/"+randomHex(16), StatusRunning, millis(t.now)); err != nil {
			return err
		}
		part, err := t.insert(ctx, `INSERT INTO image__is_part_of__release (created_at, image, is_part_of__release) VALUES (?, ?, ?)`, millis(t.now), id, n.Release)
		if err != nil {
			return err
		}
		t.announce(OverviewTopic())
		return t.decorate(ctx, part, n.Labels, n.Environment)
	})
	if err != nil {
		return Image{}, fmt.Errorf("add image of service %s: %w", n.Service, err)
	}
	return db.ImageByID(ctx, id)
}

// service is the service of that name in the release's fleet, made when missing.
func (t *txn) service(ctx context.Context, release int64, name string) (int64, error) {
	var id int64
	if _, err := t.ExecContext(ctx, `
		INSERT INTO service (created_at, application, service_name)
		SELECT ?, belongs_to__application, ? FROM release WHERE id = ?
		ON CONFLICT (application, service_name) DO NOTHING`, millis(t.now), name, release); err != nil {
		return 0, err
	}
	err := t.QueryRowContext(ctx, `
		SELECT s.id FROM service s JOIN release r ON r.belongs_to__application = s.application
		WHERE r.id = ? AND s.service_name = ?`, release, name).Scan(&id)
	return id, notFound(err, "release %d", release)
}

func (t *txn) decorate(ctx context.Context, part int64, labels, environment map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		if _, err := t.insert(ctx, `INSERT INTO image_label (created_at, release_image, label_name, value) VALUES (?, ?, ?, ?)`, millis(t.now), part, name, labels[name]); err != nil {
			return fmt.Errorf("label %s: %w", name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		if _, err := t.insert(ctx, `INSERT INTO image_environment_variable (created_at, release_image, name, value) VALUES (?, ?, ?, ?)`, millis(t.now), part, name, environment[name]); err != nil {
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
		t.announce(OverviewTopic())
		return t.one(ctx, fmt.Sprintf("image %d", id),
			`UPDATE image SET start_timestamp = ? WHERE id = ?`, millis(t.now), id)
	})
}

// one runs an UPDATE that must hit a row.
func (t *txn) one(ctx context.Context, object, query string, args ...any) error {
	res, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return err
	}
	n, err := res.RowsAffected()
	if err == nil && n == 0 {
		return fmt.Errorf("%s: %w", object, ErrNotFound)
	}
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

// FinishImage stores the end of an image's build. Texts that are too long
// lose their beginning: the end is where the error is.
func (db *DB) FinishImage(ctx context.Context, id int64, r ImageResult) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("finish image %d: %w", id, err)
	}
	return db.update(ctx, func(t *txn) error {
		t.announce(OverviewTopic())
		return t.one(ctx, fmt.Sprintf("image %d", id), `
			UPDATE image SET status = ?, content_hash = ?, project_type = ?, error_message = ?, build_log = ?, dockerfile = ?,
				image_size = ?, push_timestamp = ?, end_timestamp = ? WHERE id = ?`,
			r.Status, text(r.ContentHash), text(r.ProjectType), text(tail(r.ErrorMessage, maxErrorMessage)), text(tail(r.BuildLog, maxImageLog)),
			text(tail(r.Dockerfile, maxDocument)), ref(r.Size), millis(r.PushedAt), millis(t.now), id)
	})
}

func (r ImageResult) check() error {
	switch {
	case !finished(r.Status):
		return invalid("status", "status must be success, failed, error or cancelled.")
	case r.Status == StatusSuccess && r.PushedAt.IsZero():
		return invalid("push_timestamp", "It is necessary that each image that has a status equal to \"success\", has a push timestamp.")
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

// FinishRelease stores the end of a release's build. A release that was
// cancelled stays so. When a final release succeeds, its fleet's target
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
	if _, err := t.ExecContext(ctx, `
		UPDATE release SET status = ?, end_timestamp = ?, update_timestamp = ?, build_log = coalesce(?, build_log)
		WHERE id = ? AND status <> 'cancelled'`,
		status, millis(t.now), millis(t.now), text(tail(buildLog, maxDocument)), id); err != nil {
		return conflictOn(err, "commit")
	}
	t.announce(OverviewTopic(), Topic{ReleaseStatus, id})
	var fleet int64
	if err := t.QueryRowContext(ctx, `SELECT belongs_to__application FROM release WHERE id = ?`, id).Scan(&fleet); err != nil {
		return notFound(err, "release %d", id)
	}
	return t.track(ctx, fleet)
}

// CancelRelease stops a release that has not succeeded, with its images that
// are still being built. It says nothing when the release already ended well.
func (db *DB) CancelRelease(ctx context.Context, id int64) error {
	return db.update(ctx, func(t *txn) error {
		if _, err := t.ExecContext(ctx, `
			UPDATE release SET status = 'cancelled', end_timestamp = ?, update_timestamp = ? WHERE id = ? AND status NOT IN ('success', 'cancelled')`,
			millis(t.now), millis(t.now), id); err != nil {
			return err
		}
		_, err := t.ExecContext(ctx, `
			UPDATE image SET status = 'cancelled', end_timestamp = ? WHERE status = 'running'
			AND id IN (SELECT p.image FROM image__is_part_of__release p JOIN release r ON r.id = p.is_part_of__release WHERE r.id = ? AND r.status = 'cancelled')`,
			millis(t.now), id)
		t.announce(OverviewTopic(), Topic{ReleaseStatus, id})
		return err
	})
}

// track moves a fleet that follows its latest release: the one that started
// last among those that succeeded, are final, pass their tests and are not
// invalidated. Without any, the old target stays.
func (t *txn) track(ctx context.Context, fleet int64) error {
	var latest int64
	err := t.QueryRowContext(ctx, `
		SELECT r.id FROM release r JOIN application a ON a.id = r.belongs_to__application
		WHERE a.id = ? AND a.should_track_latest_release = TRUE AND r.status = 'success' AND r.revision IS NOT NULL
		  AND r.is_passing_tests = TRUE AND r.is_invalidated = FALSE
		ORDER BY r.start_timestamp DESC, r.id DESC LIMIT 1`, fleet).Scan(&latest)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return err
	}
	res, err := t.ExecContext(ctx, `
		UPDATE application SET should_be_running__release = ?
		WHERE id = ? AND coalesce(should_be_running__release, 0) <> ?`, latest, fleet, latest)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		return err
	}
	t.announce(Topic{FleetTarget, fleet})
	return t.installServices(ctx, fleet)
}

// installServices makes the missing service installs of a fleet's devices.
// They must exist before a device reports: variables of a service on a device
// hang on them.
func (t *txn) installServices(ctx context.Context, fleet int64) error {
	_, err := t.ExecContext(ctx, `
		INSERT INTO service_install (created_at, device, installs__service)
		SELECT ?, d.id, s.id FROM device d JOIN service s ON s.application = d.belongs_to__application
		WHERE d.belongs_to__application = ?
		ON CONFLICT (device, installs__service) DO NOTHING`, millis(t.now), fleet)
	return err
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

// FailRunningReleases gives status error to builds that a stop of the cloud
// left behind, and says how many there were. Call it before builds can start.
func (db *DB) FailRunningReleases(ctx context.Context) (int, error) {
	var n int64
	err := db.update(ctx, func(t *txn) error {
		if _, err := t.ExecContext(ctx, `
			UPDATE image SET status = 'error', end_timestamp = ?, error_message = 'The cloud stopped during the build; push again.'
			WHERE status = 'running' AND id IN (SELECT p.image FROM image__is_part_of__release p
				JOIN release r ON r.id = p.is_part_of__release WHERE r.source = 'cloud')`, millis(t.now)); err != nil {
			return err
		}
		res, err := t.ExecContext(ctx, `
			UPDATE release SET status = 'error', end_timestamp = ?, update_timestamp = ?
			WHERE status = 'running' AND source = 'cloud'`, millis(t.now), millis(t.now))
		if err != nil {
			return err
		}
		n, err = res.RowsAffected()
		return err
	})
	return int(n), err
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
