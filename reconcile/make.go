package reconcile

import (
	"maps"
	"slices"
	"time"

	"deckhand/state"
	"deckhand/strategy"
)

// Facts is what the planner needs to know beside the two sides.
type Facts struct {
	Now      time.Time             // the clock, for back-off
	Failures map[Key]state.Failure // steps that went wrong and when to try again
}

// Make says what to do, in which order, and why. An error means that the
// planner contradicts itself, never that the input is bad.
func Make(now state.World, want state.Target, facts Facts) (Plan, error) {
	n := size(now, want)
	p := &planner{
		now: now, want: want, clock: facts.Now, failures: facts.Failures,
		graph: newGraph(n), images: make(map[string]string, 2*len(now.Images)),
		keep: make(map[string]bool, n), frees: map[Key][]Key{}, fetches: map[string]string{},
		needed: map[string][]Key{}, freed: map[string][]Key{},
	}
	p.indexImages()
	for _, uuid := range p.appUUIDs() {
		p.diffApp(uuid)
	}
	p.diffAPINetwork()
	p.fulfilUnknown()
	p.diffImages()
	p.diffReboot()
	for _, a := range p.everyone() {
		p.lockSteps(a)
	}
	p.graph.settle()
	if err := p.facts(); err != nil {
		return Plan{}, err
	}
	for _, a := range p.apps {
		p.wishes(a)
	}
	p.rebootLast()
	for _, a := range p.everyone() {
		if err := p.lock(a); err != nil {
			return Plan{}, err
		}
	}
	for _, a := range p.apps {
		p.finish(a)
	}
	p.freeFirst()
	out := Plan{Nodes: p.graph.nodes(), Declined: p.declined}
	out.Waiting = p.waiting(out)
	return out, nil
}

// size guesses the number of steps: a service that changes needs up to five.
func size(now state.World, want state.Target) int {
	n := 8
	for _, a := range now.Apps {
		n += 2 * len(a.Containers)
	}
	for _, a := range want.Apps {
		n += 3 * len(a.Services)
	}
	return n
}

// planner is the state of one call of Make.
type planner struct {
	now      state.World
	want     state.Target
	clock    time.Time
	failures map[Key]state.Failure
	graph    *graph

	images map[string]string // canonical reference or digest → engine image ID
	keep   map[string]bool   // engine image IDs that something needs after the plan
	frees  map[Key][]Key     // removal of an image → removals of containers that use it
	spare  []Key             // removals of images that nothing uses now

	fetches map[string]string   // digest → the reference it is downloaded under
	claimed map[string][]string // see claims
	needed  map[string][]Key    // what only one can have → starts that need it
	freed   map[string][]Key    // what only one can have → stops that free it

	apiUsers, apiLeavers []Key // creations that need the API network, removals that leave it
	apiOrder             [][2]Key

	apps      []*appPlan // those that are changed
	others    []*appPlan // those that are left alone
	rebooting bool       // the plan ends with a reboot
	declined  []Declined
}

// appPlan collects the steps of one app.
type appPlan struct {
	App
	now    state.AppNow
	want   state.App
	wanted bool

	services []*servicePlan          // by name
	named    map[string]*servicePlan // the same

	all   []Key             // every step
	gone  map[string]string // networks that are removed, by short name → why
	gate  Key               // all images are here; empty: nothing to fetch
	order [][2]Key          // edges the engine demands
	users map[string][]Key  // network → removals of containers attached to it
	fresh map[string][]Key  // "network n" or "volume v" → steps that make it ready

	failed bool // the release cannot be reached, see handoverFailed
	later  bool // a service starts after a reboot

	intents []state.Intent          // about this app
	replace map[string]state.Intent // containers to be replaced, by ID
	begin   map[string]state.Intent // containers to be started, by ID
	purge   map[string]state.Intent // volumes to be deleted, by short name
	held    map[string]state.Intent // services to be kept stopped
	last    map[string][]Key        // intent ID → steps that come before its end
	open    map[string]bool         // intent ID → something of it is left for another plan

	guarded []Key            // steps that need the update locks
	first   []Key            // downloads that come before the locks are taken, see othersFirst
	take    Key              // the taking of the locks; empty: held, or not needed
	release Key              // the giving up; empty: not planned
	blocked []state.UserLock // what keeps us from taking them
}

// servicePlan is what is known and planned about one service.
type servicePlan struct {
	name   string
	want   state.Service // zero: not wanted
	wanted bool
	have   []state.Container // the ones to keep first

	seen     bool     // it was looked at
	strategy string   // the one that is followed
	stays    string   // ID of the container that stays
	retired  []string // IDs of those that go
	later    bool     // it starts after a reboot
	stopped  Reason   // why it is kept stopped, when not for the target's own sake

	phases [strategy.Phases][]Key // the steps of its update
	old    []Key                  // stops of what is replaced
	start  Key
	needs  []Key // what its start waits for in other services
	late   []Key // what its stop waits for in other services
}

// service finds a service; one that nobody has or wants is empty.
func (a *appPlan) service(name string) *servicePlan {
	if s := a.named[name]; s != nil {
		return s
	}
	return &servicePlan{name: name, seen: true}
}

// stayer is the container that stays; ok is false if none does.
func (s *servicePlan) stayer() (c state.Container, ok bool) {
	for _, c := range s.have {
		if s.stays != "" && c.ID == s.stays {
			return c, true
		}
	}
	return c, false
}

// everyone lists the apps that are changed and those that are left alone.
func (p *planner) everyone() []*appPlan { return slices.Concat(p.apps, p.others) }

func (p *planner) appUUIDs() []string {
	set := map[string]bool{}
	for u := range p.now.Apps {
		set[u] = true
	}
	for u := range p.want.Apps {
		set[u] = true
	}
	return slices.Sorted(maps.Keys(set))
}

// identity is how the app's steps name it. A name that two apps share is left
// out: people then read the UUID.
func (p *planner) identity(uuid string) App {
	want, wanted := p.want.Apps[uuid]
	if !wanted {
		return App{UUID: uuid, ID: p.now.Apps[uuid].ID}
	}
	a := App{UUID: uuid, ID: want.ID, Name: want.Name}
	for u, other := range p.want.Apps {
		if u != uuid && other.Name == a.Name {
			return App{UUID: uuid, ID: want.ID}
		}
	}
	return a
}

func (p *planner) decline(subject, why string) {
	p.declined = append(p.declined, Declined{subject, why})
}

// waiting lists what holds steps back: locks of others, and back-off.
func (p *planner) waiting(plan Plan) []Waiting {
	var out []Waiting
	for _, a := range p.everyone() {
		out = append(out, a.waits()...)
	}
	if len(p.failures) == 0 {
		return out
	}
	for _, n := range plan.Nodes {
		if x, failed := p.failures[n.Key]; failed && n.Step != nil && len(n.After) == 0 && p.clock.Before(x.Next) {
			out = append(out, Waiting{Key: n.Key, Title: n.Title(), Class: x.Class, Text: x.Text, Tries: x.Attempt, Until: x.Next})
		}
	}
	return out
}
