-- Every user gets an organization of the same name.

CREATE TABLE organization (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 220),
	handle TEXT NOT NULL UNIQUE CHECK (length(handle) BETWEEN 1 AND 220)
);

CREATE TABLE organization_membership (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	"user" BIGINT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
	is_member_of__organization BIGINT NOT NULL REFERENCES organization (id) ON DELETE CASCADE,
	UNIQUE ("user", is_member_of__organization)
);
CREATE INDEX organization_membership_organization ON organization_membership (is_member_of__organization);

INSERT INTO organization (created_at, name, handle) SELECT created_at, username, username FROM "user" ORDER BY id;
INSERT INTO organization_membership (created_at, "user", is_member_of__organization)
SELECT u.created_at, u.id, o.id FROM "user" u JOIN organization o ON o.handle = u.username ORDER BY u.id;
