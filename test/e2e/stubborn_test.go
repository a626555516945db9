//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"
)

// A service that ends at once, again and again, is replaced by a good release;
// no more is needed.
func TestCrashLoopIsUpdated(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	s.engine.Busybox(t, "hello:2", "good")
	p := s.paperCloud()
	crashing := runsWith("hello:1", map[string]any{"restart": "always", "command": []string{"false"}})
	tape := s.record()
	a := app("1", "a", map[string]any{"main": crashing, "side": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.within("main has crashed some times", func(context.Context) error {
		if n := tape.times("die main 1"); n < 3 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	b := app("1", "b", map[string]any{"main": runsImage("hello:2"), "side": runsImage("hello:1")})
	p.offer(b)
	s.settlesAt(b.commit)
	s.runs("main", "side")
	tape.order("create main 2", "start main 2", "destroy main 1")
	tape.never("create main 3", "create side 2", "kill side 1")
	mark := tape.mark()
	s.told([]string{"plan"}, "nothing to do")
	if more := tape.since(mark); len(more) > 0 {
		t.Errorf("it goes on: %v", more)
	}
}

// A service that ignores SIGTERM is killed when its grace period is over, not
// before, and the update goes on.
func TestServiceThatIgnoresSIGTERM(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	deaf := runsWith("hello:1", map[string]any{"stop_grace_period": "2s", "command": []string{"sh", "-c", "trap '' TERM; while :; do sleep 1; done"}})
	a := app("1", "a", map[string]any{"main": version(deaf, "1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	tape := s.record()
	b := app("1", "b", map[string]any{"main": version(deaf, "2")})
	p.offer(b)
	s.settlesAt(b.commit)
	tape.order("create main 2", "kill main 1", "die main 1", "start main 2", "destroy main 1")
	if n := tape.times("kill main 1"); n != 2 {
		t.Errorf("it got %d signals, want SIGTERM and SIGKILL", n)
	}
	grace := tape.at("die main 1").Sub(tape.at("kill main 1"))
	t.Logf("it ended %v after the first signal", grace)
	if grace < 2*time.Second {
		t.Errorf("it was killed after %v", grace)
	}
}

// A service that is paused by hand can be updated like any other.
func TestPausedServiceIsUpdated(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": version(runsImage("hello:1"), "1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	s.must(s.engine.Client.ContainerPause(t.Context(), s.service("main").ID))
	tape := s.record()
	b := app("1", "b", map[string]any{"main": version(runsImage("hello:1"), "2")})
	p.offer(b)
	s.settlesAt(b.commit)
	s.runs("main")
	tape.order("create main 2", "die main 1", "start main 2", "destroy main 1")
}
