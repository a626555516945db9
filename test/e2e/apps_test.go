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

// Two apps on one device know nothing of each other: services of the same name,
// an update of one, a refused release of the other.
func TestTwoApps(t *testing.T) {
	s := beside(t)
	for _, tag := range []string{"hello:1", "hello:2"} {
		s.engine.Busybox(t, tag, tag)
	}
	p := s.paperCloud()
	one := app("1", "a", map[string]any{"main": runsImage("hello:1")})
	two := app("2", "b", map[string]any{"main": runsImage("hello:1"), "side": runsImage("hello:1")})
	p.offer(one, two)
	p.device()
	s.settlesAt("")
	s.appAt(one, one.commit, "")
	s.appAt(two, two.commit, "")
	first, second, side := s.idOf(one, "main"), s.idOf(two, "main"), s.idOf(two, "side")

	// A part of a volume cannot be mounted on the oldest engines: refused. The
	// other app moves on in the same document.
	next := app("1", "c", map[string]any{"main": runsImage("hello:2")})
	bad := app("2", "d", map[string]any{"main": with(runsImage("hello:2"), "composition", map[string]any{
		"volumes": []any{map[string]any{"type": "volume", "source": "v", "target": "/v", "volume": map[string]any{"subpath": "x"}}}})})
	p.offer(next, bad)
	s.appAt(next, next.commit, "")
	s.appAt(two, two.commit, "subpath")
	if s.idOf(next, "main") == first {
		t.Error("the first app was not updated")
	}
	if s.idOf(two, "main") != second || s.idOf(two, "side") != side {
		t.Error("the refused app was touched")
	}
	s.within("the refusal is reported", func(context.Context) error {
		if !p.reported("rejected") {
			return fmt.Errorf("no report says rejected")
		}
		return nil
	})

	// An app that is gone from the target goes from the device; the other stays.
	kept := s.idOf(next, "main")
	p.offer(next)
	s.status("the second app is gone", func(v supervisor.View) error {
		if len(v.Apps) != 1 || v.State != supervisor.StateSettled {
			return fmt.Errorf("the device is %s", system.Describe(v))
		}
		return nil
	})
	if list := s.all(""); len(list) != 1 || list[0].ID != kept || list[0].State != container.StateRunning {
		t.Errorf("containers %+v, want only %s", list, kept)
	}
}

// appAt waits until an app runs a release; a refusal must say why.
func (s *scene) appAt(a paperApp, commit, refusal string) {
	s.Helper()
	s.status("app "+a.uuid[:1]+" at release "+commit[:1], func(v supervisor.View) error {
		for _, x := range v.Apps {
			if x.UUID != a.uuid {
				continue
			}
			if x.Release == commit && (x.Rejected != "") == (refusal != "") && strings.Contains(x.Rejected, refusal) {
				return nil
			}
			return fmt.Errorf("it is at %q, wants %q, rejected %q; %s", x.Release, x.Target, x.Rejected, system.Describe(v))
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
}
