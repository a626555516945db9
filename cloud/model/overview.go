package model

import (
	"context"
	"database/sql"
	"strings"
)

// OverviewFleet is a fleet as a person looks at it.
type OverviewFleet struct {
	Fleet
	Target *OverviewRelease // nil: nothing released yet
	Latest *OverviewRelease // the newest release when it is not the target: being built, failed, a draft
	// Devices by name.
	Devices []OverviewDevice
}

// OverviewRelease is a release and how the build of its images goes.
type OverviewRelease struct {
	Release
	Images []Image // by service
}

// OverviewDevice is a device and what is on it.
type OverviewDevice struct {
	Device
	Status        string // as the device reported, for example Idle
	UpdateStatus  string // "" or for example downloading
	RunningCommit string // "" when it runs nothing
	TargetCommit  string // "" when it should run nothing
	Services      []OverviewService
}

// OverviewService is one service on a device: an image that is there or on
// its way.
type OverviewService struct {
	Service  string
	Commit   string // of the release the image belongs to
	Status   string // for example Running
	Progress *int64 // percent downloaded; nil when none runs
}

// Overview is everything a user sees on the first page, by name.
func (db *DB) Overview(ctx context.Context, user int64) ([]OverviewFleet, error) {
	rows, err := db.read.QueryContext(ctx, fleetQuery+`
		JOIN organization_membership m ON m.is_member_of__organization = a.organization
		WHERE m."user" = ? AND a.is_archived = FALSE ORDER BY lower(a.app_name), a.id`, user)
	if err != nil {
		return nil, err
	}
	fleets, err := collect(rows, scanFleet)
	if err != nil {
		return nil, err
	}
	all := make([]OverviewFleet, len(fleets))
	for i, f := range fleets {
		if all[i], err = db.overviewFleet(ctx, f); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (db *DB) overviewFleet(ctx context.Context, f Fleet) (OverviewFleet, error) {
	o := OverviewFleet{Fleet: f}
	rows, err := db.read.QueryContext(ctx, releaseQuery+`
		WHERE belongs_to__application = ? AND (id = ? OR id = (SELECT max(id) FROM release WHERE belongs_to__application = ?))`, f.ID, f.TargetRelease, f.ID)
	if err != nil {
		return o, err
	}
	releases, err := collect(rows, scanRelease)
	if err != nil {
		return o, err
	}
	for _, r := range releases {
		images, err := db.Images(ctx, r.ID)
		if err != nil {
			return o, err
		}
		shown := &OverviewRelease{Release: r, Images: images}
		if r.ID == f.TargetRelease {
			o.Target = shown
		} else {
			o.Latest = shown
		}
	}
	if o.Devices, err = db.overviewDevices(ctx, f); err != nil {
		return o, err
	}
	return o, db.overviewServices(ctx, f, o.Devices)
}

func (db *DB) overviewDevices(ctx context.Context, f Fleet) ([]OverviewDevice, error) {
	query := strings.Replace(deviceQuery, "FROM device d", `,
		coalesce(d.status, ''), coalesce(d.update_status, ''), coalesce(running."commit", ''), coalesce(wanted."commit", '') FROM device d`, 1) + `
		JOIN application a ON a.id = d.belongs_to__application
		LEFT JOIN release running ON running.id = d.is_running__release
		LEFT JOIN release wanted ON wanted.id = coalesce(d.is_pinned_on__release, a.should_be_running__release)
		WHERE d.belongs_to__application = ? ORDER BY lower(d.device_name), d.id`
	rows, err := db.read.QueryContext(ctx, query, f.ID)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (OverviewDevice, error) {
		var d OverviewDevice
		var err error
		d.Device, err = scanDevice(scanMore{row, []any{&d.Status, &d.UpdateStatus, &d.RunningCommit, &d.TargetCommit}})
		return d, err
	})
}

// scanMore scans further columns after those of another scan function.
type scanMore struct {
	row  interface{ Scan(...any) error }
	more []any
}

func (s scanMore) Scan(dest ...any) error { return s.row.Scan(append(dest, s.more...)...) }

func (db *DB) overviewServices(ctx context.Context, f Fleet, devices []OverviewDevice) error {
	byID := map[int64]*OverviewDevice{}
	for i := range devices {
		byID[devices[i].ID] = &devices[i]
	}
	rows, err := db.read.QueryContext(ctx, `
		SELECT n.device, s.service_name, r."commit", n.status, n.download_progress
		FROM image_install n
		JOIN device d ON d.id = n.device
		JOIN image i ON i.id = n.installs__image
		JOIN service s ON s.id = i.is_a_build_of__service
		JOIN release r ON r.id = n.is_provided_by__release
		WHERE d.belongs_to__application = ? AND n.status <> 'deleted'
		ORDER BY n.device, s.service_name, r.id`, f.ID)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var device int64
		var s OverviewService
		var progress sql.NullInt64
		if err := rows.Scan(&device, &s.Service, &s.Commit, &s.Status, &progress); err != nil {
			return err
		}
		if progress.Valid {
			s.Progress = &progress.Int64
		}
		if d := byID[device]; d != nil {
			d.Services = append(d.Services, s)
		}
	}
	return rows.Err()
}
