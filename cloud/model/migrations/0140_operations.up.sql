-- What one server at a time may do, and until when it has said that it does.
CREATE TABLE lease (
	name TEXT NOT NULL PRIMARY KEY,
	holder TEXT NOT NULL,
	expires_at BIGINT NOT NULL,
	done_at BIGINT
);
-- What is true of this cloud as a whole.
CREATE TABLE cloud_setting (
	name TEXT NOT NULL PRIMARY KEY,
	value TEXT NOT NULL
);
