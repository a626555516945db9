package state

// Target is what the device should look like. It was validated whole when it
// arrived; nothing in it needs a second check.
type Target struct {
	Name   string            `json:"name"`             // the device's name, for people
	Config map[string]string `json:"config,omitempty"` // configuration variables, prefix included
	Apps   map[string]App    `json:"apps"`             // by app UUID

	// Local: the device is in local mode, and its apps are what people on its
	// own network sent to it. Nothing is told about apps to the cloud, and
	// images that no app uses stay.
	Local bool `json:"local,omitempty"`
}

// App is one wanted application at one release.
type App struct {
	UUID  string `json:"uuid"`
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Class string `json:"class,omitempty"` // fleet, app or block
	Host  bool   `json:"host,omitempty"`  // an app of the host: only its services for the data partition are here

	// Commit and ReleaseID name the wanted release. An empty Commit means
	// that the app has no release: nothing of it should run.
	Commit    string `json:"commit,omitempty"`
	ReleaseID int64  `json:"releaseId,omitempty"`

	// Rejected says why this release was refused; the planner then leaves the
	// app exactly as it is. Empty: accepted.
	Rejected string `json:"rejected,omitempty"`

	// Own are the services that are this supervisor itself, with their images.
	// The host runs and updates them.
	Own map[string]string `json:"own,omitempty"`

	Services map[string]Service `json:"services,omitempty"` // by service name
	Networks map[string]Network `json:"networks,omitempty"` // by short name
	Volumes  map[string]Volume  `json:"volumes,omitempty"`  // by short name
}

// Service is one wanted container.
type Service struct {
	Name    string `json:"name"`
	ID      int64  `json:"id"`
	ImageID int64  `json:"imageId"`
	Image   string `json:"image"` // canonical reference, see Reference

	Running  bool   `json:"running"`            // false: create it, do not run it
	Strategy string `json:"strategy,omitempty"` // a row of strategy.All

	// HandoverTimeout is how long the old container waits for the new one under
	// the strategy hand-over; zero: strategy.HandoverTimeout. KeepOld: when the
	// time is over the old one stays and the release has failed.
	HandoverTimeout Duration `json:"handoverTimeout,omitempty"`
	KeepOld         bool     `json:"keepOld,omitempty"`

	RequiresReboot bool `json:"requiresReboot,omitempty"` // a new container first runs after a reboot

	DependsOn []Dependency `json:"dependsOn,omitempty"` // sorted by Service

	Spec Spec   `json:"spec"`
	Hash string `json:"hash"` // Spec.Hash(), computed once
}

// Condition is what a dependency must have reached before its dependent starts.
type Condition string

// The conditions of the compose specification.
const (
	Started   Condition = "service_started"
	Healthy   Condition = "service_healthy"
	Completed Condition = "service_completed_successfully"
)

// Dependency names a service of the same app and the condition to wait for.
type Dependency struct {
	Service   string    `json:"service"`
	Condition Condition `json:"condition"`
	Optional  bool      `json:"optional,omitempty"` // the dependent starts even if the condition is not reached
	Restart   bool      `json:"restart,omitempty"`  // the dependent restarts when the dependency is replaced
}

// Network is a wanted network of an app. External ones are not listed: see
// Attachment.External.
type Network struct {
	Name string      `json:"name"` // short name, unique in its app
	Spec NetworkSpec `json:"spec"`
	Hash string      `json:"hash"`
}

// Volume is a wanted volume of an app. External ones are not listed: see
// Mount.External.
type Volume struct {
	Name string     `json:"name"` // short name, unique in its app
	Spec VolumeSpec `json:"spec"`
	Hash string     `json:"hash"`
}
