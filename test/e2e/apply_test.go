//go:build engine && linux

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
	"deckhand/test/system"
)

// bare is a device without supervisor and cloud: folders and an engine.
func (s *scene) bare() {
	s.Helper()
	d, err := system.NewDevice(system.DeviceConfig{Program: s.programs.Deckhand, Dir: s.dir, Engine: s.engine.Host})
	s.must(err)
	s.unit = d
}

// apply applies a compose file to the device.
func (s *scene) apply(compose string, flags ...string) string {
	s.Helper()
	out, err := s.tryApply(compose, flags...)
	s.must(err)
	return out
}

func (s *scene) tryApply(compose string, flags ...string) (string, error) {
	s.Helper()
	file := filepath.Join(s.dir, "compose.yml")
	s.must(os.WriteFile(file, []byte(compose), 0o600))
	return s.deckhand(append([]string{"apply", file, "--engine", s.engine.Host, "--data-dir", s.unit.DataDir, "--project", "kiosk"}, flags...)...)
}

const kiosk = `
services:
  web:
    image: hello:1
    environment: {LEVEL: info}
    networks: [front]
    volumes: ["data:/data"]
  side:
    image: hello:1
networks:
  front: {}
volumes:
  data: {}
`

// Without any cloud: a compose file comes up, a change touches what it
// changes, the same file twice does nothing, and --remove takes all but the
// volumes away.
func TestApply(t *testing.T) {
	s := begin(t)
	s.bare()
	for _, tag := range []string{"hello:1", "hello:2"} {
		s.engine.Busybox(t, tag, tag)
	}
	stranger := s.stranger()
	s.apply(kiosk)
	s.runs("side", "web")
	before := s.services()
	if got := env(before["web"], "LEVEL"); got != "info" {
		t.Errorf("LEVEL is %q", got)
	}

	if out := s.apply(kiosk); strings.Contains(out, "✓") {
		t.Errorf("applying the same file again did something:\n%s", out)
	}
	s.untouched(before)

	changed := strings.Replace(kiosk, "LEVEL: info", "LEVEL: debug", 1)
	dry := s.apply(changed, "--dry-run")
	if !strings.Contains(dry, "LEVEL") || !strings.Contains(dry, "stop kiosk/web") || strings.Contains(dry, "stop kiosk/side") {
		t.Errorf("the plan does not say what changes and why:\n%s", dry)
	}
	s.untouched(before)
	out := s.apply(changed)
	if !strings.Contains(out, "LEVEL") {
		t.Errorf("the output does not say why:\n%s", out)
	}
	now := s.services()
	s.same(before["side"], now["side"])
	s.replaced(before["web"], now["web"])

	_, err := s.tryApply(strings.Replace(kiosk, "image: hello:1", "image: hello:1\n    healthcheck: 5", 1))
	if err == nil || !strings.Contains(err.Error(), "compose.yml") || !strings.Contains(err.Error(), "services.web.healthcheck") {
		t.Errorf("a wrong compose file was taken, or the field is not named: %v", err)
	}
	s.untouched(now)

	s.apply(changed, "--remove")
	if list := s.all(""); len(list) != 0 {
		t.Errorf("containers left: %+v", list)
	}
	if diff := cmp.Diff([]string(nil), s.networks()); diff != "" {
		t.Errorf("networks left (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"data"}, s.volumes()); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if c, err := s.engine.Client.ContainerInspect(t.Context(), stranger); err != nil || !c.State.Running {
		t.Errorf("somebody else's container was touched: %v", err)
	}
}

// A project of deckhand apply and a supervisor share an engine and leave each
// other alone.
func TestApplyBesideSupervisor(t *testing.T) {
	s := begin(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	s.apply(kiosk)
	s.runs("main", "side", "web")
	before := s.services()
	next := app("1", "b", map[string]any{"other": runsImage("hello:1")})
	p.offer(next)
	s.settlesAt(next.commit)
	s.runs("other", "side", "web")
	delete(before, "main")
	s.untouched(before)
	s.apply(kiosk, "--remove")
	s.runs("other")
}

// What would be done can be asked for, with a reason, before it is done; and
// from a snapshot the same plan comes out anywhere.
func TestPlanAndSnapshot(t *testing.T) {
	s := begin(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	main := with(runsImage("hello:1"), "environment", map[string]string{"PASSWORD": "cheese", "LEVEL": "info"})
	a := app("1", "a", map[string]any{"main": main, "side": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	before := s.services()
	data := []string{"--data-dir", s.unit.DataDir}

	idle, err := s.deckhand(append([]string{"plan"}, data...)...)
	s.must(err)
	if !strings.Contains(idle, "nothing to do") {
		t.Errorf("the plan of a settled device:\n%s", idle)
	}

	next := app("1", "b", map[string]any{
		"main": with(main, "environment", map[string]string{"PASSWORD": "butter", "LEVEL": "debug"}), "side": runsImage("hello:1")})
	b, err := json.Marshal(document(next))
	s.must(err)
	file := filepath.Join(s.dir, "target.json")
	s.must(os.WriteFile(file, b, 0o600))
	plan, err := s.deckhand(append([]string{"plan", "--target", file}, data...)...)
	s.must(err)
	for _, part := range []string{"app1/main", "app1/side", "environment"} {
		if !strings.Contains(plan, part) {
			t.Errorf("the plan does not mention %s:\n%s", part, plan)
		}
	}
	s.untouched(before)
	if again, err := s.deckhand(append([]string{"plan"}, data...)...); err != nil || again != idle {
		t.Errorf("asking for a plan changed the plan: %v\n%s", err, again)
	}

	// An image that does not exist leaves the device with something to do.
	p.offer(app("1", "c", map[string]any{
		"main": with(with(main, "image", "127.0.0.1:1/none@sha256:"+strings.Repeat("0", 64)), "environment", map[string]string{"PASSWORD": "butter", "LEVEL": "debug"}),
		"side": runsImage("hello:1")}))
	s.waits("fetch", state.ClassNetwork)
	var live, shot string
	s.within("two plans with nothing happening between them", func(context.Context) error {
		first, err := s.deckhand(append([]string{"plan"}, data...)...)
		s.must(err)
		shot, err = s.deckhand(append([]string{"snapshot"}, data...)...)
		s.must(err)
		live, err = s.deckhand(append([]string{"plan"}, data...)...)
		s.must(err)
		if first != live || !strings.Contains(live, "fetch") {
			return errors.New("another try came in between")
		}
		return nil
	})
	for _, secret := range []string{"cheese", "butter"} {
		if strings.Contains(shot, secret) {
			t.Errorf("the snapshot shows the value %q of a variable", secret)
		}
	}
	s.must(os.WriteFile(file, []byte(shot), 0o600))
	s.shutDown()
	elsewhere, err := s.deckhand("plan", "--snapshot", file)
	s.must(err)
	if diff := cmp.Diff(live, elsewhere); diff != "" {
		t.Errorf("another plan from the snapshot (-live +snapshot):\n%s", diff)
	}
	for _, format := range []string{"json", "dot"} {
		out, err := s.deckhand("plan", "--snapshot", file, "-o", format)
		s.must(err)
		if format == "json" && !json.Valid([]byte(out)) || format == "dot" && !strings.Contains(out, "digraph") {
			t.Errorf("-o %s:\n%s", format, out)
		}
	}
}
