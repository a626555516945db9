// Package backup copies a cloud into one file while it runs, and makes a cloud of
// such a file.
//
// The file is a tar, gzipped: "backup.json" says what it is; then the database,
// "cloud.db" of SQLite or "database.dump" of pg_dump, as it was at one moment; then
// the keys, and if asked for the images; at the end "checksums.json" with the
// SHA-256 of each, so that a file which was cut off or damaged is noticed. It holds
// all secrets of the cloud.
package backup
