// Package model keeps everything the cloud knows: users and keys, fleets,
// devices, releases with their images, variables, what devices report, and
// their logs.
//
// It owns the schema, the migrations and every write. Reads that follow the
// shape of a resource (the OData tables) are described in resources.go; the
// rest are methods of DB named after what a caller wants to know.
//
// It runs on SQLite and on PostgreSQL. The SQL is the same for both: ? for every
// argument, times as milliseconds since 1970 UTC, no type of a driver in a
// signature. What differs is in dialect.go, sqlite.go with batch.go, postgres.go
// with exchange.go, and the reading of refusals in errors.go.
//
// A write goes through DB.update. On SQLite one runs at a time; on PostgreSQL many
// do, so a write that first reads what others may change takes a row lock first
// (txn.lockRow).
package model
