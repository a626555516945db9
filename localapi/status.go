package localapi

import (
	"net/http"
	"slices"
	"time"

	"deckhand/report"
)

// Apps is what runs on the device and what can be asked of it.
type Apps interface {
	// Status describes what is on the device. It fails when the engine does not
	// tell.
	Status() (Status, error)
}

func (a *api) stateStatus(w http.ResponseWriter, r *http.Request, _ []byte) {
	s, err := a.c.Apps.Status()
	if err != nil {
		problemOf(w, err)
		return
	}
	if c := callerOf(r); !c.all {
		s = s.of(c.app)
	}
	answer(w, http.StatusOK, s.reduced())
}

// Status is everything that GET /v2/state/status tells.
type Status struct {
	Applying   bool // false: the device is as it was asked to be
	Containers []Container
	Images     []Image
	Commits    map[int64]string // by app ID: the last release reached completely
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
	for uuid, now := range in.World.Apps {
		id := now.ID
		if want, ok := in.Target.Apps[uuid]; ok {
			id = want.ID
		}
		if now.Commit != "" {
			s.Commits[id] = now.Commit
		}
	}
	for _, r := range report.Rows(in) {
		if r.Container != "" {
			s.Containers = append(s.Containers, Container{
				Status: string(r.Status), ServiceName: r.Service, AppID: r.AppID, ImageID: r.ImageID, ServiceID: r.ServiceID,
				ContainerID: r.Container, CreatedAt: time.Unix(r.Created, 0).UTC().Format("2006-01-02T15:04:05.000Z"),
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
	return s
}

// stateStatus is the document of the API.
type stateStatus struct {
	Status     string      `json:"status"` // of the request
	AppState   string      `json:"appState"`
	Progress   *float64    `json:"overallDownloadProgress"`
	Containers []Container `json:"containers"`
	Images     []Image     `json:"images"`
	Release    string      `json:"release,omitempty"`
}

// of leaves what a key of one app may see.
func (s Status) of(app int64) Status {
	s.Containers = slices.DeleteFunc(slices.Clone(s.Containers), func(c Container) bool { return c.AppID != app })
	s.Images = slices.DeleteFunc(slices.Clone(s.Images), func(i Image) bool { return i.AppID != app })
	s.Commits = map[int64]string{app: s.Commits[app]}
	return s
}

// reduced makes the document. It is about one app, that of the first container,
// else of the first image; only the progress counts all of them.
func (s Status) reduced() stateStatus {
	out := stateStatus{Status: "success", AppState: "applied", Containers: []Container{}, Images: []Image{}}
	if s.Applying {
		out.AppState = "applying"
	}
	sum, n := 0, 0
	for _, i := range s.Images {
		if i.Progress != nil {
			sum, n = sum+*i.Progress, n+1
		}
	}
	if n > 0 {
		mean := float64(sum) / float64(n)
		out.Progress = &mean
	}
	var app int64
	switch {
	case len(s.Containers) > 0:
		app = s.Containers[0].AppID
	case len(s.Images) > 0:
		app = s.Images[0].AppID
	default:
		return out
	}
	out.Containers = append(out.Containers, slices.DeleteFunc(slices.Clone(s.Containers), func(c Container) bool { return c.AppID != app })...)
	out.Images = append(out.Images, slices.DeleteFunc(slices.Clone(s.Images), func(i Image) bool { return i.AppID != app })...)
	out.Release = s.Commits[app]
	return out
}
