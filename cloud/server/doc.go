// Package server is the companion cloud in one process: it opens the data
// folder, wires identity, resources, device routes, builder, registry and web
// page together, and serves them until it is told to stop.
package server
