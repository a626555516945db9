package access

// set is some rows, as a condition on what a way leads to. Each ? is the
// caller's id.
type set struct {
	kind  string // the way it needs: fleet, device, release …; empty: none
	sql   string // the ids, or the whole condition when kind is empty
	words string
}

const (
	publicFleets = `SELECT a.id FROM application a WHERE a.is_public = TRUE`
	myOrgs       = `SELECT m.is_member_of__organization FROM organization_membership m WHERE m."user" = ?`
	ourFleets    = `SELECT a.id FROM application a WHERE a.organization IN (` + myOrgs + `)`
	itself       = `SELECT d.id FROM device d WHERE d.id = ? AND d.is_frozen = FALSE`
	itsFleet     = `SELECT d.belongs_to__application FROM device d WHERE d.id = ? AND d.is_frozen = FALSE`
	toldReleases = `SELECT r.id FROM release r JOIN device d ON d.id = ? AND d.is_frozen = FALSE
		AND r.id IN (d.is_pinned_on__release, d.should_be_operated_by__release, d.should_be_managed_by__release)`
)

// sets are the row sets that the table names, for each role that has them.
func sets(r Role) map[string]set {
	all := map[string]set{
		"all":    {"", `TRUE`, "all"},
		"public": {"fleet", publicFleets, "of public fleets"},
	}
	switch r {
	case Guest:
	case User, UserKey:
		all["ours"] = set{"fleet", ourFleets, "of fleets of their organizations"}
		all["visible"] = set{"fleet", `SELECT a.id FROM application a WHERE a.is_public = TRUE OR a.organization IN (` + myOrgs + `)`,
			"of fleets of their organizations and of public fleets"}
		all["member"] = set{"organization", myOrgs, "of their organizations"}
		// The new row itself must not be what makes the caller a member.
		all["joined-before"] = set{"", `EXISTS (SELECT 1 FROM organization_membership m WHERE m."user" = ?
			AND m.is_member_of__organization = t.is_member_of__organization AND m.id <> t.id)`, "of organizations that they are members of already"}
		all["fellow"] = set{"user", `SELECT f.id FROM "user" f WHERE f.id = ? OR f.id IN
			(SELECT o."user" FROM organization_membership o WHERE o.is_member_of__organization IN (` + myOrgs + `))`, "themselves and members of their organizations"}
		all["myself"] = set{"user", `SELECT f.id FROM "user" f WHERE f.id = ?`, "their own"}
		all["own"] = set{"actor", `SELECT u.actor FROM "user" u WHERE u.id = ?
			UNION ALL SELECT a.actor FROM application a WHERE a.id IN (` + ourFleets + `)
			UNION ALL SELECT d.actor FROM device d WHERE d.belongs_to__application IN (` + ourFleets + `)`,
			"their own, and those of fleets and devices of their organizations"}
	case Device:
		all["itself"] = set{"device", itself, "of the device itself"}
		all["its-fleet"] = set{"fleet", itsFleet, "of its fleet"}
		all["reachable"] = set{"fleet", `SELECT a.id FROM application a WHERE a.is_public = TRUE OR a.id IN (` + itsFleet + `)`, "of its fleet and of public fleets"}
		all["told"] = set{"release", toldReleases, "of releases that it is told to run"}
		all["given"] = set{"image", `SELECT p.image FROM image__is_part_of__release p WHERE p.is_part_of__release IN (` + toldReleases + `)
			UNION ALL SELECT i.installs__image FROM image_install i WHERE i.device IN (` + itself + `)`, "of releases that it is told to run, and installed on it"}
		all["its-services"] = set{"service", `SELECT s.id FROM service s WHERE s.application IN (` + itsFleet + `)
			OR s.application IN (SELECT r.belongs_to__application FROM release r WHERE r.id IN (` + toldReleases + `))`, "services of its fleet, of its OS and of its supervisor"}
		all["its-owners"] = set{"user", `SELECT o."user" FROM organization_membership o JOIN application a ON a.organization = o.is_member_of__organization
			WHERE a.id IN (` + itsFleet + `)`, "of members of the organization of its fleet"}
	case Provisioning:
		all["its-fleet"] = set{"fleet", `SELECT a.id FROM application a WHERE a.id = ?`, "of its fleet"}
	}
	return all
}
