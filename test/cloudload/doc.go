// Package cloudload measures deckhand-cloud under many devices: make bench-cloud. The
// server is a process of its own, the devices are requests over loopback. It is bounded
// in time, and prints a table.
package cloudload
