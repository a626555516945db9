-- Many containers on a device: an application becomes a fleet with one service
-- "main", a build a release with one image. Ids stay as they are.

ALTER TABLE device_type RENAME TO single_device_type;
ALTER TABLE application RENAME TO single_application;
ALTER TABLE build RENAME TO single_build;
ALTER TABLE device RENAME TO single_device;
ALTER TABLE environment_variable RENAME TO single_environment_variable;
ALTER TABLE device_environment_variable RENAME TO single_device_environment_variable;
ALTER TABLE device_log RENAME TO single_device_log;

CREATE TABLE device_manufacturer (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL
);

CREATE TABLE device_family (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL,
	is_manufactured_by__device_manufacturer BIGINT REFERENCES device_manufacturer (id) ON DELETE SET NULL
);

CREATE TABLE device_type (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL,
	is_of__cpu_architecture BIGINT NOT NULL REFERENCES cpu_architecture (id),
	belongs_to__device_family BIGINT REFERENCES device_family (id) ON DELETE SET NULL,
	logo TEXT CHECK (length(logo) <= 400000),
	contract TEXT CHECK (length(contract) <= 5000000)
);

-- Every device type has an alias row with its own slug: clients look types up through
-- aliases only.
CREATE TABLE device_type_alias (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device_type BIGINT NOT NULL REFERENCES device_type (id) ON DELETE CASCADE,
	is_referenced_by__alias TEXT NOT NULL UNIQUE
);
CREATE INDEX device_type_alias_type ON device_type_alias (device_type);

CREATE TABLE application_type (
	id {{id}},
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

CREATE TABLE service_instance (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service_type TEXT NOT NULL CHECK (service_type IN ('vpn')),
	ip_address TEXT NOT NULL CHECK (length(ip_address) <= 39),
	last_heartbeat BIGINT NOT NULL
);

CREATE TABLE application (
	id {{id}},
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
);
CREATE INDEX application_organization ON application (organization);
CREATE INDEX application_name ON application (app_name);
CREATE INDEX application_device_type ON application (is_for__device_type);
CREATE INDEX application_updater ON application (is_updated_by__application);

-- raw_version is kept by the database, so that it can be searched for.
CREATE TABLE release (
	id {{id}},
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
CREATE INDEX release_commit ON release (belongs_to__application, "commit");
CREATE INDEX release_any_commit ON release ("commit");
CREATE INDEX release_version ON release (raw_version);
CREATE INDEX release_user ON release (is_created_by__user);
CREATE UNIQUE INDEX release_success ON release (belongs_to__application, "commit") WHERE status = 'success';

-- The two tables point at each other, so this column comes last.
ALTER TABLE application ADD COLUMN should_be_running__release BIGINT REFERENCES release (id) ON DELETE SET NULL;
CREATE INDEX application_target ON application (should_be_running__release);

CREATE TABLE service (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	service_name TEXT NOT NULL CHECK (length(service_name) BETWEEN 1 AND 63),
	UNIQUE (application, service_name)
);

CREATE TABLE service_label (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	label_name TEXT NOT NULL CHECK (length(label_name) >= 1),
	value TEXT NOT NULL CHECK (length(value) <= 300),
	UNIQUE (service, label_name)
);

-- is_stored_at__image_location holds the path alone; the host is added on reading.
CREATE TABLE image (
	id {{id}},
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
CREATE INDEX image_service ON image (is_a_build_of__service);

CREATE TABLE image__is_part_of__release (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	image BIGINT NOT NULL REFERENCES image (id) ON DELETE CASCADE,
	is_part_of__release BIGINT NOT NULL REFERENCES release (id) ON DELETE CASCADE,
	UNIQUE (image, is_part_of__release)
);
CREATE INDEX release_image_release ON image__is_part_of__release (is_part_of__release);

CREATE TABLE image_label (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	label_name TEXT NOT NULL CHECK (length(label_name) >= 1),
	value TEXT NOT NULL CHECK (length(value) <= 300),
	UNIQUE (release_image, label_name)
);

CREATE TABLE image_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	release_image BIGINT NOT NULL REFERENCES image__is_part_of__release (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (release_image, name)
);

CREATE TABLE application_config_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE TABLE application_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE TABLE service_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (service, name)
);

CREATE TABLE device (
	id {{id}},
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
);
CREATE INDEX device_application ON device (belongs_to__application);
CREATE INDEX device_device_type ON device (is_of__device_type);
CREATE INDEX device_running ON device (is_running__release);
CREATE INDEX device_pinned ON device (is_pinned_on__release);
CREATE INDEX device_operated ON device (should_be_operated_by__release);
CREATE INDEX device_managed ON device (should_be_managed_by__release);
CREATE INDEX device_service_instance ON device (is_managed_by__service_instance);
CREATE INDEX device_user ON device (belongs_to__user);
CREATE INDEX device_parent ON device (is_managed_by__device);

CREATE TABLE device_config_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (device, name)
);

CREATE TABLE device_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (device, name)
);

CREATE TABLE service_install (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	installs__service BIGINT NOT NULL REFERENCES service (id) ON DELETE CASCADE,
	UNIQUE (device, installs__service)
);
CREATE INDEX service_install_service ON service_install (installs__service);

CREATE TABLE device_service_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	service_install BIGINT NOT NULL REFERENCES service_install (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (service_install, name)
);

CREATE TABLE image_install (
	id {{id}},
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

CREATE TABLE device_log (
	id {{id}},
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	created_at BIGINT NOT NULL,
	"timestamp" BIGINT NOT NULL,
	is_system BOOLEAN NOT NULL,
	is_stderr BOOLEAN NOT NULL,
	service BIGINT,
	message TEXT NOT NULL
);
CREATE INDEX device_log_device ON device_log (device, id);

-- How far the log of each source of a device is stored, so that a line which is
-- sent twice is stored once.
CREATE TABLE device_log_mark (
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	source TEXT NOT NULL,
	position BIGINT NOT NULL,
	seen_at BIGINT NOT NULL,
	PRIMARY KEY (device, source)
);

INSERT INTO application_type (created_at, slug, name, supports_multicontainer, needs__os_version_range)
VALUES (0, 'default', 'Default', TRUE, '>=2.11.0');

INSERT INTO device_type (id, created_at, slug, name, is_of__cpu_architecture)
SELECT id, created_at, slug, name, is_of__cpu_architecture FROM single_device_type ORDER BY id;
INSERT INTO device_type_alias (created_at, device_type, is_referenced_by__alias)
SELECT created_at, id, slug FROM device_type ORDER BY id;

INSERT INTO application (id, created_at, actor, organization, app_name, slug, uuid, is_for__device_type, application_type, should_track_latest_release)
SELECT a.id, a.created_at, a.actor, m.is_member_of__organization, a.app_name, lower(o.handle || '/' || a.app_name), {{uuid}},
	a.device_type, t.id, a.should_track_latest_release
FROM single_application a
JOIN "user" u ON u.id = a."user"
JOIN organization o ON o.handle = u.username
JOIN organization_membership m ON m."user" = a."user" AND m.is_member_of__organization = o.id
JOIN application_type t ON t.slug = 'default'
ORDER BY a.id;

INSERT INTO service (id, created_at, application, service_name)
SELECT id, created_at, id, 'main' FROM single_application ORDER BY id;

-- What a container had when it was the only one.
INSERT INTO release (id, created_at, belongs_to__application, "commit", composition, status, source, start_timestamp, end_timestamp,
	update_timestamp, build_log, is_finalized_at__date, revision)
SELECT id, created_at, application, "commit",
	'{"version":"2.1","networks":{},"volumes":{"resin-data":{}},"services":{"main":{"privileged":true,"tty":true,"restart":"always","network_mode":"host","volumes":["resin-data:/data"],"labels":{"io.resin.features.kernel-modules":"1","io.resin.features.firmware":"1","io.resin.features.dbus":"1","io.resin.features.supervisor-api":"1","io.resin.features.resin-api":"1"}}}}',
	status, 'cloud', start_timestamp, end_timestamp, coalesce(end_timestamp, start_timestamp), log, created_at,
	row_number() OVER (PARTITION BY application ORDER BY id) - 1
FROM single_build ORDER BY id;

INSERT INTO image (id, created_at, is_a_build_of__service, is_stored_at__image_location, content_hash, status, project_type, error_message,
	build_log, dockerfile, image_size, start_timestamp, end_timestamp, push_timestamp)
SELECT id, created_at, application, image, content_hash, status, project_type, error_message, log, dockerfile, image_size,
	start_timestamp, end_timestamp, CASE WHEN status = 'success' THEN coalesce(push_timestamp, end_timestamp, start_timestamp) ELSE push_timestamp END
FROM single_build ORDER BY id;

INSERT INTO image__is_part_of__release (id, created_at, image, is_part_of__release)
SELECT id, created_at, id, id FROM single_build ORDER BY id;

UPDATE application SET should_be_running__release = (
	SELECT b.id FROM single_build b JOIN single_application a ON a.id = b.application AND a."commit" = b."commit"
	WHERE a.id = application.id AND b.status = 'success');

INSERT INTO device (id, created_at, actor, uuid, device_name, is_of__device_type, belongs_to__application, is_running__release,
	is_pinned_on__release, note, is_online, api_heartbeat_state, last_seen, status, download_progress, provisioning_progress,
	provisioning_state, os_version, supervisor_version, ip_address, api_port, api_secret)
SELECT d.id, d.created_at, d.actor, d.uuid, d.device_name, d.device_type, d.application, d.build, p.id, d.note, d.is_online,
	CASE WHEN d.is_online THEN 'online' WHEN d.last_seen IS NULL THEN 'unknown' ELSE 'offline' END, d.last_seen, d.status, d.download_progress,
	d.provisioning_progress, d.provisioning_state, d.os_version, d.supervisor_version, d.ip_address, d.api_port, d.api_secret
FROM single_device d
LEFT JOIN single_build p ON p.application = d.application AND p."commit" = d."commit" AND p.status = 'success'
ORDER BY d.id;

INSERT INTO service_install (created_at, device, installs__service)
SELECT d.created_at, d.id, d.application FROM single_device d WHERE d.application IS NOT NULL ORDER BY d.id;

INSERT INTO image_install (created_at, device, installs__image, is_provided_by__release, install_date, status)
SELECT d.created_at, d.id, d.build, d.build, coalesce(d.last_seen, d.created_at), 'Running' FROM single_device d WHERE d.build IS NOT NULL ORDER BY d.id;

INSERT INTO application_environment_variable (created_at, application, name, value)
SELECT created_at, application, name, value FROM single_environment_variable
WHERE NOT (name LIKE 'RESIN$_%' ESCAPE '$' OR name LIKE 'BALENA$_%' ESCAPE '$') ORDER BY id;
INSERT INTO application_config_variable (created_at, application, name, value)
SELECT created_at, application, name, value FROM single_environment_variable
WHERE (name LIKE 'RESIN$_%' ESCAPE '$' OR name LIKE 'BALENA$_%' ESCAPE '$') ORDER BY id;
INSERT INTO device_environment_variable (created_at, device, name, value)
SELECT created_at, device, name, value FROM single_device_environment_variable
WHERE NOT (name LIKE 'RESIN$_%' ESCAPE '$' OR name LIKE 'BALENA$_%' ESCAPE '$') ORDER BY id;
INSERT INTO device_config_variable (created_at, device, name, value)
SELECT created_at, device, name, value FROM single_device_environment_variable
WHERE (name LIKE 'RESIN$_%' ESCAPE '$' OR name LIKE 'BALENA$_%' ESCAPE '$') ORDER BY id;

INSERT INTO device_log (id, device, created_at, "timestamp", is_system, is_stderr, service, message)
SELECT l.id, l.device, l.created_at, l."timestamp", l.is_system, FALSE, CASE WHEN l.is_system THEN NULL ELSE d.application END, l.message
FROM single_device_log l JOIN single_device d ON d.id = l.device ORDER BY l.id;

{{sequence device_type}}
{{sequence application}}
{{sequence service}}
{{sequence release}}
{{sequence image}}
{{sequence image__is_part_of__release}}
{{sequence device}}
{{sequence device_log}}

DROP TABLE single_device_log;
DROP TABLE single_device_environment_variable;
DROP TABLE single_environment_variable;
DROP TABLE single_device;
DROP TABLE single_build;
DROP TABLE single_application;
DROP TABLE single_device_type;
