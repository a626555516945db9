-- Names follow the public API. Times are milliseconds since 1970 UTC. {{id}} is
-- the column type of a generated id. Limits of lengths are the API's: the program
-- says it in words, these hold when it forgets.
--
-- The model of one container on a device: an application has builds, each is one
-- image, and a device runs one build. Applications belong to users.

CREATE TABLE actor (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT
);

CREATE TABLE "user" (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	actor BIGINT NOT NULL UNIQUE REFERENCES actor (id),
	username TEXT NOT NULL UNIQUE CHECK (length(username) BETWEEN 1 AND 73),
	email TEXT UNIQUE CHECK (length(email) BETWEEN 5 AND 254),
	password TEXT NOT NULL,
	jwt_secret TEXT NOT NULL
);

-- The key itself is never stored, only its SHA-256.
CREATE TABLE api_key (
	id {{id}},
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

CREATE TABLE cpu_architecture (
	id {{id}},
	created_at BIGINT NOT NULL,
	modified_at BIGINT,
	slug TEXT NOT NULL UNIQUE
);

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
