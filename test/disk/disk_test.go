//go:build engine

// Package disk tests what becomes of a device whose disk is full, damaged or
// read-only: on a real file system of a few MiB, with the real store and the
// supervisor on an engine in memory. It needs root, for mounts.
package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func sh(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.CommandContext(context.Background(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// small is a file system of a few MiB that is mounted for a test.
type small struct {
	t          *testing.T
	image, dir string
}

func mount(t *testing.T) *small {
	t.Helper()
	d := &small{t: t, image: filepath.Join(t.TempDir(), "image"), dir: filepath.Join(t.TempDir(), "data")}
	must(t, os.Mkdir(d.dir, 0o700))
	must(t, os.WriteFile(d.image, nil, 0o600))
	must(t, os.Truncate(d.image, 4<<20))
	sh(t, "mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0", d.image)
	d.up()
	t.Cleanup(d.down)
	return d
}

func (d *small) up() {
	sh(d.t, "mount", "-t", "ext4", "-o", "loop,errors=remount-ro", d.image, d.dir)
}

func (d *small) down() { sh(d.t, "umount", d.dir) }

// fill leaves no block free, and no file that could shrink.
func (d *small) fill() {
	f, err := os.OpenFile(d.ballast(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	must(d.t, err)
	defer func() { must(d.t, f.Close()) }()
	for size := 64 << 10; size > 0; {
		if _, err = f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	if !errors.Is(err, syscall.ENOSPC) {
		d.t.Fatalf("the disk does not get full: %v", err)
	}
}

func (d *small) free() { must(d.t, os.Remove(d.ballast())) }

func (d *small) ballast() string { return filepath.Join(d.dir, "ballast") }

func (d *small) database() string { return filepath.Join(d.dir, "deckhand.db") }

// broken makes the kernel find the file system faulty, and mount it read-only.
func (d *small) broken() {
	d.t.Helper()
	var st syscall.Stat_t
	must(d.t, syscall.Stat(d.dir, &st))
	link, err := os.Readlink(fmt.Sprintf("/sys/dev/block/%d:%d", st.Dev>>8&0xfff, st.Dev&0xff))
	must(d.t, err)
	must(d.t, os.WriteFile(filepath.Join("/sys/fs/ext4", filepath.Base(link), "trigger_fs_error"), []byte("a test"), 0o200))
	if err := os.WriteFile(filepath.Join(d.dir, "probe"), nil, 0o600); !errors.Is(err, syscall.EROFS) {
		d.t.Fatalf("the file system is not read-only: %v", err)
	}
}

// repaired is the same disk after fsck and a reboot.
func (d *small) repaired() {
	d.down()
	_ = exec.CommandContext(context.Background(), "e2fsck", "-fy", d.image).Run() // it says 1 for "errors corrected"
	d.up()
}

// release is an app of three services; n is in each of them, and from 2 on in much
// text.
func release(n int) state.Target {
	a := state.App{
		UUID: "aaaa", ID: 1, Name: "shop", Commit: fmt.Sprintf("commit%d", n), ReleaseID: int64(n),
		Services: map[string]state.Service{}, Networks: map[string]state.Network{}, Volumes: map[string]state.Volume{},
	}
	v := state.VolumeSpec{Driver: "local"}
	a.Volumes["data"] = state.Volume{Name: "data", Spec: v, Hash: v.Hash()}
	for i, name := range []string{"db", "web", "job"} {
		s := state.Service{ID: int64(i + 1), ImageID: int64(i + 1), Name: name, Running: true, Image: fmt.Sprintf("reg.test/%s@sha256:%064d", name, n)}
		s.Spec.Restart.Name = "always"
		s.Spec.Environment = map[string]string{"TEXT": strings.Repeat(fmt.Sprint(n), 1+9000*(n-1))}
		if name == "db" {
			s.Spec.Mounts = []state.Mount{{Type: "volume", Source: "data", Target: "/data"}}
		}
		s.Hash = s.Spec.Hash()
		a.Services[name] = s
	}
	return state.Target{Name: "device", Apps: map[string]state.App{"aaaa": a}}
}

// host never reboots.
type host struct{}

func (host) Boot() (int64, error)         { return 1, nil }
func (host) BootID() (string, error)      { return "boot", nil }
func (host) Pending() (bool, error)       { return false, nil }
func (host) Require() error               { return nil }
func (host) Reboot(context.Context) error { return nil }

// device is the supervisor's core on the disk; its engine outlives it.
type device struct {
	t      *testing.T
	disk   *small
	fake   *enginetest.Fake
	write  func(func() error) error // see store.Options
	store  *store.Store
	engine *engine.Engine
	core   *supervisor.Core
	runner *run.Runner
	end    func()
}

func newDevice(t *testing.T) *device {
	d := &device{t: t, disk: mount(t), fake: enginetest.NewFake(enginetest.Config{})}
	t.Cleanup(d.fake.Close)
	d.start()
	t.Cleanup(func() { d.stop() })
	return d
}

func (d *device) start() {
	d.t.Helper()
	var err error
	d.store, err = store.Open(d.disk.database(), store.Options{Write: d.hook})
	must(d.t, err)
	runDir := filepath.Join(d.t.TempDir(), "run")
	must(d.t, os.MkdirAll(runDir, 0o755))
	d.engine, err = engine.New(engine.Config{Host: "tcp://fake:1", Transport: d.fake, RunDir: runDir, Log: zerolog.Nop()})
	must(d.t, err)
	d.core, err = supervisor.NewCore(supervisor.CoreConfig{Engine: d.engine, Store: d.store, RunDir: runDir, Host: host{}, Log: zerolog.Nop()})
	must(d.t, err)
	d.runner = run.New(run.Config{Device: d.core.Device(), Memory: d.core.Memory(), Log: zerolog.Nop()})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() { defer close(ended); _ = d.runner.Run(ctx) }()
	d.end = func() { cancel(); <-ended }
}

func (d *device) hook(write func() error) error {
	if d.write != nil {
		return d.write(write)
	}
	return write()
}

func (d *device) stop() {
	if d.end == nil {
		return
	}
	d.end()
	d.end = nil
	must(d.t, errors.Join(d.engine.Close(), d.store.Close()))
}

// accept asks for a release.
func (d *device) accept(n int) error {
	err := d.core.Accept(release(n), d.runner.Status().World)
	d.runner.SetTarget(release(n))
	return err
}

// until waits for a status.
func (d *device) until(what string, is func(run.Status) bool) {
	d.t.Helper()
	late := time.After(time.Minute)
	for {
		changed, s := d.runner.Changed(), d.runner.Status()
		if is(s) {
			return
		}
		select {
		case <-changed:
		case <-late:
			d.t.Fatalf("not %s within a minute: %v\n%s%v", what, s.Err, s.Plan, s.Plan.Waiting)
		}
	}
}

// reached waits until a release runs and nothing is left to do.
func (d *device) reached(n int) {
	d.t.Helper()
	commit := release(n).Apps["aaaa"].Commit
	d.until("at "+commit, func(s run.Status) bool {
		return s.HasGoal && s.Settled && s.Target.Apps["aaaa"].Commit == commit && s.World.Apps["aaaa"].Commit == commit
	})
}

// containers are the IDs of those that run, by service.
func (d *device) containers() map[string]string {
	d.t.Helper()
	w, err := d.core.Device().Observe(d.t.Context())
	must(d.t, err)
	out := map[string]string{}
	for _, c := range w.Apps["aaaa"].Containers {
		if c.Up() {
			out[c.Service] = c.ID
		}
	}
	return out
}

// spaceError checks an error of a full or read-only disk.
func spaceError(t *testing.T, what string, err error) {
	t.Helper()
	if state.ClassOf(err) != state.ClassSpace || state.ClassOf(err).Advice() == "" {
		t.Errorf("%s: class %s: %v", what, state.ClassOf(err), err)
	}
}

// Each way to write meets the full disk, keeps what was there and works again
// when there is room.
func TestEveryWriteOnAFullDisk(t *testing.T) {
	large := strings.Repeat("x", 400<<10)
	at := time.Unix(1, 0).UTC()
	for name, write := range map[string]func(*store.Store) error{
		"target": func(s *store.Store) error {
			return s.Accept(store.Target{Document: []byte(large), Source: "cloud"}, map[string]state.Spec{"v1:1": {Hostname: large}})
		},
		"commit": func(s *store.Store) error { return s.Commits.Put("app", store.Committed{Commit: large}) },
		"spec":   func(s *store.Store) error { return s.Specs.Put("v1:2", state.Spec{Hostname: large}) },
		"image": func(s *store.Store) error {
			return errors.Join(s.Images.Put(large[:30<<10]), s.Commits.Put("a", store.Committed{Commit: large}))
		},
		"hand-over": func(s *store.Store) error { return s.Handovers.Put("a/b", state.Handover{Image: large}) },
		"adopted":   func(s *store.Store) error { return s.Adopted.Put("c", large) },
		"reboot":    func(s *store.Store) error { return s.Reboots.Put("a/b", large) },
		"intent":    func(s *store.Store) error { return s.Intents.Change([]state.Intent{{ID: "i", By: large}}) },
		"permission": func(s *store.Store) error {
			return s.Overrides.Put(store.Override{Override: state.Override{By: large}})
		},
		"failure": func(s *store.Store) error { return s.Failures.PutAll(map[string]state.Failure{"k": {Text: large}}) },
		"history": func(s *store.Store) error { return s.History.Append([]store.Entry{{At: at, Text: large}}) },
		"report":  func(s *store.Store) error { return s.Reports.Put([]byte(`"` + large + `"`)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := mount(t)
			s, err := store.Open(d.database(), store.Options{})
			must(t, err)
			must(t, s.Targets.Put(store.Target{Document: []byte("good"), Source: "cloud"}))
			must(t, s.Failures.PutAll(map[string]state.Failure{"good": {Text: "good"}}))
			d.fill()
			for range 3 {
				spaceError(t, "write", write(s))
			}
			if last, ok, err := s.Targets.Last(); string(last.Document) != "good" || !ok || err != nil {
				t.Errorf("%q, %t, %v", last.Document, ok, err)
			}
			must(t, s.Close())
			s, err = store.Open(d.database(), store.Options{Report: func(err error) { t.Error(err) }})
			if err != nil {
				t.Fatalf("open on a full disk: %v", err)
			}
			if failures, err := s.Failures.All(); len(failures) != 1 || failures["good"].Text != "good" || err != nil {
				t.Errorf("%d failures, %v", len(failures), err)
			}
			spaceError(t, "write after a restart", write(s))
			d.free()
			must(t, write(s))
			must(t, s.Close())
		})
	}
}

// The first start on a full disk says what is wrong, leaves nothing damaged, and
// works when there is room.
func TestTheFirstStartOnAFullDisk(t *testing.T) {
	d := mount(t)
	d.fill()
	_, err := store.Open(d.database(), store.Options{})
	spaceError(t, "open", err)
	d.free()
	s, err := store.Open(d.database(), store.Options{})
	must(t, err)
	must(t, s.Commits.Put("a", store.Committed{Commit: "c"}))
	must(t, s.Close())
}

// The disk gets full before one of the writes of an update. The writes of steps
// are small and go into room that the file has; a new target does not. The update
// is done when there is room, whatever write that was.
func TestAnUpdateOnADiskThatGetsFull(t *testing.T) {
	met := 0
	for at := 1; ; at++ {
		d := newDevice(t)
		must(t, d.accept(1))
		d.reached(1)
		before := d.containers()
		trap := &trap{disk: d.disk, at: at}
		d.write = trap.write
		err := d.accept(2)
		if err != nil {
			spaceError(t, "accept", err)
		}
		d.until("reached or refused", func(s run.Status) bool {
			return s.Settled && s.World.Apps["aaaa"].Commit == "commit2" || slices.ContainsFunc(s.Plan.Waiting, waitsForSpace)
		})
		filled, refused := trap.over()
		if refused > 0 {
			met++
			if n := len(d.containers()); n == 0 {
				t.Errorf("write %d: nothing runs", at)
			}
		}
		if filled {
			d.disk.free()
		}
		must(t, d.accept(2))
		d.reached(2)
		now := d.containers()
		if len(now) != 3 || cmp.Equal(now, before) {
			t.Errorf("write %d: %v, before %v", at, now, before)
		}
		d.stop()
		d.start()
		d.core.Restore(release(2))
		d.runner.RestoreTarget(release(2))
		d.reached(2)
		if diff := cmp.Diff(now, d.containers()); diff != "" {
			t.Errorf("write %d: a restart changes (-before +after):\n%s", at, diff)
		}
		d.stop()
		if !filled { // an update has fewer writes
			break
		}
	}
	if met == 0 {
		t.Error("no write met the full disk")
	}
}

// trap fills the disk before one of the writes.
type trap struct {
	disk *small
	at   int

	mu      sync.Mutex
	count   int
	refused int
	filled  bool
	off     bool
}

func (x *trap) write(write func() error) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.count++; x.count == x.at && !x.off {
		x.disk.fill()
		x.filled = true
	}
	err := write()
	if err != nil && !x.off {
		x.refused++
		spaceError(x.disk.t, "write", err)
	}
	return err
}

// over ends it, and says whether the disk is full and how many writes met that.
func (x *trap) over() (filled bool, refused int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.off = true
	return x.filled, x.refused
}

func waitsForSpace(w reconcile.Waiting) bool { return w.Class == state.ClassSpace }

// Whatever the disk did to the file, the supervisor starts, and no container is
// made anew.
func TestADamagedFileCostsNoContainer(t *testing.T) {
	d := newDevice(t)
	must(t, d.accept(2))
	d.reached(2)
	before := d.containers()
	d.stop()
	good, err := os.ReadFile(d.disk.database())
	must(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	damages := map[string]func([]byte) []byte{
		"truncated to nothing": func([]byte) []byte { return nil },
		"truncated":            func(b []byte) []byte { return b[:len(b)/2] },
		"truncated by a byte":  func(b []byte) []byte { return b[:len(b)-1] },
		"all zero":             func(b []byte) []byte { return make([]byte, len(b)) },
	}
	for page := range len(good) / 4096 {
		damages[fmt.Sprintf("page %d is zero", page)] = func(b []byte) []byte {
			copy(b[page*4096:], make([]byte, 4096))
			return b
		}
	}
	for i := range 25 {
		damages[fmt.Sprintf("bit flips %d", i)] = func(b []byte) []byte {
			for range 1 + i/5 {
				b[r.IntN(len(b))] ^= 1 << r.IntN(8)
			}
			return b
		}
	}
	aside := 0
	for _, name := range slices.Sorted(maps.Keys(damages)) {
		must(t, os.WriteFile(d.disk.database(), damages[name](bytes.Clone(good)), 0o600))
		d.start()
		if kept := d.store.Recovered(); kept != "" {
			aside++
			must(t, os.Remove(kept)) // the disk is small
		}
		must(t, d.accept(2))
		d.reached(2)
		if diff := cmp.Diff(before, d.containers()); diff != "" {
			t.Errorf("%s (-before +after):\n%s", name, diff)
		}
		d.stop()
	}
	if aside < 4 {
		t.Errorf("%d of %d files were set aside", aside, len(damages))
	}
	t.Logf("%d of %d files were set aside", aside, len(damages))
}

// The kernel mounts a faulty file system read-only under a running supervisor.
func TestAReadOnlyDisk(t *testing.T) {
	d := newDevice(t)
	must(t, d.accept(1))
	d.reached(1)
	before := d.containers()
	d.disk.broken()

	err := d.accept(2)
	spaceError(t, "accept", err)
	if err == nil || !strings.Contains(err.Error(), "read-only") || !strings.Contains(err.Error(), "check the disk") {
		t.Errorf("%v", err)
	}
	d.until("refused", func(s run.Status) bool { return slices.ContainsFunc(s.Plan.Waiting, waitsForSpace) })
	if diff := cmp.Diff(before, d.containers()); diff != "" {
		t.Errorf("while it is read-only (-before +after):\n%s", diff)
	}
	d.stop()
	_, err = store.Open(d.disk.database(), store.Options{})
	if err == nil {
		// It is in order, so opening it writes nothing; but the file must be
		// opened for writing.
		t.Error("a read-only disk was opened for writing")
	}
	spaceError(t, "open", err)
	if aside, _ := filepath.Glob(d.disk.database() + ".damaged-*"); len(aside) != 0 {
		t.Errorf("a sound file was set aside: %v", aside)
	}

	d.disk.repaired()
	d.start()
	must(t, d.accept(1))
	d.reached(1)
	if diff := cmp.Diff(before, d.containers()); diff != "" {
		t.Errorf("after the repair (-before +after):\n%s", diff)
	}
}
