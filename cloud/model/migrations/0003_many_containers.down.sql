-- Back to one container. What has no place there was refused before.

ALTER TABLE device_manufacturer RENAME TO multi_device_manufacturer;
ALTER TABLE device_family RENAME TO multi_device_family;
ALTER TABLE device_type RENAME TO multi_device_type;
ALTER TABLE device_type_alias RENAME TO multi_device_type_alias;
ALTER TABLE application_type RENAME TO multi_application_type;
ALTER TABLE service_instance RENAME TO multi_service_instance;
ALTER TABLE application RENAME TO multi_application;
ALTER TABLE release RENAME TO multi_release;
ALTER TABLE service RENAME TO multi_service;
ALTER TABLE service_label RENAME TO multi_service_label;
ALTER TABLE image RENAME TO multi_image;
ALTER TABLE image__is_part_of__release RENAME TO multi_image__is_part_of__release;
ALTER TABLE image_label RENAME TO multi_image_label;
ALTER TABLE image_environment_variable RENAME TO multi_image_environment_variable;
ALTER TABLE application_config_variable RENAME TO multi_application_config_variable;
ALTER TABLE application_environment_variable RENAME TO multi_application_environment_variable;
ALTER TABLE service_environment_variable RENAME TO multi_service_environment_variable;
ALTER TABLE device RENAME TO multi_device;
ALTER TABLE device_config_variable RENAME TO multi_device_config_variable;
ALTER TABLE device_environment_variable RENAME TO multi_device_environment_variable;
ALTER TABLE service_install RENAME TO multi_service_install;
ALTER TABLE device_service_environment_variable RENAME TO multi_device_service_environment_variable;
ALTER TABLE image_install RENAME TO multi_image_install;
ALTER TABLE device_log RENAME TO multi_device_log;
ALTER TABLE device_log_mark RENAME TO multi_device_log_mark;

CREATE TABLE device_type (
	id {{id}},
	created_at BIGINT NOT NULL,
	slug TEXT NOT NULL UNIQUE,
	name TEXT NOT NULL,
	is_of__cpu_architecture BIGINT NOT NULL REFERENCES cpu_architecture (id)
);

-- "commit" is the build that devices without one of their own run.
CREATE TABLE application (
	id {{id}},
	created_at BIGINT NOT NULL,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	"user" BIGINT NOT NULL REFERENCES "user" (id),
	app_name TEXT NOT NULL CHECK (length(app_name) BETWEEN 4 AND 100),
	device_type BIGINT NOT NULL REFERENCES device_type (id),
	should_track_latest_release BOOLEAN NOT NULL DEFAULT TRUE,
	"commit" TEXT
);
CREATE UNIQUE INDEX single_application_name ON application ("user", lower(app_name));

-- A build is one image, which holds the path in the registry alone.
CREATE TABLE build (
	id {{id}},
	created_at BIGINT NOT NULL,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	"commit" TEXT NOT NULL CHECK (length("commit") <= 40),
	image TEXT NOT NULL UNIQUE,
	content_hash TEXT CHECK (length(content_hash) <= 71),
	status TEXT NOT NULL CHECK (status IN ('running', 'success', 'failed', 'error', 'cancelled', 'interrupted')),
	project_type TEXT CHECK (length(project_type) <= 64),
	error_message TEXT CHECK (length(error_message) <= 300000),
	log TEXT CHECK (length(log) <= 1000000),
	dockerfile TEXT CHECK (length(dockerfile) <= 1000000),
	image_size BIGINT,
	start_timestamp BIGINT NOT NULL,
	end_timestamp BIGINT,
	push_timestamp BIGINT,
	UNIQUE (application, "commit")
);

-- "commit" is the build that the device stays on, whatever its application runs;
-- build is the one that it runs.
CREATE TABLE device (
	id {{id}},
	created_at BIGINT NOT NULL,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	uuid TEXT NOT NULL UNIQUE CHECK (length(uuid) IN (32, 62)),
	device_name TEXT NOT NULL CHECK (length(device_name) BETWEEN 1 AND 255),
	device_type BIGINT NOT NULL REFERENCES device_type (id),
	application BIGINT REFERENCES application (id) ON DELETE CASCADE,
	build BIGINT REFERENCES build (id) ON DELETE SET NULL,
	"commit" TEXT,
	note TEXT CHECK (length(note) <= 1000000),
	is_online BOOLEAN NOT NULL DEFAULT FALSE,
	last_seen BIGINT,
	status TEXT CHECK (length(status) <= 50),
	download_progress BIGINT,
	provisioning_progress BIGINT,
	provisioning_state TEXT,
	os_version TEXT CHECK (length(os_version) <= 70),
	supervisor_version TEXT CHECK (length(supervisor_version) <= 20),
	ip_address TEXT CHECK (length(ip_address) <= 2000),
	api_port BIGINT,
	api_secret TEXT CHECK (length(api_secret) <= 64)
);
CREATE INDEX single_fleet_devices ON device (application);
CREATE INDEX single_build_devices ON device (build);

-- Names that begin with RESIN_ configure the device and do not reach the container.
CREATE TABLE environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	application BIGINT NOT NULL REFERENCES application (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (application, name)
);

CREATE TABLE device_environment_variable (
	id {{id}},
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	name TEXT NOT NULL CHECK (length(name) BETWEEN 1 AND 255),
	value TEXT NOT NULL CHECK (length(value) <= 100000),
	UNIQUE (device, name)
);

CREATE TABLE device_log (
	id {{id}},
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	created_at BIGINT NOT NULL,
	"timestamp" BIGINT NOT NULL,
	is_system BOOLEAN NOT NULL,
	message TEXT NOT NULL
);
CREATE INDEX single_log_device ON device_log (device, id);

INSERT INTO device_type (id, created_at, slug, name, is_of__cpu_architecture)
SELECT id, created_at, slug, name, is_of__cpu_architecture FROM multi_device_type ORDER BY id;

INSERT INTO application (id, created_at, actor, "user", app_name, device_type, should_track_latest_release, "commit")
SELECT a.id, a.created_at, a.actor, m."user", a.app_name, a.is_for__device_type, a.should_track_latest_release, r."commit"
FROM multi_application a
JOIN organization_membership m ON m.is_member_of__organization = a.organization
LEFT JOIN multi_release r ON r.id = a.should_be_running__release
ORDER BY a.id;

INSERT INTO build (id, created_at, application, "commit", image, content_hash, status, project_type, error_message, log, dockerfile,
	image_size, start_timestamp, end_timestamp, push_timestamp)
SELECT r.id, r.created_at, r.belongs_to__application, r."commit", i.is_stored_at__image_location, i.content_hash, r.status, i.project_type,
	i.error_message, coalesce(r.build_log, substr(i.build_log, 1, 1000000)), i.dockerfile, i.image_size, r.start_timestamp, r.end_timestamp, i.push_timestamp
FROM multi_release r
JOIN multi_image__is_part_of__release p ON p.is_part_of__release = r.id
JOIN multi_image i ON i.id = p.image
ORDER BY r.id;

INSERT INTO device (id, created_at, actor, uuid, device_name, device_type, application, build, "commit", note, is_online, last_seen, status,
	download_progress, provisioning_progress, provisioning_state, os_version, supervisor_version, ip_address, api_port, api_secret)
SELECT d.id, d.created_at, d.actor, d.uuid, d.device_name, d.is_of__device_type, d.belongs_to__application, d.is_running__release, p."commit",
	d.note, d.is_online, d.last_seen, d.status, d.download_progress, d.provisioning_progress, d.provisioning_state, d.os_version,
	d.supervisor_version, d.ip_address, d.api_port, d.api_secret
FROM multi_device d LEFT JOIN multi_release p ON p.id = d.is_pinned_on__release
ORDER BY d.id;

INSERT INTO environment_variable (created_at, application, name, value)
SELECT created_at, application, name, value FROM multi_application_environment_variable ORDER BY id;
INSERT INTO environment_variable (created_at, application, name, value)
SELECT created_at, application, name, value FROM multi_application_config_variable ORDER BY id;
INSERT INTO device_environment_variable (created_at, device, name, value)
SELECT created_at, device, name, value FROM multi_device_environment_variable ORDER BY id;
INSERT INTO device_environment_variable (created_at, device, name, value)
SELECT created_at, device, name, value FROM multi_device_config_variable ORDER BY id;

INSERT INTO device_log (id, device, created_at, "timestamp", is_system, message)
SELECT id, device, created_at, "timestamp", is_system, message FROM multi_device_log ORDER BY id;

{{sequence device_type}}
{{sequence application}}
{{sequence build}}
{{sequence device}}
{{sequence device_log}}

DROP TABLE multi_device_log_mark{{cascade}};
DROP TABLE multi_device_log{{cascade}};
DROP TABLE multi_image_install{{cascade}};
DROP TABLE multi_device_service_environment_variable{{cascade}};
DROP TABLE multi_service_install{{cascade}};
DROP TABLE multi_device_environment_variable{{cascade}};
DROP TABLE multi_device_config_variable{{cascade}};
DROP TABLE multi_device{{cascade}};
DROP TABLE multi_service_environment_variable{{cascade}};
DROP TABLE multi_application_environment_variable{{cascade}};
DROP TABLE multi_application_config_variable{{cascade}};
DROP TABLE multi_image_environment_variable{{cascade}};
DROP TABLE multi_image_label{{cascade}};
DROP TABLE multi_image__is_part_of__release{{cascade}};
DROP TABLE multi_image{{cascade}};
DROP TABLE multi_service_label{{cascade}};
DROP TABLE multi_service{{cascade}};
DROP TABLE multi_release{{cascade}};
DROP TABLE multi_application{{cascade}};
DROP TABLE multi_service_instance{{cascade}};
DROP TABLE multi_application_type{{cascade}};
DROP TABLE multi_device_type_alias{{cascade}};
DROP TABLE multi_device_type{{cascade}};
DROP TABLE multi_device_family{{cascade}};
DROP TABLE multi_device_manufacturer{{cascade}};
