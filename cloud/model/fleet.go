package model

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"
)

// Fleet is an application: a set of devices which run the same releases.
type Fleet struct {
	ID            int64
	Actor         int64
	UUID          string
	Name          string
	Slug          string // <organization handle>/<name>, lower case
	Class         string // fleet, block or app
	IsHost        bool
	DeviceType    string // slug
	Arch          string // CPU architecture of the device type
	TargetRelease int64  // 0: none
	TrackLatest   bool   // the newest successful final release becomes the target
	CreatedAt     time.Time
}

const fleetQuery = `
	SELECT a.id, a.actor, a.uuid, a.app_name, a.slug, a.is_of__class, a.is_host, dt.slug, arch.slug,
	       coalesce(a.should_be_running__release, 0), a.should_track_latest_release, a.created_at
	FROM application a
	JOIN device_type dt ON dt.id = a.is_for__device_type
	JOIN cpu_architecture arch ON arch.id = dt.is_of__cpu_architecture`

func scanFleet(row interface{ Scan(...any) error }) (Fleet, error) {
	var f Fleet
	var created sql.NullInt64
	err := row.Scan(&f.ID, &f.Actor, &f.UUID, &f.Name, &f.Slug, &f.Class, &f.IsHost, &f.DeviceType, &f.Arch,
		&f.TargetRelease, &f.TrackLatest, &created)
	f.CreatedAt = fromMillis(created)
	return f, err
}

// FleetBySlug finds a fleet by its slug ("org/name") or, when only one fleet
// has that name, by its bare name.
func (db *DB) FleetBySlug(ctx context.Context, slug string) (Fleet, error) {
	column := "a.slug"
	if !strings.Contains(slug, "/") {
		column = "lower(a.app_name)"
	}
	rows, err := db.read.QueryContext(ctx, fleetQuery+` WHERE `+column+` = ? ORDER BY a.id LIMIT 2`, strings.ToLower(slug))
	if err != nil {
		return Fleet{}, err
	}
	found, err := collect(rows, scanFleet)
	switch {
	case err != nil:
		return Fleet{}, err
	case len(found) == 0:
		return Fleet{}, fmt.Errorf("fleet %q: %w", slug, ErrNotFound)
	case len(found) > 1:
		return Fleet{}, fmt.Errorf("fleet %q: several fleets have this name, give the slug (for example %s): %w", slug, found[0].Slug, ErrNotFound)
	}
	return found[0], nil
}

// FleetByID finds a fleet by id.
func (db *DB) FleetByID(ctx context.Context, id int64) (Fleet, error) {
	f, err := scanFleet(db.read.QueryRowContext(ctx, fleetQuery+` WHERE a.id = ?`, id))
	return f, notFound(err, "fleet %d", id)
}

// UserMayUseFleet says whether the fleet belongs to an organization of the user.
func (db *DB) UserMayUseFleet(ctx context.Context, user, fleet int64) (bool, error) {
	var n int
	err := db.read.QueryRowContext(ctx, `
		SELECT count(*) FROM application a
		JOIN organization_membership m ON m.is_member_of__organization = a.organization
		WHERE a.id = ? AND m."user" = ?`, fleet, user).Scan(&n)
	return n > 0, err
}

// NewFleet describes a fleet to create.
type NewFleet struct {
	Name       string
	DeviceType string // slug
	// User is the owner; the fleet goes to the organization that carries the
	// user's name unless Organization names another of the user's.
	User         int64
	Organization int64
	UUID         string // generated when empty
	Class        string // fleet when empty
}

// CreateFleet adds a fleet. A taken name gives ErrConflict, an unknown device
// type ErrNotFound, a bad name ErrInvalid.
func (db *DB) CreateFleet(ctx context.Context, n NewFleet) (Fleet, error) {
	var id int64
	err := db.update(ctx, func(t *txn) error {
		by, err := t.forUser(ctx, n.User)
		if err != nil {
			return err
		}
		org, err := t.organizationOf(ctx, n.User, n.Organization)
		if err != nil {
			return err
		}
		deviceType, err := t.deviceType(ctx, n.DeviceType)
		if err != nil {
			return err
		}
		v := Values{"app_name": n.Name, "organization": org, "is_for__device_type": deviceType}
		if n.UUID != "" {
			v["uuid"] = n.UUID
		}
		if n.Class != "" {
			v["is_of__class"] = n.Class
		}
		id, err = t.create(ctx, by, "application", v)
		return err
	})
	if err != nil {
		return Fleet{}, fmt.Errorf("create fleet %s: %w", n.Name, err)
	}
	return db.FleetByID(ctx, id)
}

// newUUID is a random version 4 UUID without dashes.
func newUUID() string {
	b := []byte(randomHex(16))
	b[12] = '4'
	b[16] = "89ab"[b[16]&3]
	return string(b)
}

// column reads rows of one column.
func column[T any](rows *sql.Rows, err error) ([]T, error) {
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (T, error) {
		var v T
		err := row.Scan(&v)
		return v, err
	})
}

func collect[T any](rows *sql.Rows, scan func(interface{ Scan(...any) error }) (T, error)) ([]T, error) {
	defer rows.Close()
	var all []T
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
