//go:build engine && linux

package e2e

import (
	"strings"
	"testing"
)

// Why a service was restarted is told by what changed: a variable by its name
// and not by its value, by whom and for which release; also after the supervisor
// has been killed.
func TestExplain(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	main := with(runsImage("hello:1"), "environment", map[string]string{"PASSWORD": "cheese", "LEVEL": "info"})
	a := app("1", "a", map[string]any{"main": main, "side": runsImage("hello:1")})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	b := app("1", "b", map[string]any{"main": with(main, "environment", map[string]string{"PASSWORD": "butter", "LEVEL": "info"}), "side": runsImage("hello:1")})
	p.offer(b)
	s.settlesAt(b.commit)
	explained := func() {
		t.Helper()
		out, err := s.deckhand("explain", "main", "--data-dir", s.unit.DataDir)
		s.must(err)
		for _, part := range []string{"it is as it was asked to be", "environment.PASSWORD changed", b.commit[:7], p.url, "it was down for"} {
			if !strings.Contains(out, part) {
				t.Errorf("the explanation does not say %q:\n%s", part, out)
			}
		}
		for _, secret := range []string{"cheese", "butter", "LEVEL"} {
			if strings.Contains(out, secret) {
				t.Errorf("the explanation says %q:\n%s", secret, out)
			}
		}
	}
	explained()
	if side, err := s.deckhand("explain", "side", "--data-dir", s.unit.DataDir); err != nil || strings.Contains(side, "PASSWORD") {
		t.Errorf("what concerns main is told of side: %v\n%s", err, side)
	}
	s.shutDown() // what happened in the last seconds before a crash may be lost
	s.boot()
	s.settlesAt(b.commit)
	explained()
	s.powerOff()
	s.boot()
	s.settlesAt(b.commit)
	explained()
}
