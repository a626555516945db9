// Package strategy says in which order an update fetches, stops and starts.
// Each strategy is one row of All; the planner turns the edges of the row into
// preferences between steps. What the engine demands always goes first: an edge
// that contradicts it is dropped and shown in the plan.
package strategy

import (
	"slices"
	"time"
)

// Phase is a part of the update of one service.
type Phase int

// The phases of one service's update.
const (
	Fetch    Phase = iota // download the new image
	Create                // make the new container
	Stop                  // stop the old container
	Remove                // remove the old container
	Delete                // delete the old image
	Start                 // start the new container
	Handover              // wait until the new container has taken over from the running old one

	Phases int = iota // how many there are
)

// Scope says whose phase comes first.
type Scope int

// The scopes.
const (
	Service Scope = iota // the same service
	Release              // every service of the release
	Leaving              // every service that the release no longer has
)

// Edge says that phase First, of the services in its scope, comes before phase
// Then of this service.
type Edge struct {
	First, Then Phase
	Scope       Scope
}

// Default is the strategy of a service that names none.
const Default = "download-then-kill"

// All holds one row for each strategy a service may name in the label
// io.balena.update.strategy.
var All = map[string][]Edge{
	// Nothing stops before the whole release is on the device and the
	// replacement is ready to start.
	"download-then-kill": {
		{Fetch, Stop, Release},
		{Fetch, Start, Release},
		{Fetch, Remove, Release},
		{Create, Stop, Service},
		{Create, Remove, Service},
		{Stop, Start, Service},
		{Start, Remove, Service},
	},
	// The old container frees its memory before the download begins. Its
	// image stays until the new one is there.
	"kill-then-download": {
		{Stop, Fetch, Service},
		{Stop, Fetch, Leaving},
		{Stop, Start, Service},
		{Remove, Fetch, Service},
		{Remove, Fetch, Leaving},
		{Fetch, Start, Release}, // never two releases side by side
	},
	// The old container and its image free the disk before the download
	// begins.
	"delete-then-download": {
		{Stop, Fetch, Service},
		{Stop, Fetch, Leaving},
		{Stop, Start, Service},
		{Remove, Fetch, Service},
		{Remove, Fetch, Leaving},
		{Delete, Fetch, Service},
		{Delete, Fetch, Leaving},
		{Fetch, Start, Release},
	},
	// Both containers run until the new one says that it has taken over.
	"hand-over": {
		{Fetch, Start, Release},
		{Fetch, Stop, Release},
		{Fetch, Remove, Release},
		{Start, Handover, Service},
		{Start, Stop, Service},
		{Handover, Stop, Service},
		{Start, Remove, Service},
	},
}

// HandoverTimeout is how long an old container waits for the new one when the
// service names no time of its own; balena's default.
const HandoverTimeout = time.Minute

// HandsOver reports whether a strategy lets the old container run until the new
// one has taken over.
func HandsOver(name string) bool {
	return slices.ContainsFunc(All[name], func(e Edge) bool { return e.First == Handover })
}

// StopsFirst reports whether a strategy stops the old container before the
// download.
func StopsFirst(name string) bool {
	return slices.Contains(All[name], Edge{Stop, Fetch, Service})
}

// Deletes reports whether a strategy deletes the old image before the download.
func Deletes(name string) bool {
	return slices.ContainsFunc(All[name], func(e Edge) bool { return e.First == Delete })
}
