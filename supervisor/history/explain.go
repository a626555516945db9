package history

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/state/store"
)

// Explanation answers for one service: what runs, why it was last restarted,
// and why it does not update.
type Explanation struct {
	App     string    `json:"app"`
	UUID    string    `json:"uuid"`
	Service string    `json:"service"`
	Asked   time.Time `json:"asked"` // when this was true

	Runs     *RunsNow   `json:"runs,omitempty"` // nil: there is no container
	Wants    *WantsNow  `json:"wants,omitempty"`
	Verdict  string     `json:"verdict"` // one sentence
	Blockers []Blocker  `json:"blockers,omitempty"`
	Next     []NextStep `json:"next,omitempty"` // steps about the service, those on their way first
	Restart  *Restart   `json:"restart,omitempty"`
	Notes    []string   `json:"notes,omitempty"` // what else is not as usual: overrides, the cloud is away
	Past     []Event    `json:"past"`            // newest first
}

// RunsNow is the container that serves.
type RunsNow struct {
	Status    string    `json:"status"`
	Health    string    `json:"health,omitempty"`
	ExitCode  int       `json:"exitCode,omitempty"`
	Release   string    `json:"release,omitempty"`
	Container string    `json:"container"`
	Created   time.Time `json:"created"`
	Image     string    `json:"image,omitempty"`
}

// WantsNow is what the target asks for.
type WantsNow struct {
	Release string    `json:"release"`
	Image   string    `json:"image,omitempty"`
	Running bool      `json:"running"`
	Since   time.Time `json:"since,omitzero"` // that release is wanted; zero: longer than is remembered
}

// Blocker is something that keeps the service from being as it was asked for.
type Blocker struct {
	Kind   string      `json:"kind"` // one of the Blocked constants
	Text   string      `json:"text"`
	Class  state.Class `json:"class,omitempty"`
	Holder string      `json:"holder,omitempty"` // of a lock
	Since  time.Time   `json:"since,omitzero"`
	Tries  int         `json:"tries,omitempty"`
	Until  time.Time   `json:"until,omitzero"` // the next try
	Advice string      `json:"advice,omitempty"`
}

// The kinds of blockers.
const (
	BlockedRejected = "rejected" // the release was refused
	BlockedLock     = "lock"     // somebody holds an update lock
	BlockedFailure  = "failure"  // a step failed and rests
	BlockedStep     = "step"     // a step of another service comes first
	BlockedStopped  = "stopped"  // somebody asked for a stop
	BlockedHandover = "handover" // the new container did not take over
	BlockedReboot   = "reboot"   // the device has to restart first
	BlockedEngine   = "engine"   // the engine does not answer
	BlockedNoTarget = "no-target"
	BlockedDeclined = "declined" // the plan leaves something out on purpose
)

// NextStep is a step about the service.
type NextStep struct {
	Title   string    `json:"title"`
	Why     string    `json:"why"`
	Running bool      `json:"running,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Percent *int      `json:"percent,omitempty"` // of a download
	After   []string  `json:"after,omitempty"`   // titles of steps that come first
}

// Restart is why and when the service last began to run.
type Restart struct {
	At      time.Time      `json:"at"`
	Cause   string         `json:"cause"`
	Changes []state.Change `json:"changes,omitempty"`
	Release string         `json:"release,omitempty"`
	By      string         `json:"by,omitempty"`   // what asked for it
	Asked   time.Time      `json:"asked,omitzero"` // when
	Down    state.Duration `json:"down,omitempty"` // from the stop of the old container to the start of the new one
}

// Event is one entry of the past.
type Event struct {
	At      time.Time      `json:"at"`
	Title   string         `json:"title"`
	Why     string         `json:"why,omitempty"`
	Outcome string         `json:"outcome,omitempty"`
	Took    state.Duration `json:"took,omitempty"`
	Class   state.Class    `json:"class,omitempty"`
	Text    string         `json:"text,omitempty"`
}

// shownPast is how many entries an explanation shows.
const shownPast = 20

// Question is what an explanation is made of.
type Question struct {
	Status  run.Status
	Past    []store.Entry       // oldest first
	Rows    func() []report.Row // of the services, as the cloud hears of them
	Problem string              // why the cloud is not reached; "" when it is
	Now     time.Time
}

// inquiry is a question that is being answered.
type inquiry struct {
	status run.Status
	past   []store.Entry
	rows   func() []report.Row
	away   string
	now    time.Time

	uuid, service string
	want          state.App
	wanted        state.Service
	isWanted      bool
	app           state.AppNow
}

// Explain answers for a service, named SERVICE or APP/SERVICE.
func Explain(name string, asked Question) (Explanation, error) {
	q := inquiry{status: asked.Status, past: asked.Past, rows: asked.Rows, away: asked.Problem, now: asked.Now}
	if err := q.find(name); err != nil {
		return Explanation{}, state.Classify(state.ClassInvalid, err)
	}
	e := Explanation{App: cmp.Or(q.want.Name, q.uuid), UUID: q.uuid, Service: q.service, Asked: q.now}
	shown := q.shown()
	e.Runs = q.runs(shown)
	e.Wants = q.wants()
	e.Next = q.next()
	e.Blockers = q.blockers(shown)
	e.Restart = q.restart()
	e.Notes = q.notes()
	e.Past = q.recent()
	e.Verdict = q.verdict(e, shown)
	return e, nil
}

// Service is one that somebody has named.
type Service struct {
	UUID, Name string
	Want       state.App // zero when the app is not wanted
	App        state.AppNow
}

// Label is the service as plans call it.
func (s Service) Label() string { return cmp.Or(s.Want.Name, s.UUID) + "/" + s.Name }

// FindService finds the service that is meant by SERVICE or APP/SERVICE.
func FindService(t state.Target, w state.World, name string) (Service, error) {
	q := inquiry{status: run.Status{World: w, Target: t}}
	if err := q.find(name); err != nil {
		return Service{}, state.Classify(state.ClassInvalid, err)
	}
	return Service{UUID: q.uuid, Name: q.service, Want: q.want, App: q.app}, nil
}

// find finds the service that is meant.
func (q *inquiry) find(name string) error {
	app, service, both := strings.Cut(name, "/")
	t, w := q.status.Target, q.status.World
	if both {
		uuid, err := FindApp(t, w, app)
		if err != nil {
			return err
		}
		q.uuid, q.service = uuid, service
	} else if err := q.findService(name); err != nil {
		return err
	}
	q.want, q.app = t.Apps[q.uuid], w.Apps[q.uuid]
	q.wanted, q.isWanted = q.want.Services[q.service]
	if all := ServicesOf(q.want, q.app); !slices.Contains(all, q.service) && !q.remembered() {
		return fmt.Errorf("%s has no service %s; it has %s", cmp.Or(q.want.Name, q.uuid), q.service, cmp.Or(strings.Join(all, ", "), "none"))
	}
	return nil
}

// remembered reports whether the past knows the service: why one is gone is a
// question too.
func (q *inquiry) remembered() bool {
	return slices.ContainsFunc(q.past, func(e store.Entry) bool { return e.App == q.uuid && e.Service == q.service && e.Service != "" })
}

func (q *inquiry) findService(name string) error {
	in, all := map[string]bool{}, map[string]bool{}
	uuids := map[string]bool{}
	for u := range q.status.Target.Apps {
		uuids[u] = true
	}
	for u := range q.status.World.Apps {
		uuids[u] = true
	}
	for u := range uuids {
		for _, s := range ServicesOf(q.status.Target.Apps[u], q.status.World.Apps[u]) {
			all[s] = true
			if s == name {
				in[u] = true
			}
		}
	}
	if len(in) == 0 {
		for _, e := range q.past {
			if e.Service == name && e.App != "" {
				in[e.App] = true
			}
		}
	}
	switch found := slices.Sorted(maps.Keys(in)); len(found) {
	case 1:
		q.uuid, q.service = found[0], name
		return nil
	case 0:
		return fmt.Errorf("there is no service %s; the device has %s", name, cmp.Or(strings.Join(slices.Sorted(maps.Keys(all)), ", "), "none"))
	default:
		var names []string
		for _, u := range found {
			names = append(names, cmp.Or(q.status.Target.Apps[u].Name, u)+"/"+name)
		}
		return fmt.Errorf("%d apps have a service %s; say which: %s", len(found), name, strings.Join(names, ", "))
	}
}

// shown is the container that serves: one that is up, else the newest.
func (q *inquiry) shown() *state.Container {
	var out *state.Container
	for i, c := range q.app.Containers {
		if c.Service == q.service && (out == nil || c.Up() || !out.Up()) {
			out = &q.app.Containers[i]
		}
	}
	return out
}

func (q *inquiry) runs(c *state.Container) *RunsNow {
	if c == nil {
		return nil
	}
	r := &RunsNow{Status: string(c.Phase), Health: c.Health, ExitCode: c.ExitCode, Release: c.Commit, Container: c.ID, Created: time.Unix(c.Created, 0).UTC()}
	for _, row := range q.rows() {
		if row.Container == c.ID {
			r.Image, r.Status = row.Image, strings.ToLower(string(row.Status))
		}
	}
	return r
}

func (q *inquiry) wants() *WantsNow {
	if q.want.Commit == "" || !q.isWanted && q.want.Rejected == "" {
		return nil
	}
	w := &WantsNow{Release: q.want.Commit, Image: q.wanted.Image, Running: q.wanted.Running}
	if i := q.lastTarget(q.want.Commit, len(q.past)); i >= 0 {
		w.Since = q.past[i].At
	}
	return w
}

// lastTarget is the position of the target that brought a release, before a
// position in the past; -1: it is not remembered.
func (q *inquiry) lastTarget(commit string, before int) int {
	for i := before - 1; i >= 0; i-- {
		if e := q.past[i]; e.Kind == kindTarget && e.App == q.uuid && e.Commit == commit {
			return i
		}
	}
	return -1
}

// next lists the steps about the service.
func (q *inquiry) next() []NextStep {
	var out []NextStep
	on := map[reconcile.Key]bool{}
	for _, r := range q.status.Running {
		if !Concerns(r.Node.Step, q.status.Target, q.uuid, q.service) {
			continue
		}
		on[r.Node.Key] = true
		x := NextStep{Title: r.Node.Title(), Why: r.Node.Why.String(), Running: true, Since: r.Since}
		if r.Total > 0 {
			percent := int(100 * r.Done / r.Total)
			x.Percent = &percent
		}
		out = append(out, x)
	}
	titles := map[reconcile.Key]string{}
	for _, n := range q.status.Plan.Nodes {
		titles[n.Key] = n.Title()
	}
	for _, n := range q.status.Plan.Nodes {
		if n.Step == nil || on[n.Key] || !Concerns(n.Step, q.status.Target, q.uuid, q.service) {
			continue
		}
		x := NextStep{Title: n.Title(), Why: n.Why.String()}
		for _, k := range n.After {
			x.After = append(x.After, titles[k])
		}
		out = append(out, x)
	}
	return out
}

// restart tells the last start of the service and what led to it.
func (q *inquiry) restart() *Restart {
	mine := func(i int, kind string) bool {
		e := q.past[i]
		return e.App == q.uuid && e.Service == q.service && e.Kind == kind && e.Outcome == OutcomeDone
	}
	start := len(q.past) - 1
	for ; start >= 0 && !mine(start, kindStart); start-- {
	}
	if start < 0 {
		return nil
	}
	s := q.past[start]
	r := &Restart{At: EndedAt(s).UTC(), Cause: s.Why, Changes: s.Changes, Release: s.Commit}
	stop, stops, create := -1, 0, -1
	for i := start - 1; i >= 0 && !mine(i, kindStart); i-- {
		switch {
		case mine(i, kindStop):
			stop, stops = max(stop, i), stops+1
		case mine(i, kindHandover) && stops == 1:
			stop = -1 // it ended the hand-over to the container of the start before
		case create < 0 && mine(i, kindCreate):
			create = i
		}
	}
	if create >= 0 {
		c := q.past[create]
		r.Cause, r.Changes, r.Release = c.Why, c.Changes, cmp.Or(c.Commit, r.Release)
	}
	if stop >= 0 {
		r.Down = state.Duration(EndedAt(s).Sub(q.past[stop].At).Round(time.Millisecond))
		if stop < create { // it was made because the old one had to go, and not the other way round
			r.Cause = q.past[stop].Why
		}
	}
	q.asker(r, start)
	return r
}

// asker names what asked for a restart: a person, or the target that brought the
// release.
func (q *inquiry) asker(r *Restart, before int) {
	for i := before - 1; i >= 0; i-- {
		e := q.past[i]
		if e.App != q.uuid || e.Service != "" && e.Service != q.service {
			continue
		}
		if e.Kind == kindStart && e.Service == q.service && e.Outcome == OutcomeDone {
			return // that was for the start before
		}
		if e.Kind == kindTarget || e.Kind == kindWish {
			r.By, r.Asked = e.Title+": "+e.Text, e.At
			return
		}
	}
}

// recent lists the last entries that concern the service, newest first.
func (q *inquiry) recent() []Event {
	out := []Event{}
	for i := len(q.past) - 1; i >= 0 && len(out) < shownPast; i-- {
		e := q.past[i]
		device := e.App == "" && (e.Kind == KindBegin || e.Kind == KindEngine || e.Kind == KindReboot)
		mine := e.App == q.uuid && e.Service == q.service
		ofApp := e.App == q.uuid && e.Service == ""
		if !device && !mine && !ofApp {
			continue
		}
		why := reconcile.Reason{Cause: e.Why, Changes: e.Changes}
		out = append(out, Event{At: e.At, Title: e.Title, Why: why.String(), Outcome: e.Outcome, Took: e.Took, Class: e.Class, Text: e.Text})
	}
	return out
}

// notes are what else a person should know.
func (q *inquiry) notes() []string {
	var out []string
	for _, o := range q.status.World.Overrides {
		if o.App == "" || o.App == q.uuid {
			out = append(out, overrideText(o, q.want.Name))
		}
	}
	for _, i := range q.status.World.Intents {
		if i.App == q.uuid && i.Kind != state.Stop {
			out = append(out, fmt.Sprintf("%s was asked for by %s at %s and is on its way", i.Kind, i.By, clock(i.At, q.now)))
		}
	}
	if q.away != "" {
		out = append(out, "the cloud is not reached, so a newer release is not known here: "+q.away)
	}
	return out
}

// overrideText is an override as people read it.
func overrideText(o state.Override, app string) string {
	scope := "every app"
	if o.App != "" {
		scope = cmp.Or(app, o.App)
	}
	text := "update locks of " + scope + " are broken if need be, allowed by " + o.By
	if !o.Until.IsZero() {
		text += " until " + o.Until.Local().Format("2006-01-02 15:04")
	}
	return text
}

// verdict is the answer in one sentence.
func (q *inquiry) verdict(e Explanation, c *state.Container) string {
	switch {
	case len(e.Blockers) > 0:
		return e.Blockers[0].Text
	case len(e.Next) > 0 && e.Next[0].Running:
		return "it is being changed now: " + e.Next[0].Title
	case len(e.Next) > 0:
		return "it is about to be changed: " + e.Next[0].Title
	case !q.isWanted && c == nil:
		return "it is not wanted and has no container"
	case c != nil && c.Phase == state.Exited && q.wanted.Running && !c.Halted:
		return fmt.Sprintf("it ended with exit code %d and its restart policy (%s) leaves it so", c.ExitCode, policy(q.wanted))
	case c != nil && c.Phase == state.Restarting:
		return "it ends again and again; the engine restarts it as its restart policy says. See its log"
	case c != nil && c.Health == "unhealthy":
		return "it runs what was asked for, and its health check fails. See its log"
	}
	return "it is as it was asked to be"
}

func policy(s state.Service) string { return cmp.Or(s.Spec.Restart.Name, "no") }

// clock is a time as people read it: without the day if it is today.
func clock(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2006-01-02 15:04:05")
}

// ErrNothingYet means that there is nothing to answer from.
var ErrNothingYet = errors.New("nobody has looked at the device yet; try again in a moment")
