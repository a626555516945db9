package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"deckhand/files"
	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/reconcile/sim/simtest"
	"deckhand/state"
	"deckhand/state/store"
)

// modelled is a device whose engine and host are the simulation: what the
// engine shows is in world, the rest is what the device remembers.
type modelled struct {
	*device
	world   state.World // as the engine shows it
	locked  map[int64]map[string]bool
	users   map[int64][]locks.UpdateLock
	run     string // run folder
	boot    int64
	boots   int // how often it rebooted
	pending bool
	now     func() time.Time // nil: the real time

	differ  func(container string, s reconcile.Create) []state.Change
	compare int                            // how often that was asked
	keys    map[string]string              // for our API, by container that another supervisor made
	noKeys  error                          // they cannot be read
	before  func(reconcile.Step) error     // the engine gets a step
	after   func(reconcile.Step) error     // it has done it
	made    int                            // containers so far
	path    string                         // of the store
	write   func(write func() error) error // see store.Options
	purged  map[string]int                 // volumes that were deleted, and how often
}

// memory is a folder that costs no time, where there is one.
func memoryDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "deckhand")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func newModelled(t testing.TB) *modelled {
	t.Helper()
	dir := memoryDir(t)
	m := &modelled{
		world: simtest.Empty(), locked: map[int64]map[string]bool{}, users: map[int64][]locks.UpdateLock{}, run: filepath.Join(dir, "run"),
		path: filepath.Join(dir, "deckhand.db"), purged: map[string]int{},
	}
	m.open(t)
	return m
}

// open is a start of the supervisor.
func (m *modelled) open(t testing.TB) {
	t.Helper()
	s, err := store.Open(m.path, store.Options{
		Write:  func(write func() error) error { return m.hook(write) },
		Report: func(err error) { t.Error(err) },
	})
	if err != nil {
		t.Fatal(err)
	}
	m.device, err = newDevice(deviceConfig{Engine: m, Store: s, Locks: simLocks{m}, Files: files.Open(files.Config{RunDir: m.run}), Machine: simMachine{m}, Now: m.now})
	if err != nil {
		t.Fatal(err)
	}
}

func (m *modelled) hook(write func() error) error {
	if m.write == nil {
		return write()
	}
	return m.write(write)
}

func (m *modelled) close(t testing.TB) {
	t.Helper()
	if err := m.Store.Close(); err != nil {
		t.Fatal(err)
	}
}

// look is what the loop sees.
func (m *modelled) look(t fataler) state.World {
	w, err := m.device.Observe(context.Background())
	if err != nil {
		t.Fatalf("look: %v", err)
	}
	return w
}

type fataler interface{ Fatalf(string, ...any) }

// engineOnly leaves what an engine can show.
func engineOnly(w state.World) state.World {
	out := state.World{Apps: map[string]state.AppNow{}, Images: map[string]state.Image{}, APINetwork: w.APINetwork}
	for uuid, a := range w.Apps {
		b := state.AppNow{UUID: a.UUID, ID: a.ID, Networks: a.Networks, Volumes: a.Volumes}
		for _, c := range a.Containers {
			c.Halted, c.Spec = false, nil
			b.Containers = append(b.Containers, c)
		}
		if len(b.Containers)+len(b.Networks)+len(b.Volumes) > 0 {
			out.Apps[uuid] = b
		}
	}
	for id, img := range w.Images {
		img.Ours = false
		out.Images[id] = img
	}
	return out
}

// engine is the containerEngine of a modelled device.
func (m *modelled) Observe(context.Context) (state.World, error) { return engineOnly(m.world), nil }

func (m *modelled) Watch(context.Context) <-chan struct{} { return nil }

func (m *modelled) Differences(_ context.Context, container string, s reconcile.Create) ([]state.Change, error) {
	m.compare++
	if m.differ == nil {
		return nil, nil
	}
	return m.differ(container, s), nil
}

func (m *modelled) SupervisorKey(_ context.Context, container string) (string, error) {
	return m.keys[container], m.noKeys
}

func (m *modelled) Do(_ context.Context, s reconcile.Step, _ func(done, total int64)) error {
	if m.before != nil {
		if err := m.before(s); err != nil {
			return err
		}
	}
	w, err := m.device.Observe(context.Background())
	if err != nil {
		return err
	}
	next, err := sim.Apply(w, s)
	if err != nil {
		return err
	}
	if r, ok := s.(reconcile.RemoveVolume); ok {
		name := r.App.UUID + "/" + r.Name
		if slices.ContainsFunc(w.Apps[r.App.UUID].Volumes, func(v state.VolumeNow) bool { return v.Name == r.Name }) {
			m.purged[name]++
		}
	}
	m.world = engineOnly(m.unique(w, next))
	if m.after != nil {
		return m.after(s)
	}
	return nil
}

// unique gives a new container an ID that no other ever had, as engines do: the
// simulation counts in each app.
func (m *modelled) unique(before, after state.World) state.World {
	for uuid, a := range after.Apps {
		for i, c := range a.Containers {
			if !slices.ContainsFunc(before.Apps[uuid].Containers, func(o state.Container) bool { return o.ID == c.ID }) {
				m.made++
				a.Containers[i].ID = fmt.Sprintf("%s-%d", uuid, m.made)
			}
		}
	}
	return after
}

type simLocks struct{ m *modelled }

func (l simLocks) Observe(context.Context) ([]locks.UpdateLock, error) {
	var out []locks.UpdateLock
	for _, id := range slices.Sorted(maps.Keys(l.m.locked)) {
		for _, s := range slices.Sorted(maps.Keys(l.m.locked[id])) {
			for range lockFiles {
				out = append(out, locks.UpdateLock{AppID: id, Service: s, Ours: true})
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(l.m.users)) {
		out = append(out, l.m.users[id]...)
	}
	return out, nil
}

func (l simLocks) Take(_ context.Context, id int64, services []string, force bool) error {
	for _, u := range l.m.users[id] {
		if slices.Contains(services, u.Service) && !force {
			return state.Classify(state.ClassLocked, fmt.Errorf("held"))
		}
	}
	l.m.users[id] = slices.DeleteFunc(l.m.users[id], func(u locks.UpdateLock) bool { return slices.Contains(services, u.Service) })
	if l.m.locked[id] == nil {
		l.m.locked[id] = map[string]bool{}
	}
	for _, s := range services {
		l.m.locked[id][s] = true
	}
	return nil
}

func (l simLocks) Release(_ context.Context, id int64) error { delete(l.m.locked, id); return nil }

func (l simLocks) Clean(_ context.Context, known func(int64) bool) error {
	maps.DeleteFunc(l.m.locked, func(id int64, _ map[string]bool) bool { return !known(id) })
	return nil
}

func (l simLocks) Watch(context.Context) <-chan struct{} { return nil }

type simMachine struct{ m *modelled }

func (s simMachine) Boot() (int64, error)    { return s.m.boot, nil }
func (s simMachine) BootID() (string, error) { return strconv.Itoa(s.m.boots), nil }
func (s simMachine) Pending() (bool, error)  { return s.m.pending, nil }
func (s simMachine) Require() error          { s.m.pending = true; return nil }

func (s simMachine) Reboot(context.Context) error {
	w, err := s.m.device.Observe(context.Background())
	if err != nil {
		return err
	}
	if w, err = sim.Apply(w, reconcile.Reboot{}); err != nil {
		return err
	}
	s.m.world, s.m.boot, s.m.pending = engineOnly(w), w.Boot, false
	s.m.boots++
	clear(s.m.locked)
	clear(s.m.users)
	return os.RemoveAll(s.m.run)
}

// same compares two looks, less the order of files and empty apps. Files and
// locks of apps that are neither here nor wanted are cleared up by the device
// without a plan.
func same(a, b state.World, t state.Target) string {
	tidy := func(w state.World) state.World {
		apps := map[string]state.AppNow{}
		for uuid, x := range w.Apps {
			if _, wanted := t.Apps[uuid]; !wanted && len(x.Containers)+len(x.Networks)+len(x.Volumes) == 0 {
				x.Files, x.Locked = nil, nil
			}
			if len(x.Containers) == 0 {
				x.Handovers, x.Reboots = nil, nil // of nobody
			}
			x.Files = slices.Clone(x.Files)
			slices.SortFunc(x.Files, func(a, b state.FilesNow) int { return cmp2(a.Service+a.Hash, b.Service+b.Hash) })
			if y := x; !cmp.Equal(y, state.AppNow{UUID: x.UUID, ID: x.ID}, cmpopts.EquateEmpty()) {
				y.ID = 0 // the simulation forgets it with the app
				apps[uuid] = y
			}
		}
		w.Apps = apps
		return w
	}
	return cmp.Diff(tidy(a), tidy(b), cmpopts.EquateEmpty(), cmpopts.EquateApproxTime(0))
}

func cmp2(a, b string) int {
	if a < b {
		return -1
	}
	if a > b {
		return 1
	}
	return 0
}

// reach works towards a target until nothing is left to do or all of it waits.
func (m *modelled) reach(t fataler, want state.Target, each func(before, after state.World, s reconcile.Step)) {
	for range 400 {
		w := m.look(t)
		plan, err := reconcile.Make(w, want, reconcile.Facts{})
		if err != nil {
			t.Fatalf("plan: %v", err)
		}
		ready := plan.Ready()
		if len(ready) == 0 {
			return
		}
		s := ready[0].Step
		if err := m.device.Do(context.Background(), s, nil); err != nil {
			t.Fatalf("%s: %v", s.Title(), err)
		}
		if each != nil {
			each(w, m.look(t), s)
		}
	}
	t.Fatalf("no end is reached")
}

func (m *modelled) accept(t fataler, want state.Target) {
	if err := m.retryHandovers(""); err != nil {
		t.Fatalf("%v", err)
	}
	w := m.look(t)
	m.use(want)
	if err := errors.Join(m.learn(want, nil), m.tidy(want, w)); err != nil {
		t.Fatalf("learn: %v", err)
	}
}

// After each step the device, engine and store and host together, is what the
// model of the step says: the planner is tested against that model.
func TestTheDeviceDoesWhatTheModelSays(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		m := newModelled(t)
		defer func() { m.close(t) }()
		steps := 0
		check := func(before, after state.World, s reconcile.Step) {
			steps++
			want, err := sim.Apply(before, s)
			if err != nil {
				r.Fatalf("%s: the model refuses: %v", s.Title(), err)
			}
			if _, made := s.(reconcile.Create); made {
				m.made--
				want = m.unique(before, want)
			}
			if diff := same(want, after, m.target()); diff != "" {
				r.Fatalf("%s (-model +device):\n%s", s.Title(), diff)
			}
		}
		for round := range 3 {
			label := fmt.Sprint("round ", round)
			want := simtest.Target(r, label)
			m.accept(r, want)
			m.reach(r, want, check)
			if rapid.Bool().Draw(r, label+" restart") {
				m.close(t)
				m.open(t)
				m.use(want)
			}
			m.visit(r, label, want)
			m.reach(r, want, check)
		}
	})
}

// visit is a person who asks for something.
func (m *modelled) visit(r *rapid.T, label string, want state.Target) {
	for n := range rapid.IntRange(0, 2).Draw(r, label+" requests") {
		kind := rapid.SampledFrom([]state.IntentKind{state.Restart, state.Stop, state.Start, state.Purge}).Draw(r, fmt.Sprint(label, " asks ", n))
		uuid := rapid.SampledFrom([]string{"aaaa", "bbbb"}).Draw(r, fmt.Sprint(label, " app ", n))
		x, err := newWish(want, m.look(r), kind, Request{App: uuid})
		if err != nil {
			continue // there is no such app
		}
		x.at = m.Now()
		_, err = m.ask(x)
		if err != nil && state.ClassOf(err) != state.ClassInvalid {
			r.Fatalf("%v", err)
		}
	}
}
