package model

import (
	"context"
	"database/sql"
	"errors"
	"regexp"
	"strings"

	"deckhand/cloud/access"
)

func fleetRules() rules {
	return rules{
		required: "app_name slug uuid actor organization is_for__device_type application_type is_of__class should_track_latest_release",
		server:   "actor slug",
		fixed:    "uuid",
		words:    map[string][]string{"is_of__class": {"fleet", "block", "app"}},
		create:   newFleet,
		update:   changedFleet,
		remove:   leavingFleet,
		after:    each(afterFleet),
	}
}

var (
	fleetNameRule = regexp.MustCompile(`^[a-zA-Z0-9_-]{4,100}$`)
	fleetUUIDRule = regexp.MustCompile(`^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$`)
)

func newFleet(ctx context.Context, t *txn, w *write) error {
	// A fleet has no release yet, and begins by following its latest.
	delete(w.set, "should_be_running__release")
	w.set["should_track_latest_release"] = true
	w.put("uuid", newUUID())
	w.put("is_of__class", "fleet")
	if !fleetUUIDRule.MatchString(w.text("uuid")) {
		return invalid("uuid", "Application UUID must be a 32 character long lower case UUID version 4.")
	}
	if err := t.fleetType(ctx, w); err != nil {
		return err
	}
	if err := t.fleetOwner(ctx, w); err != nil {
		return err
	}
	if err := t.nameFleet(ctx, w); err != nil {
		return err
	}
	actor, err := t.newActor(ctx)
	w.set["actor"] = actor
	return err
}

func (t *txn) fleetType(ctx context.Context, w *write) error {
	if w.ref("application_type") != 0 {
		return nil
	}
	var id int64
	err := t.QueryRowContext(ctx, `SELECT id FROM application_type WHERE slug = 'default'`).Scan(&id)
	w.set["application_type"] = id
	return err
}

// fleetOwner is the first organization of a user who names none.
func (t *txn) fleetOwner(ctx context.Context, w *write) error {
	if w.ref("organization") != 0 || w.by.Role != access.User && w.by.Role != access.UserKey {
		return nil
	}
	id, err := t.organizationOf(ctx, w.by.ID, 0)
	w.set["organization"] = id
	return err
}

// organizationOf is the organization asked for when the user is a member of
// it, or else the user's first.
func (t *txn) organizationOf(ctx context.Context, user, asked int64) (id int64, err error) {
	err = t.QueryRowContext(ctx, `
		SELECT is_member_of__organization FROM organization_membership
		WHERE "user" = ? AND (CAST(? AS BIGINT) = 0 OR is_member_of__organization = ?) ORDER BY id LIMIT 1`, user, asked, asked).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, invalid("organization", "The organization does not exist or you are not a member of it.")
	}
	return id, err
}

// nameFleet checks the name and makes the slug of it.
func (t *txn) nameFleet(ctx context.Context, w *write) error {
	name := w.text("app_name")
	switch {
	case w.is("app_name") == nil:
		return invalid("app_name", "app_name must be given.")
	case strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") != "":
		return invalid("app_name", "App name may only contain [a-zA-Z0-9_-].")
	case !fleetNameRule.MatchString(name):
		return invalid("app_name", "App name must be 4 to 100 of the characters [a-zA-Z0-9_-].")
	case w.is("organization") == nil:
		return invalid("organization", "organization must be given.")
	}
	var handle string
	err := t.QueryRowContext(ctx, `SELECT handle FROM organization WHERE id = ?`, w.ref("organization")).Scan(&handle)
	if errors.Is(err, sql.ErrNoRows) {
		return &ReferenceError{By: "organization", Missing: true}
	}
	w.set["slug"] = strings.ToLower(handle + "/" + name)
	return err
}

func changedFleet(ctx context.Context, t *txn, w *write) error {
	if w.changes("app_name", "organization") {
		if err := t.nameFleet(ctx, w); err != nil {
			return err
		}
	}
	if w.changes("is_for__device_type") {
		same, err := t.sameArchitecture(ctx, w.was["is_for__device_type"], w.ref("is_for__device_type"))
		if err != nil {
			return err
		}
		if !same {
			return invalid("is_for__device_type", "The new default device type should be of the same cpu architecture as the previous one.")
		}
	}
	if release := w.ref("should_be_running__release"); release != 0 && w.changes("should_be_running__release") {
		ok, err := t.runnable(ctx, release, w.id)
		if err != nil {
			return err
		}
		if !ok {
			return invalid("should_be_running__release", `It is necessary that each release that should be running on an application, has a status that is equal to "success" and belongs to the application.`)
		}
	}
	return nil
}

func (t *txn) sameArchitecture(ctx context.Context, before any, after int64) (bool, error) {
	return t.exists(ctx, `
		SELECT 1 FROM device_type a JOIN device_type b ON a.is_of__cpu_architecture = b.is_of__cpu_architecture
		WHERE a.id = ? AND b.id = ?`, before, after)
}

// runnable says whether a release was built, and for that fleet.
func (t *txn) runnable(ctx context.Context, release, fleet int64) (bool, error) {
	return t.exists(ctx, `SELECT 1 FROM release WHERE id = ? AND belongs_to__application = ? AND status = 'success'`, release, fleet)
}

// leavingFleet removes the devices first, for the actors that they leave.
func leavingFleet(ctx context.Context, t *txn, w *write) error {
	// Told now: afterwards nobody knows whom it concerned.
	if err := t.tellFleet(ctx, w.id); err != nil {
		return err
	}
	actors, err := t.ids(ctx, `SELECT actor FROM device WHERE belongs_to__application = ?`, w.id)
	if err != nil {
		return err
	}
	if _, err := t.ExecContext(ctx, `DELETE FROM device WHERE belongs_to__application = ?`, w.id); err != nil {
		return err
	}
	return t.dropActors(ctx, actors)
}

// dropActors removes actors with their API keys.
func (t *txn) dropActors(ctx context.Context, actors []int64) error {
	if len(actors) == 0 {
		return nil
	}
	return t.deleteRows(ctx, "actor", actors)
}

func afterFleet(ctx context.Context, t *txn, w *write) error {
	switch w.verb {
	case access.Create:
		return nil
	case access.Delete:
		return t.dropActors(ctx, []int64{w.ref("actor")})
	}
	// A release may have ended since the client looked for the latest one.
	if w.asked["should_track_latest_release"] && w.asked["should_be_running__release"] && w.flag("should_track_latest_release") {
		if err := t.track(ctx, w.by, w.id); err != nil {
			return err
		}
	}
	if w.changes("should_be_running__release") {
		if err := t.installNewServices(ctx, w.id); err != nil {
			return err
		}
	}
	if w.changes("should_be_running__release") {
		t.announce(Topic{FleetTarget, w.id})
	}
	if w.changes("app_name", "is_of__class", "is_host", "is_updated_by__application") {
		return t.tellFleet(ctx, w.id)
	}
	return nil
}

// installNewServices makes the missing service installs of a fleet. Nearly always
// nothing is missing: counting finds that out faster than trying each service on each
// device, and all at once (+: through the index by device) faster than one by one.
func (t *txn) installNewServices(ctx context.Context, fleet int64) error {
	var missing bool
	if err := t.QueryRowContext(ctx, `
		SELECT (SELECT count(*) FROM device o JOIN service_install i ON i.device = o.id
		        WHERE o.belongs_to__application = ? AND +i.installs__service IN (SELECT n.id FROM service n WHERE n.application = ?))
		     < (SELECT count(*) FROM device o WHERE o.belongs_to__application = ?) * (SELECT count(*) FROM service n WHERE n.application = ?)`,
		fleet, fleet, fleet, fleet).Scan(&missing); err != nil || !missing {
		return err
	}
	return t.installServices(ctx, `d.belongs_to__application = ? AND s.id IN (
		SELECT n.id FROM service n WHERE n.application = ? AND
			(SELECT count(*) FROM service_install i JOIN device o ON o.id = i.device WHERE i.installs__service = n.id AND o.belongs_to__application = n.application)
			< (SELECT count(*) FROM device o WHERE o.belongs_to__application = n.application))`, fleet, fleet)
}

// installServices makes the missing service installs of the devices d that the
// condition selects: all services of their fleet. They must exist before a device
// reports: variables of a service on a device hang on them.
func (t *txn) installServices(ctx context.Context, devices string, args ...any) error {
	_, err := t.ExecContext(ctx, `
		INSERT INTO service_install (created_at, device, installs__service)
		SELECT CAST(? AS BIGINT), d.id, s.id FROM device d JOIN service s ON s.application = d.belongs_to__application
		WHERE `+devices+`
		ON CONFLICT (device, installs__service) DO NOTHING`, append([]any{millis(t.now)}, args...)...)
	return err
}

func profileRules() rules {
	return rules{
		required: "application on__application activates__profile_name",
		fixed:    "application on__application",
		lengths:  map[string][2]int{"activates__profile_name": {2, 100}},
		together: true,
		after: func(_ context.Context, t *txn, rows []*write) error {
			for _, fleet := range refsOf(rows, "application") {
				t.announce(Topic{FleetTarget, fleet})
			}
			return nil
		},
	}
}
