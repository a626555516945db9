CREATE TABLE actor (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL
);

CREATE TABLE api_key (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	key_hash TEXT NOT NULL UNIQUE,
	role TEXT NOT NULL,
	name TEXT,
	description TEXT,
	expiry_date BIGINT,
	is_of__actor BIGINT NOT NULL REFERENCES actor (id) ON DELETE CASCADE
);

CREATE INDEX api_key_actor ON api_key (is_of__actor);

CREATE TABLE application (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	organization BIGINT NOT NULL REFERENCES organization (id),
	app_name TEXT NOT NULL,
	slug TEXT NOT NULL UNIQUE,
	uuid TEXT NOT NULL UNIQUE,
	is_for__device_type BIGINT NOT NULL REFERENCES device_type (id),
	is_of__class TEXT NOT NULL DEFAULT 'fleet',
	is_host BOOLEAN NOT NULL DEFAULT FALSE,
	is_archived BOOLEAN NOT NULL DEFAULT FALSE,
	is_public BOOLEAN NOT NULL DEFAULT FALSE,
	should_track_latest_release BOOLEAN NOT NULL DEFAULT TRUE
, should_be_running__release BIGINT REFERENCES release (id) ON DELETE SET NULL);

CREATE TABLE application_config_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (application, name)
);

CREATE TABLE application_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (application, name)
);

CREATE TABLE cpu_architecture (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	slug TEXT NOT NULL UNIQUE
);

CREATE TABLE device (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	uuid TEXT NOT NULL UNIQUE,
	device_name TEXT NOT NULL,
	note TEXT,
	local_id TEXT,
	is_of__device_type BIGINT NOT NULL REFERENCES device_type (id),
	belongs_to__application BIGINT REFERENCES application (id) ON DELETE CASCADE,
	is_running__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	is_pinned_on__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	should_be_operated_by__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	should_be_managed_by__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	api_heartbeat_state TEXT NOT NULL DEFAULT 'unknown',
	changed_api_heartbeat_state_on__date BIGINT,
	last_seen BIGINT,
	is_online BOOLEAN NOT NULL DEFAULT FALSE,
	last_connectivity_event BIGINT,
	is_frozen BOOLEAN NOT NULL DEFAULT FALSE,
	is_web_accessible BOOLEAN NOT NULL DEFAULT FALSE,
	status TEXT,
	os_version TEXT,
	os_variant TEXT,
	supervisor_version TEXT,
	ip_address TEXT,
	mac_address TEXT,
	public_address TEXT,
	api_port BIGINT,
	api_secret TEXT,
	provisioning_progress BIGINT,
	provisioning_state TEXT,
	download_progress BIGINT,
	memory_usage BIGINT,
	memory_total BIGINT,
	storage_block_device TEXT,
	storage_usage BIGINT,
	storage_total BIGINT,
	cpu_usage BIGINT,
	cpu_temp BIGINT,
	is_undervolted BOOLEAN NOT NULL DEFAULT FALSE,
	cpu_id TEXT,
	update_status TEXT,
	last_update_status_event BIGINT
);

CREATE INDEX device_application ON device (belongs_to__application);

CREATE TABLE device_config_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (device, name)
);

CREATE TABLE device_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (device, name)
);

CREATE TABLE device_log (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	created_at BIGINT NOT NULL,
	"timestamp" BIGINT NOT NULL,
	is_system BOOLEAN NOT NULL,
	is_stderr BOOLEAN NOT NULL,
	service BIGINT,
	message TEXT NOT NULL
);

CREATE INDEX device_log_device ON device_log (device, id);

CREATE TABLE device_log_mark (
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	source TEXT NOT NULL,
	position BIGINT NOT NULL,
	seen_at BIGINT NOT NULL,
	PRIMARY KEY (device, source)
);

CREATE TABLE device_service_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	service_install BIGINT NOT NULL REFERENCES service_install (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (service_install, name)
);

CREATE TABLE device_tag (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (device, tag_key)
);

CREATE TABLE device_type (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL,
	is_of__cpu_architecture BIGINT NOT NULL REFERENCES cpu_architecture (id)
);

CREATE TABLE image (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	is_a_build_of__service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	is_stored_at__image_location TEXT NOT NULL UNIQUE,
	content_hash TEXT,
	contract TEXT,
	status TEXT NOT NULL,
	project_type TEXT,
	error_message TEXT,
	build_log TEXT,
	dockerfile TEXT,
	image_size BIGINT,
	start_timestamp BIGINT NOT NULL,
	end_timestamp BIGINT,
	push_timestamp BIGINT
);

CREATE TABLE image__is_part_of__release (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	image BIGINT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
	is_part_of__release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	UNIQUE (image, is_part_of__release)
);

CREATE TABLE image_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (release_image, name)
);

CREATE TABLE image_install (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	installs__image BIGINT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
	is_provided_by__release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	install_date BIGINT NOT NULL,
	status TEXT NOT NULL,
	download_progress BIGINT,
	UNIQUE (device, installs__image)
);

CREATE INDEX image_install_image ON image_install (installs__image);

CREATE TABLE image_label (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	label_name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (release_image, label_name)
);

CREATE INDEX image_service ON image (is_a_build_of__service);

CREATE TABLE organization (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	name TEXT NOT NULL,
	handle TEXT NOT NULL UNIQUE
);

CREATE TABLE organization_membership (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	"user" BIGINT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
	is_member_of__organization BIGINT NOT NULL REFERENCES organization (id) ON DELETE CASCADE,
	UNIQUE ("user", is_member_of__organization)
);

CREATE TABLE release (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	belongs_to__application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	is_created_by__user BIGINT REFERENCES "user" (id) ON DELETE SET NULL,
	"commit" TEXT NOT NULL,
	composition TEXT NOT NULL,
	contract TEXT,
	status TEXT NOT NULL,
	source TEXT NOT NULL,
	start_timestamp BIGINT NOT NULL,
	end_timestamp BIGINT,
	update_timestamp BIGINT NOT NULL,
	build_log TEXT,
	note TEXT,
	is_passing_tests BOOLEAN NOT NULL DEFAULT TRUE,
	is_invalidated BOOLEAN NOT NULL DEFAULT FALSE,
	invalidation_reason TEXT,
	is_finalized_at__date BIGINT,
	semver_major BIGINT NOT NULL DEFAULT 0,
	semver_minor BIGINT NOT NULL DEFAULT 0,
	semver_patch BIGINT NOT NULL DEFAULT 0,
	semver_prerelease TEXT NOT NULL DEFAULT '',
	semver_build TEXT NOT NULL DEFAULT '',
	variant TEXT NOT NULL DEFAULT '',
	revision BIGINT,
	UNIQUE (belongs_to__application, semver_major, semver_minor, semver_patch, semver_prerelease, variant, revision)
);

CREATE INDEX release_commit ON release (belongs_to__application, "commit");

CREATE INDEX release_image_release ON image__is_part_of__release (is_part_of__release);

CREATE UNIQUE INDEX release_success ON release (belongs_to__application, "commit") WHERE status = 'success';

CREATE TABLE service (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	service_name TEXT NOT NULL,
	UNIQUE (application, service_name)
);

CREATE TABLE service_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (service, name)
);

CREATE TABLE service_install (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	installs__service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	UNIQUE (device, installs__service)
);

CREATE TABLE service_label (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	label_name TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (service, label_name)
);

CREATE TABLE "user" (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	username TEXT NOT NULL UNIQUE,
	email TEXT UNIQUE,
	password TEXT NOT NULL,
	jwt_secret TEXT NOT NULL
);

