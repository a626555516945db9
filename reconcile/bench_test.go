package reconcile_test

import (
	"fmt"
	"testing"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/reconcile/sim/simtest"
	"deckhand/state"
)

// many is a target of n services at a release; every service depends on the
// one before it in its group of ten.
func many(n, release int) state.Target {
	a := state.App{
		UUID: "aaaa", ID: 1, Name: "shop", Commit: fmt.Sprintf("r%d", release), ReleaseID: int64(release),
		Services: map[string]state.Service{}, Networks: map[string]state.Network{}, Volumes: map[string]state.Volume{},
	}
	a.Networks["default"] = state.Network{Name: "default", Spec: state.NetworkSpec{Driver: "bridge"}, Hash: state.NetworkSpec{Driver: "bridge"}.Hash()}
	for i := range n {
		s := state.Service{
			Name: fmt.Sprintf("s%04d", i), ID: int64(i + 1), ImageID: int64(release*n + i + 1), Running: true,
			Image: fmt.Sprintf("registry.test/v2/%04d@sha256:%d-%d", i, release, i),
		}
		s.Spec.Environment = map[string]string{"N": fmt.Sprint(i), "LEVEL": "info"}
		s.Spec.Networks = map[string]state.Attachment{"default": {Aliases: []string{s.Name}}}
		if i%10 > 0 {
			s.DependsOn = []state.Dependency{{Service: fmt.Sprintf("s%04d", i-1), Condition: state.Started}}
		}
		s.Hash = s.Spec.Hash()
		a.Services[s.Name] = s
	}
	return state.Target{Apps: map[string]state.App{"aaaa": a}}
}

func reach(b *testing.B, w state.World, t state.Target) state.World {
	b.Helper()
	for {
		p, err := reconcile.Make(w, t, reconcile.Facts{})
		if err != nil {
			b.Fatal(err)
		}
		if p.Steps() == 0 {
			return w
		}
		for _, n := range p.Ready() {
			if w, err = sim.Apply(w, n.Step); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkMake(b *testing.B) {
	const n = 1000
	empty := simtest.Empty()
	settled := reach(b, empty, many(n, 1))
	for _, c := range []struct {
		name string
		now  state.World
		want state.Target
	}{
		{"install", empty, many(n, 1)},
		{"no-op", settled, many(n, 1)},
		{"all images new", settled, many(n, 2)},
		{"removal", settled, state.Target{}},
	} {
		b.Run(fmt.Sprintf("%s, %d services", c.name, n), func(b *testing.B) {
			for b.Loop() {
				if _, err := reconcile.Make(c.now, c.want, reconcile.Facts{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
