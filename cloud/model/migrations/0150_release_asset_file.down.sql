DROP TABLE asset_upload;
DROP INDEX release_asset_file;
ALTER TABLE release_asset DROP COLUMN file;
