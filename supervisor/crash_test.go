package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/state/store"
)

// release is an app with a service for each way to update, and one that nobody
// changes.
func release(n int, commit string) state.Target {
	a := state.App{
		UUID: "aaaa", ID: 1, Name: "shop", Commit: commit, ReleaseID: int64(n),
		Services: map[string]state.Service{}, Networks: map[string]state.Network{}, Volumes: map[string]state.Volume{},
	}
	v := state.VolumeSpec{Driver: "local"}
	a.Volumes["data"] = state.Volume{Name: "data", Spec: v, Hash: v.Hash()}
	for i, s := range []state.Service{
		{Name: "db", Image: "db:1", Spec: state.Spec{Mounts: []state.Mount{{Type: "volume", Source: "data", Target: "/data"}}}},
		{Name: "web", Image: fmt.Sprintf("reg.test/web@sha256:000%d", n), Strategy: "hand-over"},
		{Name: "job", Image: "job:1", Spec: state.Spec{Environment: map[string]string{"LEVEL": fmt.Sprint(n)},
			Files: []state.File{{Target: "/run/secrets/a", Content: []byte{byte(n)}}}}},
	} {
		s.ID, s.ImageID, s.Running = int64(i+1), int64(i+1), true
		s.Spec.Restart.Name = "always"
		s.Hash = s.Spec.Hash()
		a.Services[s.Name] = s
	}
	return state.Target{Name: "device", Apps: map[string]state.App{"aaaa": a}}
}

// crash ends the process: whatever comes after does not happen.
type crash struct{}

// story is what happens to the device, told from the start. It may be broken off
// at any point and told on from there by a new process.
type story struct {
	m    *modelled
	t    *testing.T
	done int // chapters
}

// chapters are idempotent, as a person who asks again after a crash is.
func (s *story) chapters() []func() {
	ask := func(kind state.IntentKind, services ...string) func() {
		return func() {
			x, err := newWish(s.m.target(), s.m.look(s.t), kind, Request{App: "shop", Services: services})
			if err != nil {
				s.t.Fatal(err)
			}
			x.at = time.Unix(1, 0)
			if _, err := s.m.ask(x); err != nil {
				s.t.Fatal(err)
			}
		}
	}
	accept := func(t state.Target) func() { return func() { s.m.accept(s.t, t) } }
	work := func() { s.m.reach(s.t, s.m.target(), nil) }
	return []func(){
		accept(release(1, "r1")), work,
		ask(state.Restart, "db"), work,
		ask(state.Purge), work,
		ask(state.Stop, "job"), work,
		ask(state.Start, "job"), work,
		accept(release(2, "r2")), work,
		accept(release(1, "r1")), work,
		ask(state.Stop, "web"), work,
	}
}

// tell goes on until the end or a crash.
func (s *story) tell() (crashed bool) {
	defer func() {
		if p := recover(); p != nil {
			if _, ok := p.(crash); !ok {
				panic(p)
			}
			crashed = true
		}
	}()
	all := s.chapters()
	for s.done < len(all) {
		all[s.done]()
		s.done++
	}
	return false
}

// ending is what counts when everything is over.
func (s *story) ending() string {
	w := s.m.look(s.t)
	var b strings.Builder
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		a := w.Apps[uuid]
		fmt.Fprintf(&b, "%s at %s, locked %v, handovers %v, files %v\n", uuid, a.Commit, a.Locked, a.Handovers, a.Files)
		names := []string{}
		for _, c := range a.Containers {
			names = append(names, fmt.Sprintf("  %s %s %s halted %t", c.Name, c.Phase, c.Hash, c.Halted))
		}
		slices.Sort(names)
		fmt.Fprintln(&b, strings.Join(names, "\n"))
	}
	for _, i := range w.Intents {
		fmt.Fprintf(&b, "intent %s %v %v\n", i.Kind, i.Services, i.Left)
	}
	fmt.Fprintf(&b, "images %v, deleted volumes %v\n", slices.Sorted(maps.Keys(w.Images)), s.m.purged)
	return b.String()
}

// The process ends before or after each write to the store, and before or after
// each effect on the engine. It comes to the same end, and no volume is deleted
// more often than somebody asked for.
func TestCrashesAnywhereLoseNothing(t *testing.T) {
	plain := &story{m: newModelled(t), t: t}
	plain.tell()
	want := plain.ending()
	plain.m.close(t)
	if !strings.Contains(want, "aaaa at r1") || !strings.Contains(want, "map[aaaa/data:1]") || !strings.Contains(want, "intent stop [web]") {
		t.Fatalf("the story does not end as it should:\n%s", want)
	}
	points := 0
	for at := 1; ; at++ {
		s := &story{m: newModelled(t), t: t}
		count := 0
		point := func() {
			if count++; count == at {
				panic(crash{})
			}
		}
		s.m.write = func(write func() error) error {
			point()
			err := write()
			point()
			return err
		}
		s.m.before = func(reconcile.Step) error { point(); return nil }
		s.m.after = func(reconcile.Step) error { point(); return nil }
		if !s.tell() {
			s.m.close(t)
			break // the story has fewer points
		}
		points++
		s.m.write, s.m.before, s.m.after = nil, nil, nil
		target := s.m.target()
		s.m.close(t)
		s.m.open(t)
		s.m.use(target)
		s.tell()
		if got := s.ending(); got != want {
			t.Fatalf("a crash at point %d ends differently:\n%s\nwant:\n%s", at, got, want)
		}
		s.m.close(t)
	}
	t.Logf("%d crash points", points)
	if points < 150 {
		t.Errorf("only %d crash points", points)
	}
}

// A disk that is full for a while delays, and breaks nothing.
func TestAFullDiskDelaysOnly(t *testing.T) {
	plain := &story{m: newModelled(t), t: t}
	plain.tell()
	want := plain.ending()
	plain.m.close(t)

	m := newModelled(t)
	defer m.close(t)
	s := &story{m: m, t: t}
	n := 0
	full := func(write func() error) error {
		if n++; n%2 == 0 {
			return errors.New("no space left on device")
		}
		return write()
	}
	// Only steps meet the full disk: who asks is told, and asks again.
	for i, chapter := range s.chapters() {
		if i%2 == 0 {
			chapter()
		} else if failed := s.workOn(full); failed == 0 && i == 1 {
			t.Error("no step met the full disk")
		}
	}
	if got := s.ending(); got != want {
		t.Errorf("it ends differently:\n%s\nwant:\n%s", got, want)
	}
}

// workOn works on a bad disk until nothing is left to do; it says how many steps
// failed.
func (s *story) workOn(disk func(write func() error) error) (failed int) {
	for range 1000 {
		plan, err := reconcile.Make(s.m.look(s.t), s.m.target(), reconcile.Facts{})
		if err != nil {
			s.t.Fatal(err)
		}
		if len(plan.Ready()) == 0 {
			return failed
		}
		s.m.write = disk
		err = s.m.device.Do(s.t.Context(), plan.Ready()[0].Step, nil)
		s.m.write = nil
		if err != nil {
			failed++
			if state.ClassOf(err) != state.ClassSpace {
				s.t.Fatalf("%s: %v", plan.Ready()[0].Title(), err)
			}
		}
	}
	s.t.Fatal("no end is reached")
	return failed
}

// A stop that failed leaves no mark: what ends afterwards was not stopped by us
// and is not started again.
func TestAFailedStopLeavesNoMark(t *testing.T) {
	m := newModelled(t)
	defer m.close(t)
	want := release(1, "r1")
	m.accept(t, want)
	m.reach(t, want, nil)
	c := m.look(t).Apps["aaaa"].Containers[0]
	m.before = func(reconcile.Step) error { return errors.New("the engine is busy") }
	stop := reconcile.Stop{App: reconcile.App{UUID: "aaaa", ID: 1}, Service: c.Service, Container: c.ID}
	if err := m.device.Do(t.Context(), stop, nil); err == nil {
		t.Fatal("the failure got lost")
	}
	m.look(t)
	if marks, err := m.Store.Halted.All(); err != nil || len(marks) != 0 {
		t.Errorf("marks %v, %v", marks, err)
	}
	m.world.Apps["aaaa"].Containers[0].Phase = state.Exited
	if m.look(t).Apps["aaaa"].Containers[0].Halted {
		t.Error("a container that ended by itself counts as stopped by us")
	}
}

// A look that began before a stop sees the container run, and must not take the
// mark for the trace of a failure.
func TestALookDuringAStopKeepsTheMark(t *testing.T) {
	m := newModelled(t)
	defer m.close(t)
	want := release(1, "r1")
	m.accept(t, want)
	m.reach(t, want, nil)
	c := m.look(t).Apps["aaaa"].Containers[0]
	since, old := m.stopsSeen(), engineOnly(m.world)
	m.locked[1] = map[string]bool{c.Service: true}
	stop := reconcile.Stop{App: reconcile.App{UUID: "aaaa", ID: 1}, Service: c.Service, Container: c.ID}
	if err := m.device.Do(t.Context(), stop, nil); err != nil {
		t.Fatal(err)
	}
	m.mu.Lock()
	m.recall(&old, since) // the list is older than the stop
	m.mu.Unlock()
	if now := m.look(t).Apps["aaaa"].Containers[0]; now.Phase != state.Exited || !now.Halted {
		t.Errorf("%s, halted %t: nobody starts it again", now.Phase, now.Halted)
	}
}

// A hand-over whose time is over has failed where the old container is to be
// kept, until somebody asks for another try.
func TestHandoverInTime(t *testing.T) {
	m := newModelled(t)
	defer m.close(t)
	step := reconcile.Handover{App: reconcile.App{UUID: "aaaa", ID: 1}, Service: "web", Hash: "v1:1", Image: "web:1", KeepOld: true}
	m.world.Apps["aaaa"] = state.AppNow{UUID: "aaaa", ID: 1, Networks: []state.NetworkNow{{ID: "n1", Name: "front"}}}
	for _, c := range []struct {
		err    error
		failed bool
	}{
		{errors.New("the engine is away"), false},
		{state.Classify(state.ClassTimeout, errors.New("it did not take over")), true},
	} {
		m.before = func(reconcile.Step) error { return c.err }
		if err := m.device.Do(t.Context(), step, nil); err == nil {
			t.Error("the failure got lost")
		}
		m.close(t)
		m.open(t)
		if got := m.look(t).Apps["aaaa"].Handovers["web"].Failed; got != c.failed {
			t.Errorf("%v: failed %t, want %t", c.err, got, c.failed)
		}
	}
	if err := m.retryHandovers("bbbb"); err != nil || len(m.look(t).Apps["aaaa"].Handovers) != 1 {
		t.Errorf("another app's request was taken for ours: %v", err)
	}
	if err := m.retryHandovers("aaaa"); err != nil || len(m.look(t).Apps["aaaa"].Handovers) != 0 {
		t.Errorf("it cannot be tried again: %v", err)
	}
}

// A container of another supervisor is compared once; when it is what is wanted,
// it counts as ours also after a restart.
func TestAdoption(t *testing.T) {
	m := newModelled(t)
	defer func() { m.close(t) }()
	want := release(1, "r1")
	m.accept(t, want)
	m.reach(t, want, nil)
	for i := range m.world.Apps["aaaa"].Containers {
		m.world.Apps["aaaa"].Containers[i].Hash = "" // as if somebody else had made it
	}
	strange := m.world.Apps["aaaa"].Containers[0]
	m.differ = func(id string, _ reconcile.Create) []state.Change {
		if id == strange.ID {
			return []state.Change{{Field: "user", Was: "root", Now: "app"}}
		}
		return nil
	}
	for range 3 {
		for _, c := range m.look(t).Apps["aaaa"].Containers {
			if adopted := c.Hash != "" && c.Spec != nil; adopted == (c.ID == strange.ID) {
				t.Errorf("%s: hash %q", c.Service, c.Hash)
			}
			if c.ID == strange.ID && (len(c.Differs) != 1 || c.Differs[0].Field != "user") {
				t.Errorf("%s: differences %v", c.Service, c.Differs)
			}
		}
	}
	if m.compare != 3 {
		t.Errorf("compared %d times, want once for each of 3 containers", m.compare)
	}
	m.close(t)
	m.open(t)
	m.use(want)
	m.compare = 0
	m.look(t)
	if m.compare != 1 {
		t.Errorf("after a restart %d containers are compared, want the one that differs", m.compare)
	}
	if err := m.tidy(state.Target{}, state.World{Apps: map[string]state.AppNow{}}); err != nil {
		t.Fatal(err)
	}
	if left, err := m.Store.Adopted.All(); err != nil || len(left) != 0 {
		t.Errorf("containers that are gone are remembered: %v %v", left, err)
	}
}

// foreign is a device on which another supervisor runs a release; what ask names
// may call the supervisor, and change says what else is wanted of it.
func foreign(t *testing.T, ask string, change func(*state.Spec)) (*modelled, state.Target) {
	t.Helper()
	m, want := newModelled(t), release(1, "r1")
	s := want.Apps["aaaa"].Services[ask]
	s.Spec.Features = []string{state.FeatureAPI}
	if change != nil {
		change(&s.Spec)
	}
	s.Hash = s.Spec.Hash()
	want.Apps["aaaa"].Services[ask] = s
	m.accept(t, want)
	m.reach(t, want, nil)
	m.keys = map[string]string{}
	for i, c := range m.world.Apps["aaaa"].Containers {
		m.world.Apps["aaaa"].Containers[i].Hash = ""
		m.keys[c.ID] = strings.Repeat(string("0123456789abcdef"[i]), 32)
	}
	return m, want
}

func (m *modelled) box(service string) state.Container {
	for _, c := range m.world.Apps["aaaa"].Containers {
		if c.Service == service {
			return c
		}
	}
	return state.Container{}
}

// learned are the keys that are known, by service.
func (m *modelled) learned(t *testing.T) map[string]string {
	t.Helper()
	all, err := m.Store.Keys.All()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, k := range all {
		if k.AppID != 1 {
			t.Errorf("a key of app %d", k.AppID)
		}
		out[k.Service] = k.Key
	}
	return out
}

// The key in a container that is taken over is its service's, and no other service's
// is learned: only this one may call the supervisor.
func TestAdoptionLearnsTheKey(t *testing.T) {
	m, _ := foreign(t, "db", nil)
	defer func() { m.close(t) }()
	id := m.box("db").ID
	m.noKeys = errors.New("the engine is away")
	if _, err := m.device.Observe(t.Context()); err == nil {
		t.Error("it was taken over without its key")
	}
	if left, err := m.Store.Adopted.All(); err != nil || left[id] != "" {
		t.Errorf("taken over: %v %v", left, err)
	}
	m.noKeys = nil
	m.look(t)
	if diff := cmp.Diff(map[string]string{"db": m.keys[id]}, m.learned(t)); diff != "" {
		t.Error(diff)
	}
}

// A key is not learned that is somebody else's, that everybody can read, or that
// stands where the service has one.
func TestAdoptionRefusesKeys(t *testing.T) {
	some := strings.Repeat("5", 32)
	for name, c := range map[string]struct {
		change func(*state.Spec)
		before func(t *testing.T, m *modelled)
		want   map[string]string
	}{
		"of another service": {
			before: func(t *testing.T, m *modelled) {
				t.Helper()
				if err := m.Store.Keys.Learn(1, "web", some); err != nil {
					t.Fatal(err)
				}
			},
			want: map[string]string{"web": some},
		},
		"of the device": {
			before: func(t *testing.T, m *modelled) {
				t.Helper()
				key, err := m.Store.Identity.APIKey()
				if err != nil {
					t.Fatal(err)
				}
				m.keys[m.box("db").ID] = key
			},
			want: map[string]string{},
		},
		"of the composition": {
			change: func(s *state.Spec) { s.Environment = map[string]string{"BALENA_SUPERVISOR_API_KEY": some} },
			want:   map[string]string{},
		},
		"beside one that it has": {
			before: func(t *testing.T, m *modelled) {
				t.Helper()
				if err := m.Store.Keys.Learn(1, "db", strings.Repeat("9", 32)); err != nil {
					t.Fatal(err)
				}
			},
			want: map[string]string{"db": strings.Repeat("9", 32)},
		},
		"of a container that is to be replaced": {
			before: func(_ *testing.T, m *modelled) {
				m.differ = func(string, reconcile.Create) []state.Change {
					return []state.Change{{Field: "user", Was: "root", Now: "app"}}
				}
			},
			want: map[string]string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m, _ := foreign(t, "db", c.change)
			defer func() { m.close(t) }()
			m.keys[m.box("db").ID] = some
			if c.before != nil {
				c.before(t, m)
			}
			m.look(t)
			if diff := cmp.Diff(c.want, m.learned(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOverrides(t *testing.T) {
	m := newModelled(t)
	defer func() { m.close(t) }()
	now := time.Unix(1000, 0)
	m.device.Now = func() time.Time { return now }
	by := func() (out []string) {
		for _, o := range m.look(t).Overrides {
			out = append(out, o.App+" "+o.By)
		}
		return out
	}
	for _, c := range []struct {
		name, value string
		want        bool
	}{
		{"BALENA_SUPERVISOR_OVERRIDE_LOCK", "1", true}, {"RESIN_SUPERVISOR_OVERRIDE_LOCK", "true", true},
		{"BALENA_OVERRIDE_LOCK", "on", true}, {"RESIN_OVERRIDE_LOCK", "TRUE", true},
		{"BALENA_SUPERVISOR_OVERRIDE_LOCK", "0", false}, {"BALENA_SUPERVISOR_OVERRIDE_LOCK", "", false}, {"OTHER", "1", false},
	} {
		m.use(state.Target{Config: map[string]string{c.name: c.value}})
		if got := by(); c.want != slices.Equal(got, []string{" configuration variable " + c.name}) || !c.want && got != nil {
			t.Errorf("%s=%s: %v", c.name, c.value, got)
		}
	}
	m.use(state.Target{})
	for _, o := range []store.Override{
		{Override: state.Override{App: "aaaa", By: "short", Until: now.Add(time.Minute)}},
		{Override: state.Override{By: "long", Until: now.Add(time.Hour)}, Once: true},
	} {
		if err := m.allow(o); err != nil {
			t.Fatal(err)
		}
	}
	m.close(t)
	m.open(t)
	m.device.Now = func() time.Time { return now }
	if got := by(); !slices.Equal(got, []string{" long", "aaaa short"}) {
		t.Errorf("after a restart: %v", got)
	}
	now = now.Add(time.Minute)
	if got := by(); !slices.Equal(got, []string{" long"}) {
		t.Errorf("after its time: %v", got)
	}
	if n, err := m.disallow(func(o store.Override) bool { return o.Once }); n != 1 || err != nil || by() != nil {
		t.Errorf("%d taken back, %v, left %v", n, err, by())
	}
}

// A host that does not tell when it was started holds nothing up, and never
// makes the device restart again and again.
func TestUnknownBootRestartsNothing(t *testing.T) {
	m := newModelled(t)
	defer m.close(t)
	m.Machine = blindMachine{}
	want := release(1, "r1")
	s := want.Apps["aaaa"].Services["job"]
	s.RequiresReboot = true
	want.Apps["aaaa"].Services["job"] = s
	m.accept(t, want)
	m.reach(t, want, func(_, _ state.World, s reconcile.Step) {
		switch s.(type) { //nolint:gochecksumtype // the others do not matter
		case reconcile.Reboot, reconcile.RequireReboot:
			t.Errorf("%s", s.Title())
		}
	})
	if a := m.look(t).Apps["aaaa"]; a.Commit != "r1" {
		t.Errorf("the release is not reached: %+v", a)
	}
}

// blindMachine is a host without /proc.
type blindMachine struct{}

func (blindMachine) Boot() (int64, error)         { return 0, errors.New("there is no /proc") }
func (blindMachine) BootID() (string, error)      { return "", errors.New("there is no /proc") }
func (blindMachine) Pending() (bool, error)       { return false, errors.New("there is no /proc") }
func (blindMachine) Require() error               { return errors.New("there is no run folder") }
func (blindMachine) Reboot(context.Context) error { return errors.New("there is no bus") }
