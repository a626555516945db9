package state

// World is what one look at the device found. The engine supplies objects and
// their labels; the store adds what an engine cannot show (commits, applied
// specs, which images are ours).
type World struct {
	Apps   map[string]AppNow `json:"apps,omitempty"`   // by app UUID
	Images map[string]Image  `json:"images,omitempty"` // by engine image ID

	Intents   []Intent   `json:"intents,omitempty"`   // what people asked for, oldest first
	Overrides []Override `json:"overrides,omitempty"` // permissions to break update locks, in force now

	// APINetwork: the network on which services reach the supervisor exists and
	// is as it should be.
	APINetwork bool `json:"apiNetwork,omitempty"`

	Boot          int64 `json:"boot,omitempty"`          // when the device started, Unix seconds, by its clock
	RebootPending bool  `json:"rebootPending,omitempty"` // a reboot was asked for since then

	NoLocks bool `json:"noLocks,omitempty"` // there are no lock folders: nobody can hold a lock
}

// AppNow is the part of one app that exists on the device.
type AppNow struct {
	UUID string `json:"uuid"`
	ID   int64  `json:"id"`

	// Commit is the last release that was reached completely, Images are the
	// references of its images: they stay until the next one is reached.
	Commit string   `json:"commit,omitempty"`
	Images []string `json:"images,omitempty"`

	Containers []Container  `json:"containers,omitempty"` // oldest first, then by ID
	Networks   []NetworkNow `json:"networks,omitempty"`   // by name, then ID: the engine allows duplicates
	Volumes    []VolumeNow  `json:"volumes,omitempty"`    // by name
	Files      []FilesNow   `json:"files,omitempty"`      // secrets and configs on the device

	Locked    []string   `json:"locked,omitempty"`    // services whose update lock we hold, sorted
	UserLocks []UserLock `json:"userLocks,omitempty"` // locks that others hold, by service

	// Handovers holds the outcome of the last hand-over of a service, until a
	// container is made for it again.
	Handovers map[string]Handover `json:"handovers,omitempty"`

	// Reboots names the services for whose container a reboot was required,
	// and whether it has happened since. The time of the boot alone cannot
	// tell: clocks of devices jump.
	Reboots map[string]bool `json:"reboots,omitempty"`
}

// UserLock is an update lock that is not ours.
type UserLock struct {
	Service string `json:"service"`
	Holder  string `json:"holder"` // for people: the file and its owner
	Since   int64  `json:"since"`  // Unix seconds
}

// Handover is how the hand-over to a new container ended.
type Handover struct {
	Hash   string `json:"hash"`  // of the new container's spec
	Image  string `json:"image"` // its reference
	Failed bool   `json:"failed,omitempty"`
}

// FilesNow are the files that were written for a service.
type FilesNow struct {
	Service string `json:"service"`
	Hash    string `json:"hash"` // see FilesHash
}

// Phase is the engine's word for the state of a container.
type Phase string

// The engine's words, in lower case as it reports them.
const (
	Created    Phase = "created" // never started
	Running    Phase = "running"
	Paused     Phase = "paused"
	Restarting Phase = "restarting"
	Removing   Phase = "removing"
	Exited     Phase = "exited"
	Dead       Phase = "dead" // a removal that failed half way
)

// Container is a supervised container. Service, ServiceID come from labels;
// ImageID, ReleaseID and Commit from the name, the only part of a container that
// can be changed without restarting it.
type Container struct {
	ID        string `json:"id"`
	Name      string `json:"name"`
	Service   string `json:"service"`
	ServiceID int64  `json:"serviceId,omitempty"`
	ImageID   int64  `json:"imageId,omitempty"`
	ReleaseID int64  `json:"releaseId,omitempty"`
	Commit    string `json:"commit,omitempty"`

	Image string `json:"image"`          // engine image ID it was made from
	Hash  string `json:"hash,omitempty"` // Spec.Hash it was made with; empty: not made by us
	Spec  *Spec  `json:"spec,omitempty"` // the applied spec, when the store still knows it

	Differs []Change `json:"differs,omitempty"` // no Hash: in what it is not as wanted, as far as that is known

	Phase    Phase  `json:"phase"`
	Health   string `json:"health,omitempty"`   // starting, healthy, unhealthy; empty: no health check
	ExitCode int    `json:"exitCode,omitempty"` // meaningful when Phase is Exited
	Halted   bool   `json:"halted,omitempty"`   // we stopped it, so we may start it again
	Refused  string `json:"refused,omitempty"`  // Exited because the engine could not start it: its words
	Created  int64  `json:"created"`            // Unix seconds

	API          bool   `json:"api,omitempty"`          // attached to the API network that exists now
	NetworkOwner string `json:"networkOwner,omitempty"` // ID of the container whose network it uses

	Networks []string `json:"networks,omitempty"` // short names of the app's networks it is attached to, sorted
	Volumes  []string `json:"volumes,omitempty"`  // short names of the app's volumes it mounts, sorted
}

// Up reports whether the engine keeps a process of the container alive, now or
// after its restart delay.
func (c Container) Up() bool {
	switch c.Phase {
	case Running, Paused, Restarting:
		return true
	case Created, Removing, Exited, Dead:
	}
	return false
}

// NetworkNow is a network that exists.
type NetworkNow struct {
	ID   string `json:"id"`
	Name string `json:"name"` // short name
	Hash string `json:"hash,omitempty"`
}

// VolumeNow is a volume that exists.
type VolumeNow struct {
	Name string `json:"name"` // short name
	Hash string `json:"hash,omitempty"`
}

// Image is an image on the engine.
type Image struct {
	ID   string   `json:"id"`
	Refs []string `json:"refs,omitempty"` // canonical references that lead to it: repo:tag and repo@digest, sorted
	Size int64    `json:"size,omitempty"` // bytes
	Ours bool     `json:"ours,omitempty"` // we fetched it, so we may remove it
}
