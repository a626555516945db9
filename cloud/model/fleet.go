package model

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"regexp"
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

var (
	fleetNameRule = regexp.MustCompile(`^[a-zA-Z0-9_-]{4,100}$`)
	fleetUUIDRule = regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`)
)

func (n NewFleet) check() error {
	switch {
	case strings.Trim(n.Name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "":
		return invalid("app_name", "App name may only contain [a-zA-Z0-9_-].")
	case !fleetNameRule.MatchString(n.Name):
		return invalid("app_name", "App name must be 4 to 100 of the characters [a-zA-Z0-9_-].")
	case !fleetUUIDRule.MatchString(n.UUID):
		return invalid("uuid", "Application UUID must be a 32 character long lower case UUID version 4.")
	case n.Class != "fleet" && n.Class != "block" && n.Class != "app":
		return invalid("is_of__class", "is_of__class must be fleet, block or app.")
	}
	return nil
}

// CreateFleet adds a fleet. A taken name gives ErrConflict, an unknown device
// type ErrNotFound, a bad name ErrInvalid.
func (db *DB) CreateFleet(ctx context.Context, n NewFleet) (Fleet, error) {
	if n.UUID == "" {
		n.UUID = newUUID()
	}
	if n.Class == "" {
		n.Class = "fleet"
	}
	if err := n.check(); err != nil {
		return Fleet{}, err
	}
	var id int64
	err := db.update(ctx, func(t *txn) error {
		org, handle, err := t.organizationOf(ctx, n.User, n.Organization)
		if err != nil {
			return err
		}
		deviceType, err := t.deviceType(ctx, n.DeviceType)
		if err != nil {
			return err
		}
		actor, err := t.newActor(ctx)
		if err != nil {
			return err
		}
		slug := strings.ToLower(handle + "/" + n.Name)
		if err := t.free(ctx, "slug", slug); err != nil {
			return err
		}
		id, err = t.insert(ctx, `
			INSERT INTO application (created_at, actor, organization, app_name, slug, uuid, is_for__device_type, is_of__class, application_type)
			VALUES (?, ?, ?, ?, ?, ?, ?, ?, (SELECT id FROM application_type WHERE slug = 'default'))`,
			millis(t.now), actor, org, n.Name, slug, n.UUID, deviceType, n.Class)
		t.announce(OverviewTopic())
		return conflictOn(err, "uuid")
	})
	if err != nil {
		return Fleet{}, fmt.Errorf("create fleet %s: %w", n.Name, err)
	}
	return db.FleetByID(ctx, id)
}

// free refuses a slug that is taken: asked first because the database does
// not say portably which of two unique columns was hit.
func (t *txn) free(ctx context.Context, column, value string) error {
	var n int
	if err := t.QueryRowContext(ctx, `SELECT count(*) FROM application WHERE `+column+` = ?`, value).Scan(&n); err != nil {
		return err
	}
	if n > 0 {
		return &ConflictError{Fields: []string{column}}
	}
	return nil
}

// organizationOf is the organization asked for when the user is a member of
// it, or else the user's first.
func (t *txn) organizationOf(ctx context.Context, user, asked int64) (id int64, handle string, err error) {
	err = t.QueryRowContext(ctx, `
		SELECT o.id, o.handle FROM organization o
		JOIN organization_membership m ON m.is_member_of__organization = o.id
		WHERE m."user" = ? AND (? = 0 OR o.id = ?) ORDER BY m.id LIMIT 1`, user, asked, asked).Scan(&id, &handle)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, "", invalid("organization", "The organization does not exist or you are not a member of it.")
	}
	return id, handle, err
}

// newUUID is a random version 4 UUID without dashes.
func newUUID() string {
	b := []byte(randomHex(16))
	b[12] = '4'
	b[16] = "89ab"[b[16]&3]
	return string(b)
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
