package state

import "time"

// IntentKind is what somebody asked for.
type IntentKind string

// The kinds of intents.
const (
	Restart IntentKind = "restart" // replace the containers in Left by new ones
	Stop    IntentKind = "stop"    // keep the services stopped while the app stays at Commit
	Start   IntentKind = "start"   // start the containers in Left
	Purge   IntentKind = "purge"   // delete the volumes in Left, with the data in them
)

// Intent is a wish of a person or a program beside the target. It is stored
// before anything is done about it and forgotten when nothing of it is left, so
// it survives a restart of the supervisor and of the device.
type Intent struct {
	ID   string     `json:"id"`
	Kind IntentKind `json:"kind"`
	App  string     `json:"app"` // UUID
	By   string     `json:"by"`  // who asked, for people
	At   time.Time  `json:"at"`

	Services []string `json:"services,omitempty"` // Stop: which
	Commit   string   `json:"commit,omitempty"`   // Stop: the release it holds for
	Left     []string `json:"left,omitempty"`     // what is still to do: container IDs; Purge: short volume names
}

// Override is a permission to break the update locks of users. It says who gave
// it and when it ends.
type Override struct {
	App   string    `json:"app,omitempty"`  // UUID; empty: every app
	By    string    `json:"by"`             // who gave it, for people
	Until time.Time `json:"until,omitzero"` // zero: until it is taken back
}
