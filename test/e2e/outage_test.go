//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/test/system"
)

// The registry goes away in the middle of a download and comes back: meanwhile
// the old release runs, then the device gets there.
func TestRegistryDownInTheMiddleOfAPull(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	s.device(fleet)
	s.settles(s.push(fleet, trio(), trioMarks("old")))
	before := s.services()

	// Builds go through the same proxy; it slows down only what comes from the
	// registry.
	s.registry.Slow(512 << 10)
	next := s.pushProject(fleet, system.Project{
		Compose: trio(), Services: trioMarks("new"), Ballast: map[string]int{"one": 6 << 20},
	})
	s.status("the download has begun", func(v supervisor.View) error {
		for _, a := range v.Apps {
			if i := slices.IndexFunc(a.Services, func(x supervisor.ServiceView) bool { return x.Name == "one" }); i >= 0 {
				if p := a.Services[i].Progress; p != nil && *p > 10 && *p < 90 {
					return nil
				}
			}
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
	failures := strings.Count(s.engine.Log(), "Download failed")
	s.registry.Cut()
	s.within("the engine notices", func(context.Context) error {
		if strings.Count(s.engine.Log(), "Download failed") == failures {
			return fmt.Errorf("no download has failed")
		}
		return nil
	})
	s.untouched(before)
	s.registry.Slow(0)
	s.must(s.registry.Mend())
	s.converged(next, "new")
}

// The registry is down when a release comes: the status says what is waited
// for, why, and until when; the old release runs.
func TestRegistryDownBeforeAPull(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	s.device(fleet)
	s.settles(s.push(fleet, trio(), trioMarks("old")))
	before := s.services()
	s.shutDown()
	next := s.push(fleet, trio(), trioMarks("new"))
	s.registry.Cut()
	s.boot()
	for _, w := range []supervisor.WaitView{s.waits("fetch", state.ClassNetwork)} {
		if w.Tries < 1 || w.Until.IsZero() || w.Advice == "" || !strings.Contains(w.Text, "refused") {
			t.Errorf("the status does not tell enough: %+v", w)
		}
	}
	s.told([]string{"status"}, "network", "fetch")
	s.untouched(before)
	s.must(s.registry.Mend())
	s.converged(next, "new")
}

// The engine is restarted in the middle of an update.
func TestEngineRestartedDuringUpdate(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	s.device(fleet)
	s.settles(s.push(fleet, trio(), trioMarks("old")))
	for _, moment := range []int{3, 14, 22} {
		mark := fmt.Sprint(moment)
		reached := make(chan struct{})
		s.onStep(moment, func() { close(reached) })
		next := s.push(fleet, trio(), trioMarks(mark))
		select {
		case <-reached:
		case <-t.Context().Done():
		}
		s.engine.Restart(t)
		s.converged(next, mark)
	}
}

// The engine is down when the device starts.
func TestEngineDownAtStart(t *testing.T) {
	s, _, r := installed(t)
	s.shutDown()
	s.engine.Down(t)
	s.boot()
	s.status("it says that the engine is away", func(v supervisor.View) error {
		if v.State == supervisor.StateSettled || v.Reason == "" {
			return fmt.Errorf("the device is %s", system.Describe(v))
		}
		return nil
	})
	s.engine.Restart(t)
	s.settles(r)
	s.runs("web", "db", "worker")
}

// The device starts without its cloud: it keeps the last target running and
// mends what broke meanwhile. When the cloud is back, it goes on.
func TestCloudUnreachableAtStart(t *testing.T) {
	s, fleet, r := installed(t)
	before := s.services()
	s.powerOff()
	s.must(s.cloud.Stop())
	up := false
	defer func() {
		if !up {
			s.must(s.cloud.Start(context.Background()))
		}
	}()
	s.remove(before["worker"])
	s.boot()
	s.back(before["worker"], "worker")
	s.settles(r)
	s.same(before["web"], s.service("web"))
	s.same(before["db"], s.service("db"))
	s.status("it says that the cloud is away", func(v supervisor.View) error {
		if v.Cloud == nil || v.Cloud.Problem == "" {
			return fmt.Errorf("cloud: %+v", v.Cloud)
		}
		return nil
	})
	s.told([]string{"status"}, "refused")

	ctx, cancel := s.ctx()
	defer cancel()
	s.must(s.cloud.Start(ctx))
	up = true
	next := s.push(fleet, shop, marks("1", "1", "2"))
	s.settles(next)
	s.same(before["web"], s.service("web"))
}

// A service that the engine cannot start rests; the others run, and a release
// that mends it is taken at once.
func TestBrokenServiceDoesNotHoldUpTheRest(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	s.device(fleet)
	s.push(fleet, strings.Replace(trio(), "./two\n", "./two\n    command: [\"/no/such/program\"]\n", 1), trioMarks("1"))
	w := s.waits("start", state.ClassInvalid)
	if !strings.Contains(w.Step, "two") {
		t.Errorf("%s waits, want two", w.Step)
	}
	s.within("the others run", func(context.Context) error {
		for _, name := range []string{"one", "three"} {
			if list := s.all(name); len(list) != 1 || list[0].State != container.StateRunning {
				return fmt.Errorf("%s does not run", name)
			}
		}
		return nil
	})
	one := s.service("one")
	s.settles(s.push(fleet, trio(), trioMarks("1")))
	s.runs("one", "two", "three")
	s.same(one, s.service("one"))
}
