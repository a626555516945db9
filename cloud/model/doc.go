// Package model keeps everything the cloud knows: users and keys, fleets,
// devices, releases with their images, variables, what devices report, and
// their logs.
//
// It owns the schema, the migrations and every write. Reads that follow the
// shape of a resource (the OData tables) are described in resources.go; the
// rest are methods of DB named after what a caller wants to know.
//
// The SQL is kept portable: no SQLite type shows in a signature, times are
// stored as milliseconds since 1970 UTC, and what differs between database
// systems (opening, the column type of an id) is confined to db.go and
// migrate.go.
package model
