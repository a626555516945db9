//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"

	"deckhand/locks"
	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/test/system"
)

// holds takes a service's update lock as the service itself would.
func (s *scene) holds(id string) {
	s.Helper()
	s.exec(id, "sh", "-c", "set -C; : >/tmp/balena/updates.lock")
}

// givesUp gives the lock up again.
func (s *scene) givesUp(id string) {
	s.Helper()
	s.exec(id, "rm", "/tmp/balena/updates.lock")
}

// lockFiles are the lock files on the device, by path below the run folder.
func (s *scene) lockFiles() map[string]int {
	s.Helper()
	found, err := filepath.Glob(filepath.Join(s.unit.RunDir, "services", "*", "*", "*updates.lock*"))
	s.must(err)
	out := map[string]int{}
	for _, f := range found {
		var st syscall.Stat_t
		if err := syscall.Lstat(f, &st); err == nil { // else it has gone meanwhile
			rel, _ := filepath.Rel(s.unit.RunDir, f)
			out[rel] = int(st.Uid)
		}
	}
	return out
}

// noLocks waits until nobody holds a lock.
func (s *scene) noLocks() {
	s.Helper()
	s.within("no lock file is left", func(context.Context) error {
		if all := s.lockFiles(); len(all) > 0 {
			return fmt.Errorf("there are %v", all)
		}
		return nil
	})
}

// waitsForLock waits until the device says that a lock of a service holds it up.
func (s *scene) waitsForLock(service string) supervisor.WaitView {
	s.Helper()
	var found supervisor.WaitView
	s.status("it waits for the lock of "+service, func(v supervisor.View) error {
		for _, w := range v.Waiting {
			if w.Class == state.ClassLocked && strings.Contains(w.Holder, "/"+service+":") {
				found = w
				return nil
			}
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
	return found
}

// told checks what a command of the device prints.
func (s *scene) told(command []string, parts ...string) {
	s.Helper()
	out, err := s.deckhand(append(command, "--data-dir", s.unit.DataDir)...)
	s.must(err)
	s.Logf("$ deckhand %s\n%s", strings.Join(command, " "), out)
	for _, part := range parts {
		if !strings.Contains(out, part) {
			s.Errorf("%v does not say %q", command, part)
		}
	}
}

// A lock that a service holds keeps its whole app from being stopped. Downloads
// and new containers come all the same, everybody is told who holds it, and when
// it is given up the update goes on.
func TestLockHoldsAnUpdateUp(t *testing.T) {
	s := beside(t)
	fleet := s.fleet()
	duo := system.Compose("web", "worker")
	s.push(fleet, duo, map[string]string{"web": "1", "worker": "1"})
	s.device(fleet)
	s.status("the first release runs", everythingDone)
	before := s.services()
	s.holds(before["web"].ID)

	tape := s.record()
	second := s.push(fleet, duo, map[string]string{"web": "2", "worker": "2"})
	for _, title := range []string{"create web 2", "create worker 2"} {
		tape.waitsFor(title)
	}
	w := s.waitsForLock("web")
	if !strings.Contains(w.Holder, "updates.lock") || !strings.Contains(w.Holder, "uid 0") || w.Since.IsZero() {
		t.Errorf("the status does not tell enough: %+v", w)
	}
	s.told([]string{"plan"}, "take locks of "+fleet.Name, "updates.lock, owner uid 0")
	s.told([]string{"status"}, fleet.Name+"/web: updates.lock, owner uid 0", state.ClassLocked.Advice())
	s.told([]string{"explain", "worker"}, fleet.Name+"/web: updates.lock, owner uid 0", "deckhand override "+fleet.Name)
	s.untouched(before)
	tape.never("kill web 1", "kill worker 1", "rename web 1", "rename worker 1")

	released := time.Now()
	s.givesUp(before["web"].ID)
	s.settles(second)
	tape.order("pull web 2", "create web 2", "kill web 1", "start web 2")
	tape.order("pull worker 2", "create worker 2", "kill worker 1", "start worker 2")
	s.noLocks()
	t.Logf("%v after the lock was given up the first container was stopped", tape.at("kill web 1").Sub(released))
	s.told([]string{"explain", "web"}, "updates.lock, owner uid 0")

	// A configuration variable of the owner breaks it, and everybody is told.
	now := s.services()
	s.holds(now["web"].ID)
	mark := s.unit.Log.Len()
	third := s.push(fleet, duo, map[string]string{"web": "3", "worker": "2"})
	s.waitsForLock("web")
	d, err := s.cloud.Client.Device(t.Context(), s.uuid)
	s.must(err)
	s.post("device_config_variable", map[string]any{"device": d.ID, "name": "BALENA_SUPERVISOR_OVERRIDE_LOCK", "value": "1"})
	s.settles(third)
	s.logged(mark, "breaking update locks", "BALENA_SUPERVISOR_OVERRIDE_LOCK")
	s.told([]string{"status"}, "override", "BALENA_SUPERVISOR_OVERRIDE_LOCK")
	s.same(now["worker"], s.service("worker"))
	if got := s.mark(s.service("web")); got != "3" {
		t.Errorf("web runs image %q", got)
	}
	s.noLocks()
}

// A lock concerns its own app: another one is updated meanwhile. A release that
// changes nothing but its name waits, too: the name is written when the lock is
// gone, and then without a restart.
func TestLockConcernsItsOwnApp(t *testing.T) {
	s := beside(t)
	for _, tag := range []string{"hello:1", "hello:2"} {
		s.engine.Busybox(t, tag, tag)
	}
	p := s.paperCloud()
	one := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	two := app("2", "b", map[string]any{"other": runsImage("hello:1")})
	p.offer(one, two)
	p.device()
	s.settlesAt("")
	main := s.service("main")
	s.holds(main.ID)

	tape := s.record()
	renamed := app("1", "c", map[string]any{"main": runsImage("hello:1")})
	next := app("2", "d", map[string]any{"other": runsImage("hello:2")})
	p.offer(renamed, next)
	s.appAt(next, next.commit, "")
	tape.order("create other 2", "kill other 1", "start other 2")
	s.waitsForLock("main")
	if now := s.service("main"); now.Name != main.Name {
		t.Errorf("%s was renamed to %s under its lock", main.Name, now.Name)
	}
	tape.never("rename main 1", "kill main 1")
	s.givesUp(main.ID)
	s.settlesAt("")
	s.appAt(renamed, renamed.commit, "")
	s.same(main, s.service("main"))
	if now := s.service("main"); !strings.HasSuffix(now.Name, renamed.commit) {
		t.Errorf("%s does not name release %s", now.Name, renamed.commit)
	}
	tape.never("kill main 1", "die main 1", "create main 2")

	// The owner may break a lock with a command, for a while.
	s.holds(main.ID)
	again := app("1", "e", map[string]any{"main": runsImage("hello:2")})
	p.offer(again, next)
	s.waitsForLock("main")
	s.told([]string{"override", "app1", "--for", "5m"}, "app1", "5m")
	s.appAt(again, again.commit, "")
	s.told([]string{"status"}, "override", "app1", "the owner")
	s.noLocks()
	s.told([]string{"override", "app1", "--end"}, "app1")
	main = s.service("main")
	s.holds(main.ID)
	p.offer(app("1", "f", map[string]any{"main": runsImage("hello:1")}), next)
	s.waitsForLock("main")
	s.untouched(map[string]container.InspectResponse{"main": main})
}

// A supervisor that is killed while it holds the locks finds its own ones again:
// they block nothing, and when the update is done they are gone.
func TestKilledWithLocks(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	slow := runsWith("hello:1", map[string]any{"stop_grace_period": "2m", "command": []string{"sh", "-c", untilTold}})
	a := app("1", "a", map[string]any{"slow": slow, "side": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	tape := s.record()
	level := map[string]string{"LEVEL": "debug"}
	b := app("1", "b", map[string]any{"slow": with(slow, "environment", level), "side": runsImage("hello:1")})
	p.offer(b)
	tape.waitsFor("kill slow 1")
	held := s.lockFiles()
	for _, want := range []string{"services/1/slow/updates.lock", "services/1/side/updates.lock"} {
		if uid, ok := held[want]; !ok || uid != locks.LockUID {
			t.Errorf("%s is not held while the app is changed: %v", want, held)
		}
	}
	s.powerOff()
	if left := s.lockFiles(); len(left) == 0 {
		t.Fatal("a killed supervisor took its locks with it")
	}
	s.exec(tape.container("slow 1"), "touch", "/tmp/end")
	s.boot()
	s.settlesAt(b.commit)
	s.noLocks()
	s.runs("side", "slow")
	tape.order("create slow 2", "kill slow 1", "start slow 2")
	tape.never("die side 1", "create slow 3")
}

// A lock that is a folder holds, too, and is moved aside when it is broken.
func TestLockFolder(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	before := s.service("main")
	s.exec(before.ID, "sh", "-c", "mkdir /tmp/balena/updates.lock; echo precious >/tmp/balena/updates.lock/file")
	b := app("1", "b", map[string]any{"main": version(runsImage("hello:1"), "2")})
	p.offer(b)
	w := s.waitsForLock("main")
	if !strings.Contains(w.Holder, "folder") {
		t.Errorf("the holder is %q", w.Holder)
	}
	s.untouched(map[string]container.InspectResponse{"main": before})
	p.offerWith(map[string]string{"BALENA_SUPERVISOR_OVERRIDE_LOCK": "1"}, b)
	s.settlesAt(b.commit)
	kept, err := filepath.Glob(filepath.Join(s.unit.RunDir, "services/1/main/updates.lock.broken-*/file"))
	s.must(err)
	if len(kept) != 1 {
		t.Fatalf("what was in the folder is gone: %v", s.lockFiles())
	}
	if content, err := os.ReadFile(kept[0]); err != nil || string(content) != "precious\n" {
		t.Errorf("%q, %v", content, err)
	}
}
