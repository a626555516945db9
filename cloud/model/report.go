package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Value is one field of a report: a column of the device and what it becomes
// (nil, string, int64 or bool).
type Value struct {
	Column string
	Value  any
}

// Report is what a device says about itself.
type Report struct {
	Values []Value
	// HasApps says that the report speaks of apps at all: then every image
	// it leaves out is no longer on the device.
	HasApps bool
	Apps    []ReportedApp
}

// ReportedApp is one app of a report.
type ReportedApp struct {
	UUID    string
	Running string // commit the app runs; "" when not said
	// Releases are the releases of which something is on the device.
	Releases []ReportedRelease
}

// ReportedRelease is what is on the device of one release.
type ReportedRelease struct {
	Commit       string
	UpdateStatus string // "" when not said
	Services     []ReportedService
}

// ReportedService is the state of one image on the device.
type ReportedService struct {
	Name     string
	Image    string // location, with or without digest
	Status   string // "" when not said
	Progress *int64 // percent downloaded; nil when none runs
}

// reportable are the columns a device may set about itself.
func reportable() []string {
	return []string{
		"status", "os_version", "os_variant", "supervisor_version", "provisioning_progress", "provisioning_state",
		"ip_address", "mac_address", "api_port", "api_secret", "cpu_id", "is_undervolted", "public_address",
		"memory_usage", "memory_total", "storage_usage", "storage_total", "storage_block_device", "cpu_usage", "cpu_temp",
	}
}

// ApplyReport stores a device's report. Releases and images that the cloud
// does not know (they may have been deleted) are left out; the rest counts.
// What is the same as before is not written.
func (db *DB) ApplyReport(ctx context.Context, device int64, report Report) error {
	err := db.update(ctx, func(t *txn) error {
		d, err := scanDevice(t.QueryRowContext(ctx, deviceQuery+` WHERE d.id = ?`, device))
		if err != nil {
			return notFound(err, "device %d", device)
		}
		changed, err := t.setDevice(ctx, device, reportedColumns(report.Values))
		if err != nil {
			return err
		}
		if report.HasApps {
			more, err := t.applyApps(ctx, d, report.Apps)
			if err != nil {
				return err
			}
			changed = changed || more
		}
		if changed {
			t.announce(OverviewTopic())
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store report of device %d: %w", device, err)
	}
	return nil
}

func reportedColumns(values []Value) []Value {
	known := reportable()
	return slices.DeleteFunc(slices.Clone(values), func(v Value) bool { return !slices.Contains(known, v.Column) })
}

// setDevice writes columns of a device when one of them differs.
func (t *txn) setDevice(ctx context.Context, device int64, values []Value) (changed bool, err error) {
	if len(values) == 0 {
		return false, nil
	}
	var set, differs []string
	var args []any
	for _, v := range values {
		set = append(set, v.Column+" = ?")
		differs = append(differs, v.Column+" IS DISTINCT FROM ?")
		args = append(args, v.Value)
	}
	args = append(append(slices.Clone(args), device), args...)
	res, err := t.ExecContext(ctx, `UPDATE device SET `+strings.Join(set, ", ")+` WHERE id = ? AND (`+strings.Join(differs, " OR ")+`)`, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

func (t *txn) applyApps(ctx context.Context, d Device, apps []ReportedApp) (changed bool, err error) {
	var mentioned []int64
	for _, app := range apps {
		more, images, err := t.applyApp(ctx, d, app)
		if err != nil {
			return false, err
		}
		changed = changed || more
		mentioned = append(mentioned, images...)
	}
	gone, err := t.dropInstalls(ctx, d.ID, mentioned)
	return changed || gone, err
}

// applyApp stores one app and says which images it mentions. An app that is
// not the device's own fleet is not the cloud's business.
func (t *txn) applyApp(ctx context.Context, d Device, app ReportedApp) (changed bool, images []int64, err error) {
	var fleet int64
	err = t.QueryRowContext(ctx, `SELECT id FROM application WHERE uuid = ?`, app.UUID).Scan(&fleet)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return false, nil, err
	}
	if err != nil || fleet != d.Fleet {
		return false, nil, nil
	}
	var values []Value
	if app.Running != "" {
		running, err := t.successful(ctx, fleet, app.Running)
		if err != nil {
			return false, nil, err
		}
		if running != 0 {
			values = append(values, Value{"is_running__release", running})
		}
	}
	if changed, err = t.setDevice(ctx, d.ID, values); err != nil {
		return false, nil, err
	}
	moved, err := t.setUpdateStatus(ctx, d.ID, lowestUpdateStatus(app.Releases))
	if err != nil {
		return false, nil, err
	}
	changed = changed || moved
	for _, release := range app.Releases {
		more, found, err := t.applyRelease(ctx, d.ID, fleet, release)
		if err != nil {
			return false, nil, err
		}
		changed = changed || more
		images = append(images, found...)
	}
	return changed, images, nil
}

func (t *txn) setUpdateStatus(ctx context.Context, device int64, status string) (changed bool, err error) {
	if status == "" {
		return false, nil
	}
	res, err := t.ExecContext(ctx, `
		UPDATE device SET update_status = ?, last_update_status_event = ? WHERE id = ? AND update_status IS DISTINCT FROM ?`,
		status, millis(t.now), device, status)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// successful is the id of the fleet's successful release with that commit, 0
// when there is none.
func (t *txn) successful(ctx context.Context, fleet int64, commit string) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, `SELECT id FROM release WHERE belongs_to__application = ? AND "commit" = ? AND status = 'success'`, fleet, commit).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// UpdateStatuses are the values of update_status, the most alarming first.
func UpdateStatuses() []string {
	return []string{"rejected", "aborted", "downloading", "downloaded", "applying changes", "done"}
}

func lowestUpdateStatus(releases []ReportedRelease) string {
	for _, status := range UpdateStatuses() {
		if slices.ContainsFunc(releases, func(r ReportedRelease) bool { return r.UpdateStatus == status }) {
			return status
		}
	}
	return ""
}

func (t *txn) applyRelease(ctx context.Context, device, fleet int64, r ReportedRelease) (changed bool, images []int64, err error) {
	release, err := t.successful(ctx, fleet, r.Commit)
	if err != nil || release == 0 {
		return false, nil, err
	}
	for _, service := range r.Services {
		image, err := t.imageOf(ctx, release, Repository(service.Image))
		if err != nil {
			return false, nil, err
		}
		if image == 0 {
			continue
		}
		images = append(images, image)
		more, err := t.install(ctx, device, release, image, service)
		if err != nil {
			return false, nil, err
		}
		changed = changed || more
	}
	return changed, images, nil
}

func (t *txn) imageOf(ctx context.Context, release int64, repository string) (int64, error) {
	var id int64
	err := t.QueryRowContext(ctx, `
		SELECT i.id FROM image i JOIN image__is_part_of__release p ON p.image = i.id
		WHERE p.is_part_of__release = ? AND lower(i.is_stored_at__image_location) = ?`, release, strings.ToLower(repository)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return id, err
}

// installStatuses are the words a device may use for an image.
func installStatuses() []string {
	return []string{"Downloading", "Downloaded", "Installing", "Installed", "Starting", "Running", "Idle", "Handing over", "Awaiting handover",
		"Stopping", "Stopped", "exited", "Deleting", "deleted", "Dead", "paused", "restarting", "removing", "configuring", "Unknown"}
}

func (t *txn) install(ctx context.Context, device, release, image int64, s ReportedService) (bool, error) {
	status := s.Status
	if status != "" && !slices.Contains(installStatuses(), status) {
		return false, nil
	}
	var progress any
	if s.Progress != nil {
		progress = min(max(*s.Progress, 0), 100)
	}
	first := status
	if first == "" {
		first = "Unknown"
	}
	res, err := t.ExecContext(ctx, `
		INSERT INTO image_install (created_at, device, installs__image, is_provided_by__release, install_date, status, download_progress)
		VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (device, installs__image) DO UPDATE SET
			is_provided_by__release = excluded.is_provided_by__release,
			status = CASE WHEN ? = '' THEN image_install.status ELSE excluded.status END,
			download_progress = excluded.download_progress
		WHERE image_install.is_provided_by__release <> excluded.is_provided_by__release
		   OR (? <> '' AND image_install.status <> excluded.status)
		   OR image_install.download_progress IS DISTINCT FROM excluded.download_progress`,
		millis(t.now), device, image, release, millis(t.now), first, progress, status, status)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}

// dropInstalls marks the images of a device that a report left out as deleted.
func (t *txn) dropInstalls(ctx context.Context, device int64, keep []int64) (bool, error) {
	marks := strings.TrimSuffix(strings.Repeat("?,", len(keep)), ",")
	args := []any{device}
	for _, id := range keep {
		args = append(args, id)
	}
	query := `UPDATE image_install SET status = 'deleted', download_progress = NULL WHERE device = ? AND status <> 'deleted'`
	if len(keep) > 0 {
		query += ` AND installs__image NOT IN (` + marks + `)`
	}
	res, err := t.ExecContext(ctx, query, args...)
	if err != nil {
		return false, err
	}
	n, err := res.RowsAffected()
	return n > 0, err
}
