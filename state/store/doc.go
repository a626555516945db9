// Package store remembers what the supervisor must know after a restart and
// cannot see on the engine: the accepted target, reached releases, applied
// specs, which images are ours, failures, the last report, keys of the local API,
// wishes of people, permissions to break locks, how hand-overs ended, what happened.
//
// One bbolt file holds one bucket for each owner, and each bucket has its own
// source file here. A bucket carries a version; one written by a newer deckhand
// is set aside, a value that cannot be read is dropped and reported, and a file
// that is damaged is renamed and replaced by an empty one. Nothing in the file
// is irreplaceable: a device that starts with an empty store keeps its
// containers and asks the cloud again.
package store
