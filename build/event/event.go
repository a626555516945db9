// Package event is the vocabulary of a build: what the builder says while it works, as
// newline-delimited JSON on the wire. The builder writes it, clients and renderers read it.
//
// Every object carries the version, a sequence number without gaps that starts at 1, the
// time and a type; which other fields are set depends on the type. build.result is always
// the last one: a stream that ends without it was cut off.
package event

import "time"

// Version is the "v" of every event; it changes only when old readers would misread.
const Version = 1

// The types of events.
const (
	BuildQueued    = "build.queued"    // Position
	BuildStarted   = "build.started"   // Fleet User Arch DeviceType Worker Services
	ReleaseCreated = "release.created" // ReleaseID Commit Draft Semver
	Phase          = "phase"           // Name State Detail
	ServiceState   = "service.state"   // Service State Error ExitCode
	Step           = "step"            // Service N Total Text State (start, done or failed) Cached MS
	Log            = "log"             // Service Stream Text
	Progress       = "progress"        // Service Op Current Total Percent
	Warning        = "warning"         // Code Message Service Hint
	Error          = "error"           // Code Message Service Hint Tail
	ServiceResult  = "service.result"  // Result
	BuildResult    = "build.result"    // Status ReleaseID Commit DurationMS Services
	Heartbeat      = "heartbeat"       // Running
)

// EngineLine is a line of the engine about its own work, which the stream tells as steps. It
// stays in the process of the builder, for those who show the engine's own words.
const EngineLine = "engine.line"

// States of a service while it is built.
const (
	Queued    = "queued"
	Pulling   = "pulling"
	Building  = "building"
	Pushing   = "pushing"
	Done      = "done"
	Failed    = "failed"
	Cancelled = "cancelled"
)

// Names and states of phases.
const (
	PhaseCache    = "cache"
	PhaseBuild    = "build"
	PhasePush     = "push"
	PhaseFinalise = "finalise"

	Start   = "start"
	Skipped = "skipped"
)

// Outcomes of a build and of each of its services.
const (
	StatusSuccess   = "success"
	StatusFailed    = "failed"    // the user's project does not build
	StatusError     = "error"     // the builder's own fault
	StatusCancelled = "cancelled" // somebody stopped it
)

// Event is one thing that happened during a build.
type Event struct {
	V    int       `json:"v"`
	Seq  int       `json:"seq"`
	T    time.Time `json:"t"`
	Type string    `json:"type"`

	Fleet      string `json:"fleet,omitempty"`
	User       string `json:"user,omitempty"`
	Arch       string `json:"arch,omitempty"`
	DeviceType string `json:"deviceType,omitempty"`
	Worker     string `json:"worker,omitempty"`
	Position   int    `json:"position,omitempty"`

	ReleaseID int64  `json:"releaseId,omitempty"`
	Commit    string `json:"commit,omitempty"`
	Draft     bool   `json:"draft,omitempty"`
	Semver    string `json:"version,omitempty"`

	Name   string `json:"name,omitempty"`
	State  string `json:"state,omitempty"`
	Detail string `json:"detail,omitempty"`

	Service  string `json:"service,omitempty"`
	Error    string `json:"error,omitempty"`
	ExitCode int    `json:"exitCode,omitempty"`

	N      int    `json:"n,omitempty"`
	Text   string `json:"text,omitempty"`
	Cached bool   `json:"cached,omitempty"`
	MS     int64  `json:"ms,omitempty"`
	Stream string `json:"stream,omitempty"` // "out" or "err"

	Op      string `json:"op,omitempty"` // "pull", "push" or "cache"
	Current int64  `json:"current,omitempty"`
	Total   int64  `json:"total,omitempty"` // bytes of a progress, steps of a step
	Percent int    `json:"percent,omitempty"`

	Code    string   `json:"code,omitempty"`
	Message string   `json:"message,omitempty"`
	Hint    string   `json:"hint,omitempty"`
	Tail    []string `json:"tail,omitempty"` // the last lines of the service's log

	Status     string    `json:"status,omitempty"`
	DurationMS int64     `json:"durationMs,omitempty"`
	Result     *Service  `json:"result,omitempty"`
	Services   []Service `json:"services,omitempty"`
	Running    []string  `json:"running,omitempty"`
}

// Service is one service of the project: its plan in build.started, its outcome in
// service.result and build.result.
type Service struct {
	Name    string `json:"name"`
	Kind    string `json:"kind,omitempty"`    // "build" or "image"
	Context string `json:"context,omitempty"` // folder it is built from
	Image   string `json:"image,omitempty"`   // what an image-only service runs

	Status      string    `json:"status,omitempty"`
	Error       string    `json:"error,omitempty"`
	ExitCode    int       `json:"exitCode,omitempty"`
	ImageID     int64     `json:"imageId,omitempty"`
	Location    string    `json:"location,omitempty"`
	ContentHash string    `json:"contentHash,omitempty"`
	Unchanged   bool      `json:"unchanged,omitempty"` // same content as in the release before
	Size        int64     `json:"size,omitempty"`      // bytes
	Steps       int       `json:"steps,omitempty"`
	CachedSteps int       `json:"cachedSteps,omitempty"`
	StartedAt   time.Time `json:"startedAt,omitzero"`
	EndedAt     time.Time `json:"endedAt,omitzero"`
}

// Sequence numbers the events of one build. It is not for several goroutines at once.
type Sequence struct{ last int }

// Stamp fills in version, time and, for what goes over the wire, the next number.
func (s *Sequence) Stamp(e *Event, now time.Time) {
	e.V, e.T = Version, now.UTC().Truncate(time.Millisecond)
	if e.Type != EngineLine {
		s.last++
		e.Seq = s.last
	}
}
