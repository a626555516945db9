package report

import (
	"maps"
	"slices"
	"strings"

	"deckhand/reconcile"
	"deckhand/state"
)

// Status is what the cloud calls the state of a service.
type Status string

// The words that the cloud knows, in its spelling; it drops others silently.
const (
	Downloading      Status = "Downloading"
	Downloaded       Status = "Downloaded"
	Installing       Status = "Installing"
	Installed        Status = "Installed"
	Starting         Status = "Starting"
	Up               Status = "Running"
	HandingOver      Status = "Handing over"
	AwaitingHandover Status = "Awaiting handover"
	Stopping         Status = "Stopping"
	Removing         Status = "removing"
	Paused           Status = "paused"
	Restarting       Status = "restarting"
	Exited           Status = "exited"
	Dead             Status = "Dead"
	Aborted          Status = "Aborted"
	Unknown          Status = "Unknown"
)

// UpdateStatus is how far a release is.
type UpdateStatus string

// From the one that hides all others to the one that is hidden by all.
const (
	Rejected        UpdateStatus = "rejected"
	AbortedUpdate   UpdateStatus = "aborted"
	DownloadingNow  UpdateStatus = "downloading"
	DownloadedAll   UpdateStatus = "downloaded"
	ApplyingChanges UpdateStatus = "applying changes"
	Done            UpdateStatus = "done"
)

// Row is one service as people see it: a container, or a wanted service that has
// none yet.
type Row struct {
	AppUUID   string
	AppID     int64
	AppName   string
	Commit    string
	ReleaseID int64

	Service   string
	ServiceID int64
	ImageID   int64
	Image     string // reference; empty: not known

	Container   string // engine ID; empty: none yet
	Created     int64  // of the container, Unix seconds
	EngineImage string // engine ID of the image; empty: not on the device

	Status   Status
	Progress *int // percent, while downloading

	// Wanted: it belongs to the target release. Pending: it is wanted and has
	// still to start. Superseded: another container stands for the same
	// service of the same release.
	Wanted, Pending, Superseded bool
}

// Rows lists every service of every app: containers first, oldest first, then
// what is wanted and has no container, by name. Apps outside of the target are
// in the list too.
func Rows(in Input) []Row {
	all := maps.Clone(in.Target.Apps)
	if all == nil {
		all = map[string]state.App{}
	}
	for uuid, now := range in.World.Apps {
		if _, ok := all[uuid]; !ok {
			all[uuid] = state.App{UUID: uuid, ID: now.ID}
		}
	}
	var out []Row
	for _, uuid := range slices.Sorted(maps.Keys(all)) {
		out = append(out, rowsOf(all[uuid], in)...)
	}
	return out
}

func rowsOf(want state.App, in Input) []Row {
	var out []Row
	has := map[string]bool{} // wanted services that have a container of the release
	for _, c := range in.World.Apps[want.UUID].Containers {
		r := containerRow(want, c, in)
		out = append(out, r)
		if r.Wanted {
			has[c.Service] = true
		}
	}
	handover(out)
	supersede(out)
	for _, name := range slices.Sorted(maps.Keys(want.Services)) {
		if !has[name] {
			out = append(out, wantedRow(want, want.Services[name], in))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(want.Own)) {
		out = append(out, Row{
			AppUUID: want.UUID, AppID: want.ID, AppName: want.Name, Commit: want.Commit, ReleaseID: want.ReleaseID,
			Service: name, Image: want.Own[name], Status: Up, Wanted: true, // it is us who report
		})
	}
	return out
}

func containerRow(want state.App, c state.Container, in Input) Row {
	r := Row{
		AppUUID: want.UUID, AppID: want.ID, AppName: want.Name, Commit: c.Commit, ReleaseID: c.ReleaseID,
		Service: c.Service, ServiceID: c.ServiceID, ImageID: c.ImageID,
		Container: c.ID, Created: c.Created, EngineImage: c.Image, Status: containerStatus(want, c, in.Running),
	}
	s, ok := want.Services[c.Service]
	if ok && c.Commit == want.Commit {
		r.Wanted, r.Image = true, s.Image
		r.Pending = s.Running && (r.Status == Installed || r.Status == Starting)
		return r
	}
	r.Image = reference(in.World.Images[c.Image])
	return r
}

// reference is the name of an image as the cloud knows it: with a digest if
// there is one.
func reference(i state.Image) string {
	for _, ref := range i.Refs {
		if strings.Contains(ref, "@") {
			return ref
		}
	}
	if len(i.Refs) > 0 {
		return i.Refs[0]
	}
	return ""
}

// containerStatus is what is being done with the container, else its phase.
func containerStatus(want state.App, c state.Container, running []Running) Status {
	for _, r := range running {
		if s, ok := r.Step.(reconcile.Start); ok && starts(s, want, c) {
			return Starting
		}
		if s, ok := r.Step.(reconcile.Stop); ok && s.Container == c.ID {
			return Stopping
		}
		if s, ok := r.Step.(reconcile.Remove); ok && s.Container == c.ID {
			return Removing
		}
	}
	switch c.Phase {
	case state.Created:
		return Installed
	case state.Running:
		return Up
	case state.Paused:
		return Paused
	case state.Restarting:
		return Restarting
	case state.Removing:
		return Removing
	case state.Exited:
		return Exited
	case state.Dead:
		return Dead
	}
	return Unknown
}

// starts reports whether a step starts the container; when it was planned the
// container may not have existed.
func starts(s reconcile.Start, want state.App, c state.Container) bool {
	if s.Container != "" {
		return s.Container == c.ID
	}
	return s.App.UUID == want.UUID && s.Service == c.Service && s.Hash == c.Hash && c.Phase == state.Created
}

// handover marks services that run in two releases at once: the oldest container
// hands over, the others wait.
func handover(rows []Row) {
	first := map[string]int{}
	for i := range rows {
		if rows[i].Status != Up {
			continue
		}
		f, ok := first[rows[i].Service]
		switch {
		case !ok:
			first[rows[i].Service] = i
		case rows[f].Commit != rows[i].Commit:
			rows[f].Status, rows[i].Status = HandingOver, AwaitingHandover
		}
	}
}

// supersede leaves one container for each service of a release: one that is up,
// else the newest.
func supersede(rows []Row) {
	type key struct{ service, commit string }
	best := map[key]int{}
	for i, r := range rows {
		k := key{r.Service, r.Commit}
		b, ok := best[k]
		switch {
		case !ok:
			best[k] = i
		case isUp(rows[b].Status) && !isUp(r.Status):
			rows[i].Superseded = true
		default:
			rows[b].Superseded = true
			best[k] = i
		}
	}
}

func isUp(s Status) bool {
	return s == Up || s == HandingOver || s == AwaitingHandover || s == Paused || s == Restarting
}

// wantedRow is a service of the target release that has no container. Every one
// is reported from the start, so that an update never looks finished between
// two downloads.
func wantedRow(want state.App, s state.Service, in Input) Row {
	r := Row{
		AppUUID: want.UUID, AppID: want.ID, AppName: want.Name, Commit: want.Commit, ReleaseID: want.ReleaseID,
		Service: s.Name, ServiceID: s.ID, ImageID: s.ImageID, Image: s.Image, Wanted: true, Pending: s.Running,
	}
	for _, id := range slices.Sorted(maps.Keys(in.World.Images)) {
		if in.World.Images[id].Leads(s.Image) {
			r.EngineImage, r.Status = id, Downloaded
			break
		}
	}
	if h, known := in.World.Apps[want.UUID].Handovers[s.Name]; known && h.Failed && h.Hash == s.Hash && state.SameImage(h.Image, s.Image) {
		r.Status, r.Pending = Aborted, false // the old container serves on
		return r
	}
	for _, run := range in.Running {
		create, ok := run.Step.(reconcile.Create)
		if ok && create.App.UUID == want.UUID && create.Service.Name == s.Name && create.Commit == want.Commit {
			r.Status, r.Progress = Installing, nil
			return r
		}
		fetch, ok := run.Step.(reconcile.Fetch)
		if ok && r.EngineImage == "" && state.SameImage(fetch.Image, s.Image) {
			r.Status, r.Progress = Downloading, percent(run)
		}
	}
	if r.Status == "" {
		zero := 0
		r.Status, r.Progress = Downloading, &zero
	}
	return r
}

// percent stays below 100 while the download goes on: at 100 the cloud would
// take the release for done.
func percent(r Running) *int {
	p := 0
	if r.Total > 0 {
		p = int(max(0, min(99, float64(r.Done)*100/float64(r.Total))))
	}
	return &p
}

// updateStatus is how far a release is, told from its services. pending: one of
// them has still to start, though it may have a container.
func updateStatus(services map[string]Service, pending bool) UpdateStatus {
	has := func(want ...Status) bool {
		for _, s := range services {
			if slices.Contains(want, s.Status) {
				return true
			}
		}
		return false
	}
	switch {
	case has(Aborted):
		return AbortedUpdate
	case has(Downloading):
		return DownloadingNow
	case has(Downloaded):
		return DownloadedAll
	case pending, has(Installing, AwaitingHandover):
		return ApplyingChanges
	}
	return Done
}
