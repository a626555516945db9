CREATE TABLE user__has__public_key (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	"user" BIGINT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
	title TEXT NOT NULL CHECK (length(title) <= 120),
	public_key TEXT NOT NULL CHECK (length(public_key) <= 2850)
);
CREATE INDEX user_public_key_user ON user__has__public_key ("user");

CREATE TABLE release_asset (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	asset_key TEXT NOT NULL CHECK (length(asset_key) >= 1),
	asset TEXT,
	UNIQUE (release, asset_key)
);

CREATE TABLE image_profile (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	profile_name TEXT NOT NULL CHECK (length(profile_name) BETWEEN 2 AND 100),
	UNIQUE (release_image, profile_name)
);

-- A fleet activates a profile on the images of another application: its host OS.
CREATE TABLE application_profile (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	on__application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	activates__profile_name TEXT NOT NULL CHECK (length(activates__profile_name) BETWEEN 2 AND 100),
	UNIQUE (application, on__application, activates__profile_name)
);
CREATE INDEX application_profile_on ON application_profile (on__application);

CREATE TABLE build_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE TABLE application_tag (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL CHECK (length(tag_key) BETWEEN 1 AND 100),
	value TEXT NOT NULL CHECK (length(value) <= 1000),
	UNIQUE (application, tag_key)
);

CREATE TABLE device_tag (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL CHECK (length(tag_key) BETWEEN 1 AND 100),
	value TEXT NOT NULL CHECK (length(value) <= 10000),
	UNIQUE (device, tag_key)
);

CREATE TABLE release_tag (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL CHECK (length(tag_key) BETWEEN 1 AND 164),
	value TEXT NOT NULL CHECK (length(value) <= 1000),
	UNIQUE (release, tag_key)
);

-- What a device is asked to do, on its way to the device, and its answer. method,
-- path and body are the supervisor's API; status is the way of the question,
-- answer_status and answer are what came back.
CREATE TABLE device_action (
	id {{id}},
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	method TEXT NOT NULL,
	path TEXT NOT NULL,
	body TEXT,
	expires_at BIGINT NOT NULL,
	status TEXT NOT NULL,
	answer_status BIGINT,
	answer TEXT,
	answered_at BIGINT
);
CREATE INDEX device_action_device ON device_action (device, status);
CREATE INDEX device_action_expiry ON device_action (expires_at);

-- Who changed what: before and after are JSON objects of the fields that differ.
-- Rows outlive what they are about, so nothing is referenced.
CREATE TABLE audit_log (
	id {{id}},
	created_at BIGINT NOT NULL,
	actor BIGINT,
	role TEXT NOT NULL,
	name TEXT NOT NULL,
	verb TEXT NOT NULL,
	resource TEXT NOT NULL,
	row_id BIGINT,
	before TEXT,
	after TEXT
);
CREATE INDEX audit_log_row ON audit_log (resource, row_id);
CREATE INDEX audit_log_time ON audit_log (created_at);

-- Keys that every server on this database signs with, when they are not files.
CREATE TABLE signing_key (
	name TEXT PRIMARY KEY,
	created_at BIGINT NOT NULL,
	value TEXT NOT NULL
);
