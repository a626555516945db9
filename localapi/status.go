package localapi

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"deckhand/report"
)

// Status is everything that the API tells about apps.
type Status struct {
	Applying   bool // false: the device is as it was asked to be
	Containers []Container
	Images     []Image
	Commits    map[int64]string // by app ID: the last release reached completely
	Apps       []App            // wanted or on the device, by ID
}

// App is one app.
type App struct {
	ID        int64
	UUID      string
	Name      string
	Here      bool                // something of it is on the device
	Wanted    bool                // it is in the target
	Commit    string              // the wanted release; empty: none
	ReleaseID int64               // its number
	Update    report.UpdateStatus // how far the wanted release is
	Services  map[string]Service  // those of the wanted release, by name
	Rows      []Service           // every container, then what is wanted and has none
}

// Service is one service of a release.
type Service struct {
	Status    string
	Image     string // reference
	ImageID   int64
	ReleaseID int64
	Progress  *int // percent; nil: not being downloaded
}

// Container is one container, in the API's names.
type Container struct {
	Status      string `json:"status"`
	ServiceName string `json:"serviceName"`
	AppID       int64  `json:"appId"`
	ImageID     int64  `json:"imageId"`
	ServiceID   int64  `json:"serviceId"`
	ContainerID string `json:"containerId"`
	CreatedAt   string `json:"createdAt"`

	Up        bool   `json:"-"` // its process is alive
	Image     string `json:"-"` // reference, else the engine's ID
	ReleaseID int64  `json:"-"`
}

// Image is one image that a service uses or waits for, in the API's names.
type Image struct {
	Name          string  `json:"name"`
	AppID         int64   `json:"appId"`
	ServiceName   string  `json:"serviceName"`
	ImageID       int64   `json:"imageId"`
	DockerImageID *string `json:"dockerImageId"` // nil: not on the device
	Status        string  `json:"status"`
	Progress      *int    `json:"downloadProgress"` // percent; nil: not being downloaded
}

// Describe makes the status of what a report is made of.
func Describe(in report.Input, applying bool) Status {
	s := Status{Applying: applying, Commits: map[int64]string{}}
	rows := report.Rows(in)
	up := map[string]bool{}
	for uuid, now := range in.World.Apps {
		id := now.ID
		if want, ok := in.Target.Apps[uuid]; ok {
			id = want.ID
		}
		if now.Commit != "" {
			s.Commits[id] = now.Commit
		}
		for _, c := range now.Containers {
			up[c.ID] = c.Up()
		}
	}
	for _, r := range rows {
		if r.Container != "" {
			s.Containers = append(s.Containers, Container{
				Status: string(r.Status), ServiceName: r.Service, AppID: r.AppID, ImageID: r.ImageID, ServiceID: r.ServiceID,
				ContainerID: r.Container, CreatedAt: time.Unix(r.Created, 0).UTC().Format("2006-01-02T15:04:05.000Z"),
				Up: up[r.Container], Image: cmp.Or(r.Image, r.EngineImage), ReleaseID: r.ReleaseID,
			})
		}
		if r.Image == "" {
			continue
		}
		i := Image{Name: r.Image, AppID: r.AppID, ServiceName: r.Service, ImageID: r.ImageID, Status: string(report.Downloaded), Progress: r.Progress}
		if r.EngineImage != "" {
			i.DockerImageID = &r.EngineImage
		}
		if r.Progress != nil {
			i.Status = string(report.Downloading)
		}
		s.Images = append(s.Images, i)
	}
	s.Apps = describeApps(in, rows)
	return s
}

func describeApps(in report.Input, rows []report.Row) []App {
	reported := report.Build(in).Device.Apps
	all := map[string]App{}
	for uuid, now := range in.World.Apps {
		all[uuid] = App{ID: now.ID, UUID: uuid, Here: len(now.Containers)+len(now.Volumes)+len(now.Networks) > 0}
	}
	for uuid, want := range in.Target.Apps {
		a := App{ID: want.ID, UUID: uuid, Name: want.Name, Here: all[uuid].Here, Wanted: true, Commit: want.Commit, ReleaseID: want.ReleaseID}
		a.Update = cmp.Or(reported[uuid].Releases[want.Commit].UpdateStatus, report.Done)
		all[uuid] = a
	}
	for _, r := range rows {
		a := all[r.AppUUID]
		x := Service{Status: string(r.Status), Image: r.Image, ImageID: r.ImageID, ReleaseID: r.ReleaseID, Progress: r.Progress}
		a.Rows = append(a.Rows, x)
		if r.Wanted && !r.Superseded {
			if a.Services == nil {
				a.Services = map[string]Service{}
			}
			x.ReleaseID = a.ReleaseID
			a.Services[r.Service] = x
		}
		all[r.AppUUID] = a
	}
	return slices.SortedFunc(maps.Values(all), func(x, y App) int { return cmp.Or(cmp.Compare(x.ID, y.ID), cmp.Compare(x.UUID, y.UUID)) })
}

// of leaves what a key of one app may see.
func (s Status) of(c caller) Status {
	if c.all {
		return s
	}
	s.Containers = slices.DeleteFunc(slices.Clone(s.Containers), func(x Container) bool { return !c.may(x.AppID) })
	s.Images = slices.DeleteFunc(slices.Clone(s.Images), func(x Image) bool { return !c.may(x.AppID) })
	s.Apps = slices.DeleteFunc(slices.Clone(s.Apps), func(x App) bool { return !c.may(x.ID) })
	s.Commits = map[int64]string{c.app: s.Commits[c.app]}
	return s
}

// app finds an app by its number. Of two with the same number, while one is
// replaced by the other, the wanted one.
func (s Status) app(id int64) (App, bool) {
	var found App
	ok := false
	for _, a := range s.Apps {
		if a.ID == id && (!ok || a.Wanted) {
			found, ok = a, true
		}
	}
	return found, ok
}

// services lists the services of an app that have containers, by name.
func (s Status) services(app int64) []string {
	set := map[string]bool{}
	for _, c := range s.Containers {
		if c.AppID == app {
			set[c.ServiceName] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

// wants reports whether the target has a service.
func (s Status) wants(app int64, service string) bool {
	a, _ := s.app(app)
	_, ok := a.Services[service]
	return ok
}

// container is the one that serves now: one that is up, else the newest; nil:
// there is none.
func (s Status) container(app int64, service string) *Container {
	var found *Container
	for i, c := range s.Containers {
		if c.AppID == app && c.ServiceName == service && (found == nil || c.Up || !found.Up) {
			found = &s.Containers[i]
		}
	}
	return found
}
