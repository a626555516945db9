package history

import (
	"deckhand/reconcile"
	"deckhand/state"
)

// Subject is what a step is about.
type Subject struct {
	Kind    string // for programs
	App     string // UUID; empty: the device
	Service string // empty: the whole app
	Commit  string // the release it works for, where the step says so
}

// SubjectOf sorts a step. An image may be of several services: those are found
// in the target, see users.
func SubjectOf(step reconcile.Step) Subject {
	of := func(kind string, a reconcile.App, service string) Subject {
		return Subject{Kind: kind, App: a.UUID, Service: service}
	}
	switch x := step.(type) {
	case reconcile.Fetch:
		return Subject{Kind: "fetch"}
	case reconcile.RemoveImage:
		return Subject{Kind: "remove-image"}
	case reconcile.CreateNetwork:
		return of("create-network", x.App, "")
	case reconcile.RemoveNetwork:
		return of("remove-network", x.App, "")
	case reconcile.CreateVolume:
		return of("create-volume", x.App, "")
	case reconcile.RemoveVolume:
		return of("remove-volume", x.App, "")
	case reconcile.CreateAPINetwork:
		return Subject{Kind: "create-api-network"}
	case reconcile.WriteFiles:
		return of("write-files", x.App, x.Service)
	case reconcile.RemoveFiles:
		return of("remove-files", x.App, x.Service)
	case reconcile.TakeLocks:
		return of("take-locks", x.App, "")
	case reconcile.ReleaseLocks:
		return of("release-locks", x.App, "")
	case reconcile.Create:
		s := of(kindCreate, x.App, x.Service.Name)
		s.Commit = x.Commit
		return s
	case reconcile.Start:
		return of(kindStart, x.App, x.Service)
	case reconcile.Await:
		return of("await", x.App, x.Service)
	case reconcile.Handover:
		return of(kindHandover, x.App, x.Service)
	case reconcile.Stop:
		return of(kindStop, x.App, x.Service)
	case reconcile.Remove:
		return of(kindRemove, x.App, x.Service)
	case reconcile.Rename:
		s := of("rename", x.App, x.Service)
		_, _, s.Commit, _ = state.ParseContainerName(x.Name)
		return s
	case reconcile.Commit:
		s := of("commit", x.App, "")
		s.Commit = x.Commit
		return s
	case reconcile.Fulfil:
		return of("fulfil", x.App, "")
	case reconcile.RequireReboot:
		return of("require-reboot", x.App, x.Service)
	case reconcile.Reboot:
		return Subject{Kind: "reboot"}
	}
	return Subject{}
}

// The kinds of steps that explanations look for.
const (
	kindCreate   = "create"
	kindStart    = "start"
	kindHandover = "hand-over"
	kindStop     = "stop"
	kindRemove   = "remove"
)

// Concerns reports whether a step is about a service.
func Concerns(step reconcile.Step, t state.Target, uuid, service string) bool {
	if f, ok := step.(reconcile.Fetch); ok {
		want, known := t.Apps[uuid].Services[service]
		return known && state.SameImage(want.Image, f.Image)
	}
	s := SubjectOf(step)
	return s.App == uuid && s.Service == service && service != ""
}

// ConcernsApp reports whether a step is about an app or one of its services.
func ConcernsApp(step reconcile.Step, app state.App) bool {
	f, fetch := step.(reconcile.Fetch)
	if !fetch {
		return SubjectOf(step).App == app.UUID
	}
	for _, s := range app.Services {
		if state.SameImage(s.Image, f.Image) {
			return true
		}
	}
	return false
}
