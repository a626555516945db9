package model

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// versions are those of a device's system, as it reports them; "": never.
type versions struct{ supervisor, os, variant string }

// versionsBefore reads what was reported before, when values have a version; nil:
// they have none.
func (t *txn) versionsBefore(ctx context.Context, device int64, values []Value) (*versions, error) {
	if !slices.ContainsFunc(values, func(v Value) bool {
		return v.Column == "supervisor_version" || v.Column == "os_version" || v.Column == "os_variant"
	}) {
		return nil, nil
	}
	v, err := t.versionsOf(ctx, device)
	return &v, err
}

func (t *txn) versionsOf(ctx context.Context, device int64) (versions, error) {
	var v versions
	err := t.QueryRowContext(ctx, `SELECT coalesce(supervisor_version, ''), coalesce(os_version, ''), coalesce(os_variant, '') FROM device WHERE id = ?`, device).
		Scan(&v.supervisor, &v.os, &v.variant)
	return v, notFound(err, "device %d", device)
}

// versionsReported does what follows from versions that a device has reported, now
// that they are written: its first supervisor and a new host OS become its targets,
// if the cloud has releases of them. Call it with what was reported before, also for
// a new device.
func (t *txn) versionsReported(ctx context.Context, device int64, was versions) error {
	now, err := t.versionsOf(ctx, device)
	if err != nil {
		return err
	}
	if variant, ok := variantIn(now.os); ok && now.os != was.os && now.variant == was.variant {
		now.variant = variant
		if _, err := t.ExecContext(ctx, `UPDATE device SET os_variant = ? WHERE id = ?`, variant, device); err != nil {
			return err
		}
	}
	changed := false
	if was.supervisor == "" && now.supervisor != "" {
		set, err := t.adoptSupervisor(ctx, device, now.supervisor)
		if err != nil {
			return err
		}
		changed = set
	}
	if now.os != "" && (now.os != was.os || now.variant != was.variant) {
		set, err := t.adoptOS(ctx, device, now)
		if err != nil {
			return err
		}
		changed = changed || set
	}
	if changed {
		t.announce(Topic{DeviceTarget, device})
	}
	return nil
}

// variantIn is the variant that an OS version ends with: "balenaOS 2.0.0 (prod)".
func variantIn(os string) (string, bool) {
	rest, ok := strings.CutSuffix(os, ")")
	if !ok {
		return "", false
	}
	variant := rest[strings.LastIndexByte(rest, '(')+1:]
	return variant, variant == "prod" || variant == "dev"
}

// adoptSupervisor makes the reported supervisor the target of a device that had none.
func (t *txn) adoptSupervisor(ctx context.Context, device int64, reported string) (bool, error) {
	v, err := parseSemver(strings.TrimPrefix(reported, "v"))
	if err != nil {
		return false, nil // not a version that a release can have
	}
	release, err := t.id(ctx, `
		SELECT r.id FROM release r
		JOIN application a ON a.id = r.belongs_to__application
		JOIN device_type at ON at.id = a.is_for__device_type
		JOIN device d ON d.id = ?
		JOIN device_type dt ON dt.id = d.is_of__device_type AND dt.is_of__cpu_architecture = at.is_of__cpu_architecture
		WHERE a.is_public = TRUE AND a.is_host = FALSE AND a.slug LIKE 'balena_os/%-supervisor' AND r.status = 'success'
			AND r.semver_major = ? AND r.semver_minor = ? AND r.semver_patch = ? AND r.semver_prerelease = ?
		ORDER BY CASE WHEN r.revision IS NULL THEN 1 ELSE 0 END, r.revision DESC, r.created_at DESC LIMIT 1`,
		device, v.Major, v.Minor, v.Patch, v.Prerelease)
	if err != nil || release == 0 {
		return false, err
	}
	n, err := t.affected(ctx, `UPDATE device SET should_be_managed_by__release = ? WHERE id = ? AND should_be_managed_by__release IS NULL`, release, device)
	return n > 0, err
}

// adoptOS makes the reported host OS the target, unless the target is newer.
func (t *txn) adoptOS(ctx context.Context, device int64, now versions) (bool, error) {
	v, revision, ok := osVersion(now.os)
	if !ok {
		return false, nil
	}
	target, err := t.osTarget(ctx, device)
	if err != nil {
		return false, err
	}
	if target != nil && !target.olderThan(v) {
		return false, nil
	}
	release, err := t.id(ctx, `
		SELECT r.id FROM release r
		JOIN application a ON a.id = r.belongs_to__application AND a.is_host = TRUE
		JOIN device d ON d.id = ? AND d.is_of__device_type = a.is_for__device_type
		WHERE r.status = 'success' AND r.semver_major = ? AND r.semver_minor = ? AND r.semver_patch = ? AND r.semver_prerelease = ?
			AND (r.revision IS NULL OR r.revision = ?) AND r.variant IN (?, '')
		ORDER BY CASE WHEN r.revision IS NULL THEN 1 ELSE 0 END, r.variant DESC, r.created_at DESC LIMIT 1`,
		device, v.Major, v.Minor, v.Patch, v.Prerelease, revision, now.variant)
	if err != nil {
		return false, err
	}
	n, err := t.affected(ctx, `UPDATE device SET should_be_operated_by__release = ? WHERE id = ? AND should_be_operated_by__release IS DISTINCT FROM ?`,
		ref(release), device, ref(release))
	return n > 0, err
}

// osTarget is the version of the host OS that the device should run; nil: none.
func (t *txn) osTarget(ctx context.Context, device int64) (*version, error) {
	var v version
	err := t.QueryRowContext(ctx, `
		SELECT r.semver_major, r.semver_minor, r.semver_patch, r.semver_prerelease FROM device d
		JOIN release r ON r.id = d.should_be_operated_by__release WHERE d.id = ?`, device).Scan(&v.Major, &v.Minor, &v.Patch, &v.Prerelease)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &v, err
}

// osVersion reads "balenaOS 2.98.33+rev2 (prod)".
func osVersion(text string) (v version, revision int64, ok bool) {
	for _, word := range strings.Fields(text) {
		parsed, err := parseSemver(strings.TrimPrefix(word, "v"))
		if err != nil {
			continue
		}
		for _, part := range strings.Split(parsed.Build, ".") {
			if n, err := strconv.ParseInt(strings.TrimPrefix(part, "rev"), 10, 64); err == nil && strings.HasPrefix(part, "rev") {
				revision = n
			}
		}
		return parsed, revision, true
	}
	return v, 0, false
}

func (v version) olderThan(w version) bool {
	if c := slices.Compare([]int64{v.Major, v.Minor, v.Patch}, []int64{w.Major, w.Minor, w.Patch}); c != 0 {
		return c < 0
	}
	// A prerelease comes before its release.
	return v.Prerelease != w.Prerelease && (w.Prerelease == "" || v.Prerelease != "" && v.Prerelease < w.Prerelease)
}

// id is the id that a query finds, 0 when it finds none.
func (t *txn) id(ctx context.Context, query string, args ...any) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, query, args...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}
