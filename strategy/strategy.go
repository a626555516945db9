// Package strategy says in which order an update fetches, stops and starts.
// Each strategy is one row of All; the planner turns the edges of the row into
// preferences between steps. What the engine demands always goes first: an edge
// that contradicts it is dropped and shown in the plan.
package strategy

// Phase is a part of the update of one service.
type Phase int

// The phases of one service's update.
const (
	Fetch  Phase = iota // download the new image
	Create              // make the new container
	Stop                // stop the old container
	Remove              // remove the old container
	Start               // start the new container
)

// Scope says whose phase comes first.
type Scope int

// The scopes.
const (
	Service Scope = iota // the same service
	Release              // every service of the release
)

// Edge says that phase First, of this service or of every service of the
// release, comes before phase Then of this service.
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
		{Stop, Start, Service},
		{Remove, Fetch, Service},
		{Fetch, Start, Release}, // never two releases side by side
	},
}
