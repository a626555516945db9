package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
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
	// Metrics are values that change all the time. They are stored together with
	// something else, and by themselves when MetricsDue says so.
	Metrics    []Value
	MetricsDue bool
	// HasApps says that the report speaks of apps at all: then every image
	// it leaves out is no longer on the device.
	HasApps bool
	Apps    []ReportedApp
	// Running is what older devices say for the app they have: the commit it runs.
	// StopsRunning: it runs none.
	Running      string
	StopsRunning bool
}

// ReportedApp is one app of a report, by its uuid or, from older devices, its id.
type ReportedApp struct {
	UUID    string
	ID      int64
	Running string // commit the app runs; "" when not said
	// Releases are the releases of which something is on the device.
	Releases []ReportedRelease
}

// ReportedRelease is what is on the device of one release, named by its commit or,
// from older devices, its id.
type ReportedRelease struct {
	Commit       string
	ID           int64
	UpdateStatus string // "" when not said
	Services     []ReportedService
}

// ReportedService is the state of one image on the device.
type ReportedService struct {
	Name     string
	Image    string // location, with or without digest
	ImageID  int64  // in place of Image, from older devices
	Status   string // "" when not said
	Progress *int64 // percent downloaded; nil when none runs
}

// reportable are the columns a device may set about itself.
func reportable() []string {
	return []string{
		"status", "os_version", "os_variant", "supervisor_version", "provisioning_progress", "provisioning_state", "download_progress",
		"ip_address", "mac_address", "api_port", "api_secret", "cpu_id", "is_undervolted", "public_address", "note",
		"memory_usage", "memory_total", "storage_usage", "storage_total", "storage_block_device", "cpu_usage", "cpu_temp",
	}
}

// Reports stores what devices report. It remembers the ids of releases and images:
// the devices of a fleet report the same ones again and again.
type Reports struct {
	db *DB

	mu       sync.Mutex
	releases map[reportedKey]releaseImages
}

// reportedKey names a release as reports do: by commit or by id.
type reportedKey struct {
	fleet, id int64
	commit    string
}

// releaseImages are the ids of a successful release and its images.
type releaseImages struct {
	id         int64
	byLocation map[string]int64 // path in the registry, lower case → image
	images     []int64
}

// maxReportedReleases is how many releases are remembered.
const maxReportedReleases = 1000

// NewReports makes a store of reports; keep one.
func NewReports(db *DB) *Reports {
	return &Reports{db: db, releases: map[reportedKey]releaseImages{}}
}

// ApplyReport stores one report. Who stores many has Reports.
func (db *DB) ApplyReport(ctx context.Context, device int64, report Report) error {
	return NewReports(db).Apply(ctx, device, report)
}

// Apply stores a device's report. Releases and images that the cloud does not know
// (they may have been deleted) are left out; the rest counts. What is the same as
// before is not written.
func (s *Reports) Apply(ctx context.Context, device int64, report Report) error {
	err := s.apply(ctx, device, report)
	if errors.Is(err, ErrNotFound) && (report.HasApps || report.Running != "") {
		s.forget() // something was deleted that is remembered
		err = s.apply(ctx, device, report)
	}
	if err != nil {
		return fmt.Errorf("store report of device %d: %w", device, err)
	}
	return nil
}

func (s *Reports) apply(ctx context.Context, device int64, report Report) error {
	found, err := s.resolve(ctx, device, report)
	if err != nil {
		return err
	}
	return s.db.update(ctx, func(t *txn) error { return t.applyReport(ctx, device, report, found) })
}

// known is what a report says, in the cloud's ids.
type known struct {
	fleet    int64
	running  int64 // 0: not said
	update   string
	installs []install
}

type install struct {
	image, release int64
	status         string // "": not said
	progress       *int64
}

// resolve finds the ids of what a report names. Apps other than the device's fleet
// are not the cloud's business.
func (s *Reports) resolve(ctx context.Context, device int64, report Report) (known, error) {
	var k known
	if !report.HasApps && report.Running == "" {
		return k, nil
	}
	var uuid string
	err := s.db.read.QueryRowContext(ctx, `SELECT coalesce(a.id, 0), coalesce(a.uuid, '') FROM device d
		LEFT JOIN application a ON a.id = d.belongs_to__application WHERE d.id = ?`, device).Scan(&k.fleet, &uuid)
	if err != nil {
		return k, notFound(err, "device %d", device)
	}
	if report.Running != "" && k.fleet != 0 {
		if err := s.resolveRunning(ctx, &k, report.Running); err != nil {
			return k, err
		}
	}
	for _, app := range report.Apps {
		if k.fleet == 0 || app.UUID != uuid && app.ID != k.fleet {
			continue
		}
		if err := s.resolveApp(ctx, &k, app); err != nil {
			return k, err
		}
	}
	return k, nil
}

func (s *Reports) resolveApp(ctx context.Context, k *known, app ReportedApp) error {
	if app.Running != "" {
		if err := s.resolveRunning(ctx, k, app.Running); err != nil {
			return err
		}
	}
	k.update = lowestUpdateStatus(app.Releases)
	for _, r := range app.Releases {
		release, err := s.release(ctx, reportedKey{fleet: k.fleet, id: r.ID, commit: r.Commit})
		if err != nil {
			return err
		}
		k.installs = append(k.installs, release.installs(r)...)
	}
	return nil
}

func (s *Reports) resolveRunning(ctx context.Context, k *known, commit string) error {
	release, err := s.release(ctx, reportedKey{fleet: k.fleet, commit: commit})
	k.running = release.id
	return err
}

// installs are the services of a reported release which are its images.
func (r releaseImages) installs(reported ReportedRelease) []install {
	var all []install
	for _, service := range reported.Services {
		image := service.ImageID
		if image == 0 {
			image = r.byLocation[strings.ToLower(Repository(service.Image))]
		}
		if slices.Contains(r.images, image) {
			all = append(all, install{image, r.id, service.Status, service.Progress})
		}
	}
	return all
}

// release finds a successful release; the zero value: there is none.
func (s *Reports) release(ctx context.Context, key reportedKey) (releaseImages, error) {
	s.mu.Lock()
	r, ok := s.releases[key]
	s.mu.Unlock()
	if ok {
		return r, nil
	}
	rows, err := s.db.read.QueryContext(ctx, `
		SELECT r.id, coalesce(i.id, 0), coalesce(i.is_stored_at__image_location, '') FROM release r
		LEFT JOIN image__is_part_of__release p ON p.is_part_of__release = r.id
		LEFT JOIN image i ON i.id = p.image
		WHERE r.belongs_to__application = ? AND r.status = 'success' AND (r.id = ? OR r."commit" = ?)`, key.fleet, key.id, key.commit)
	if err != nil {
		return r, err
	}
	defer rows.Close()
	r.byLocation = map[string]int64{}
	for rows.Next() {
		var image int64
		var location string
		if err := rows.Scan(&r.id, &image, &location); err != nil {
			return r, err
		}
		r.byLocation[strings.ToLower(location)] = image
		r.images = append(r.images, image)
	}
	if err := rows.Err(); err != nil || r.id == 0 {
		return r, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.releases) >= maxReportedReleases {
		clear(s.releases)
	}
	s.releases[key] = r
	return r, nil
}

func (s *Reports) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.releases)
}

func (t *txn) applyReport(ctx context.Context, device int64, report Report, k known) error {
	if err := t.lockRow(ctx, "device", device); err != nil {
		return err
	}
	values, systems := split(reportedColumns(report.Values))
	if k.running != 0 {
		values = append(values, Value{"is_running__release", k.running})
	} else if report.StopsRunning {
		values = append(values, Value{"is_running__release", nil})
	}
	if err := t.setSystem(ctx, device, systems); err != nil {
		return err
	}
	changed, err := t.setReported(ctx, device, values, report)
	if err != nil {
		return err
	}
	moved, err := t.setUpdateStatus(ctx, device, k.update)
	if err != nil {
		return err
	}
	installed := false
	if report.HasApps {
		if installed, err = t.setInstalls(ctx, device, k.installs); err != nil {
			return err
		}
	}
	if changed || moved || installed {
		t.announce(OverviewTopic())
	}
	return nil
}

// split takes the versions of a device's system out: something follows from them.
func split(all []Value) (values []Value, systems Values) {
	for _, v := range all {
		switch v.Column {
		case "supervisor_version", "os_version", "os_variant":
			if systems == nil {
				systems = Values{}
			}
			systems[v.Column] = v.Value
		default:
			values = append(values, v)
		}
	}
	return values, systems
}

// setSystem writes versions that differ, by the rules for all who write them.
func (t *txn) setSystem(ctx context.Context, device int64, systems Values) error {
	if len(systems) == 0 {
		return nil
	}
	was := map[string]*sql.NullString{"supervisor_version": {}, "os_version": {}, "os_variant": {}}
	err := t.QueryRowContext(ctx, `SELECT supervisor_version, os_version, os_variant FROM device WHERE id = ?`, device).
		Scan(was["supervisor_version"], was["os_version"], was["os_variant"])
	if err != nil {
		return notFound(err, "device %d", device)
	}
	for name, value := range systems {
		if text, said := value.(string); was[name].Valid != said || was[name].String != text {
			by, err := t.forDevice(ctx, device)
			if err != nil {
				return err
			}
			_, err = t.change(ctx, by, "device", one(device), systems)
			return err
		}
	}
	return nil
}

func reportedColumns(values []Value) []Value {
	columns := reportable()
	return slices.DeleteFunc(slices.Clone(values), func(v Value) bool { return !slices.Contains(columns, v.Column) })
}

// setReported writes values, and metrics with them or when they are due.
func (t *txn) setReported(ctx context.Context, device int64, values []Value, report Report) (bool, error) {
	metrics := reportedColumns(report.Metrics)
	if report.MetricsDue {
		return t.setDevice(ctx, device, append(values, metrics...))
	}
	return t.setDevice(ctx, device, values, metrics...)
}

// setDevice writes columns of a device when one of them differs; what comes along is
// written with them.
func (t *txn) setDevice(ctx context.Context, device int64, values []Value, along ...Value) (changed bool, err error) {
	if len(values) == 0 {
		return false, nil
	}
	set, differs := []string{"modified_at = ?"}, []string{}
	args := []any{millis(t.now)}
	for _, v := range values {
		set = append(set, v.Column+" = ?")
		args = append(args, v.Value)
	}
	for _, v := range along {
		set = append(set, v.Column+" = ?")
		args = append(args, v.Value)
	}
	args = append(args, device)
	for _, v := range values {
		differs = append(differs, v.Column+" IS DISTINCT FROM ?")
		args = append(args, v.Value)
	}
	n, err := t.affected(ctx, `UPDATE device SET `+strings.Join(set, ", ")+` WHERE id = ? AND (`+strings.Join(differs, " OR ")+`)`, args...)
	return n > 0, err
}

func (t *txn) setUpdateStatus(ctx context.Context, device int64, status string) (changed bool, err error) {
	if status == "" {
		return false, nil
	}
	n, err := t.affected(ctx, `
		UPDATE device SET update_status = ?, last_update_status_event = ? WHERE id = ? AND update_status IS DISTINCT FROM ?`,
		status, millis(t.now), device, status)
	return n > 0, err
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

// installStatuses are the words a device may use for an image.
func installStatuses() []string {
	return []string{"Downloading", "Downloaded", "Installing", "Installed", "Starting", "Running", "Idle", "Handing over", "Awaiting handover",
		"Stopping", "Stopped", "exited", "Deleting", "deleted", "Dead", "paused", "restarting", "removing", "configuring", "Unknown"}
}

// progressEvery is how often the progress of a download is written while nothing
// else happens to it.
const progressEvery = 30 * time.Second

// stored is an image of the device as it was written last.
type storedInstall struct {
	id, image, release int64
	status             string
	progress           sql.NullInt64
	written            int64 // milliseconds
}

// setInstalls writes what differs from the images that are known to be on the
// device. One that is not mentioned is no longer there.
func (t *txn) setInstalls(ctx context.Context, device int64, installs []install) (changed bool, err error) {
	rows, err := t.QueryContext(ctx, `
		SELECT id, installs__image, is_provided_by__release, status, download_progress, coalesce(modified_at, created_at)
		FROM image_install WHERE device = ?`, device)
	if err != nil {
		return false, err
	}
	before, err := collect(rows, func(row interface{ Scan(...any) error }) (storedInstall, error) {
		var s storedInstall
		err := row.Scan(&s.id, &s.image, &s.release, &s.status, &s.progress, &s.written)
		return s, err
	})
	if err != nil {
		return false, err
	}
	was := make(map[int64]storedInstall, len(before))
	for _, s := range before {
		was[s.image] = s
	}
	mentioned := make(map[int64]bool, len(installs))
	for _, now := range installs {
		if mentioned[now.image] {
			continue
		}
		mentioned[now.image] = true
		wrote, err := t.setInstall(ctx, device, was[now.image], now)
		if err != nil {
			return changed, err
		}
		changed = changed || wrote
	}
	for _, s := range before {
		if mentioned[s.image] || s.status == "deleted" {
			continue
		}
		changed = true
		if _, err := t.ExecContext(ctx, `UPDATE image_install SET status = 'deleted', download_progress = NULL, modified_at = ? WHERE id = ?`, millis(t.now), s.id); err != nil {
			return changed, err
		}
	}
	return changed, nil
}

// setInstall writes one image; one of an unknown status is not written.
func (t *txn) setInstall(ctx context.Context, device int64, was storedInstall, now install) (bool, error) {
	if now.status != "" && !slices.Contains(installStatuses(), now.status) {
		return false, nil
	}
	var progress sql.NullInt64
	if now.progress != nil {
		progress = sql.NullInt64{Int64: min(max(*now.progress, 0), 100), Valid: true}
	}
	if was.id == 0 {
		status := now.status
		if status == "" {
			status = "Unknown"
		}
		_, err := t.ExecContext(ctx, `
			INSERT INTO image_install (created_at, modified_at, device, installs__image, is_provided_by__release, install_date, status, download_progress)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?)
			ON CONFLICT (device, installs__image) DO UPDATE SET is_provided_by__release = excluded.is_provided_by__release,
				status = excluded.status, download_progress = excluded.download_progress, modified_at = excluded.modified_at`, millis(t.now), millis(t.now), device, now.image, now.release, millis(t.now), status, progress)
		return true, missingReference(err, fmt.Sprintf("image %d", now.image))
	}
	if now.status == "" {
		now.status = was.status
	}
	if !was.differs(now, progress, t.now) {
		return false, nil
	}
	_, err := t.ExecContext(ctx, `UPDATE image_install SET is_provided_by__release = ?, status = ?, download_progress = ?, modified_at = ? WHERE id = ?`,
		now.release, now.status, progress, millis(t.now), was.id)
	return true, missingReference(err, fmt.Sprintf("release %d", now.release))
}

// differs says whether a report is worth a write: a download makes progress all the
// time, and everybody downloads at once.
func (was storedInstall) differs(now install, progress sql.NullInt64, at time.Time) bool {
	switch {
	case now.status != was.status || now.release != was.release:
		return true
	case progress == was.progress:
		return false
	case !progress.Valid || !was.progress.Valid || progress.Int64 == 100:
		return true
	}
	return at.Sub(time.UnixMilli(was.written)) >= progressEvery
}
