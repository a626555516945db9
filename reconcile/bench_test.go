package reconcile_test

import (
	"fmt"
	"maps"
	"slices"
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

// settled is the device that has reached a target: what the planner finds when
// nothing is to do.
func settled(b *testing.B, t state.Target) state.World {
	b.Helper()
	w := simtest.Empty()
	a := t.Apps["aaaa"]
	now := state.AppNow{UUID: a.UUID, ID: a.ID, Commit: a.Commit}
	for _, n := range a.Networks {
		now.Networks = append(now.Networks, state.NetworkNow{ID: "n1", Name: n.Name, Hash: n.Hash})
	}
	for _, name := range slices.Sorted(maps.Keys(a.Services)) {
		s := a.Services[name]
		id := sim.ImageID(s.Image)
		w.Images[id] = state.Image{ID: id, Refs: []string{s.Image}, Ours: true}
		now.Images = append(now.Images, s.Image)
		now.Containers = append(now.Containers, state.Container{
			ID: "c" + name, Name: state.ContainerName(name, s.ImageID, a.ReleaseID, a.Commit), Service: name, ServiceID: s.ID,
			ImageID: s.ImageID, ReleaseID: a.ReleaseID, Commit: a.Commit, Image: id, Hash: s.Hash, Spec: &s.Spec,
			Phase: state.Running, Created: s.ID, Networks: []string{"default"},
		})
	}
	w.Apps["aaaa"] = now
	p, err := reconcile.Make(w, t, reconcile.Facts{})
	if err != nil || p.Steps() > 0 {
		b.Fatalf("not settled: %v\n%s", err, p)
	}
	return w
}

func BenchmarkMake(b *testing.B) {
	for _, n := range []int{10, 100, 1_000, 10_000} {
		here, next := many(n, 1), many(n, 2)
		was := settled(b, here)
		// One variable of one service.
		one := many(n, 1)
		s := one.Apps["aaaa"].Services["s0000"]
		s.Spec.Environment = map[string]string{"N": "0", "LEVEL": "debug"}
		s.Hash = s.Spec.Hash()
		one.Apps["aaaa"].Services["s0000"] = s
		for _, c := range []struct {
			name string
			now  state.World
			want state.Target
		}{
			{"nothing", was, here},
			{"one variable", was, one},
			{"install", simtest.Empty(), here},
			{"all images", was, next},
			{"removal", was, state.Target{}},
		} {
			b.Run(fmt.Sprintf("%s/%d", c.name, n), func(b *testing.B) {
				for b.Loop() {
					if _, err := reconcile.Make(c.now, c.want, reconcile.Facts{}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
