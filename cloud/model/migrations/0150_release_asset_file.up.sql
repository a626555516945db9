-- The folder that has the content of an asset.
ALTER TABLE release_asset ADD COLUMN file TEXT;
CREATE UNIQUE INDEX release_asset_file ON release_asset (file);
-- Assets that come in parts. Each asset has at most one that goes on.
CREATE TABLE asset_upload (
	id {{id}},
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL,
	uuid TEXT NOT NULL UNIQUE,
	release_asset BIGINT NOT NULL UNIQUE REFERENCES release_asset (id) ON DELETE CASCADE,
	filename TEXT NOT NULL,
	content_type TEXT NOT NULL,
	size BIGINT NOT NULL,
	chunk_size BIGINT NOT NULL
);
