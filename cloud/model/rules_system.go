package model

import (
	"context"
	"database/sql"
	"errors"
	"regexp"
	"strconv"

	"github.com/Masterminds/semver/v3"

	"deckhand/cloud/access"
)

// The operating system and the supervisor of a device are releases, too: of
// applications that are for all. What a device reports to run becomes what it
// should run, unless somebody asked for something newer.

var (
	systemVersionRule = regexp.MustCompile(`(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+([0-9A-Za-z.-]+))?`)
	systemRevision    = regexp.MustCompile(`(?:^|\.)rev(\d+)`)
	variantInText     = regexp.MustCompile(`\((dev|prod)\)$`)
)

// systemVersion reads "balenaOS 2.38.0+rev1"; false: there is no version in it.
func systemVersion(text string) (version, bool) {
	m := systemVersionRule.FindStringSubmatch(text)
	if m == nil {
		return version{}, false
	}
	v := version{Prerelease: m[4]}
	for i, p := range []*int64{&v.Major, &v.Minor, &v.Patch} {
		n, err := strconv.ParseInt(m[i+1], 10, 32)
		if err != nil {
			return version{}, false
		}
		*p = n
	}
	v.Revision.Valid = true
	if rev := systemRevision.FindStringSubmatch(m[5]); rev != nil {
		v.Revision.Int64, _ = strconv.ParseInt(rev[1], 10, 32) // digits; too many of them are 0
	}
	return v, true
}

// before says whether v is older than o.
func (v version) before(o version) bool {
	a, errA := semver.NewVersion(v.core())
	b, errB := semver.NewVersion(o.core())
	if errA != nil || errB != nil {
		return false
	}
	if c := a.Compare(b); c != 0 {
		return c < 0
	}
	return v.Revision.Int64 < o.Revision.Int64
}

// inRange says whether a version, as reported, fits a range like ">=2.11.0". What
// is not known is not held against a device.
func inRange(reported, wanted string) bool {
	v, ok := systemVersion(reported)
	c, err := semver.NewConstraint(wanted)
	if !ok || err != nil {
		return true
	}
	n, err := semver.NewVersion(version{Major: v.Major, Minor: v.Minor, Patch: v.Patch}.core())
	return err != nil || c.Check(n)
}

// followVersions follows what a device says of its operating system and
// supervisor, unless the same write sets the targets.
func (t *txn) followVersions(ctx context.Context, w *write) error {
	if w.sets("os_version") && !w.sets("os_variant") {
		if m := variantInText.FindStringSubmatch(w.text("os_version")); m != nil {
			w.set["os_variant"] = m[1]
		}
	}
	if w.sets("os_version") || w.sets("os_variant") {
		if err := t.followOS(ctx, w); err != nil {
			return err
		}
	}
	if w.sets("supervisor_version") && w.was["supervisor_version"] == nil {
		return t.followSupervisor(ctx, w)
	}
	return nil
}

func (t *txn) followOS(ctx context.Context, w *write) error {
	reported, ok := systemVersion(w.text("os_version"))
	if !ok || w.sets("should_be_operated_by__release") || !w.changes("os_version", "os_variant") {
		return nil
	}
	if target := w.ref("should_be_operated_by__release"); target != 0 {
		has, err := t.releaseVersion(ctx, w, target)
		if err != nil || !has.before(reported) {
			return err
		}
	}
	id, err := t.found(ctx, `
		SELECT r.id FROM release r JOIN application a ON a.id = r.belongs_to__application
		WHERE a.is_host = TRUE AND a.is_for__device_type = ? AND r.status = 'success'
		  AND r.semver_major = ? AND r.semver_minor = ? AND r.semver_patch = ? AND r.semver_prerelease = ?
		  AND (r.revision = ? OR r.revision IS NULL) AND r.variant IN (?, '')
		ORDER BY CASE WHEN r.revision IS NULL THEN 1 ELSE 0 END, r.variant DESC, r.id DESC LIMIT 1`,
		w.ref("is_of__device_type"), reported.Major, reported.Minor, reported.Patch, reported.Prerelease, reported.Revision.Int64, w.text("os_variant"))
	if err == nil && id == 0 {
		id, err = t.taggedOS(ctx, w)
	}
	w.set["should_be_operated_by__release"] = ref(id)
	return err
}

// taggedOS finds an old release of the operating system, which has its version
// in tags.
func (t *txn) taggedOS(ctx context.Context, w *write) (int64, error) {
	text := systemVersionRule.FindString(w.text("os_version"))
	return t.found(ctx, `
		SELECT r.id FROM release r JOIN application a ON a.id = r.belongs_to__application
		JOIN release_tag v ON v.release = r.id AND v.tag_key = 'version' AND v.value = ?
		LEFT JOIN release_tag p ON p.release = r.id AND p.tag_key = 'variant'
		WHERE a.is_host = TRUE AND a.is_for__device_type = ? AND r.status = 'success'
		  AND (p.value IS NULL OR p.value = ? OR p.value = CASE WHEN ? = 'dev' THEN 'development' ELSE 'production' END)
		ORDER BY r.id DESC LIMIT 1`, text, w.ref("is_of__device_type"), w.text("os_variant"), w.text("os_variant"))
}

func (t *txn) followSupervisor(ctx context.Context, w *write) error {
	reported, ok := systemVersion(w.text("supervisor_version"))
	if !ok || w.sets("should_be_managed_by__release") {
		return nil
	}
	id, err := t.found(ctx, `
		SELECT r.id FROM release r JOIN application a ON a.id = r.belongs_to__application
		JOIN device_type y ON y.id = a.is_for__device_type
		WHERE a.is_public = TRUE AND a.is_host = FALSE AND a.slug LIKE 'balena\_os/%-supervisor' ESCAPE '\' AND r.status = 'success'
		  AND y.is_of__cpu_architecture = (SELECT d.is_of__cpu_architecture FROM device_type d WHERE d.id = ?)
		  AND r.semver_major = ? AND r.semver_minor = ? AND r.semver_patch = ? AND r.semver_prerelease = ?
		ORDER BY CASE WHEN r.revision IS NULL THEN 1 ELSE 0 END, r.revision DESC, r.id DESC LIMIT 1`,
		w.ref("is_of__device_type"), reported.Major, reported.Minor, reported.Patch, reported.Prerelease)
	if id != 0 {
		w.set["should_be_managed_by__release"] = id
	}
	return err
}

// found is the id that a query finds, 0 when it finds none.
func (t *txn) found(ctx context.Context, query string, args ...any) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, query, args...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// What is asked about releases of the operating system and the supervisor.
type (
	versionOfRelease int64
	manageableBy     int64
	operableBy       struct {
		release int64
		user    bool
	}
)

func (t *txn) releaseVersion(ctx context.Context, w *write, release int64) (version, error) {
	return fact(w, versionOfRelease(release), func() (v version, err error) {
		err = t.QueryRowContext(ctx, `SELECT semver_major, semver_minor, semver_patch, semver_prerelease, revision FROM release WHERE id = ?`, release).
			Scan(&v.Major, &v.Minor, &v.Patch, &v.Prerelease, &v.Revision)
		return v, err
	})
}

// checkSystemTargets refuses what would take a device back.
func (t *txn) checkSystemTargets(ctx context.Context, w *write) error {
	if id := w.ref("should_be_operated_by__release"); id != 0 && w.changes("should_be_operated_by__release") {
		if err := t.operable(ctx, w, id); err != nil {
			return err
		}
	}
	if id := w.ref("should_be_managed_by__release"); id != 0 && w.changes("should_be_managed_by__release") {
		return t.manageable(ctx, w, id)
	}
	return nil
}

func (t *txn) operable(ctx context.Context, w *write, release int64) error {
	user := w.by.Role == access.User || w.by.Role == access.UserKey
	ok, err := fact(w, operableBy{release, user}, func() (bool, error) {
		return t.exists(ctx, `
			SELECT 1 FROM release r JOIN application a ON a.id = r.belongs_to__application
			WHERE r.id = ? AND r.status = 'success' AND a.is_host = TRUE AND (r.is_invalidated = FALSE OR ? = FALSE)`, release, user)
	})
	if err != nil {
		return err
	}
	if !ok {
		return invalid("should_be_operated_by__release", "Could not find a hostapp release with this ID %d", release)
	}
	wanted, err := t.releaseVersion(ctx, w, release)
	if runs, known := systemVersion(w.text("os_version")); err == nil && known && wanted.before(runs) {
		return invalid("should_be_operated_by__release", "Attempt to downgrade hostapp, which is not allowed")
	}
	return err
}

func (t *txn) manageable(ctx context.Context, w *write, release int64) error {
	ok, err := fact(w, manageableBy(release), func() (bool, error) {
		return t.exists(ctx, `SELECT 1 FROM release WHERE id = ? AND is_invalidated = FALSE`, release)
	})
	if err != nil {
		return err
	}
	if !ok {
		return invalid("should_be_managed_by__release", "Could not find a supervisor release with this ID %d", release)
	}
	has, _ := w.was["should_be_managed_by__release"].(int64)
	if has == 0 {
		return nil
	}
	now, err := t.releaseVersion(ctx, w, has)
	if err != nil {
		return err
	}
	wanted, err := t.releaseVersion(ctx, w, release)
	if err == nil && wanted.before(now) {
		err = invalid("should_be_managed_by__release", "Attempt to downgrade supervisor, which is not allowed")
	}
	return err
}
