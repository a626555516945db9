package model

import (
	"context"
	"fmt"
	"slices"
	"strings"

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

// Repositories says with which of some image repositories ("v2/<hash>") the
// caller may do something.
func (db *DB) Repositories(ctx context.Context, by access.Caller, verb access.Verb, asked []string) (map[string]bool, error) {
	may := map[string]bool{}
	where, args, ok := access.Rows(by, "image", verb)
	if !ok {
		return may, nil
	}
	for some := range slices.Chunk(asked, 200) {
		values := make([]any, 0, len(some)+len(args))
		for _, repository := range some {
			values = append(values, repository)
		}
		found, err := column[string](db.read.QueryContext(ctx, `SELECT t.is_stored_at__image_location FROM image t
			WHERE t.is_stored_at__image_location IN (?`+strings.Repeat(", ?", len(some)-1)+`) AND (`+where+`)`, append(values, args...)...))
		if err != nil {
			return nil, err
		}
		for _, repository := range found {
			may[repository] = true
		}
	}
	return may, nil
}

// RepositoryNamed is the repository of the only image of a fleet's release, by
// the fleet's slug and a version: a commit, a version of the release, or "" for
// the fleet's target. ErrNotFound: there is none that the caller may read, or
// the release has several images.
func (db *DB) RepositoryNamed(ctx context.Context, by access.Caller, slug, version string) (string, error) {
	where, permitted, ok := access.Rows(by, "release", access.Read)
	releases, known := ResourceNamed("release")
	semver, hasSemver := releases.Field("semver")
	raw, hasRaw := releases.Field("raw_version")
	if !ok || !known || !hasSemver || !hasRaw {
		return "", fmt.Errorf("release of %s: %w", slug, ErrNotFound)
	}
	which, args := `t.id = a.should_be_running__release`, []any{slug}
	if version != "" {
		// Of drafts the whole version only: which one would the short one be?
		which = `(t."commit" = ? OR (t.revision IS NOT NULL AND ` + semver.SQL() + ` = ?) OR ` + raw.SQL() + ` = ?)`
		args = append(args, version, version, version)
	}
	var release int64
	if err := db.read.QueryRowContext(ctx, `SELECT t.id FROM release t JOIN application a ON a.id = t.belongs_to__application
		WHERE a.slug = ? AND t.status = 'success' AND `+which+` AND (`+where+`) ORDER BY coalesce(t.revision, -1) DESC, t.id DESC LIMIT 1`,
		append(args, permitted...)...).Scan(&release); err != nil {
		return "", notFound(err, "release of %s", slug)
	}
	found, err := column[string](db.read.QueryContext(ctx, `SELECT i.is_stored_at__image_location FROM image i
		JOIN image__is_part_of__release p ON p.image = i.id WHERE p.is_part_of__release = ? LIMIT 2`, release))
	if err != nil {
		return "", err
	}
	if len(found) != 1 {
		return "", fmt.Errorf("single image of release %d: %w", release, ErrNotFound)
	}
	return found[0], nil
}

// ActorOf is the actor of a user, a fleet ("application") or a device.
func (db *DB) ActorOf(ctx context.Context, resource string, id int64) (int64, error) {
	var actor int64
	err := db.read.QueryRowContext(ctx, `SELECT t.actor FROM "`+resource+`" t WHERE t.id = ?`, id).Scan(&actor)
	return actor, notFound(err, "%s %d", resource, id)
}

// PublicKeys are the SSH keys of a user that the caller may read.
func (db *DB) PublicKeys(ctx context.Context, by access.Caller, username string) ([]string, error) {
	where, args, ok := access.Rows(by, "user__has__public_key", access.Read)
	if !ok {
		return nil, nil
	}
	return column[string](db.read.QueryContext(ctx, `SELECT t.public_key FROM user__has__public_key t
		WHERE t."user" IN (SELECT p.id FROM "user" p WHERE p.username = ?) AND (`+where+`) ORDER BY t.id`, append([]any{username}, args...)...))
}
