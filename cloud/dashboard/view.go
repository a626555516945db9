package dashboard

import (
	"fmt"
	"time"

	"deckhand/cloud/model"
)

// What the templates show. A mark always has a word: colour alone tells
// nothing to many people.

type mark struct {
	Icon string // id of a symbol in icons.html
	Tone string // ok, busy, warn, bad or idle
	Word string
}

type pageView struct {
	User   string
	Fleets []fleetView
	Totals totals
}

type totals struct{ Fleets, Devices, Online, Updating int }

type fleetView struct {
	ID         int64
	Name, Slug string
	DeviceType string
	Online     int
	Target     *releaseView
	Latest     *releaseView
	Devices    []deviceView
}

type releaseView struct {
	Version, Commit string
	Mark            mark
	Done, Total     int         // images
	Images          []imageView // shown while building and after a failure
}

type imageView struct {
	Service string
	Mark    mark
	Error   string
}

type deviceView struct {
	ID          int64
	Name, UUID  string
	Type        string
	Mark        mark
	Seen        time.Time
	Running     string // commit
	Moving      string // commit it is on the way to
	Release     mark
	Services    []serviceView
	Stale       bool // not heard for long: all this was so once
	HasReleases bool // there is something to run
}

type serviceView struct {
	Name, Commit string
	Old          bool // of another release than the device should run
	Mark         mark
	Progress     *int64
}

func newPage(user string, fleets []model.OverviewFleet) pageView {
	p := pageView{User: user}
	for _, f := range fleets {
		v := newFleet(f)
		p.Fleets = append(p.Fleets, v)
		p.Totals.Devices += len(v.Devices)
		p.Totals.Online += v.Online
		for _, d := range v.Devices {
			if d.Release.Tone == "busy" {
				p.Totals.Updating++
			}
		}
	}
	p.Totals.Fleets = len(fleets)
	return p
}

func newFleet(f model.OverviewFleet) fleetView {
	v := fleetView{ID: f.ID, Name: f.Name, Slug: f.Slug, DeviceType: f.DeviceType}
	if f.Target != nil {
		v.Target = newRelease(*f.Target)
		v.Target.Images = nil
	}
	if f.Latest != nil {
		v.Latest = newRelease(*f.Latest)
	}
	for _, d := range f.Devices {
		if d.Heartbeat == "online" {
			v.Online++
		}
		v.Devices = append(v.Devices, newDevice(d))
	}
	return v
}

func newRelease(r model.OverviewRelease) *releaseView {
	v := &releaseView{Version: r.RawVersion, Commit: short(r.Commit), Total: len(r.Images), Mark: buildMark(r.Status)}
	if r.Status == model.StatusSuccess && !r.Final {
		v.Mark = mark{"draft", "idle", "draft"}
	}
	for _, i := range r.Images {
		if i.Status == model.StatusSuccess {
			v.Done++
		}
		if r.Status != model.StatusSuccess {
			v.Images = append(v.Images, imageView{i.Service, buildMark(i.Status), i.ErrorMessage})
		}
	}
	return v
}

func buildMark(status string) mark {
	switch status {
	case model.StatusRunning:
		return mark{"work", "busy", "building"}
	case model.StatusSuccess:
		return mark{"check", "ok", "built"}
	case model.StatusCancelled:
		return mark{"stop", "idle", "cancelled"}
	case model.StatusError:
		return mark{"cross", "bad", "builder error"}
	default:
		return mark{"cross", "bad", "failed"}
	}
}

func newDevice(d model.OverviewDevice) deviceView {
	v := deviceView{ID: d.ID, Name: d.Name, UUID: d.UUID, Type: d.DeviceType, Mark: presenceMark(d.Heartbeat), Seen: d.LastSeen,
		Running: short(d.RunningCommit), Stale: d.Heartbeat == "offline", HasReleases: d.TargetCommit != ""}
	v.Release = releaseMark(d)
	if v.Release.Tone == "busy" {
		v.Moving = short(d.TargetCommit)
	}
	for _, s := range d.Services {
		v.Services = append(v.Services, serviceView{Name: s.Service, Commit: short(s.Commit), Old: s.Commit != d.TargetCommit,
			Mark: serviceMark(s.Status), Progress: s.Progress})
	}
	return v
}

func presenceMark(heartbeat string) mark {
	switch heartbeat {
	case "online":
		return mark{"online", "ok", "online"}
	case "timeout":
		return mark{"late", "warn", "late"}
	case "offline":
		return mark{"offline", "bad", "offline"}
	default:
		return mark{"never", "idle", "never seen"}
	}
}

// releaseMark compares what the device runs with what it should run.
func releaseMark(d model.OverviewDevice) mark {
	switch {
	case d.TargetCommit == "":
		return mark{"never", "idle", "nothing to run"}
	case d.UpdateStatus == "rejected" || d.UpdateStatus == "aborted":
		return mark{"cross", "bad", "update " + d.UpdateStatus}
	case d.RunningCommit == d.TargetCommit:
		return mark{"check", "ok", "up to date"}
	case d.UpdateStatus != "" && d.UpdateStatus != "done":
		return mark{"work", "busy", d.UpdateStatus}
	case d.RunningCommit == "":
		return mark{"work", "busy", "installing"}
	default:
		return mark{"work", "busy", "updating"}
	}
}

func serviceMark(status string) mark {
	switch status {
	case "Running":
		return mark{"play", "ok", "running"}
	case "Downloading":
		return mark{"down", "busy", "downloading"}
	case "Downloaded", "Installed":
		return mark{"box", "busy", "downloaded"}
	case "Installing", "Starting", "configuring", "restarting":
		return mark{"work", "busy", lower(status)}
	case "Handing over", "Awaiting handover":
		return mark{"work", "busy", lower(status)}
	case "Stopping", "Deleting", "removing":
		return mark{"work", "busy", lower(status)}
	case "Stopped", "paused":
		return mark{"stop", "warn", lower(status)}
	case "exited", "Dead":
		return mark{"cross", "bad", lower(status)}
	case "Idle":
		return mark{"stop", "idle", "idle"}
	default:
		return mark{"never", "idle", lower(status)}
	}
}

func lower(s string) string {
	if s == "" {
		return "unknown"
	}
	if s[0] >= 'A' && s[0] <= 'Z' {
		return string(s[0]+'a'-'A') + s[1:]
	}
	return s
}

func short(commit string) string {
	if len(commit) > 7 {
		return commit[:7]
	}
	return commit
}

// Width is how wide a bar of all images is, for the progress element.
func (r releaseView) Width() string { return fmt.Sprintf("%d of %d", r.Done, r.Total) }

// ShortUUID is enough of the UUID to tell devices apart.
func (d deviceView) ShortUUID() string { return short(d.UUID) }

// SeenISO is the time last seen for the script, "" for never.
func (d deviceView) SeenISO() string {
	if d.Seen.IsZero() {
		return ""
	}
	return d.Seen.UTC().Format(time.RFC3339)
}

// SeenText is the time last seen for those without the script.
func (d deviceView) SeenText() string {
	if d.Seen.IsZero() {
		return "never"
	}
	return d.Seen.UTC().Format("2 Jan 15:04:05 UTC")
}
