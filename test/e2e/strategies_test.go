//go:build engine && linux

package e2e

import (
	"testing"

	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// strategies is a release with a service of each update strategy, and one more
// whose image takes longer to download than the others.
const strategies = `
services:
  usual:
    build: ./usual
  large:
    build: ./large
  early:
    build: ./early
    labels: {io.balena.update.strategy: kill-then-download}
    # A download that did not wait for the stop would be over before it.
    command: ["sh", "-c", "trap 'sleep 1; exit 0' TERM; while :; do sleep 3600 & wait $$!; done"]
  spare:
    build: ./spare
    labels: {io.balena.update.strategy: delete-then-download}
  fluent:
    build: ./fluent
    labels: {io.balena.update.strategy: hand-over}
    command: ["sh", "-c", "touch /tmp/balena/handover-complete; trap 'exit 0' TERM; while :; do sleep 3600 & wait $$!; done"]
`

// Each strategy fetches, makes, stops, starts and removes in its own order, side
// by side in one update.
func TestStrategies(t *testing.T) {
	s := beside(t)
	fleet := s.fleet()
	release := func(mark string) system.Project {
		services := map[string]string{}
		for _, name := range []string{"usual", "large", "early", "spare", "fluent"} {
			services[name] = mark
		}
		return system.Project{Compose: strategies, Services: services, Ballast: map[string]int{"large": 4 << 20}}
	}
	s.pushProject(fleet, release("1"))
	s.device(fleet)
	s.status("the first release runs", everythingDone)
	s.runs("usual", "large", "early", "spare", "fluent")
	spare := s.service("spare").Image

	tape := s.record()
	next := s.pushProject(fleet, release("2"))
	s.settles(next)
	s.runs("usual", "large", "early", "spare", "fluent")

	// download-then-kill: the whole release is here and the new container exists
	// before the old one stops.
	tape.order("pull usual 2", "create usual 2", "kill usual 1", "die usual 1", "start usual 2", "destroy usual 1")
	tape.order("pull large 2", "kill usual 1")
	tape.order("create large 2", "kill large 1", "die large 1", "start large 2", "destroy large 1")
	// kill-then-download: the old container is gone before the download.
	tape.order("kill early 1", "die early 1", "destroy early 1", "pull early 2", "create early 2", "start early 2")
	// delete-then-download: its image, too.
	tape.order("kill spare 1", "die spare 1", "destroy spare 1", "delete image "+spare, "pull spare 2", "create spare 2", "start spare 2")
	// hand-over: both run.
	tape.order("pull large 2", "start fluent 2", "kill fluent 1", "destroy fluent 1")
	for _, name := range []string{"usual", "large", "early", "spare", "fluent"} {
		t.Logf("%-7s down for %v", name, tape.downtime(name, 1, 2))
	}
	if down := tape.downtime("fluent", 1, 2); down > 0 {
		t.Errorf("fluent was down for %v", down)
	}
}

// untilTold is the command of a service that ends when it finds a file.
const untilTold = `trap 'while [ ! -e /tmp/end ]; do sleep 0.05; done; exit 0' TERM; while :; do sleep 3600 & wait $!; done`

// While the old container is asked to end, its replacement exists; and while one
// service is slow to end, the others go on.
func TestOldContainerRunsUntilTheNewOneExists(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	slow := runsWith("hello:1", map[string]any{"stop_grace_period": "2m", "command": []string{"sh", "-c", untilTold}})
	a := app("1", "a", map[string]any{"slow": slow, "quick": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	tape := s.record()
	level := map[string]string{"LEVEL": "debug"}
	b := app("1", "b", map[string]any{"slow": with(slow, "environment", level), "quick": with(runsImage("hello:1"), "environment", level)})
	p.offer(b)
	tape.waitsFor("kill slow 1")
	tape.waitsFor("start quick 2") // a service is down for its own stop, not for everyone's
	s.exec(tape.container("slow 1"), "touch", "/tmp/end")
	s.settlesAt(b.commit)
	tape.order("create slow 2", "kill slow 1", "die slow 1", "start slow 2", "destroy slow 1")
	tape.order("create quick 2", "kill quick 1", "die quick 1", "start quick 2", "destroy quick 1")
	tape.order("start quick 2", "die slow 1")
	t.Logf("down: slow %v, quick %v", tape.downtime("slow", 1, 2), tape.downtime("quick", 1, 2))
}

// A release whose container cannot be made leaves the old one running.
func TestContainerThatCannotBeMadeCostsNothing(t *testing.T) {
	s := beside(t)
	s.engine.Image(t, dockerd.Image{Tag: "hello:1"})
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	before := s.service("main")
	tape := s.record()
	p.offer(app("1", "b", map[string]any{"main": runsWith("hello:1", map[string]any{"runtime": "nonesuch"})}))
	s.waits("create")
	s.same(before, s.service("main"))
	tape.never("kill main 1", "die main 1")
	c := app("1", "c", map[string]any{"main": with(runsImage("hello:1"), "environment", map[string]string{"A": "1"})})
	p.offer(c)
	s.settlesAt(c.commit)
	tape.order("create main 2", "kill main 1", "start main 2")
}
