package run

import (
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/reconcile/sim/simtest"
	"deckhand/state"
)

// device drives choose and sim.Apply the way Runner drives the engine, with
// rapid deciding what ends when.
type device struct {
	t       *rapid.T
	world   state.World
	want    state.Target
	running map[reconcile.Key]flight
	goal    int
	crashes bool
}

// tick plans, starts and cancels, then ends one running step. It reports
// whether the device is settled.
func (d *device) tick() bool {
	p, err := reconcile.Make(d.world, d.want, reconcile.Facts{})
	if err != nil {
		d.t.Fatal(err)
	}
	if p.Steps() == 0 && len(d.running) == 0 {
		return true
	}
	start, cancel := choose(p, d.running, d.goal, DefaultLimits(), time.Time{})
	for _, k := range cancel {
		delete(d.running, k)
	}
	for _, n := range start {
		d.running[n.Key] = flight{node: n, goal: d.goal}
	}
	if len(d.running) == 0 && len(cancel) > 0 {
		return false // what was cancelled has ended; look again
	}
	if len(d.running) == 0 && p.Steps() == 0 {
		return true
	}
	if len(d.running) == 0 && len(p.Waiting) > 0 {
		d.world = simtest.Unlock(d.world)
		return false
	}
	if len(d.running) == 0 {
		d.t.Fatalf("nothing runs and nothing may start\n%s", p)
	}
	if d.crashes && rapid.IntRange(0, 7).Draw(d.t, "crash") == 0 {
		d.crash()
		return false
	}
	if rapid.IntRange(0, 15).Draw(d.t, "somebody comes") == 0 {
		d.world = simtest.Visit(d.t, "meanwhile", d.world)
	}
	keys := slices.Sorted(maps.Keys(d.running))
	k := keys[rapid.IntRange(0, len(keys)-1).Draw(d.t, "ends")]
	step := d.running[k].node.Step
	delete(d.running, k)
	next, err := sim.Apply(d.world, step)
	if _, taking := step.(reconcile.TakeLocks); taking && err != nil {
		return false // somebody was faster
	}
	if err != nil {
		d.t.Fatalf("refused %q: %v\nrunning %v\n%s", k, err, slices.Sorted(maps.Keys(d.running)), p)
	}
	d.world = next
	return false
}

// crash kills the process: each running step has happened, has not, or is half
// done; nobody remembers.
func (d *device) crash() {
	for _, k := range slices.Sorted(maps.Keys(d.running)) {
		step := d.running[k].node.Step
		switch rapid.IntRange(0, 2).Draw(d.t, "fate") {
		case 0:
		case 1:
			if next, err := sim.Apply(d.world, step); err == nil {
				d.world = next
			}
		case 2:
			d.world = half(d.world, step)
		}
	}
	clear(d.running)
}

// half is what a kill in the middle of a step leaves behind.
func half(w state.World, s reconcile.Step) state.World {
	c, ok := s.(reconcile.Create)
	if !ok {
		return w
	}
	next, err := sim.Apply(w, s)
	if err != nil {
		return w
	}
	a := next.Apps[c.App.UUID]
	a.Containers[len(a.Containers)-1].Networks = nil // created, not yet connected
	return next
}

func (d *device) settle(most int) error {
	for range most {
		if d.tick() {
			return nil
		}
	}
	return errors.New("did not settle")
}

// TestAnyInterleaving: all ready steps at once, ending in any order, while the
// target changes in the middle: the engine refuses nothing and the last target
// is reached (g).
func TestAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &device{t: t, world: simtest.Empty(), want: simtest.Target(t, "first"), running: map[reconcile.Key]flight{}}
		for range rapid.IntRange(0, 40).Draw(t, "until the second") {
			d.tick()
		}
		d.want, d.goal = simtest.Target(t, "second"), 1
		for range rapid.IntRange(0, 10).Draw(t, "until the third") {
			d.tick()
		}
		d.want, d.goal = simtest.Target(t, "third"), 2
		if err := d.settle(400); err != nil {
			p, _ := reconcile.Make(d.world, d.want, reconcile.Facts{})
			t.Fatalf("%v\n%s", err, p)
		}
	})
}

// TestAnyCrash: the process may die before, inside or after any step; the
// target is reached all the same (h).
func TestAnyCrash(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := &device{t: t, world: simtest.Empty(), want: simtest.Target(t, "first"), running: map[reconcile.Key]flight{}, crashes: true}
		for range rapid.IntRange(0, 40).Draw(t, "until the second") {
			d.tick()
		}
		d.want, d.goal = simtest.Target(t, "second"), 1
		for range 30 {
			d.tick()
		}
		d.crashes = false
		if err := d.settle(400); err != nil {
			p, _ := reconcile.Make(d.world, d.want, reconcile.Facts{})
			t.Fatalf("%v\n%s", err, p)
		}
		for uuid, a := range d.world.Apps {
			seen := map[string]bool{}
			for _, c := range a.Containers {
				if seen[c.Service] && d.want.Apps[uuid].Rejected == "" {
					t.Fatalf("two containers of %s/%s", uuid, c.Service)
				}
				seen[c.Service] = true
			}
		}
	})
}
