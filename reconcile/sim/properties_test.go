package sim_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/reconcile/sim/simtest"
	"deckhand/state"
)

// plan is Make, which must not fail (a: no cycle) and must not change its mind
// (b: same input, same text).
func plan(t *rapid.T, w state.World, want state.Target) reconcile.Plan {
	p, err := reconcile.Make(w, want, reconcile.Facts{})
	if err != nil {
		t.Fatalf("%v\nworld %+v", err, w)
	}
	again, _ := reconcile.Make(w, want, reconcile.Facts{})
	if p.String() != again.String() {
		t.Fatalf("same input, two plans:\n%s\n%s", p, again)
	}
	return p
}

// converge does one ready step after the other, in an order that rapid draws,
// planning afresh each time. It checks (c) that no ready step is refused and
// (d) that a done step is gone.
func converge(t *rapid.T, w state.World, want state.Target, most int, label string) (state.World, []string) {
	var did []string
	for range most {
		p := plan(t, w, want)
		ready := p.Ready()
		if p.Steps() == 0 {
			return w, did
		}
		if len(ready) == 0 && len(p.Waiting) > 0 {
			w = simtest.Unlock(w) // only locks are waited for here
			continue
		}
		if len(ready) == 0 {
			t.Fatalf("%s: nothing is ready\n%s", label, p)
		}
		n := ready[rapid.IntRange(0, len(ready)-1).Draw(t, label+" pick")]
		next, err := sim.Apply(w, n.Step)
		if err != nil {
			t.Fatalf("%s: refused %q: %v\n%s\nworld %+v", label, n.Key, err, p, w)
		}
		if after := plan(t, next, want); has(after, n.Key) {
			t.Fatalf("%s: %q is planned again after it was done\nbefore\n%s\nafter\n%s", label, n.Key, p, after)
		}
		if err := kept(w, next, n.Step); err != nil {
			t.Fatalf("%s: %q: %v", label, n.Key, err)
		}
		did = append(did, string(n.Key))
		w = next
	}
	return w, did
}

// kept checks that no volume goes without an intent that names it.
func kept(before, after state.World, s reconcile.Step) error {
	for uuid, a := range before.Apps {
		for _, v := range a.Volumes {
			if slices.Contains(after.Apps[uuid].Volumes, v) {
				continue
			}
			r, ok := s.(reconcile.RemoveVolume)
			if !ok || r.Name != v.Name || !slices.ContainsFunc(before.Intents, func(i state.Intent) bool {
				return i.ID == r.Intent && i.Kind == state.Purge && i.App == uuid && slices.Contains(i.Left, v.Name)
			}) {
				return fmt.Errorf("volume %s is gone and nobody asked for that", v.Name)
			}
		}
	}
	return nil
}

func has(p reconcile.Plan, k reconcile.Key) bool {
	return slices.ContainsFunc(p.Nodes, func(n reconcile.Node) bool { return n.Key == k })
}

// TestConverges: from any device, reached by an interrupted first target and a
// few mishaps, the second target is reached (e), by exactly the steps that its
// first plan announced (f).
func TestConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := simtest.Preload(t, "preload", simtest.Empty())
		w, _ = converge(t, w, simtest.Target(t, "first"), rapid.IntRange(0, 40).Draw(t, "cut"), "first")
		for range rapid.IntRange(0, 3).Draw(t, "mishaps") {
			w = simtest.Mishap(t, "then", w)
		}
		want := simtest.Target(t, "second")
		p := plan(t, w, want)
		var forecast []string
		for _, n := range p.Nodes {
			if n.Step != nil {
				forecast = append(forecast, string(n.Key))
			}
		}
		end, did := converge(t, w, want, 300, "second")
		if rest := plan(t, end, want); rest.Steps() > 0 {
			t.Fatalf("not reached, left:\n%s", rest)
		}
		if has(p, reconcile.Reboot{}.Key()) {
			checkEnd(t, end, want) // what follows a reboot is another plan
			return
		}
		slices.Sort(forecast)
		if done := slices.Sorted(slices.Values(did)); !slices.Equal(forecast, done) {
			t.Fatalf("the forecast was not honest\nforecast %q\ndone     %q\nfirst plan:\n%s", forecast, done, p)
		}
		checkEnd(t, end, want)
	})
}

// checkEnd asserts on the device itself, not on the planner's opinion of it.
func checkEnd(t *rapid.T, w state.World, want state.Target) {
	for uuid, a := range want.Apps {
		if a.Rejected == "" {
			checkApp(t, w.Apps[uuid], a, w.Intents)
		}
	}
	for _, i := range w.Intents {
		if i.Kind != state.Stop && want.Apps[i.App].Rejected == "" {
			t.Fatalf("intent %+v was not fulfilled", i)
		}
	}
	for uuid, now := range w.Apps {
		if _, wanted := want.Apps[uuid]; !wanted && len(now.Containers)+len(now.Networks) > 0 {
			t.Fatalf("%s was not removed: %+v", uuid, now)
		}
	}
}

func checkApp(t *rapid.T, now state.AppNow, a state.App, intents []state.Intent) {
	if now.Commit != a.Commit {
		t.Fatalf("%s is at %q, not at %q", a.UUID, now.Commit, a.Commit)
	}
	if len(now.Containers) != len(a.Services) || len(now.Networks) != len(a.Networks) {
		t.Fatalf("%s has %d containers for %d services, %d networks for %d", a.UUID, len(now.Containers), len(a.Services), len(now.Networks), len(a.Networks))
	}
	if len(now.Locked) > 0 {
		t.Fatalf("%s: locks of %v were never given up", a.UUID, now.Locked)
	}
	for _, c := range now.Containers {
		s := a.Services[c.Service]
		for _, i := range intents {
			if i.Kind == state.Stop && i.App == a.UUID && slices.Contains(i.Services, c.Service) {
				s.Running = false
			}
		}
		if c.Hash != s.Hash || c.Commit != a.Commit || (!s.Running && c.Up()) || (s.Running && c.Phase == state.Created && s.Spec.NetworkOwner() == "") {
			t.Fatalf("%s/%s ended as %+v", a.UUID, c.Service, c)
		}
	}
}

// TestNothingStopsBeforeTheReleaseIsHere: download-then-kill never stops a
// container while an image of its app is missing.
func TestNothingStopsBeforeTheReleaseIsHere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, _ := converge(t, simtest.Empty(), simtest.Target(t, "first"), 300, "first")
		want := simtest.Target(t, "second")
		p := plan(t, w, want)
		for _, n := range p.Ready() {
			s, isStop := n.Step.(reconcile.Stop)
			if !isStop {
				continue
			}
			a := want.Apps[s.App.UUID]
			if early(a.Services[s.Service]) {
				continue
			}
			if missing := missingImage(p, a); missing != "" {
				t.Fatalf("%q is ready while %s is missing\n%s", n.Key, missing, p)
			}
		}
	})
}

// early reports whether a service asks to be stopped before the download.
func early(s state.Service) bool {
	return s.Strategy == "kill-then-download" || s.Strategy == "delete-then-download"
}

// missingImage is an image that the plan still fetches for a service which does
// not ask to be stopped first.
func missingImage(p reconcile.Plan, a state.App) string {
	for _, x := range p.Nodes {
		f, isFetch := x.Step.(reconcile.Fetch)
		for _, s := range a.Services {
			if isFetch && s.Image == f.Image && !early(s) {
				return s.Image
			}
		}
	}
	return ""
}
