package supervisor

import (
	"maps"
	"slices"
	"strings"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
)

// publisher passes changes on; it does not wait.
type publisher interface {
	Publish(app int64, kind string, data any)
}

// news finds out what is new about the device, look by look.
type news struct {
	to    publisher
	known bool
	seen  scenery
}

// scenery is what listeners hear the changes of.
type scenery struct {
	state    StateEvent
	releases map[string]ReleaseEvent // by app
	services map[string]ServiceEvent // by app and service
	waits    map[string]WaitEvent    // by step, holder and class
	locks    map[string]LockEvent    // by app, service and holder
}

// StateEvent is the event "state": the device as a whole is in another state.
type StateEvent struct {
	State  string `json:"state"` // as in View
	Reason string `json:"reason,omitempty"`
}

// ReleaseEvent is the event "release": an app reached a release, or is asked for
// another one.
type ReleaseEvent struct {
	App     string `json:"app"`
	UUID    string `json:"uuid"`
	Release string `json:"release,omitempty"` // the one that runs completely
	Target  string `json:"target,omitempty"`  // the one that is wanted; empty: the app is not

	id int64
}

// ServiceEvent is the event "service": a service has another status, health or
// release.
type ServiceEvent struct {
	App     string `json:"app"`
	UUID    string `json:"uuid"`
	Service string `json:"service"`
	Status  string `json:"status"` // as in View; "gone": there is no such service any more
	Health  string `json:"health,omitempty"`
	Release string `json:"release,omitempty"`

	id int64
}

// WaitEvent is the event "wait": a step has begun to wait, or no longer waits.
type WaitEvent struct {
	App    string      `json:"app,omitempty"`
	UUID   string      `json:"uuid,omitempty"`
	Step   string      `json:"step"`
	Class  state.Class `json:"class"`
	Text   string      `json:"text"`
	Holder string      `json:"holder,omitempty"`
	Since  time.Time   `json:"since,omitzero"`
	Tries  int         `json:"tries,omitempty"`
	Until  time.Time   `json:"until,omitzero"`
	Over   bool        `json:"over,omitempty"` // it no longer waits

	ids []int64
}

// LockEvent is the event "lock": an update lock was taken or given up.
type LockEvent struct {
	App     string    `json:"app"`
	UUID    string    `json:"uuid"`
	Service string    `json:"service"`
	Holder  string    `json:"holder"`
	Since   time.Time `json:"since,omitzero"`
	Over    bool      `json:"over,omitempty"` // it was given up

	id int64
}

// status takes a new look of the loop. The first one is what others are compared
// with: whoever listens from the beginning gets the status instead.
func (c *news) status(st run.Status) {
	now := look(st)
	was := c.seen
	first := !c.known
	c.seen, c.known = now, true
	if first {
		return
	}
	for _, k := range slices.Sorted(maps.Keys(now.releases)) {
		if x := now.releases[k]; x != was.releases[k] {
			c.to.Publish(x.id, "release", x)
		}
	}
	each(was.releases, now.releases, func(x ReleaseEvent) {
		x.Release, x.Target = "", ""
		c.to.Publish(x.id, "release", x)
	})
	for _, k := range slices.Sorted(maps.Keys(now.services)) {
		if x := now.services[k]; x != was.services[k] {
			c.to.Publish(x.id, "service", x)
		}
	}
	each(was.services, now.services, func(x ServiceEvent) {
		x.Status, x.Health, x.Release = "gone", "", ""
		c.to.Publish(x.id, "service", x)
	})
	each(was.locks, now.locks, func(x LockEvent) { x.Over = true; c.to.Publish(x.id, "lock", x) })
	each(now.locks, was.locks, func(x LockEvent) { c.to.Publish(x.id, "lock", x) })
	each(was.waits, now.waits, func(x WaitEvent) { x.Over = true; c.wait(x) })
	each(now.waits, was.waits, c.wait)
	if now.state != was.state {
		c.to.Publish(0, "state", now.state)
	}
}

// wait tells of a wait whoever may know: one event for each app, since an image
// may be of several.
func (c *news) wait(x WaitEvent) {
	for _, id := range x.ids {
		c.to.Publish(id, "wait", x)
	}
}

// each calls do for what only the first map has, in order.
func each[T any](in, without map[string]T, do func(T)) {
	for _, k := range slices.Sorted(maps.Keys(in)) {
		if _, both := without[k]; !both {
			do(in[k])
		}
	}
}

// look draws the scenery.
func look(st run.Status) scenery {
	v := view(st)
	s := scenery{
		state: StateEvent{v.State, v.Reason}, releases: map[string]ReleaseEvent{}, services: map[string]ServiceEvent{},
		waits: map[string]WaitEvent{}, locks: map[string]LockEvent{},
	}
	for _, a := range v.Apps {
		id := appID(st, a.UUID)
		s.releases[a.UUID] = ReleaseEvent{App: a.Name, UUID: a.UUID, Release: a.Release, Target: a.Target, id: id}
		for _, x := range a.Services {
			s.services[a.UUID+"/"+x.Name] = ServiceEvent{a.Name, a.UUID, x.Name, x.Status, x.Health, x.Release, id}
		}
		now := st.World.Apps[a.UUID]
		for _, l := range now.UserLocks {
			s.locks[strings.Join([]string{a.UUID, l.Service, l.Holder}, "\x00")] = LockEvent{
				App: a.Name, UUID: a.UUID, Service: l.Service, Holder: l.Holder, Since: time.Unix(l.Since, 0).UTC(), id: id,
			}
		}
		for _, name := range now.Locked {
			s.locks[a.UUID+"\x00"+name] = LockEvent{App: a.Name, UUID: a.UUID, Service: name, Holder: "deckhand", id: id}
		}
	}
	s.addWaits(st)
	return s
}

func (s *scenery) addWaits(st run.Status) {
	steps := map[reconcile.Key]reconcile.Step{}
	for _, n := range st.Plan.Nodes {
		steps[n.Key] = n.Step
	}
	for _, w := range st.Plan.Waiting {
		x := WaitEvent{Step: w.Title, Class: w.Class, Text: w.Text, Holder: w.Holder, Since: w.Since, Tries: w.Tries, Until: w.Until}
		for uuid := range appsIn(st, localapi.Scope{All: true}) {
			if about(steps[w.Key], st.Target, map[string]bool{uuid: true}) {
				x.UUID, x.App = uuid, st.Target.Apps[uuid].Name
				x.ids = append(x.ids, appID(st, uuid))
			}
		}
		if len(x.ids) > 1 {
			x.UUID, x.App = "", ""
		}
		slices.Sort(x.ids)
		// A failed try is a new wait: it has another end.
		s.waits[strings.Join([]string{string(w.Key), w.Holder, string(w.Class), w.Until.String()}, "\x00")] = x
	}
}

// appID is the number of an app by which keys of services know it.
func appID(st run.Status, uuid string) int64 {
	if a, wanted := st.Target.Apps[uuid]; wanted {
		return a.ID
	}
	return st.World.Apps[uuid].ID
}
