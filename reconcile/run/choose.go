package run

import (
	"cmp"
	"slices"
	"time"

	"deckhand/reconcile"
)

// Limits bound how many steps of a lane run side by side.
type Limits struct {
	Work     int // creates, starts, stops: they compete for the processor
	Down     int // services on their way from stop to start: each waits for the others
	Download int // pulls: they compete for the link and the disk
}

// DefaultLimits suits the two to four cores of the devices we run on. A start
// waits for the kernel half of its time, so more than the cores go side by side;
// a service that is down pays for each of them, so fewer are.
func DefaultLimits() Limits { return Limits{Work: 6, Down: 3, Download: 3} }

// slow is when a step no longer counts against its lane: it waits for a
// container that takes its time, and the processor is free.
const slow = 2 * time.Second

// lateDownload is how long a download may go on that the target in force no
// longer needs: as a rule its image has just shown up, and it is about to end.
const lateDownload = 10 * time.Second

// flight is a running step.
type flight struct {
	node      reconcile.Node
	goal      int // the target it was started for, counted
	since     time.Time
	stale     time.Time // since when no plan asks for it; zero: one does
	cancelled bool
}

// choose says which ready steps to start now and which running ones to cancel.
//
// A running step that today's plan would not start is stale. It is cancelled if
// that does no harm; otherwise nothing that shares a resource with it starts
// before it ends.
func choose(p reconcile.Plan, running map[reconcile.Key]flight, goal int, l Limits, now time.Time) (start []reconcile.Node, cancel []reconcile.Key) {
	ready := p.Ready()
	u, cancel := survey(ready, running, goal, now)
	slices.SortStableFunc(ready, func(a, b reconcile.Node) int { return cmp.Compare(urgency(a.Step), urgency(b.Step)) })
	for _, n := range ready {
		t := n.Step.Traits()
		_, already := running[n.Key]
		held := slices.ContainsFunc(t.Uses, func(r reconcile.Resource) bool { return u.busy[r] }) || u.halfMade(n.Step)
		most := l.of(t.Lane)
		if t.Disruptive && most > 1 {
			most-- // a place is left for what ends a downtime
		}
		if _, stop := n.Step.(reconcile.Stop); stop && l.Down > 0 && u.down >= l.Down {
			continue
		}
		alone := !t.Alone || len(running)+len(start) == 0
		if already || held || !alone || u.load[t.Lane] >= most || (t.Last && u.apps[t.App] > 0) {
			continue
		}
		u.load[t.Lane]++
		u.apps[t.App]++
		u.down += down(n.Step)
		start = append(start, n)
	}
	return start, cancel
}

// use is what running steps take up.
type use struct {
	busy   map[reconcile.Resource]bool // by steps that are stale
	making map[owner]bool              // whose containers are being made
	load   map[reconcile.Lane]int
	apps   map[string]int // steps by app
	down   int            // services on their way from stop to start
}

// down counts a step by which a service goes down or comes up.
func down(s reconcile.Step) int {
	_, stops := s.(reconcile.Stop)
	if _, starts := s.(reconcile.Start); stops || starts {
		return 1
	}
	return 0
}

// owner is whose container it is.
type owner struct{ app, service string }

// survey looks at the running steps; cancel are those that are stale and can be
// interrupted.
func survey(ready []reconcile.Node, running map[reconcile.Key]flight, goal int, now time.Time) (u use, cancel []reconcile.Key) {
	fresh := map[reconcile.Key]reconcile.Step{}
	for _, n := range ready {
		fresh[n.Key] = n.Step
	}
	u = use{map[reconcile.Resource]bool{}, map[owner]bool{}, map[reconcile.Lane]int{}, map[string]int{}, 0}
	for k, f := range running {
		t := f.node.Step.Traits()
		u.apps[t.App]++
		if c, ok := f.node.Step.(reconcile.Create); ok {
			u.making[owner{c.App.UUID, c.Service.Name}] = true
		}
		if now.Sub(f.since) < slow || t.Lane == reconcile.Download {
			u.load[t.Lane]++
			u.down += down(f.node.Step)
		}
		switch {
		case same(f.node.Step, fresh[k]):
		case t.Interruptible && !f.ending(goal, now):
			cancel = append(cancel, k)
		default:
			for _, r := range t.Uses {
				u.busy[r] = true
			}
		}
	}
	slices.Sort(cancel)
	return u, cancel
}

// halfMade reports whether a step would remove what is just being made: a
// container shows before it is connected to its networks, and looks damaged then.
func (u use) halfMade(s reconcile.Step) bool {
	r, ok := s.(reconcile.Remove)
	return ok && u.making[owner{r.App.UUID, r.Service}]
}

// same reports whether a running step is the one that is planned: a key does not
// tell a container from the one that replaces it.
func same(running, planned reconcile.Step) bool {
	if planned == nil {
		return false
	}
	a, b := running.Traits().Object, planned.Traits().Object
	return a == "" || b == "" || a == b
}

// ending reports whether a stale step is left to end by itself.
func (f flight) ending(goal int, now time.Time) bool {
	return f.node.Step.Traits().Lane == reconcile.Download && f.goal == goal && (f.stale.IsZero() || now.Sub(f.stale) < lateDownload)
}

func (l Limits) of(lane reconcile.Lane) int {
	switch lane {
	case reconcile.Work:
		return l.Work
	case reconcile.Download:
		return l.Download
	case reconcile.Wait:
	}
	return int(^uint(0) >> 1) // waiting costs nothing
}

// urgency puts what ends a downtime first and what clears up last.
func urgency(s reconcile.Step) int {
	switch s.(type) {
	case reconcile.Start, reconcile.Await, reconcile.Handover:
		return 0
	case reconcile.Rename, reconcile.Commit, reconcile.TakeLocks, reconcile.ReleaseLocks, reconcile.Fetch, reconcile.CreateNetwork, reconcile.CreateVolume, reconcile.RemoveNetwork, reconcile.RemoveVolume,
		reconcile.CreateAPINetwork, reconcile.WriteFiles, reconcile.Create, reconcile.RequireReboot:
		return 1 // what is made while the old one runs costs no downtime, and none is then made beside it
	case reconcile.Stop:
		return 2
	case reconcile.Remove:
		return 3
	case reconcile.RemoveImage, reconcile.RemoveFiles, reconcile.Fulfil:
		return 4
	case reconcile.Reboot:
	}
	return 5
}
