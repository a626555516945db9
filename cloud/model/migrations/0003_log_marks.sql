-- How far the log of each source of a device is stored, so that a line which is
-- sent twice is stored once.
CREATE TABLE device_log_mark (
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	source TEXT NOT NULL,
	position BIGINT NOT NULL,
	seen_at BIGINT NOT NULL,
	PRIMARY KEY (device, source)
);
