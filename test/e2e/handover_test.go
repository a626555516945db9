//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"deckhand/supervisor"
	"deckhand/test/system"
)

// handsOver is a service of a paper cloud that is updated by hand-over.
func handsOver(labels map[string]string, composition map[string]any) map[string]any {
	all := map[string]string{"io.balena.update.strategy": "hand-over"}
	for k, v := range labels {
		all[k] = v
	}
	return with(runsWith("hello:1", composition), "labels", all)
}

// version gives a service another environment, so that it is replaced.
func version(service map[string]any, v string) map[string]any {
	return with(service, "environment", map[string]string{"VERSION": v})
}

// overtaking starts a device whose service main is about to hand over to
// its second container, which runs beside the first one.
func overtaking(t *testing.T, service map[string]any) (*scene, *paper, *tape, paperApp) {
	t.Helper()
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": version(service, "1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	tape := s.record()
	b := app("1", "b", map[string]any{"main": version(service, "2")})
	p.offer(b)
	tape.waitsFor("start main 2")
	return s, p, tape, b
}

// waitsForHandover waits until the device says that it waits for the new one.
func (s *scene) waitsForHandover() {
	s.Helper()
	s.status("it waits for the hand-over", func(v supervisor.View) error {
		for _, a := range v.Apps {
			for _, x := range a.Services {
				if strings.HasPrefix(x.Next, "hand over to new ") {
					return nil
				}
			}
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
}

// The old container runs until the new one has written the file.
func TestHandoverWaitsForTheFile(t *testing.T) {
	s, _, tape, b := overtaking(t, handsOver(nil, nil))
	s.waitsForHandover()
	tape.up("main 1")
	tape.up("main 2")
	s.exec(tape.container("main 2"), "touch", "/tmp/balena/handover-complete")
	s.settlesAt(b.commit)
	s.runs("main")
	tape.order("create main 2", "start main 2", "exec_create main 2", "kill main 1", "die main 1", "destroy main 1")
	t.Logf("down for %v", tape.downtime("main", 1, 2))
}

// With a health check the old container runs until the new one is healthy.
func TestHandoverWaitsForHealth(t *testing.T) {
	s, _, tape, b := overtaking(t, handsOver(nil, map[string]any{
		"healthcheck": map[string]any{"test": []string{"CMD", "test", "-e", "/tmp/well"}, "interval": "200ms", "retries": 1000},
	}))
	s.waitsForHandover()
	tape.up("main 1")
	s.exec(tape.container("main 2"), "touch", "/tmp/well")
	s.settlesAt(b.commit)
	s.runs("main")
	tape.order("start main 2", "healthy main 2", "kill main 1", "destroy main 1")
}

// Without either the old container stops when the time is over, not before.
func TestHandoverTimeIsOver(t *testing.T) {
	s, _, tape, b := overtaking(t, handsOver(map[string]string{"io.balena.update.handover-timeout": "1500"}, nil))
	s.settlesAt(b.commit)
	s.runs("main")
	tape.order("start main 2", "kill main 1", "destroy main 1")
	waited := tape.at("kill main 1").Sub(tape.at("start main 2"))
	t.Logf("the old one was stopped %v after the start of the new one", waited)
	if waited < 1500*time.Millisecond {
		t.Errorf("the old container was stopped after %v", waited)
	}
}

// With keep-old the release fails and the old container serves on; the next
// release takes its place.
func TestHandoverThatFailsKeepsTheOldOne(t *testing.T) {
	labels := map[string]string{"io.balena.update.handover-timeout": "1500", "io.balena.update.handover-on-timeout": "keep-old"}
	s, p, tape, b := overtaking(t, handsOver(labels, nil))
	s.within("the release is reported as aborted", func(context.Context) error {
		if !p.reported(`"aborted"`) {
			return fmt.Errorf("no report says aborted")
		}
		return nil
	})
	tape.waitsFor("destroy main 2")
	s.runs("main")
	if got := env(s.service("main"), "VERSION"); got != "1" {
		t.Errorf("version %q serves", got)
	}
	tape.never("kill main 1", "die main 1")
	out, err := s.deckhand("explain", "main", "--data-dir", s.unit.DataDir)
	s.must(err)
	if !strings.Contains(out, "did not take over in time") || !strings.Contains(out, b.commit[:7]) {
		t.Errorf("the explanation does not tell what happened:\n%s", out)
	}
	c := app("1", "c", map[string]any{"main": version(runsImage("hello:1"), "3")})
	p.offer(c)
	s.settlesAt(c.commit)
	s.runs("main")
	if got := env(s.service("main"), "VERSION"); got != "3" {
		t.Errorf("version %q serves", got)
	}
}

// A new container that has taken over while the supervisor was dead is believed
// when it is back; nothing is started a second time.
func TestHandoverAcrossACrash(t *testing.T) {
	s, _, tape, b := overtaking(t, handsOver(nil, nil))
	s.waitsForHandover()
	s.powerOff()
	s.exec(tape.container("main 2"), "touch", "/tmp/balena/handover-complete")
	tape.up("main 1")
	s.boot()
	s.settlesAt(b.commit)
	s.runs("main")
	tape.order("start main 2", "exec_create main 2", "kill main 1", "destroy main 1")
	tape.never("create main 3", "die main 2")
}

// conversation is a service that answers and one that asks it all the time.
const conversation = `
services:
  server:
    build: ./server
    command: ["/program", "serve"]
    labels: {io.balena.update.strategy: hand-over}
    networks:
      front: {aliases: [shop]}
  client:
    build: ./client
    command: ["/program", "call", "http://shop/"]
    networks: [front]
networks:
  front: {}
`

// A client that asks all the time through an alias on the app's network gets an
// answer to each of its questions while the server is handed over, three times.
func TestHandoverLosesNoRequest(t *testing.T) {
	s := beside(t)
	fleet := s.fleet()
	release := func(mark string) release {
		return s.pushProject(fleet, system.Project{
			Compose: conversation, Services: map[string]string{"server": mark, "client": "1"},
			Program: map[string]string{"server": s.caller, "client": s.caller},
		})
	}
	first := release("1")
	s.device(fleet)
	s.settles(first)
	tape := s.record()
	client := s.service("client")
	s.asks(client.ID, 50)
	_, before, _ := s.calls(client.ID) // it may have asked before there was a server
	for i, mark := range []string{"2", "3", "4"} {
		s.settles(release(mark))
		s.asks(client.ID, 50)
		old, fresh := fmt.Sprint("server ", i+1), fmt.Sprint("server ", i+2)
		tape.order("start "+fresh, "kill "+old, "destroy "+old)
		t.Logf("server down for %v", tape.downtime("server", i+1, i+2))
	}
	s.same(client, s.service("client"))
	asked, lost, gap := s.calls(client.ID)
	t.Logf("%d questions, %d lost, longest wait for an answer %d ms", asked, lost-before, gap)
	if lost > before {
		s.showLog(client.ID)
		t.Errorf("%d of %d questions were lost", lost-before, asked)
	}
}

// asks waits until the client has asked so many more questions.
func (s *scene) asks(client string, more int) {
	s.Helper()
	begin := -1
	s.within("the client asks", func(context.Context) error {
		asked, _, _ := s.calls(client)
		if begin < 0 {
			begin = asked
		}
		if asked < begin+more {
			return fmt.Errorf("it has asked %d questions, %d before", asked, begin)
		}
		return nil
	})
}

// calls are what the client counted: questions, lost ones, and the longest wait
// for an answer in milliseconds.
func (s *scene) calls(client string) (asked, lost, gap int) {
	s.Helper()
	text := s.exec(client, "sh", "-c", "cat /tmp/calls 2>/dev/null || echo 0 0 0")
	if _, err := fmt.Sscan(text, &asked, &lost, &gap); err != nil {
		s.Fatalf("%q: %v", text, err)
	}
	return asked, lost, gap
}
