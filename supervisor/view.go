package supervisor

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/supervisor/history"
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
	Requests []RequestView        `json:"requests,omitempty"`  // what people asked for and is not done, or goes on
	Override []OverrideView       `json:"overrides,omitempty"` // permissions to break update locks, in force now
	Leases   []localapi.Lease     `json:"leases,omitempty"`    // update locks that were taken over the local API
	Reboot   bool                 `json:"reboot,omitempty"`    // the device has to restart
	Declined []reconcile.Declined `json:"declined,omitempty"`

	Unhealthy []Ailment `json:"unhealthy,omitempty"` // what keeps the supervisor from doing its job
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
	Note     string `json:"note,omitempty"`     // why it does not run or update, if that is no step
}

// WaitView is a step that rests after a failure, or waits for a lock.
type WaitView struct {
	Step   string      `json:"step"`
	Class  state.Class `json:"class"`
	Text   string      `json:"text"`
	Advice string      `json:"advice"`
	Holder string      `json:"holder,omitempty"` // of the lock
	Since  time.Time   `json:"since,omitzero"`   // the lock is held
	Tries  int         `json:"tries"`            // failures in a row
	Until  time.Time   `json:"until,omitzero"`   // the next try; zero: when the lock is given up
}

// RequestView is what somebody asked for beside the target.
type RequestView struct {
	Kind     state.IntentKind `json:"kind"`
	App      string           `json:"app"`
	Services []string         `json:"services,omitempty"`
	By       string           `json:"by"`
	At       time.Time        `json:"at"`
	Left     int              `json:"left"` // containers or volumes that it still has to reach
}

// OverrideView is a permission to break update locks.
type OverrideView struct {
	App   string    `json:"app,omitempty"` // empty: every app
	By    string    `json:"by"`
	Until time.Time `json:"until,omitzero"` // zero: until it is taken back
}

// view draws the apps and what they wait for.
func view(s run.Status) View {
	v := View{State: word(s), Looked: s.Looked, Declined: s.Plan.Declined, Reboot: s.World.RebootPending, Apps: []AppView{}}
	if s.Err != nil {
		v.Reason = s.Err.Error()
	}
	for _, w := range s.Plan.Waiting {
		v.Waiting = append(v.Waiting, WaitView{
			Step: w.Title, Class: w.Class, Text: w.Text, Advice: w.Class.Advice(), Holder: w.Holder, Since: w.Since, Tries: w.Tries, Until: w.Until,
		})
	}
	name := func(uuid string) string { return cmp.Or(s.Target.Apps[uuid].Name, uuid) }
	for _, i := range s.World.Intents {
		v.Requests = append(v.Requests, RequestView{Kind: i.Kind, App: name(i.App), Services: i.Services, By: i.By, At: i.At, Left: len(i.Left)})
	}
	for _, o := range s.World.Overrides {
		v.Override = append(v.Override, OverrideView{App: name(o.App), By: o.By, Until: o.Until})
	}
	rows := map[string][]report.Row{} // by app
	for _, r := range report.Rows(reportInput(s)) {
		rows[r.AppUUID] = append(rows[r.AppUUID], r)
	}
	for u := range s.Target.Apps {
		if rows[u] == nil {
			rows[u] = []report.Row{} // an app without services is shown, too
		}
	}
	for _, u := range slices.Sorted(maps.Keys(rows)) {
		v.Apps = append(v.Apps, viewApp(s, u, rows[u]))
	}
	slices.SortStableFunc(v.Apps, func(a, b AppView) int { return cmp.Compare(a.Name, b.Name) })
	return v
}

// reportInput is a status as the cloud hears of it, less what is said about the
// device: people and the cloud get the same words for the same state.
func reportInput(s run.Status) report.Input {
	in := report.Input{Target: s.Target, World: s.World}
	for _, r := range s.Running {
		in.Running = append(in.Running, report.Running{Step: r.Node.Step, Done: r.Done, Total: r.Total})
	}
	return in
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

func viewApp(s run.Status, uuid string, rows []report.Row) AppView {
	now, want := s.World.Apps[uuid], s.Target.Apps[uuid]
	a := AppView{Name: cmp.Or(want.Name, uuid), UUID: uuid, Release: now.Commit, Target: want.Commit, Rejected: want.Rejected, Services: []ServiceView{}}
	for _, name := range history.ServicesOf(want, now) {
		a.Services = append(a.Services, viewService(s, uuid, name, rows))
	}
	return a
}

// viewService shows the container that serves now: one that is up, else the
// newest. A service without one shows how far it is.
func viewService(s run.Status, uuid, name string, rows []report.Row) ServiceView {
	v := ServiceView{Name: name, Status: "none"}
	for _, r := range s.Running {
		if history.Concerns(r.Node.Step, s.Target, uuid, name) {
			v.Next = r.Node.Step.Title()
			if r.Total > 0 {
				percent := int(100 * r.Done / r.Total)
				v.Progress = &percent
			}
		}
	}
	if r := shownRow(rows, name, s.World.Apps[uuid].Containers); r != nil {
		v.Status, v.Release = strings.ToLower(string(r.Status)), r.Commit
		if r.Container == "" {
			v.Release = ""
		}
		for _, c := range s.World.Apps[uuid].Containers {
			if c.ID == r.Container {
				v.Health = c.Health
			}
		}
	}
	v.Note = note(s, uuid, name)
	return v
}

// shownRow picks the row of a service that people see.
func shownRow(rows []report.Row, service string, containers []state.Container) *report.Row {
	up := map[string]bool{}
	for _, c := range containers {
		up[c.ID] = c.Up()
	}
	var shown *report.Row
	for i, r := range rows {
		switch {
		case r.Service != service:
		case shown == nil, up[r.Container], r.Container != "" && !up[shown.Container]:
			shown = &rows[i]
		}
	}
	return shown
}

// note says in a few words why a service does not run or update, where no step
// would say so.
func note(s run.Status, uuid, service string) string {
	want, now := s.Target.Apps[uuid], s.World.Apps[uuid]
	for _, i := range s.World.Intents {
		if i.Kind == state.Stop && i.App == uuid && i.Commit == want.Commit && slices.Contains(i.Services, service) {
			return "stopped for " + i.By
		}
	}
	h, ok := now.Handovers[service]
	w, wanted := want.Services[service]
	switch {
	case ok && h.Failed && h.Hash == w.Hash && state.SameImage(h.Image, w.Image):
		return "the new container did not take over"
	case wanted && !w.Running:
		return "the target keeps it stopped"
	}
	for _, l := range now.UserLocks {
		if l.Service == service {
			return "it holds an update lock"
		}
	}
	return ""
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
