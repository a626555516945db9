// Package takeover reads what balena's supervisor remembers, its database and
// config.json, and writes it into deckhand's store: the keys that containers call
// the supervisor with, the releases that were reached, the last target, tags. It
// links SQLite, so it is no part of the device's program.
package takeover
