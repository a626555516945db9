CREATE TABLE actor (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT
);

CREATE TABLE api_key (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
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
	modified_at BIGINT,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	organization BIGINT NOT NULL REFERENCES organization (id),
	app_name TEXT NOT NULL CHECK (length(app_name) BETWEEN 4 AND 100),
	slug TEXT NOT NULL UNIQUE CHECK (length(slug) BETWEEN 6 AND 321),
	uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) = 32),
	is_for__device_type BIGINT NOT NULL REFERENCES device_type (id),
	application_type BIGINT NOT NULL REFERENCES application_type (id),
	is_of__class TEXT NOT NULL DEFAULT 'fleet' CHECK (is_of__class IN ('fleet', 'block', 'app')),
	is_host BOOLEAN NOT NULL DEFAULT FALSE,
	is_archived BOOLEAN NOT NULL DEFAULT FALSE,
	is_public BOOLEAN NOT NULL DEFAULT FALSE,
	is_discoverable BOOLEAN NOT NULL DEFAULT FALSE,
	is_accessible_by_support_until__date BIGINT,
	should_track_latest_release BOOLEAN NOT NULL DEFAULT TRUE,
	is_updated_by__application BIGINT REFERENCES application (id) ON DELETE SET NULL
, should_be_running__release BIGINT REFERENCES release (id) ON DELETE SET NULL);

CREATE TABLE application_config_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE INDEX application_device_type ON application (is_for__device_type);

CREATE TABLE application_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE INDEX application_name ON application (app_name);

CREATE INDEX application_organization ON application (organization);

CREATE TABLE application_profile (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	on__application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	activates__profile_name TEXT NOT NULL CHECK (length(activates__profile_name) BETWEEN 2 AND 100),
	UNIQUE (application, on__application, activates__profile_name)
);

CREATE INDEX application_profile_on ON application_profile (on__application);

CREATE TABLE application_tag (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL CHECK (length(tag_key) BETWEEN 1 AND 100),
	value TEXT NOT NULL CHECK (length(value) <= 1000),
	UNIQUE (application, tag_key)
);

CREATE INDEX application_target ON application (should_be_running__release);

CREATE TABLE application_type (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE CHECK (length(slug) <= 30),
	name TEXT NOT NULL CHECK (length(name) <= 20),
	description TEXT CHECK (length(description) <= 200),
	supports_multicontainer BOOLEAN NOT NULL DEFAULT TRUE,
	supports_web_url BOOLEAN NOT NULL DEFAULT TRUE,
	supports_gateway_mode BOOLEAN NOT NULL DEFAULT FALSE,
	requires_payment BOOLEAN NOT NULL DEFAULT FALSE,
	is_legacy BOOLEAN NOT NULL DEFAULT FALSE,
	needs__os_version_range TEXT,
	maximum_device_count BIGINT
);

CREATE INDEX application_updater ON application (is_updated_by__application);

CREATE TABLE asset_upload (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	uuid TEXT NOT NULL UNIQUE,
	release_asset BIGINT NOT NULL UNIQUE REFERENCES release_asset (id) ON DELETE CASCADE,
	filename TEXT NOT NULL,
	content_type TEXT NOT NULL,
	size BIGINT NOT NULL,
	chunk_size BIGINT NOT NULL
);

CREATE TABLE audit_log (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
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

CREATE TABLE build_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE TABLE cloud_setting (
	name TEXT NOT NULL PRIMARY KEY,
	value TEXT NOT NULL
);

CREATE TABLE cpu_architecture (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE
);

CREATE TABLE device (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) IN (32, 62)),
	device_name TEXT NOT NULL CHECK (length(device_name) BETWEEN 1 AND 255),
	note TEXT CHECK (length(note) <= 1000000),
	local_id TEXT,
	is_of__device_type BIGINT NOT NULL REFERENCES device_type (id),
	belongs_to__application BIGINT REFERENCES application (id) ON DELETE CASCADE,
	is_running__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	is_pinned_on__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	should_be_operated_by__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	should_be_managed_by__release BIGINT REFERENCES release (id) ON DELETE SET NULL,
	is_managed_by__service_instance BIGINT REFERENCES service_instance (id) ON DELETE SET NULL,
	belongs_to__user BIGINT REFERENCES "user" (id) ON DELETE SET NULL,
	is_managed_by__device BIGINT REFERENCES device (id) ON DELETE SET NULL,
	api_heartbeat_state TEXT NOT NULL DEFAULT 'unknown' CHECK (api_heartbeat_state IN ('online', 'offline', 'timeout', 'unknown')),
	changed_api_heartbeat_state_on__date BIGINT,
	last_seen BIGINT,
	is_online BOOLEAN NOT NULL DEFAULT FALSE,
	last_connectivity_event BIGINT,
	is_connected_to_vpn BOOLEAN NOT NULL DEFAULT FALSE,
	last_vpn_event BIGINT,
	is_locked_until__date BIGINT,
	is_frozen BOOLEAN NOT NULL DEFAULT FALSE,
	is_active BOOLEAN NOT NULL DEFAULT TRUE,
	is_web_accessible BOOLEAN NOT NULL DEFAULT FALSE,
	is_accessible_by_support_until__date BIGINT,
	status TEXT CHECK (length(status) <= 50),
	os_version TEXT CHECK (length(os_version) <= 70),
	os_variant TEXT CHECK (os_variant IN ('prod', 'dev')),
	supervisor_version TEXT CHECK (length(supervisor_version) <= 20),
	ip_address TEXT CHECK (length(ip_address) <= 2000),
	mac_address TEXT CHECK (length(mac_address) <= 900),
	public_address TEXT CHECK (length(public_address) <= 50),
	vpn_address TEXT,
	logs_channel TEXT,
	api_port BIGINT,
	api_secret TEXT CHECK (length(api_secret) <= 64),
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
	location TEXT,
	latitude TEXT,
	longitude TEXT,
	custom_latitude TEXT,
	custom_longitude TEXT,
	update_status TEXT CHECK (update_status IN ('rejected', 'downloading', 'downloaded', 'applying changes', 'aborted', 'done')),
	last_update_status_event BIGINT
, heartbeat_until BIGINT, takes_actions BOOLEAN NOT NULL DEFAULT FALSE);

CREATE TABLE device_action (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
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
, answer_type TEXT);

CREATE INDEX device_action_device ON device_action (device, status);

CREATE INDEX device_action_expiry ON device_action (expires_at);

CREATE INDEX device_application ON device (belongs_to__application);

CREATE TABLE device_config_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (device, name)
);

CREATE INDEX device_device_type ON device (is_of__device_type);

CREATE TABLE device_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (device, name)
);

CREATE TABLE device_family (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL,
	is_manufactured_by__device_manufacturer BIGINT REFERENCES device_manufacturer (id) ON DELETE SET NULL
);

CREATE INDEX device_heartbeat ON device (heartbeat_until) WHERE api_heartbeat_state IN ('online', 'timeout');

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

CREATE INDEX device_managed ON device (should_be_managed_by__release);

CREATE TABLE device_manufacturer (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL
);

CREATE INDEX device_operated ON device (should_be_operated_by__release);

CREATE INDEX device_parent ON device (is_managed_by__device);

CREATE INDEX device_pinned ON device (is_pinned_on__release);

CREATE INDEX device_running ON device (is_running__release);

CREATE TABLE device_service_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service_install BIGINT NOT NULL REFERENCES service_install (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (service_install, name)
);

CREATE INDEX device_service_instance ON device (is_managed_by__service_instance);

CREATE TABLE device_tag (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL CHECK (length(tag_key) BETWEEN 1 AND 100),
	value TEXT NOT NULL CHECK (length(value) <= 10000),
	UNIQUE (device, tag_key)
);

CREATE TABLE device_type (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL,
	is_of__cpu_architecture BIGINT NOT NULL REFERENCES cpu_architecture (id),
	belongs_to__device_family BIGINT REFERENCES device_family (id) ON DELETE SET NULL,
	logo TEXT CHECK (length(logo) <= 400000),
	contract TEXT CHECK (length(contract) <= 5000000)
);

CREATE TABLE device_type_alias (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device_type BIGINT NOT NULL REFERENCES device_type (id) ON DELETE CASCADE,
	is_referenced_by__alias TEXT NOT NULL UNIQUE
);

CREATE INDEX device_type_alias_type ON device_type_alias (device_type);

CREATE INDEX device_user ON device (belongs_to__user);

CREATE TABLE image (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	is_a_build_of__service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	is_stored_at__image_location TEXT NOT NULL UNIQUE,
	content_hash TEXT CHECK (length(content_hash) <= 71),
	contract TEXT CHECK (length(contract) <= 1000000),
	status TEXT NOT NULL CHECK (status IN ('running', 'success', 'failed', 'error', 'cancelled', 'interrupted')),
	project_type TEXT CHECK (length(project_type) <= 64),
	error_message TEXT CHECK (length(error_message) <= 300000),
	build_log TEXT CHECK (length(build_log) <= 1500000),
	dockerfile TEXT CHECK (length(dockerfile) <= 1000000),
	image_size BIGINT,
	start_timestamp BIGINT NOT NULL,
	end_timestamp BIGINT,
	push_timestamp BIGINT,
	CHECK (status <> 'success' OR push_timestamp IS NOT NULL)
);

CREATE TABLE image__is_part_of__release (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	image BIGINT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
	is_part_of__release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	UNIQUE (image, is_part_of__release)
);

CREATE TABLE image_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (release_image, name)
);

CREATE TABLE image_install (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	installs__image BIGINT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
	is_provided_by__release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	install_date BIGINT NOT NULL,
	status TEXT NOT NULL CHECK (status IN (
		'Downloading', 'Downloaded', 'Installing', 'Installed', 'Starting', 'Running', 'Idle', 'Handing over',
		'Awaiting handover', 'Stopping', 'Stopped', 'exited', 'Deleting', 'deleted', 'Dead', 'paused', 'restarting', 'removing', 'configuring', 'Unknown')),
	download_progress BIGINT,
	UNIQUE (device, installs__image)
);

CREATE INDEX image_install_image ON image_install (installs__image);

CREATE INDEX image_install_release ON image_install (is_provided_by__release);

CREATE TABLE image_label (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	label_name TEXT NOT NULL CHECK (length(label_name) >= 1),
	value TEXT NOT NULL CHECK (length(value) <= 300),
	UNIQUE (release_image, label_name)
);

CREATE TABLE image_profile (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	profile_name TEXT NOT NULL CHECK (length(profile_name) BETWEEN 2 AND 100),
	UNIQUE (release_image, profile_name)
);

CREATE INDEX image_service ON image (is_a_build_of__service);

CREATE TABLE lease (
	name TEXT NOT NULL PRIMARY KEY,
	holder TEXT NOT NULL,
	expires_at BIGINT NOT NULL,
	done_at BIGINT
);

CREATE TABLE organization (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 220),
	handle TEXT NOT NULL UNIQUE CHECK (length(handle) BETWEEN 1 AND 220)
);

CREATE TABLE organization_membership (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	"user" BIGINT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
	is_member_of__organization BIGINT NOT NULL REFERENCES organization (id) ON DELETE CASCADE,
	UNIQUE ("user", is_member_of__organization)
);

CREATE INDEX organization_membership_organization ON organization_membership (is_member_of__organization);

CREATE TABLE release (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	belongs_to__application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	is_created_by__user BIGINT REFERENCES "user" (id) ON DELETE SET NULL,
	"commit" TEXT NOT NULL CHECK (length("commit") <= 40),
	composition TEXT NOT NULL CHECK (length(composition) <= 1000000),
	contract TEXT CHECK (length(contract) <= 1000000),
	status TEXT NOT NULL CHECK (status IN ('running', 'success', 'failed', 'error', 'cancelled', 'interrupted')),
	source TEXT NOT NULL CHECK (source IN ('cloud', 'local')),
	start_timestamp BIGINT NOT NULL,
	end_timestamp BIGINT,
	update_timestamp BIGINT NOT NULL,
	build_log TEXT CHECK (length(build_log) <= 1000000),
	note TEXT CHECK (length(note) <= 1000000),
	known_issue_list TEXT CHECK (length(known_issue_list) <= 1000),
	is_passing_tests BOOLEAN NOT NULL DEFAULT TRUE,
	is_invalidated BOOLEAN NOT NULL DEFAULT FALSE,
	invalidation_reason TEXT CHECK (length(invalidation_reason) <= 255),
	is_finalized_at__date BIGINT,
	phase TEXT CHECK (phase IN ('next', 'current', 'sunset', 'end-of-life')),
	release_version TEXT,
	semver_major BIGINT NOT NULL DEFAULT 0,
	semver_minor BIGINT NOT NULL DEFAULT 0,
	semver_patch BIGINT NOT NULL DEFAULT 0,
	semver_prerelease TEXT NOT NULL DEFAULT '' CHECK (length(semver_prerelease) <= 100),
	semver_build TEXT NOT NULL DEFAULT '' CHECK (length(semver_build) <= 50),
	variant TEXT NOT NULL DEFAULT '' CHECK (length(variant) <= 50),
	revision BIGINT,
	raw_version TEXT GENERATED ALWAYS AS (
		CAST(semver_major AS TEXT) || '.' || CAST(semver_minor AS TEXT) || '.' || CAST(semver_patch AS TEXT)
		|| CASE WHEN semver_prerelease <> '' THEN '-' || semver_prerelease ELSE '' END
		|| CASE WHEN revision IS NULL THEN CASE WHEN semver_prerelease = '' THEN '-' ELSE '.' END || CAST(created_at AS TEXT) ELSE '' END
		|| CASE WHEN semver_build <> '' OR coalesce(revision, 0) > 0 OR variant <> '' THEN '+' || substr(CASE WHEN semver_build <> '' THEN '.' || semver_build ELSE '' END
			|| CASE WHEN revision > 0 THEN '.rev' || CAST(revision AS TEXT) ELSE '' END
			|| CASE WHEN variant <> '' THEN '.' || variant ELSE '' END, 2) ELSE '' END) STORED,
	UNIQUE (belongs_to__application, semver_major, semver_minor, semver_patch, semver_prerelease, variant, revision)
);

CREATE INDEX release_any_commit ON release ("commit");

CREATE TABLE release_asset (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	asset_key TEXT NOT NULL CHECK (length(asset_key) >= 1),
	asset TEXT, file TEXT,
	UNIQUE (release, asset_key)
);

CREATE UNIQUE INDEX release_asset_file ON release_asset (file);

CREATE INDEX release_commit ON release (belongs_to__application, "commit");

CREATE INDEX release_image_release ON image__is_part_of__release (is_part_of__release);

CREATE UNIQUE INDEX release_success ON release (belongs_to__application, "commit") WHERE status = 'success';

CREATE TABLE release_tag (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL CHECK (length(tag_key) BETWEEN 1 AND 164),
	value TEXT NOT NULL CHECK (length(value) <= 1000),
	UNIQUE (release, tag_key)
);

CREATE INDEX release_user ON release (is_created_by__user);

CREATE INDEX release_version ON release (raw_version);

CREATE TABLE service (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	service_name TEXT NOT NULL CHECK (length(service_name) BETWEEN 1 AND 63),
	UNIQUE (application, service_name)
);

CREATE TABLE service_environment_variable (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (service, name)
);

CREATE TABLE service_install (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	installs__service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	UNIQUE (device, installs__service)
);

CREATE INDEX service_install_service ON service_install (installs__service);

CREATE TABLE service_instance (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service_type TEXT NOT NULL CHECK (service_type IN ('vpn')),
	ip_address TEXT NOT NULL CHECK (length(ip_address) <= 39),
	last_heartbeat BIGINT NOT NULL
);

CREATE TABLE service_label (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	label_name TEXT NOT NULL CHECK (length(label_name) >= 1),
	value TEXT NOT NULL CHECK (length(value) <= 300),
	UNIQUE (service, label_name)
);

CREATE TABLE signing_key (
	name TEXT PRIMARY KEY,
	created_at BIGINT NOT NULL,
	value TEXT NOT NULL
);

CREATE TABLE "user" (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	username TEXT NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 73),
	email TEXT UNIQUE CHECK (length(email) BETWEEN 5 AND 254),
	password TEXT NOT NULL,
	jwt_secret TEXT NOT NULL
);

CREATE TABLE user__has__public_key (
	id INTEGER PRIMARY KEY AUTOINCREMENT,
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	"user" BIGINT NOT NULL REFERENCES "user" (id) ON DELETE CASCADE,
	title TEXT NOT NULL CHECK (length(title) <= 120),
	public_key TEXT NOT NULL CHECK (length(public_key) <= 2850)
);

CREATE INDEX user_public_key_user ON user__has__public_key ("user");

