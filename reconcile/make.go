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
		now: now, want: want, graph: newGraph(n), images: make(map[string]string, 2*len(now.Images)),
		keep: make(map[string]bool, n), frees: map[string][]Key{}, fetches: map[string]string{},
		ports: map[string][]Key{}, freed: map[string][]Key{},
	}
	p.indexImages()
	for _, uuid := range p.appUUIDs() {
		p.diffApp(uuid)
	}
	p.diffImages()
	p.graph.settle()
	if err := p.facts(); err != nil {
		return Plan{}, err
	}
	for _, a := range p.apps {
		p.wishes(a)
	}
	for _, a := range p.apps {
		p.finish(a)
	}
	out := Plan{Nodes: p.graph.nodes(), Declined: p.declined}
	out.Waiting = waiting(out, facts)
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
	now   state.World
	want  state.Target
	graph *graph

	images map[string]string // canonical reference or digest → engine image ID
	keep   map[string]bool   // engine image IDs that something needs after the plan
	frees  map[string][]Key  // engine image ID → removals of containers that use it

	fetches map[string]string // digest → the reference it is downloaded under
	ports   map[string][]Key  // host port → starts that need it
	freed   map[string][]Key  // host port → stops that free it

	apps     []*appPlan
	declined []Declined
}

// appPlan collects the steps of one app.
type appPlan struct {
	App
	now    state.AppNow
	want   state.App
	wanted bool

	all    []Key                               // every step
	phases map[string]map[strategy.Phase][]Key // service → phase → steps
	have   map[string][]state.Container        // service → its containers, the ones to keep first
	old    map[string][]Key                    // service → stops of what it replaces
	starts map[string]Key                      // service → its start
	needs  map[string][]Key                    // service → what its start waits for in other services
	gone   map[string]string                   // networks that are removed, by short name → why
	gate   Key                                 // all images are here; empty: nothing to fetch
	order  [][2]Key                            // edges the engine demands
	users  map[string][]Key                    // network → removals of containers attached to it
	fresh  map[string][]Key                    // "network n" or "volume v" → steps that make it ready
	named  map[string]map[string]Key           // service → name → removal that frees it
}

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

// waiting lists the steps that could start but for their back-off.
func waiting(p Plan, f Facts) []Waiting {
	var out []Waiting
	for _, n := range p.Nodes {
		if x, failed := f.Failures[n.Key]; failed && n.Step != nil && len(n.After) == 0 && f.Now.Before(x.Next) {
			out = append(out, Waiting{Key: n.Key, Title: n.Title(), Class: x.Class, Text: x.Text, Tries: x.Attempt, Until: x.Next})
		}
	}
	return out
}
