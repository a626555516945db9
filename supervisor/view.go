package supervisor

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
)

// View is the state of a device as people and the local API read it.
type View struct {
	Version  string               `json:"version"`
	Device   string               `json:"device,omitempty"` // UUID
	Name     string               `json:"name,omitempty"`
	Engine   string               `json:"engine,omitempty"`
	State    string               `json:"state"` // see the constants below
	Reason   string               `json:"reason,omitempty"`
	Looked   time.Time            `json:"looked,omitzero"`
	Cloud    *Cloud               `json:"cloud,omitempty"` // nil: no cloud is configured
	Apps     []AppView            `json:"apps"`
	Waiting  []WaitView           `json:"waiting,omitempty"`
	Declined []reconcile.Declined `json:"declined,omitempty"`
}

// The words for View.State.
const (
	StateStarting = "starting" // no look at the engine succeeded yet
	StateNoTarget = "no target"
	StateApplying = "applying"
	StateWaiting  = "waiting" // only back-off is left
	StateSettled  = "settled"
)

// Cloud is how the device stands with its cloud.
type Cloud struct {
	Endpoint    string    `json:"endpoint"`
	Provisioned bool      `json:"provisioned"`
	LastPoll    time.Time `json:"lastPoll,omitzero"`
	Problem     string    `json:"problem,omitempty"` // why the last poll failed
}

// AppView is one app.
type AppView struct {
	Name     string        `json:"name"`
	UUID     string        `json:"uuid"`
	Release  string        `json:"release,omitempty"`  // the one that runs completely
	Target   string        `json:"target,omitempty"`   // the one that is wanted
	Rejected string        `json:"rejected,omitempty"` // why the wanted one was refused
	Services []ServiceView `json:"services"`
}

// ServiceView is one service.
type ServiceView struct {
	Name     string `json:"name"`
	Status   string `json:"status"`
	Health   string `json:"health,omitempty"`
	Release  string `json:"release,omitempty"`
	Progress *int   `json:"progress,omitempty"` // per cent of a download
	Next     string `json:"next,omitempty"`     // the step it runs or waits for
}

// WaitView is a step that rests after a failure.
type WaitView struct {
	Step   string      `json:"step"`
	Class  state.Class `json:"class"`
	Text   string      `json:"text"`
	Advice string      `json:"advice"`
	Tries  int         `json:"tries"`
	Until  time.Time   `json:"until"`
}

// view draws the apps and what they wait for.
func view(s run.Status) View {
	v := View{State: word(s), Looked: s.Looked, Declined: s.Plan.Declined, Apps: []AppView{}}
	if s.Err != nil {
		v.Reason = s.Err.Error()
	}
	for _, w := range s.Plan.Waiting {
		v.Waiting = append(v.Waiting, WaitView{w.Title, w.Class, w.Text, w.Class.Advice(), w.Tries, w.Until})
	}
	uuids := map[string]bool{}
	for u := range s.Target.Apps {
		uuids[u] = true
	}
	for u, a := range s.World.Apps {
		if len(a.Containers) > 0 {
			uuids[u] = true
		}
	}
	for _, u := range slices.Sorted(maps.Keys(uuids)) {
		v.Apps = append(v.Apps, viewApp(s, u))
	}
	slices.SortStableFunc(v.Apps, func(a, b AppView) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

func word(s run.Status) string {
	switch {
	case s.Looked.IsZero():
		return StateStarting
	case !s.HasGoal:
		return StateNoTarget
	case s.Settled:
		return StateSettled
	case len(s.Running) == 0 && len(s.Plan.Waiting) > 0:
		return StateWaiting
	}
	return StateApplying
}

func viewApp(s run.Status, uuid string) AppView {
	now, want := s.World.Apps[uuid], s.Target.Apps[uuid]
	a := AppView{Name: cmp.Or(want.Name, uuid), UUID: uuid, Release: now.Commit, Target: want.Commit, Rejected: want.Rejected, Services: []ServiceView{}}
	names := map[string]bool{}
	for n := range want.Services {
		names[n] = true
	}
	for _, c := range now.Containers {
		names[c.Service] = true
	}
	for _, n := range slices.Sorted(maps.Keys(names)) {
		a.Services = append(a.Services, viewService(s, uuid, n))
	}
	return a
}

// viewService shows the container that serves now: one that is up, else the newest.
func viewService(s run.Status, uuid, name string) ServiceView {
	v := ServiceView{Name: name, Status: "none"}
	var shown *state.Container
	for i, c := range s.World.Apps[uuid].Containers {
		if c.Service == name && (shown == nil || c.Up() || !shown.Up()) {
			shown = &s.World.Apps[uuid].Containers[i]
		}
	}
	if shown != nil {
		v.Status, v.Health, v.Release = string(shown.Phase), shown.Health, shown.Commit
	}
	for _, r := range s.Running {
		if !concerns(r.Node.Step, s.Target, uuid, name) {
			continue
		}
		v.Next = r.Node.Step.Title()
		if r.Total > 0 {
			percent := int(100 * r.Done / r.Total)
			v.Progress = &percent
		}
	}
	return v
}

// concerns reports whether a step is about a service.
func concerns(step reconcile.Step, t state.Target, uuid, service string) bool {
	is := func(a reconcile.App, name string) bool { return a.UUID == uuid && name == service }
	switch x := step.(type) {
	case reconcile.Fetch:
		want, ok := t.Apps[uuid].Services[service]
		return ok && state.SameImage(want.Image, x.Image)
	case reconcile.Create:
		return is(x.App, x.Service.Name)
	case reconcile.Start:
		return is(x.App, x.Service)
	case reconcile.Await:
		return is(x.App, x.Service)
	case reconcile.Stop:
		return is(x.App, x.Service)
	case reconcile.Remove:
		return is(x.App, x.Service)
	case reconcile.Rename:
		return is(x.App, x.Service)
	case reconcile.Handover:
		return is(x.App, x.Service)
	case reconcile.WriteFiles:
		return is(x.App, x.Service)
	case reconcile.RemoveFiles:
		return is(x.App, x.Service)
	case reconcile.RequireReboot:
		return is(x.App, x.Service)
	case reconcile.RemoveImage, reconcile.CreateNetwork, reconcile.RemoveNetwork, reconcile.CreateVolume, reconcile.RemoveVolume,
		reconcile.CreateAPINetwork, reconcile.TakeLocks, reconcile.ReleaseLocks, reconcile.Commit, reconcile.Fulfil, reconcile.Reboot:
	}
	return false
}

// PlanView is a plan in the three forms that "deckhand plan" prints.
type PlanView struct {
	Text string         `json:"text"`
	DOT  string         `json:"dot"`
	Plan reconcile.Plan `json:"plan"`
}

// ViewPlan writes a plan in every form.
func ViewPlan(p reconcile.Plan) PlanView {
	text := p.String()
	if p.Steps() == 0 {
		text = "nothing to do: the device is as it should be\n" + text
	}
	return PlanView{Text: text, DOT: p.DOT(), Plan: p}
}
