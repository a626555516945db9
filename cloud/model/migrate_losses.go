package model

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
)

// loss is something that an older schema has no place for: how many rows there
// are of it, in words that follow "back there is no place for ".
type loss struct{ what, count string }

// losses are the checks before a step back, by version: they refuse when data
// would be lost. Not counted are the audit log, keys that are made again, and what
// a device sends again by itself.
func losses() map[int64]func(context.Context, *sql.Tx) error {
	return map[int64]func(context.Context, *sql.Tx) error{
		2: refuseLoss(
			loss{"organizations that are not one user's own", `SELECT count(*) FROM organization o WHERE NOT EXISTS (SELECT 1 FROM "user" u
				JOIN organization_membership m ON m."user" = u.id AND m.is_member_of__organization = o.id WHERE u.username = o.handle)`},
			loss{"memberships of others' organizations", `SELECT (SELECT count(*) FROM organization_membership) - (SELECT count(*) FROM organization)`},
		),
		3: refuseLoss(
			loss{"fleets with other services than one", `SELECT count(*) FROM application a WHERE (SELECT count(*) FROM service s WHERE s.application = a.id) <> 1`},
			loss{"releases with other images than one", `SELECT count(*) FROM release r WHERE (SELECT count(*) FROM image__is_part_of__release p WHERE p.is_part_of__release = r.id) <> 1`},
			loss{"releases with the commit of another", `SELECT count(*) FROM release r WHERE EXISTS (SELECT 1 FROM release o
				WHERE o.belongs_to__application = r.belongs_to__application AND o."commit" = r."commit" AND o.id < r.id)`},
			loss{"images in several releases", `SELECT count(*) FROM (SELECT image FROM image__is_part_of__release GROUP BY image HAVING count(*) > 1) t`},
			loss{"drafts, versions and notes of releases", `SELECT count(*) FROM release WHERE revision IS NULL OR semver_major + semver_minor + semver_patch <> 0
				OR semver_prerelease <> '' OR semver_build <> '' OR variant <> '' OR note IS NOT NULL OR is_invalidated`},
			loss{"blocks, apps and host systems", `SELECT count(*) FROM application WHERE is_of__class <> 'fleet' OR is_host OR is_public OR is_archived`},
			loss{"variables of services", `SELECT (SELECT count(*) FROM service_environment_variable) + (SELECT count(*) FROM device_service_environment_variable)
				+ (SELECT count(*) FROM image_environment_variable)`},
			loss{"labels", `SELECT (SELECT count(*) FROM service_label) + (SELECT count(*) FROM image_label)`},
			loss{"fleets of organizations with several members", `SELECT count(*) FROM application a
				WHERE (SELECT count(*) FROM organization_membership m WHERE m.is_member_of__organization = a.organization) <> 1`},
			loss{"frozen devices", `SELECT count(*) FROM device WHERE is_frozen`},
		),
		4: refuseLoss(
			loss{"tags", `SELECT (SELECT count(*) FROM application_tag) + (SELECT count(*) FROM device_tag) + (SELECT count(*) FROM release_tag)`},
			loss{"public keys", `SELECT count(*) FROM user__has__public_key`},
			loss{"assets of releases", `SELECT count(*) FROM release_asset`},
			loss{"profiles", `SELECT (SELECT count(*) FROM image_profile) + (SELECT count(*) FROM application_profile)`},
			loss{"build variables", `SELECT count(*) FROM build_environment_variable`},
		),
	}
}

// refuseLoss makes a check that names everything there is no place for.
func refuseLoss(all ...loss) func(context.Context, *sql.Tx) error {
	return func(ctx context.Context, tx *sql.Tx) error {
		var found []string
		for _, l := range all {
			var n int64
			if err := tx.QueryRowContext(ctx, l.count).Scan(&n); err != nil {
				return err
			}
			if n > 0 {
				found = append(found, fmt.Sprintf("%s (%d)", l.what, n))
			}
		}
		if len(found) > 0 {
			return fmt.Errorf("the older schema has no place for %s; remove them first, or restore a backup", strings.Join(found, ", "))
		}
		return nil
	}
}
