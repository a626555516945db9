package model

import (
	"context"

	"deckhand/cloud/access"
)

// May says whether the caller may do something with a row of a resource. A row
// that does not exist is one with which nobody may do anything.
func (db *DB) May(ctx context.Context, by access.Caller, resource string, verb access.Verb, id int64) (bool, error) {
	where, args, ok := access.Rows(by, resource, verb)
	if !ok {
		return false, nil
	}
	var n int
	err := db.read.QueryRowContext(ctx, `SELECT count(*) FROM "`+resource+`" t WHERE t.id = ? AND (`+where+`)`, append([]any{id}, args...)...).Scan(&n)
	return n > 0, err
}

// UserMayUseRepository says whether an image repository ("v2/<hash>") belongs
// to a fleet of one of the user's organizations.
func (db *DB) UserMayUseRepository(ctx context.Context, user int64, repository string) (bool, error) {
	var n int
	err := db.read.QueryRowContext(ctx, `
		SELECT count(*) FROM image i
		JOIN service s ON s.id = i.is_a_build_of__service
		JOIN application a ON a.id = s.application
		JOIN organization_membership m ON m.is_member_of__organization = a.organization
		WHERE i.is_stored_at__image_location = ? AND m."user" = ?`, repository, user).Scan(&n)
	return n > 0, err
}

// DeviceMayPull says whether an image repository ("v2/<hash>") is part of a
// release of the device's fleet, or of a release the device is told to run.
func (db *DB) DeviceMayPull(ctx context.Context, device int64, repository string) (bool, error) {
	var n int
	err := db.read.QueryRowContext(ctx, `
		SELECT count(*) FROM image i
		JOIN image__is_part_of__release p ON p.image = i.id
		JOIN release r ON r.id = p.is_part_of__release
		JOIN device d ON d.id = ?
		WHERE i.is_stored_at__image_location = ? AND d.is_frozen = FALSE
		  AND (r.belongs_to__application = d.belongs_to__application
		       OR r.id IN (d.is_pinned_on__release, d.should_be_operated_by__release, d.should_be_managed_by__release))`,
		device, repository).Scan(&n)
	return n > 0, err
}

// ActorOf is the actor of a user, a fleet ("application") or a device.
func (db *DB) ActorOf(ctx context.Context, resource string, id int64) (int64, error) {
	var actor int64
	err := db.read.QueryRowContext(ctx, `SELECT t.actor FROM "`+resource+`" t WHERE t.id = ?`, id).Scan(&actor)
	return actor, notFound(err, "%s %d", resource, id)
}
