// Package config reads and writes config.json, the file on a device's boot
// partition that says which cloud, fleet and identity it belongs to.
//
// People and the host OS edit the file too. Keys that deckhand does not know
// keep their values byte for byte, every change starts from the file as it is
// at that moment, and a change replaces the file in one step.
package config
