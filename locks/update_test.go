package locks

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"deckhand/state"
)

// The uid of our files in tests: that of the device if we may give files away.
func testUID() int {
	if os.Geteuid() == 0 {
		return LockUID
	}
	return os.Geteuid()
}

// place is a run-dir and what users do in it.
type place struct {
	run string
	tb  interface {
		Helper()
		Fatal(args ...any)
		Fatalf(format string, args ...any)
		Errorf(format string, args ...any)
	}
}

func newPlace(t testing.TB) place {
	return place{run: t.TempDir(), tb: t}
}

func (p place) open() *Folder {
	return Open(Config{RunDir: p.run, UID: testUID(), Log: zerolog.Nop()})
}

func (p place) path(app int64, service, name string) string {
	return filepath.Join(p.run, "services", strconv.FormatInt(app, 10), service, name)
}

func (p place) check(err error) {
	p.tb.Helper()
	if err != nil {
		p.tb.Fatal(err)
	}
}

// put makes something of a user's at a path. An ordinary user cannot make files
// of others, so there a dangling link stands in for a file.
func (p place) put(kind, path string) {
	p.tb.Helper()
	p.check(os.MkdirAll(filepath.Dir(path), 0o755))
	if kind == kindFile && os.Geteuid() != 0 {
		kind = kindLink
	}
	switch kind {
	case kindFile:
		f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		p.check(err)
		_, err = f.WriteString("a user's\n")
		p.check(errors.Join(err, f.Close()))
	case kindFolder:
		p.check(os.Mkdir(path, 0o755))
	case "full folder":
		p.check(os.MkdirAll(filepath.Join(path, "inner"), 0o755))
	case kindLink:
		p.check(os.Symlink("/nowhere/at/all", path))
	case "pipe":
		p.check(unix.Mkfifo(path, 0o644))
	default:
		p.tb.Fatalf("no kind %q", kind)
	}
	if kind != kindFile { // we make only files, so nothing else is ours
		p.check(os.Lchown(path, testUID(), -1))
	}
}

// leave makes a lock file as balena's supervisor leaves it.
func (p place) leave(path string) {
	p.tb.Helper()
	p.check(os.MkdirAll(filepath.Dir(path), 0o755))
	_ = os.Remove(path)
	p.check(os.WriteFile(path, []byte("0"), 0o444))
	p.check(os.Chown(path, testUID(), -1))
}

// tree says what is below the services folder: "1/web/updates.lock ours".
func (p place) tree() []string {
	p.tb.Helper()
	out := []string{}
	root := filepath.Join(p.run, "services")
	p.check(filepath.WalkDir(root, func(path string, e os.DirEntry, err error) error {
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if strings.Count(rel, "/") < 2 {
			return nil
		}
		var st unix.Stat_t
		if err := unix.Lstat(path, &st); err != nil {
			return err
		}
		s := see(&st)
		who := s.kind
		if s.kind == kindFile && s.uid == testUID() {
			who = "ours"
		}
		out = append(out, rel+" "+who)
		return nil
	}))
	return out
}

func (p place) want(lines ...string) {
	p.tb.Helper()
	if lines == nil {
		lines = []string{}
	}
	if diff := cmp.Diff(lines, p.tree()); diff != "" {
		p.tb.Errorf("files (-want +got):\n%s", diff)
	}
}

func userFile() string {
	if os.Geteuid() == 0 {
		return kindFile
	}
	return kindLink
}

func (p place) wantHeld(err error, service, name string) {
	p.tb.Helper()
	class, ok := errors.AsType[*state.Error](err)
	if !ok || class.Class != state.ClassLocked {
		p.tb.Fatalf("error %v, want class locked", err)
	}
	h, ok := errors.AsType[*HeldError](err)
	if !ok || h.Lock.Service != service || filepath.Base(h.Lock.Path) != name {
		p.tb.Errorf("error %v, want %s of %s to be held", err, name, service)
	}
}

// forget is what happens to a killed process: its files stay, its flocks go.
func (f *Folder) die() {
	for _, app := range f.held {
		for _, h := range app {
			_ = h.file.Close()
		}
	}
	f.held, f.own = nil, nil
}

func TestTakeMakesBothFilesOfEachService(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	must(t, f.Take(t.Context(), 7, []string{"web", "my-app.v2_1", "web"}, false))
	p.want("7/my-app.v2_1/resin-updates.lock ours", "7/my-app.v2_1/updates.lock ours",
		"7/web/resin-updates.lock ours", "7/web/updates.lock ours")

	info, err := os.Stat(filepath.Dir(p.path(7, "web", "x")))
	must(t, err)
	if got, want := info.Mode(), os.ModeDir|os.ModeSticky|0o777; got != want {
		t.Errorf("the folder has mode %v, want %v", got, want)
	}
	b, err := os.ReadFile(p.path(7, "web", "updates.lock"))
	must(t, err)
	if want := fmt.Sprintf("deckhand\npid %d\n", os.Getpid()); !strings.HasPrefix(string(b), want) {
		t.Errorf("the lock says %q", b)
	}
	// A user cannot take it now, the way that all of them do it.
	if _, err := os.OpenFile(p.path(7, "web", "updates.lock"), os.O_CREATE|os.O_EXCL, 0o600); !errors.Is(err, os.ErrExist) {
		t.Errorf("exclusive creation: %v", err)
	}
	all, err := f.Observe(t.Context())
	must(t, err)
	if len(all) != 4 {
		t.Fatalf("locks %+v", all)
	}
	for _, l := range all {
		if !l.Ours || !l.Flocked || l.AppID != 7 || l.Kind != kindFile || l.UID != testUID() || time.Since(l.Since) > time.Minute {
			t.Errorf("lock %+v", l)
		}
	}
	must(t, f.Take(t.Context(), 7, []string{"web"}, false)) // once more changes nothing
	must(t, f.Release(t.Context(), 7))
	p.want()
	must(t, f.Release(t.Context(), 7))
	must(t, f.Release(t.Context(), 8))
	if n := len(f.own); n != 0 {
		t.Errorf("%d files are still open", n)
	}
}

func TestNothingIsMadeBeforeItIsNeeded(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	all, err := f.Observe(t.Context())
	must(t, err)
	must(t, f.Release(t.Context(), 1))
	must(t, f.Clean(t.Context(), func(int64) bool { return false }))
	must(t, f.Take(t.Context(), 1, nil, false))
	if _, err := os.Stat(filepath.Join(p.run, "services")); !errors.Is(err, os.ErrNotExist) || len(all) != 0 {
		t.Errorf("locks %v, stat %v", all, err)
	}
}

// L1, L5–L8, L17, L18, L23: whatever is there locks, and nothing of ours stays.
func TestALockOfAUserKeepsUsOut(t *testing.T) {
	for _, kind := range []string{kindFile, kindFolder, "full folder", kindLink, "pipe"} {
		for _, name := range lockNames() {
			t.Run(kind+" "+name, func(t *testing.T) {
				p := newPlace(t)
				p.put(kind, p.path(1, "two", name))
				before := p.tree()
				f := p.open()
				err := f.Take(t.Context(), 1, []string{"one", "three", "two"}, false)
				p.wantHeld(err, "two", name)
				p.want(before...)
				uid := testUID()
				if kind == kindFile {
					uid = os.Geteuid()
				}
				for _, want := range []string{"app 1", "service two", name, fmt.Sprintf("owner uid %d", uid)} {
					if !strings.Contains(err.Error(), want) {
						t.Errorf("the error %q does not say %q", err, want)
					}
				}
				must(t, f.Release(t.Context(), 1))
				p.want(before...)
				must(t, f.Take(t.Context(), 2, []string{"two"}, false)) // another app
			})
		}
	}
}

// L16: what an earlier run of ours or of balena's supervisor left counts as taken.
func TestLeftoversAreAdopted(t *testing.T) {
	p := newPlace(t)
	p.leave(p.path(1, "two", "resin-updates.lock"))
	f := p.open()
	all, err := f.Observe(t.Context())
	must(t, err)
	if len(all) != 1 || !all[0].Ours || all[0].Flocked {
		t.Errorf("a leftover is seen as %+v", all)
	}
	must(t, f.Take(t.Context(), 1, []string{"one", "two"}, false))
	p.want("1/one/resin-updates.lock ours", "1/one/updates.lock ours",
		"1/two/resin-updates.lock ours", "1/two/updates.lock ours")
	b, err := os.ReadFile(p.path(1, "two", "resin-updates.lock"))
	must(t, err)
	if string(b) != "0" {
		t.Errorf("the adopted file was made anew: %q", b)
	}
	must(t, f.Release(t.Context(), 1))
	p.want()
}

// L17, L18: after a failure leftovers are gone too, in services not asked for as well.
func TestAFailureRemovesLeftovers(t *testing.T) {
	p := newPlace(t)
	p.leave(p.path(1, "two", "updates.lock"))
	p.leave(p.path(1, "four", "resin-updates.lock"))
	p.leave(p.path(2, "two", "updates.lock"))
	p.put(kindFile, p.path(1, "two", "resin-updates.lock"))
	f := p.open()
	p.wantHeld(f.Take(t.Context(), 1, []string{"one", "two"}, false), "two", "resin-updates.lock")
	p.want("1/two/resin-updates.lock "+userFile(), "2/two/updates.lock ours")
}

// What we hold already stays when more cannot be had: steps may rely on it.
func TestAFailureKeepsWhatWasTakenBefore(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	must(t, f.Take(t.Context(), 1, []string{"one"}, false))
	p.put(kindFile, p.path(1, "two", "updates.lock"))
	p.wantHeld(f.Take(t.Context(), 1, []string{"a", "one", "two"}, false), "two", "updates.lock")
	p.want("1/one/resin-updates.lock ours", "1/one/updates.lock ours", "1/two/updates.lock "+userFile())
	must(t, f.Release(t.Context(), 1))
	p.want("1/two/updates.lock " + userFile())
}

// L22
func TestReleaseRemovesOnlyOurs(t *testing.T) {
	p := newPlace(t)
	p.leave(p.path(1, "one", "updates.lock"))
	p.put(kindFile, p.path(1, "one", "resin-updates.lock"))
	p.put(kindFolder, p.path(1, "two", "updates.lock"))
	p.put(kindFile, p.path(1, "two", "handover-complete"))
	p.leave(p.path(2, "one", "updates.lock"))
	must(t, p.open().Release(t.Context(), 1))
	p.want("1/one/resin-updates.lock "+userFile(), "1/two/handover-complete "+userFile(),
		"1/two/updates.lock folder", "2/one/updates.lock ours")
}

func TestCleanReleasesUnknownApps(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	must(t, f.Take(t.Context(), 1, []string{"one"}, false))
	p.leave(p.path(2, "one", "updates.lock"))
	p.put(kindFile, p.path(2, "one", "resin-updates.lock"))
	p.leave(p.path(3, "one", "updates.lock"))
	p.leave(filepath.Join(p.run, "services", "03", "one", "updates.lock")) // no app's
	must(t, f.Clean(t.Context(), func(id int64) bool { return id == 1 }))
	p.want("03/one/updates.lock ours", "1/one/resin-updates.lock ours", "1/one/updates.lock ours",
		"2/one/resin-updates.lock "+userFile())
}

// L2, L3, L23
func TestForceTakesWhateverIsThere(t *testing.T) {
	for _, kind := range []string{kindFile, kindFolder, "full folder", kindLink, "pipe"} {
		t.Run(kind, func(t *testing.T) {
			p := newPlace(t)
			for _, name := range lockNames() {
				p.put(kind, p.path(1, "two", name))
			}
			f := p.open()
			must(t, f.Take(t.Context(), 1, []string{"one", "two"}, true))
			all, err := f.Observe(t.Context())
			must(t, err)
			if i := slices.IndexFunc(all, func(l UpdateLock) bool { return !l.Ours }); len(all) != 4 || i >= 0 {
				t.Errorf("not all ours: %+v", all)
			}
			must(t, f.Release(t.Context(), 1))
			if kind != "full folder" {
				p.want()
				return
			}
			// What is in a folder is data of a user; it stays under another name.
			kept, err := filepath.Glob(p.path(1, "two", "*updates.lock.broken-*/inner"))
			must(t, err)
			all, err = f.Observe(t.Context())
			must(t, err)
			if len(kept) != 2 || len(all) != 0 {
				t.Errorf("kept %v of %v; locks %+v", kept, p.tree(), all)
			}
		})
	}
}

// countdown is a context that ends at its n-th question.
type countdown struct {
	context.Context //nolint:containedctx // it is one itself
	left            int
}

func (c *countdown) Err() error {
	if c.left--; c.left < 0 {
		return context.Canceled
	}
	return nil
}

func TestInterruptedTakeLeavesEverythingAsItWas(t *testing.T) {
	services := []string{"one", "two", "three"}
	for n := 0; ; n++ {
		for _, force := range []bool{false, true} {
			p := newPlace(t)
			if force {
				p.put(kindFile, p.path(1, "one", "updates.lock"))
				p.put("full folder", p.path(1, "two", "resin-updates.lock"))
			}
			before := p.tree()
			f := p.open()
			err := f.Take(&countdown{Context: t.Context(), left: n}, 1, services, force)
			if err == nil {
				if n < 8 {
					t.Errorf("only %d chances to interrupt 6 files", n)
				}
				return
			}
			if e, ok := errors.AsType[*state.Error](err); !ok || e.Class != state.ClassCancelled || !errors.Is(err, context.Canceled) {
				t.Fatalf("error %v", err)
			}
			p.want(before...)
			if len(f.own) != 0 {
				t.Errorf("%d files are still open", len(f.own))
			}
		}
	}
}

// L15
func TestOperationsOnOneAppWaitForEachOther(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	end, err := f.turn(t.Context(), "take", 1)
	must(t, err)
	must(t, f.Take(t.Context(), 2, []string{"web"}, false)) // another app does not wait
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err = f.Take(ctx, 1, []string{"web"}, false)
	e, ok := errors.AsType[*state.Error](err)
	if !ok || e.Class != state.ClassLocked || !strings.Contains(err.Error(), "app 1: another operation of the supervisor") {
		t.Errorf("error %v", err)
	}
	done := make(chan error)
	go func() { done <- f.Take(t.Context(), 1, []string{"web"}, false) }()
	end()
	must(t, <-done)
}

// 37, 38: the owner alone does not make a file ours while a process sits on it.
func TestAFlockOfAnotherProcessHolds(t *testing.T) {
	p := newPlace(t)
	path := p.path(1, "web", "updates.lock")
	p.leave(path)
	host, err := os.Open(path)
	must(t, err)
	defer func() { _ = host.Close() }()
	must(t, unix.Flock(int(host.Fd()), unix.LOCK_EX))

	f := p.open()
	all, err := f.Observe(t.Context())
	must(t, err)
	if len(all) != 1 || all[0].Ours || !all[0].Flocked {
		t.Fatalf("locks %+v", all)
	}
	if got, want := all[0].Holder(), fmt.Sprintf("updates.lock, owner uid %d, flock held by a process", testUID()); got != want {
		t.Errorf("holder %q, want %q", got, want)
	}
	err = f.Take(t.Context(), 1, []string{"web"}, false)
	p.wantHeld(err, "web", "updates.lock")
	if !strings.Contains(err.Error(), "flock held by a process") {
		t.Errorf("error %v", err)
	}
	must(t, f.Release(t.Context(), 1))
	p.want("1/web/updates.lock ours")

	must(t, unix.Flock(int(host.Fd()), unix.LOCK_UN))
	must(t, f.Take(t.Context(), 1, []string{"web"}, false))
	// Now the host's tools see that we are at work.
	if err := unix.Flock(int(host.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EWOULDBLOCK) {
		t.Errorf("flock on a lock of ours: %v", err)
	}
	must(t, f.Release(t.Context(), 1))
	must(t, unix.Flock(int(host.Fd()), unix.LOCK_EX|unix.LOCK_NB))
}

func TestForceBreaksAFlock(t *testing.T) {
	p := newPlace(t)
	path := p.path(1, "web", "updates.lock")
	p.leave(path)
	host, err := os.Open(path)
	must(t, err)
	defer func() { _ = host.Close() }()
	must(t, unix.Flock(int(host.Fd()), unix.LOCK_EX))
	f := p.open()
	must(t, f.Take(t.Context(), 1, []string{"web"}, true))
	must(t, f.Release(t.Context(), 1))
	p.want()
}

func TestHolder(t *testing.T) {
	for _, c := range []struct {
		lock UpdateLock
		want string
	}{
		{UpdateLock{Path: "/a/updates.lock", Kind: kindFile}, "updates.lock, owner uid 0"},
		{UpdateLock{Path: "/a/resin-updates.lock", Kind: kindFolder, UID: 1000}, "resin-updates.lock (folder), owner uid 1000"},
		{UpdateLock{Path: "/a/updates.lock", Kind: kindFile, UID: 33, Flocked: true}, "updates.lock, owner uid 33, flock held by a process"},
		{UpdateLock{Path: "/a/updates.lock", Kind: kindFile, UID: 65534, Flocked: true, Ours: true}, "updates.lock, owner uid 65534"},
	} {
		if got := c.lock.Holder(); got != c.want {
			t.Errorf("holder %q, want %q", got, c.want)
		}
	}
}

func TestObserveIsSortedAndKnowsUnknownApps(t *testing.T) {
	p := newPlace(t)
	for _, x := range []struct {
		app           int64
		service, name string
	}{{10, "b", "updates.lock"}, {9, "z", "updates.lock"}, {10, "a", "updates.lock"}, {10, "b", "resin-updates.lock"}} {
		p.put(kindFile, p.path(x.app, x.service, x.name))
	}
	p.put(kindFile, p.path(9, "a", "other.lock"))
	p.put(kindFolder, p.path(9, ".deckhand-00.tmp", "x"))
	p.check(os.WriteFile(filepath.Join(p.run, "services", "11"), nil, 0o600))
	p.check(os.WriteFile(filepath.Join(p.run, "services", "9", "file"), nil, 0o600))
	all, err := p.open().Observe(t.Context())
	must(t, err)
	got := []string{}
	for _, l := range all {
		got = append(got, strings.TrimPrefix(l.Path, p.run+"/services/"))
	}
	want := []string{"9/z/updates.lock", "10/a/updates.lock", "10/b/resin-updates.lock", "10/b/updates.lock"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("locks (-want +got):\n%s", diff)
	}
}

// A container is root in its folder and may put anything there.
func TestLinksLeadUsNowhere(t *testing.T) {
	outside := func(t *testing.T, p place) string {
		victim := filepath.Join(t.TempDir(), "victim")
		must(t, os.Mkdir(victim, 0o755))
		p.leave(filepath.Join(victim, "updates.lock")) // has our uid
		return victim
	}
	untouched := func(t *testing.T, victim string) {
		t.Helper()
		entries, err := os.ReadDir(victim)
		must(t, err)
		info, err := os.Stat(victim)
		must(t, err)
		if len(entries) != 1 || info.Mode().Perm() != 0o755 {
			t.Errorf("outside: %v, mode %v", entries, info.Mode())
		}
	}
	t.Run("lock", func(t *testing.T) {
		p := newPlace(t)
		victim := outside(t, p)
		must(t, os.MkdirAll(p.path(1, "web", ""), 0o755))
		must(t, os.Symlink(filepath.Join(victim, "updates.lock"), p.path(1, "web", "updates.lock")))
		f := p.open()
		p.wantHeld(f.Take(t.Context(), 1, []string{"web"}, false), "web", "updates.lock")
		must(t, f.Release(t.Context(), 1))
		p.want("1/web/updates.lock symlink")
		must(t, f.Take(t.Context(), 1, []string{"web"}, true))
		must(t, f.Release(t.Context(), 1))
		p.want()
		untouched(t, victim)
	})
	t.Run("service folder", func(t *testing.T) {
		p := newPlace(t)
		victim := outside(t, p)
		must(t, os.MkdirAll(filepath.Dir(p.path(1, "web", "")), 0o755))
		must(t, os.Symlink(victim, p.path(1, "web", "")))
		f := p.open()
		for _, force := range []bool{false, true} {
			err := f.Take(t.Context(), 1, []string{"a", "web"}, force)
			if err == nil || !strings.Contains(err.Error(), "web is no folder; remove it") {
				t.Errorf("error %v", err)
			}
		}
		must(t, f.Release(t.Context(), 1))
		all, err := f.Observe(t.Context())
		must(t, err)
		if len(all) != 0 {
			t.Errorf("locks %v", all)
		}
		untouched(t, victim)
	})
	t.Run("app folder", func(t *testing.T) {
		p := newPlace(t)
		victim := outside(t, p)
		must(t, os.MkdirAll(filepath.Join(p.run, "services"), 0o755))
		must(t, os.Mkdir(filepath.Join(victim, "..", "app"), 0o755))
		must(t, os.Rename(victim, filepath.Join(victim, "..", "app", "web")))
		must(t, os.Symlink(filepath.Join(victim, "..", "app"), filepath.Dir(p.path(1, "web", ""))))
		f := p.open()
		if err := f.Take(t.Context(), 1, []string{"web"}, true); err == nil {
			t.Error("taken")
		}
		must(t, f.Release(t.Context(), 1))
		untouched(t, filepath.Join(victim, "..", "app", "web"))
	})
	t.Run("temporary file", func(t *testing.T) {
		p := newPlace(t)
		victim := outside(t, p)
		must(t, os.MkdirAll(p.path(1, "web", ""), 0o755))
		must(t, os.Symlink(filepath.Join(victim, "updates.lock"), p.path(1, "web", ".deckhand-00.tmp")))
		must(t, os.Symlink(victim, p.path(1, "web", ".deckhand-01.tmp")))
		f := p.open()
		must(t, f.Take(t.Context(), 1, []string{"web"}, false))
		must(t, f.Release(t.Context(), 1))
		untouched(t, victim)
	})
}

// A container that changes everything in its folder all the time gets us to wait
// or to take our locks again, and to nothing else.
func TestAHostileContainer(t *testing.T) {
	p := newPlace(t)
	folder := p.path(1, "web", "")
	victim := filepath.Join(t.TempDir(), "updates.lock")
	p.leave(victim)
	must(t, os.MkdirAll(folder, 0o755))
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			default:
				meddle(n, folder, victim)
			}
		}
	}()
	f := p.open()
	files := openFiles(t)
	taken := 0
	for n := range 400 {
		if f.Take(t.Context(), 1, []string{"web"}, n%2 == 0) == nil {
			taken++
		}
		_, err := f.Observe(t.Context())
		must(t, err)
		_ = f.Release(t.Context(), 1)
	}
	close(stop)
	<-stopped
	t.Logf("taken %d times", taken)
	b, err := os.ReadFile(victim)
	must(t, err)
	info, err := os.Stat(victim)
	must(t, err)
	if string(b) != "0" || info.Mode().Perm() != 0o444 {
		t.Errorf("outside: %q, mode %v", b, info.Mode())
	}
	must(t, os.RemoveAll(folder))
	must(t, f.Take(t.Context(), 1, []string{"web"}, false))
	must(t, f.Release(t.Context(), 1))
	if now := openFiles(t); len(f.own) != 0 || now > files {
		t.Errorf("%d files are still open, %d more than before", len(f.own), now-files)
	}
}

// meddle does the n-th bad thing to every file in the folder.
func meddle(n int, folder, victim string) {
	lock := filepath.Join(folder, lockNames()[n%2])
	paths := []string{lock}
	entries, _ := os.ReadDir(folder)
	for _, e := range entries {
		paths = append(paths, filepath.Join(folder, e.Name()))
	}
	for _, path := range paths {
		switch n % 6 {
		case 0:
			_ = os.RemoveAll(path)
			_ = os.Symlink(victim, path)
		case 1, 5:
			_ = os.RemoveAll(path)
		case 2:
			_ = os.Rename(path, lock)
		case 3:
			_ = os.RemoveAll(path)
			_ = unix.Mkfifo(path, 0o644)
		case 4:
			_ = os.Mkdir(path, 0o755)
			_ = os.Link(victim, path)
		}
	}
}

// openFiles counts what this process has open.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(entries)
}

func TestNamesThatAreNoFolders(t *testing.T) {
	p := newPlace(t)
	for _, s := range []string{"", ".", "..", "a/b", "../../etc", "a\x00b"} {
		err := p.open().Take(t.Context(), 1, []string{"ok", s}, true)
		if e, ok := errors.AsType[*state.Error](err); !ok || e.Class != state.ClassInvalid {
			t.Errorf("service %q: %v", s, err)
		}
	}
	p.want()
	if err := p.open().Take(t.Context(), 1, []string{strings.Repeat("x", 300)}, false); err == nil {
		t.Error("a name of 300 bytes was taken")
	}
}

func TestTemporaryFilesOfAKilledRunAreRemoved(t *testing.T) {
	p := newPlace(t)
	p.leave(p.path(1, "web", ".deckhand-0123.tmp"))
	p.leave(p.path(1, "db", ".deckhand-0123.tmp"))
	// Killed between the two names of one file.
	p.leave(p.path(1, "web", "updates.lock"))
	must(t, os.Link(p.path(1, "web", "updates.lock"), p.path(1, "web", ".deckhand-4567.tmp")))
	f := p.open()
	all, err := f.Observe(t.Context())
	must(t, err)
	if len(all) != 1 {
		t.Errorf("locks %+v", all)
	}
	must(t, f.Take(t.Context(), 1, []string{"web"}, false))
	p.want("1/db/.deckhand-0123.tmp ours", "1/web/resin-updates.lock ours", "1/web/updates.lock ours")
	must(t, f.Release(t.Context(), 1))
	p.want()
}

func TestWithoutRootTheErrorSaysWhatToDo(t *testing.T) {
	if os.Geteuid() == 0 { // root may give files away: ask somebody who may not
		dir, err := os.MkdirTemp("", "locks-")
		must(t, err)
		t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
		const nobody = 65533 // not the owner of our locks
		must(t, os.Chown(dir, nobody, nobody))
		// The magic link, because others may not look into the folder of the binary.
		again := exec.Command("/proc/self/exe", "-test.run=^TestWithoutRootTheErrorSaysWhatToDo$", "-test.v")
		again.Dir, again.Env = "/", append(os.Environ(), "TMPDIR="+dir)
		again.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := again.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestWithoutRoot") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	p := newPlace(t)
	f := Open(Config{RunDir: p.run, Log: zerolog.Nop()})
	err := f.Take(t.Context(), 1, []string{"web"}, false)
	if err == nil || !strings.Contains(err.Error(), "to uid 65534") || !strings.Contains(err.Error(), "run deckhand as root") {
		t.Errorf("error %v", err)
	}
	p.want()
}

// Our own lock, removed by hand, is made again.
func TestALockThatWasRemovedIsTakenAgain(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	must(t, f.Take(t.Context(), 1, []string{"web"}, false))
	must(t, os.Remove(p.path(1, "web", "updates.lock")))
	must(t, f.Take(t.Context(), 1, []string{"web"}, false))
	p.want("1/web/resin-updates.lock ours", "1/web/updates.lock ours")
	must(t, os.Remove(p.path(1, "web", "updates.lock")))
	p.put(kindFile, p.path(1, "web", "updates.lock"))
	p.wantHeld(f.Take(t.Context(), 1, []string{"web"}, false), "web", "updates.lock")
	must(t, f.Release(t.Context(), 1))
	p.want("1/web/updates.lock " + userFile())
	if len(f.own) != 0 {
		t.Errorf("%d files are still open", len(f.own))
	}
}

func TestConcurrentUse(t *testing.T) {
	p := newPlace(t)
	f := p.open()
	use := func(n int) error {
		if err := f.Take(t.Context(), 1, []string{"one", "two"}, false); err != nil {
			return err
		}
		all, err := f.Observe(t.Context())
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(all, func(l UpdateLock) bool { return !l.Ours }); i >= 0 {
			return fmt.Errorf("seen as somebody else's: %+v", all[i])
		}
		if n%3 == 0 {
			return f.Release(t.Context(), 1)
		}
		return nil
	}
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			if err := use(n); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	must(t, f.Release(t.Context(), 1))
	p.want()
	if len(f.own) != 0 {
		t.Errorf("%d files are still open", len(f.own))
	}
}

// TestMain lets this program be another process with locks.
func TestMain(m *testing.M) {
	if run := os.Getenv("LOCKS_TEST_RUN"); run != "" {
		os.Exit(child(run, os.Getenv("LOCKS_TEST_DO")))
	}
	goleak.VerifyTestMain(m)
}

func child(run, do string) int {
	p := place{run: run}
	f, ctx := p.open(), context.Background()
	if path, ok := strings.CutPrefix(do, "flock "); ok {
		return sitOn(path)
	}
	if do == "hold" {
		fmt.Println(f.Take(ctx, 1, []string{"one", "two"}, false))
		_, _ = io.ReadAll(os.Stdin) // until killed
		return 0
	}
	// A counter that only the holder changes tells of two holders at once.
	for i := range 300 {
		if f.Take(ctx, 1, []string{"one", "two", "three"}, false) != nil {
			continue
		}
		if do == "count" {
			if err := addOne(filepath.Join(run, "counter")); err != nil {
				fmt.Println(err)
				return 1
			}
		}
		if i == 0 {
			fmt.Println("first")
		}
		if err := f.Release(ctx, 1); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	return 0
}

// sitOn has a flock on a file until a line comes, and then lives on without.
func sitOn(path string) int {
	file, err := os.Open(path)
	if err == nil {
		err = unix.Flock(int(file.Fd()), unix.LOCK_EX)
	}
	fmt.Println(err)
	in := bufio.NewReader(os.Stdin)
	_, _ = in.ReadString('\n')
	_ = file.Close()
	_, _ = in.ReadString('\n') // until killed
	return 0
}

// addOne fails if somebody else is at it.
func addOne(path string) error {
	guard, err := os.OpenFile(path+".guard", os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("two holders: %w", err)
	}
	b, _ := os.ReadFile(path)
	n, _ := strconv.Atoi(string(b))
	err = os.WriteFile(path, []byte(strconv.Itoa(n+1)), 0o600)
	return errors.Join(err, guard.Close(), os.Remove(path+".guard"))
}

func (p place) start(t *testing.T, do string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd, _, out := p.startWith(t, do)
	return cmd, out
}

func (p place) startWith(t *testing.T, do string) (*exec.Cmd, io.Writer, *bufio.Reader) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), "LOCKS_TEST_RUN="+p.run, "LOCKS_TEST_DO="+do)
	in, err := cmd.StdinPipe()
	must(t, err)
	t.Cleanup(func() { _ = in.Close() })
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	return cmd, in, bufio.NewReader(out)
}

func TestTwoProcessesNeverHoldAtOnce(t *testing.T) {
	p := newPlace(t)
	other, out := p.start(t, "count")
	f := p.open()
	mine := 0
	for range 300 {
		if err := f.Take(t.Context(), 1, []string{"one", "two", "three"}, false); err != nil {
			if e, ok := errors.AsType[*state.Error](err); !ok || e.Class != state.ClassLocked {
				t.Error(err)
			}
			continue
		}
		mine++
		if err := addOne(filepath.Join(p.run, "counter")); err != nil {
			t.Error(err)
		}
		must(t, f.Release(t.Context(), 1))
	}
	said, _ := io.ReadAll(out)
	if err := other.Wait(); err != nil {
		t.Errorf("the other process: %v: %s", err, said)
	}
	p.want()
	b, err := os.ReadFile(filepath.Join(p.run, "counter"))
	must(t, err)
	if n, _ := strconv.Atoi(string(b)); n < mine {
		t.Errorf("counted %d, %d of them here", n, mine)
	}
}

func TestKilledWhileHolding(t *testing.T) {
	p := newPlace(t)
	other, out := p.start(t, "hold")
	line, err := out.ReadString('\n')
	must(t, err)
	if line != "<nil>\n" {
		t.Fatalf("the other process: %s", line)
	}
	f := p.open()
	err = f.Take(t.Context(), 1, []string{"two"}, false)
	p.wantHeld(err, "two", "updates.lock")
	must(t, f.Release(t.Context(), 1)) // not ours to remove
	must(t, other.Process.Kill())
	_ = other.Wait()
	all, err := f.Observe(t.Context())
	must(t, err)
	if len(all) != 4 {
		t.Errorf("left %+v", all)
	}
	for _, l := range all {
		if !l.Ours || l.Flocked {
			t.Errorf("a leftover is seen as %+v", l)
		}
	}
	must(t, f.Take(t.Context(), 1, []string{"one", "two"}, false))
	must(t, f.Release(t.Context(), 1))
	p.want()
}

// Killed anywhere in the middle, again and again, in one and the same folder.
func TestKilledWhileTaking(t *testing.T) {
	p := newPlace(t)
	for range 10 {
		other, out := p.start(t, "loop")
		_, _ = out.ReadString('\n')
		must(t, other.Process.Kill())
		_ = other.Wait()
		f := p.open()
		must(t, f.Take(t.Context(), 1, []string{"one", "three", "two"}, false))
		if n := len(p.tree()); n != 6 {
			t.Errorf("files after a kill: %v", p.tree())
		}
		if other.ProcessState.Exited() {
			t.Log("ended before it was killed")
		}
		f.die() // and leave ours to the next one
	}
	must(t, p.open().Release(t.Context(), 1))
	p.want()
}

// Where the kernel has nothing to give, Watch looks often.
func TestWatchWithoutTheKernel(t *testing.T) {
	p := newPlace(t)
	synctest.Test(t, func(t *testing.T) {
		f := p.open()
		full := []error{unix.EMFILE, unix.ENOSPC}
		f.newBell = func() (*bell, error) {
			full = append(full[1:], full[0])
			return nil, full[1]
		}
		ctx, cancel := context.WithCancel(t.Context())
		hints := f.Watch(ctx)
		look := func() {
			t.Helper()
			_, err := f.Observe(ctx)
			must(t, err)
			synctest.Wait()
		}
		hintWithin := func(d time.Duration) {
			t.Helper()
			start := time.Now()
			select {
			case <-hints:
			case <-time.After(d + time.Millisecond):
				t.Errorf("no hint within %v", time.Since(start))
			}
		}
		noHint := func() {
			t.Helper()
			select {
			case <-hints:
				t.Error("a hint without a reason")
			case <-time.After(time.Minute):
			}
		}
		look()
		noHint()
		must(t, f.Take(ctx, 1, []string{"web"}, false))
		noHint() // ours are no news
		must(t, f.Release(ctx, 1))
		p.put(kindFile, p.path(1, "web", "updates.lock"))
		hintWithin(watchFree)
		look()
		noHint()
		must(t, os.Remove(p.path(1, "web", "updates.lock")))
		hintWithin(watchHeld)
		look()
		// It comes right before a look and goes after it: only the look knew.
		p.put(kindFolder, p.path(1, "web", "updates.lock"))
		look()
		must(t, os.Remove(p.path(1, "web", "updates.lock")))
		hintWithin(watchHeld)
		// And back before anybody looked.
		p.put(kindFolder, p.path(1, "web", "updates.lock"))
		hintWithin(watchFree)
		look()
		noHint()
		cancel()
		if _, open := <-hints; open {
			t.Error("a hint after the end")
		}
	})
}

// Any sequence of what users and we do, against a small model.
func TestAnySequence(t *testing.T) {
	base := t.TempDir()
	runs := 0
	rapid.Check(t, func(r *rapid.T) {
		runs++
		m := newModel(r, filepath.Join(base, strconv.Itoa(runs)))
		r.Repeat(map[string]func(*rapid.T){
			"user locks":   m.userLocks,
			"user unlocks": m.userUnlocks,
			"take":         m.take,
			"release":      m.release,
			"crash":        m.crash,
			"":             m.compare,
		})
	})
}

type model struct {
	place
	f     *Folder
	files map[string]string // "web/updates.lock" → kind of a user's; "ours": we hold it; "left": an earlier run of ours made it
}

func newModel(r *rapid.T, run string) *model {
	m := &model{place: place{run: run, tb: r}, files: map[string]string{}}
	m.f = m.open()
	return m
}

func services() []string { return []string{"a-1", "b.2", "c_3"} }

func anyFile(r *rapid.T) string {
	return rapid.SampledFrom(services()).Draw(r, "service") + "/" + rapid.SampledFrom([]string{"updates.lock", "resin-updates.lock"}).Draw(r, "name")
}

func (m *model) full(file string) string { return filepath.Join(m.run, "services", "1", file) }

func (m *model) userLocks(r *rapid.T) {
	file := anyFile(r)
	if m.files[file] != "" {
		return // exclusive creation fails
	}
	kind := rapid.SampledFrom([]string{userFile(), kindFolder, kindLink, "pipe"}).Draw(r, "kind")
	m.put(kind, m.full(file))
	m.files[file] = kind
}

func (m *model) userUnlocks(r *rapid.T) {
	file := anyFile(r)
	switch m.files[file] {
	case "", "ours", "left":
		return
	}
	m.check(os.Remove(m.full(file)))
	delete(m.files, file)
}

func (m *model) take(r *rapid.T) {
	chosen := rapid.SliceOfNDistinct(rapid.SampledFrom(services()), 1, 3, rapid.ID).Draw(r, "services")
	force := rapid.Bool().Draw(r, "force")
	interrupt := rapid.IntRange(0, 15).Draw(r, "interrupt after") // above 7: too late for all
	ctx := &countdown{Context: r.Context(), left: interrupt}
	var blocked bool
	for _, s := range chosen {
		for _, name := range lockNames() {
			k := m.files[s+"/"+name]
			blocked = blocked || k != "" && k != "ours" && k != "left"
		}
	}
	err := m.f.Take(ctx, 1, chosen, force)
	if err == nil {
		if blocked && !force {
			r.Fatalf("took a lock of a user")
		}
		for _, s := range chosen {
			for _, name := range lockNames() {
				m.files[s+"/"+name] = "ours"
			}
		}
		return
	}
	if _, held := errors.AsType[*HeldError](err); held != (blocked && !force) && !errors.Is(err, context.Canceled) {
		r.Fatalf("error %v", err)
	}
	if interrupt == 0 {
		return // it never had its turn
	}
	for file, kind := range m.files {
		if kind == "left" {
			delete(m.files, file)
		}
	}
}

func (m *model) release(r *rapid.T) {
	m.check(m.f.Release(r.Context(), 1))
	for file, kind := range m.files {
		if kind == "ours" || kind == "left" {
			delete(m.files, file)
		}
	}
}

func (m *model) crash(r *rapid.T) {
	m.f.die()
	m.f = m.open()
	for file, kind := range m.files {
		if kind == "ours" {
			m.files[file] = "left"
		}
	}
	if rapid.Bool().Draw(r, "in the middle") {
		m.leave(m.full(rapid.SampledFrom(services()).Draw(r, "service") + "/.deckhand-00ff.tmp"))
	}
}

func (m *model) compare(r *rapid.T) {
	all, err := m.f.Observe(r.Context())
	m.check(err)
	got := map[string]string{}
	for _, l := range all {
		kind := l.Kind
		switch {
		case l.Ours && l.Flocked:
			kind = "ours"
		case l.Ours:
			kind = "left"
		}
		got[l.Service+"/"+filepath.Base(l.Path)] = kind
	}
	if diff := cmp.Diff(m.files, got); diff != "" {
		r.Fatalf("locks (-model +device):\n%s", diff)
	}
	for _, line := range m.tree() {
		file, _, _ := strings.Cut(line, " ")
		if !strings.HasSuffix(file, "updates.lock") && !strings.HasSuffix(file, ".deckhand-00ff.tmp") {
			r.Fatalf("a file too many: %s", line)
		}
	}
}

func BenchmarkTakeAndRelease20(b *testing.B) {
	p := newPlace(b)
	f := p.open()
	var names []string
	for n := range 20 {
		names = append(names, fmt.Sprintf("service-%d", n))
	}
	for b.Loop() {
		if err := f.Take(b.Context(), 1, names, false); err != nil {
			b.Fatal(err)
		}
		if err := f.Release(b.Context(), 1); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkObserve20(b *testing.B) {
	p := newPlace(b)
	for n := range 20 {
		p.put(kindFile, p.path(1, fmt.Sprintf("service-%d", n), "updates.lock"))
	}
	f := p.open()
	for b.Loop() {
		if _, err := f.Observe(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
}
