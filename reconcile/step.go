package reconcile

import (
	"strings"
	"time"

	"deckhand/state"
)

// Key names the whole effect of a step: its kind, its object and what decides
// the result. Two plans that mean the same step use the same key, also before
// and after the container exists.
type Key string

// Resource is something on the device that a step changes or relies on. Steps
// of one plan are kept apart by its edges; resources keep them apart from
// running steps that no plan asks for any more.
type Resource string

// Traits say how a step may be run.
type Traits struct {
	Disruptive    bool       // interrupts a running container
	Interruptible bool       // can be cancelled half way without harm
	Last          bool       // starts only when nothing else of its app runs
	Alone         bool       // starts only when nothing else runs at all
	Lane          Lane       // whom it competes with
	App           string     // UUID of its app; empty for images
	Uses          []Resource // what it changes or relies on
	Object        string     // engine ID of what it is about, where the key does not tell; empty: not known yet
}

// Lane is a queue of its own for steps that wait for different things.
type Lane int

// The lanes. A slow download never holds up the rest.
const (
	Work     Lane = iota // short work of the engine
	Download             // bound by the network
	Wait                 // waits for a container, costs nothing
)

// Step is one observable change to the device.
//
//sumtype:decl
type Step interface {
	Key() Key       // for programs: unambiguous over time and between apps
	Title() string  // for people: short
	Traits() Traits // how it may be run
	step()
}

// App names the app a step belongs to.
type App struct {
	UUID string `json:"uuid"`
	ID   int64  `json:"id"`
	Name string `json:"name"`
}

// label is what people read in keys: the name, or the UUID where two apps
// would look the same or there is no name.
func (a App) label() string {
	if a.Name == "" {
		return a.UUID
	}
	return a.Name
}

// The step kinds. A new kind needs a case in sim.Apply and in engine.Do; the
// linter names both when they are missing.
type (
	// Fetch downloads an image.
	Fetch struct {
		Image string   `json:"image"`
		For   []string `json:"for"` // app/service, for people
	}
	// RemoveImage deletes an image that nothing needs any more.
	RemoveImage struct {
		ID   string   `json:"id"`
		Refs []string `json:"refs"`
	}
	// CreateNetwork makes a network of an app.
	CreateNetwork struct {
		App     App           `json:"app"`
		Network state.Network `json:"network"`
	}
	// RemoveNetwork deletes one network by its engine ID.
	RemoveNetwork struct {
		App  App    `json:"app"`
		Name string `json:"name"`
		ID   string `json:"id"`
	}
	// CreateVolume makes a volume of an app.
	CreateVolume struct {
		App    App          `json:"app"`
		Volume state.Volume `json:"volume"`
	}
	// RemoveVolume deletes a volume with the data in it, because an intent names
	// it. A volume that is gone already is no error.
	RemoveVolume struct {
		App    App    `json:"app"`
		Name   string `json:"name"`
		Intent string `json:"intent"` // its ID
	}
	// CreateAPINetwork makes the network on which services reach the
	// supervisor, in place of one that is not as it should be.
	CreateAPINetwork struct{}
	// WriteFiles writes the secrets and configs of a service where its
	// container finds them.
	WriteFiles struct {
		App     App          `json:"app"`
		Service string       `json:"service"`
		Hash    string       `json:"hash"` // see state.FilesHash
		Files   []state.File `json:"-"`
	}
	// RemoveFiles deletes secrets and configs that no container uses any more.
	RemoveFiles struct {
		App     App    `json:"app"`
		Service string `json:"service"`
		Hash    string `json:"hash"`
	}
	// TakeLocks takes the update locks of services, all of them or none. By
	// names the permission under which locks of others are broken; empty: none.
	TakeLocks struct {
		App      App      `json:"app"`
		Services []string `json:"services"` // sorted
		By       string   `json:"by,omitempty"`
	}
	// ReleaseLocks gives up every update lock of an app that is ours: at the
	// end, or to yield to somebody who holds another of the app.
	ReleaseLocks struct {
		App   App  `json:"app"`
		Yield bool `json:"yield,omitempty"`
	}
	// Create makes a container and attaches it to its networks; it does not run.
	Create struct {
		App       App           `json:"app"`
		Commit    string        `json:"commit"`
		ReleaseID int64         `json:"releaseId"`
		Service   state.Service `json:"service"`
	}
	// Start runs a container that was created. Container is its ID, known as
	// soon as it exists.
	Start struct {
		App       App      `json:"app"`
		Service   string   `json:"service"`
		Hash      string   `json:"hash"`
		Image     string   `json:"image"`
		Needs     []string `json:"needs,omitempty"` // what it must have to itself, see Exclusive
		Joins     string   `json:"joins,omitempty"` // the service whose network it uses
		Container string   `json:"container,omitempty"`
	}
	// Await waits until the container of a service reaches a condition.
	Await struct {
		App       App             `json:"app"`
		Service   string          `json:"service"`
		Hash      string          `json:"hash"`
		Image     string          `json:"image"`
		Condition state.Condition `json:"condition"`
		Container string          `json:"container,omitempty"`
	}
	// Handover waits until the new container has taken over from the old one:
	// it says so with a file, or its health check succeeds, or Timeout is over.
	// Then the old one may stop; with KeepOld a timeout is a failure instead.
	Handover struct {
		App       App           `json:"app"`
		Service   string        `json:"service"`
		Hash      string        `json:"hash"`
		Image     string        `json:"image"`
		Timeout   time.Duration `json:"timeout"`
		KeepOld   bool          `json:"keepOld,omitempty"`
		Container string        `json:"container,omitempty"` // the new one, known as soon as it exists
	}
	// Stop stops a container and keeps it.
	Stop struct {
		App       App    `json:"app"`
		Service   string `json:"service"`
		Container string `json:"container"`
	}
	// Remove deletes a stopped container and its anonymous volumes.
	Remove struct {
		App       App    `json:"app"`
		Service   string `json:"service"`
		Container string `json:"container"`
	}
	// Rename writes a new release into the name of a container that runs on.
	Rename struct {
		App       App    `json:"app"`
		Service   string `json:"service"`
		Container string `json:"container"`
		Name      string `json:"name"`
	}
	// Commit records that every service of the release is as it was asked for;
	// an empty one records that the app has no release any more.
	Commit struct {
		App    App      `json:"app"`
		Commit string   `json:"commit"`
		Images []string `json:"images"` // references of the release
	}
	// Fulfil forgets an intent of which nothing is left to do.
	Fulfil struct {
		Intent string           `json:"intent"` // its ID
		Kind   state.IntentKind `json:"kind"`
		App    App              `json:"app"`
	}
	// RequireReboot notes on the host that a service needs a reboot.
	RequireReboot struct {
		App     App    `json:"app"`
		Service string `json:"service"`
	}
	// Reboot restarts the device.
	Reboot struct{}
)

// Key implements Step.
func (s Fetch) Key() Key { return key("fetch", s.Image) }

// Title implements Step.
func (s Fetch) Title() string {
	return "fetch " + people(s.Image) + " for " + strings.Join(s.For, ", ")
}

// Key implements Step.
func (s RemoveImage) Key() Key { return key("remove image", s.ID) }

// Title implements Step.
func (s RemoveImage) Title() string { return "remove image " + people(name(s.Refs, s.ID)) }

// Key implements Step.
func (s CreateNetwork) Key() Key {
	return key("create network", s.App.UUID+"/"+s.Network.Name, s.Network.Hash)
}

// Title implements Step.
func (s CreateNetwork) Title() string {
	return "create network " + s.App.label() + "/" + s.Network.Name
}

// Key implements Step.
func (s RemoveNetwork) Key() Key { return key("remove network", s.App.UUID+"/"+s.Name, s.ID) }

// Title implements Step.
func (s RemoveNetwork) Title() string {
	return "remove network " + s.App.label() + "/" + s.Name + " " + short(s.ID)
}

// Key implements Step.
func (s CreateVolume) Key() Key {
	return key("create volume", s.App.UUID+"/"+s.Volume.Name, s.Volume.Hash)
}

// Title implements Step.
func (s CreateVolume) Title() string { return "create volume " + s.App.label() + "/" + s.Volume.Name }

// Key implements Step.
func (s RemoveVolume) Key() Key { return key("remove volume", s.App.UUID+"/"+s.Name, s.Intent) }

// Title implements Step.
func (s RemoveVolume) Title() string { return "remove volume " + s.App.label() + "/" + s.Name }

// Key implements Step.
func (s CreateAPINetwork) Key() Key { return "create API network" }

// Title implements Step.
func (s CreateAPINetwork) Title() string { return "create network " + state.APINetworkName }

// Key implements Step.
func (s WriteFiles) Key() Key { return key("write files", s.App.UUID+"/"+s.Service, s.Hash) }

// Title implements Step.
func (s WriteFiles) Title() string { return "write files of " + s.App.label() + "/" + s.Service }

// Key implements Step.
func (s RemoveFiles) Key() Key { return key("remove files", s.App.UUID+"/"+s.Service, s.Hash) }

// Title implements Step.
func (s RemoveFiles) Title() string { return "remove files of " + s.App.label() + "/" + s.Service }

// Key implements Step.
func (s TakeLocks) Key() Key { return key("take locks", s.App.UUID) }

// Title implements Step.
func (s TakeLocks) Title() string {
	if s.By != "" {
		return "break locks of " + s.App.label()
	}
	return "take locks of " + s.App.label()
}

// Key implements Step.
func (s ReleaseLocks) Key() Key {
	if s.Yield {
		return key("yield locks", s.App.UUID)
	}
	return key("release locks", s.App.UUID)
}

// Title implements Step.
func (s ReleaseLocks) Title() string {
	if s.Yield {
		return "yield locks of " + s.App.label()
	}
	return "release locks of " + s.App.label()
}

// Key implements Step.
func (s Handover) Key() Key { return key("hand over", s.App.UUID+"/"+s.Service, s.Hash, s.Image) }

// Title implements Step.
func (s Handover) Title() string { return "hand over to new " + s.App.label() + "/" + s.Service }

// Key implements Step.
func (s Fulfil) Key() Key { return key("fulfil", s.Intent) }

// Title implements Step.
func (s Fulfil) Title() string { return "end the request to " + string(s.Kind) + " " + s.App.label() }

// Key implements Step.
func (s RequireReboot) Key() Key { return key("require reboot", s.App.UUID+"/"+s.Service) }

// Title implements Step.
func (s RequireReboot) Title() string { return "require reboot for " + s.App.label() + "/" + s.Service }

// Key implements Step.
func (s Reboot) Key() Key { return "reboot" }

// Title implements Step.
func (s Reboot) Title() string { return "reboot" }

// Key implements Step.
func (s Create) Key() Key {
	return key("create", s.App.UUID+"/"+s.Service.Name, s.Service.Hash, s.Service.Image)
}

// Title implements Step.
func (s Create) Title() string { return "create " + s.App.label() + "/" + s.Service.Name }

// Key implements Step.
func (s Start) Key() Key { return key("start", s.App.UUID+"/"+s.Service, s.Hash, s.Image) }

// Title implements Step.
func (s Start) Title() string { return "start " + s.App.label() + "/" + s.Service }

// Key implements Step.
func (s Await) Key() Key {
	return key("await", s.App.UUID+"/"+s.Service, string(s.Condition), s.Hash, s.Image)
}

// Title implements Step.
func (s Await) Title() string {
	return "await " + s.App.label() + "/" + s.Service + " " + condition(s.Condition)
}

// Key implements Step.
func (s Stop) Key() Key { return key("stop", s.App.UUID+"/"+s.Service, s.Container) }

// Title implements Step.
func (s Stop) Title() string {
	return "stop " + s.App.label() + "/" + s.Service + " " + short(s.Container)
}

// Key implements Step.
func (s Remove) Key() Key { return key("remove", s.App.UUID+"/"+s.Service, s.Container) }

// Title implements Step.
func (s Remove) Title() string {
	return "remove " + s.App.label() + "/" + s.Service + " " + short(s.Container)
}

// Key implements Step.
func (s Rename) Key() Key { return key("rename", s.App.UUID+"/"+s.Service, s.Container, s.Name) }

// Title implements Step.
func (s Rename) Title() string {
	_, _, commit, _ := state.ParseContainerName(s.Name)
	return "rename " + s.App.label() + "/" + s.Service + " for release " + short(commit)
}

// Key implements Step.
func (s Commit) Key() Key { return key("commit", s.App.UUID, s.Commit) }

// Title implements Step.
func (s Commit) Title() string {
	if s.Commit == "" {
		return "forget release of " + s.App.label()
	}
	return "commit " + s.App.label() + " " + short(s.Commit)
}

func (RemoveVolume) step()     {}
func (CreateAPINetwork) step() {}
func (WriteFiles) step()       {}
func (RemoveFiles) step()      {}
func (TakeLocks) step()        {}
func (ReleaseLocks) step()     {}
func (Handover) step()         {}
func (Fulfil) step()           {}
func (RequireReboot) step()    {}
func (Reboot) step()           {}
func (Fetch) step()            {}
func (RemoveImage) step()      {}
func (CreateNetwork) step()    {}
func (RemoveNetwork) step()    {}
func (CreateVolume) step()     {}
func (Create) step()           {}
func (Start) step()            {}
func (Await) step()            {}
func (Stop) step()             {}
func (Remove) step()           {}
func (Rename) step()           {}
func (Commit) step()           {}

func key(kind string, parts ...string) Key {
	n := len(kind)
	for _, p := range parts {
		n += 1 + len(p)
	}
	var b strings.Builder
	b.Grow(n)
	b.WriteString(kind)
	for _, p := range parts {
		b.WriteByte(' ')
		b.WriteString(p)
	}
	return Key(b.String())
}

// short is the part of an engine ID that people see.
func short(id string) string {
	if len(id) > 12 && id[:7] == "sha256:" {
		id = id[7:]
	}
	return id[:min(12, len(id))]
}

// name picks the reference that Fetch used: a digest if there is one.
func name(refs []string, or string) string {
	for _, r := range refs {
		if state.Digest(r) != "" {
			return r
		}
	}
	if len(refs) == 0 {
		return or
	}
	return refs[0]
}

// people shortens an image reference: repositories of releases are random
// numbers, and the digest alone names the image.
func people(ref string) string {
	if d := state.Digest(ref); d != "" {
		return short(d)
	}
	return ref
}

// condition is a compose condition in a sentence.
func condition(c state.Condition) string {
	switch c {
	case state.Healthy:
		return "healthy"
	case state.Completed:
		return "completed"
	case state.Started:
	}
	return "started"
}
