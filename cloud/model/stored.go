package model

import (
	"context"
	"database/sql"
	"errors"
	"time"
)

// StoredImage is an image as the registry needs to know it.
type StoredImage struct {
	Repository  string // "v2/<32 hex>"
	ContentHash string // digest of its manifest; "" while it is not known
	// Done: the image was built and pushed, and a release that succeeded has it.
	Done    bool
	Release string // a release that has it, as "fleet/raw version", for people
}

// StoredImages are the images that must stay in the registry: those that a release
// has, and those made after since, whose release may not be written yet.
func (db *DB) StoredImages(ctx context.Context, since time.Time) ([]StoredImage, error) {
	rows, err := db.read.QueryContext(ctx, `
		SELECT i.is_stored_at__image_location, i.content_hash, i.status = 'success' AND coalesce(max(CASE WHEN r.status = 'success' THEN 1 ELSE 0 END), 0) = 1, min(a.slug || '/' || r.raw_version)
		FROM image i
		LEFT JOIN image__is_part_of__release p ON p.image = i.id
		LEFT JOIN release r ON r.id = p.is_part_of__release
		LEFT JOIN application a ON a.id = r.belongs_to__application
		WHERE p.id IS NOT NULL OR i.created_at >= ?
		GROUP BY i.id, i.is_stored_at__image_location, i.content_hash, i.status`, since.UnixMilli())
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (StoredImage, error) {
		var i StoredImage
		var hash, release sql.NullString
		err := row.Scan(&i.Repository, &hash, &i.Done, &release)
		i.ContentHash, i.Release = hash.String, release.String
		return i, err
	})
}

// Forget runs do, which takes a repository out of the registry, unless the image
// must stay: see StoredImages. While do runs no release can get the image. do may
// run more than once.
func (db *DB) Forget(ctx context.Context, repository string, since time.Time, do func() error) (forgotten bool, err error) {
	err = db.update(ctx, func(t *txn) error {
		forgotten = false
		lock := ""
		if t.dialect.rowLocks {
			lock = " FOR UPDATE" // who adds the image to a release waits for this row
		}
		image, err := t.found(ctx, `SELECT id FROM image WHERE is_stored_at__image_location = ?`+lock, repository)
		if err != nil {
			return err
		}
		if image != 0 {
			needed, err := t.exists(ctx, `
				SELECT 1 FROM image i WHERE i.id = ? AND (i.created_at >= ?
				OR EXISTS (SELECT 1 FROM image__is_part_of__release p WHERE p.image = i.id))`, image, since.UnixMilli())
			if err != nil || needed {
				return err
			}
		}
		forgotten = true
		return do()
	})
	return forgotten && err == nil, err
}

// Owner is the organization that an image in the registry belongs to.
type Owner struct {
	ID     int64
	Handle string
}

// OwnerOf finds who a repository belongs to. ErrNotFound: no image is there.
func (db *DB) OwnerOf(ctx context.Context, repository string) (Owner, error) {
	var o Owner
	err := db.read.QueryRowContext(ctx, `
		SELECT o.id, o.handle FROM image i
		JOIN service s ON s.id = i.is_a_build_of__service
		JOIN application a ON a.id = s.application
		JOIN organization o ON o.id = a.organization
		WHERE i.is_stored_at__image_location = ?`, repository).Scan(&o.ID, &o.Handle)
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotFound
	}
	return o, err
}

// RepositoriesOf are all repositories of an organization's images.
func (db *DB) RepositoriesOf(ctx context.Context, organization int64) ([]string, error) {
	return column[string](db.read.QueryContext(ctx, `
		SELECT i.is_stored_at__image_location FROM image i
		JOIN service s ON s.id = i.is_a_build_of__service
		JOIN application a ON a.id = s.application
		WHERE a.organization = ?`, organization))
}
