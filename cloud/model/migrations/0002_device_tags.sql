-- Tags of devices: short notes that owners, and programs on the device, keep
-- with it.
CREATE TABLE device_tag (
	id {{id}},
	created_at BIGINT NOT NULL,
	device BIGINT NOT NULL REFERENCES device (id) ON DELETE CASCADE,
	tag_key TEXT NOT NULL,
	value TEXT NOT NULL,
	UNIQUE (device, tag_key)
);
