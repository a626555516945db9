//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"

	"deckhand/supervisor"
	"deckhand/test/system"
)

// rests waits until a service is down and nothing is left to be done about it.
func (s *scene) rests(service string) {
	s.Helper()
	s.status(service+" rests", func(v supervisor.View) error {
		if v.State != supervisor.StateSettled || v.Reason != "" {
			return fmt.Errorf("the device is %s", system.Describe(v))
		}
		list := s.all(service)
		if len(list) != 1 || list[0].State == container.StateRunning || list[0].State == container.StateRestarting {
			return fmt.Errorf("it has %d containers, or runs", len(list))
		}
		return nil
	})
}

// works waits until a service runs and nothing is left to be done.
func (s *scene) works(service string) {
	s.Helper()
	s.status(service+" works", func(v supervisor.View) error {
		if v.State != supervisor.StateSettled || len(v.Requests) > 0 {
			return fmt.Errorf("the device is %s, %+v", system.Describe(v), v.Requests)
		}
		if list := s.all(service); len(list) != 1 || list[0].State != container.StateRunning {
			return fmt.Errorf("it has %d containers, or does not run", len(list))
		}
		return nil
	})
}

// A service that somebody stops stays stopped, over a restart of the supervisor
// and over one of the engine, whatever its restart policy; it is started when
// somebody asks for that, in the same container.
func TestStopLasts(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": runsImage("hello:1"), "side": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	main, side := s.service("main"), s.service("side")
	if main.HostConfig.RestartPolicy.Name != container.RestartPolicyAlways {
		t.Fatalf("restart policy %q", main.HostConfig.RestartPolicy.Name)
	}
	tape := s.record()
	s.told([]string{"stop", "app1/main"}, "app1/main")
	s.rests("main")
	tape.order("kill main 1", "die main 1")
	tape.never("destroy main 1", "kill side 1")
	s.told([]string{"status"}, "stopped for the owner")
	s.told([]string{"explain", "main"}, "asked for", "deckhand start app1/main")

	s.must(s.unit.Restart())
	s.rests("main")
	tape.never("create main 2")
	if tape.times("start main 1") > 0 {
		t.Error("the supervisor's restart started the service")
	}
	s.same(side, s.service("side"))

	s.engine.Restart(t) // it starts containers by their restart policy
	s.rests("main")
	s.within("the other service is back", func(context.Context) error {
		if list := s.all("side"); len(list) != 1 || list[0].State != container.StateRunning {
			return fmt.Errorf("it does not run")
		}
		return nil
	})

	s.told([]string{"start", "app1/main"}, "app1/main")
	s.works("main")
	s.runs("main", "side")
	if now := s.service("main"); now.ID != main.ID {
		t.Errorf("a new container %s was made", now.Name)
	}
}

// A new release ends a stop.
func TestReleaseEndsAStop(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": version(runsImage("hello:1"), "1"), "side": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	s.told([]string{"stop", "app1/main"}, "app1/main")
	s.rests("main")
	b := app("1", "b", map[string]any{"main": version(runsImage("hello:1"), "2"), "side": runsImage("hello:1")})
	p.offer(b)
	s.settlesAt(b.commit)
	s.works("main")
	s.runs("main", "side")
}

// The engine starts a stopped container when it restarts, as its restart policy
// says; it is stopped again.
func TestStopHoldsAgainstTheEngine(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	s.told([]string{"stop", "app1/main"}, "app1/main")
	s.rests("main")
	tape := s.record()
	s.must(s.engine.Client.ContainerStart(t.Context(), s.service("main").ID, container.StartOptions{}))
	tape.waitsFor("kill main 1")
	s.rests("main")
	tape.order("start main 1", "kill main 1", "die main 1")
}

// A restart replaces the containers in the order of their dependencies, goes on
// after a crash in the middle, and touches nothing that was not named.
func TestRestartKeepsTheOrder(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{
		"db":   runsWith("hello:1", map[string]any{"healthcheck": map[string]any{"test": []string{"CMD", "true"}, "interval": "200ms"}}),
		"api":  runsWith("hello:1", after(map[string]any{"db": map[string]any{"condition": "service_healthy"}}, nil)),
		"web":  runsWith("hello:1", after(map[string]any{"api": map[string]any{"condition": "service_started"}}, nil)),
		"slow": runsWith("hello:1", map[string]any{"stop_grace_period": "2m", "command": []string{"sh", "-c", untilTold}}),
	})
	other := app("2", "b", map[string]any{"other": runsImage("hello:1")})
	p.offer(a, other)
	p.device()
	s.settlesAt("")
	alone := s.service("other")
	before := s.services()
	tape := s.record()
	s.told([]string{"restart", "app1"}, "app1")
	tape.waitsFor("kill slow 1")
	s.told([]string{"status"}, "restart", "app1")
	s.powerOff()
	s.exec(tape.container("slow 1"), "touch", "/tmp/end")
	s.boot()
	for _, name := range []string{"slow", "db", "api", "web"} {
		tape.waitsFor("start " + name + " 2")
		tape.waitsFor("destroy " + name + " 1")
	}
	s.settlesAt("")
	s.runs("api", "db", "other", "slow", "web")
	tape.order("start db 2", "healthy db 2", "start api 2", "start web 2")
	tape.never("create db 3", "create slow 3", "create other 2", "kill other 1")
	s.same(alone, s.service("other"))
	for name, c := range s.services() {
		if name != "other" && c.ID == before[name].ID {
			t.Errorf("%s was not restarted", name)
		}
	}
	s.status("the request is done", func(v supervisor.View) error {
		if len(v.Requests) > 0 {
			return fmt.Errorf("there is still %+v", v.Requests)
		}
		return nil
	})

	tape = s.record()
	s.told([]string{"restart", "app1/api"}, "app1/api")
	tape.waitsFor("destroy api 1")
	s.settlesAt("")
	tape.order("create api 2", "kill api 1", "start api 2", "destroy api 1")
	tape.never("kill db 1", "kill web 1", "kill slow 1")
	out, err := s.deckhand("restart", "app1/nonesuch", "--data-dir", s.unit.DataDir)
	if err == nil || !strings.Contains(err.Error(), "api, db, slow, web") {
		t.Errorf("a service that is not there: %q, %v", out, err)
	}
}
