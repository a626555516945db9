package supervisor

import (
	"deckhand/reconcile"
	"deckhand/state"
)

// subject is what a step is about.
type subject struct {
	kind    string // for programs
	app     string // UUID; empty: the device
	service string // empty: the whole app
	commit  string // the release it works for, where the step says so
}

// subjectOf sorts a step. An image may be of several services: those are found
// in the target, see users.
func subjectOf(step reconcile.Step) subject {
	of := func(kind string, a reconcile.App, service string) subject {
		return subject{kind: kind, app: a.UUID, service: service}
	}
	switch x := step.(type) {
	case reconcile.Fetch:
		return subject{kind: "fetch"}
	case reconcile.RemoveImage:
		return subject{kind: "remove-image"}
	case reconcile.CreateNetwork:
		return of("create-network", x.App, "")
	case reconcile.RemoveNetwork:
		return of("remove-network", x.App, "")
	case reconcile.CreateVolume:
		return of("create-volume", x.App, "")
	case reconcile.RemoveVolume:
		return of("remove-volume", x.App, "")
	case reconcile.CreateAPINetwork:
		return subject{kind: "create-api-network"}
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
		s.commit = x.Commit
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
		_, _, s.commit, _ = state.ParseContainerName(x.Name)
		return s
	case reconcile.Commit:
		s := of("commit", x.App, "")
		s.commit = x.Commit
		return s
	case reconcile.Fulfil:
		return of("fulfil", x.App, "")
	case reconcile.RequireReboot:
		return of("require-reboot", x.App, x.Service)
	case reconcile.Reboot:
		return subject{kind: "reboot"}
	}
	return subject{}
}

// The kinds of steps that explanations look for.
const (
	kindCreate   = "create"
	kindStart    = "start"
	kindHandover = "hand-over"
	kindStop     = "stop"
	kindRemove   = "remove"
)

// concerns reports whether a step is about a service.
func concerns(step reconcile.Step, t state.Target, uuid, service string) bool {
	if f, ok := step.(reconcile.Fetch); ok {
		want, known := t.Apps[uuid].Services[service]
		return known && state.SameImage(want.Image, f.Image)
	}
	s := subjectOf(step)
	return s.app == uuid && s.service == service && service != ""
}

// concernsApp reports whether a step is about an app or one of its services.
func concernsApp(step reconcile.Step, app state.App) bool {
	f, fetch := step.(reconcile.Fetch)
	if !fetch {
		return subjectOf(step).app == app.UUID
	}
	for _, s := range app.Services {
		if state.SameImage(s.Image, f.Image) {
			return true
		}
	}
	return false
}
