//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"deckhand/test/system"
)

// saysHealth waits until "deckhand health" ends with a code and says all parts.
func (s *scene) saysHealth(code int, parts ...string) {
	s.Helper()
	s.within(fmt.Sprintf("deckhand health ends with %d", code), func(context.Context) error {
		out, err := s.deckhand("health", "--data-dir", s.unit.DataDir)
		if exitCode(err) != code {
			return fmt.Errorf("%d: %s", exitCode(err), out)
		}
		for _, p := range parts {
			if !strings.Contains(out, p) {
				return fmt.Errorf("no %q in %s", p, out)
			}
		}
		return nil
	})
}

// The cloud goes away: the device says what is wrong and since when, and its lamp
// blinks. The cloud comes back: all is well, and the lamp is dark.
func TestTheCloudGoesAwayAndComesBack(t *testing.T) {
	lamp := filepath.Join(t.TempDir(), "brightness")
	if err := os.WriteFile(lamp, []byte("0"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LED_FILE", lamp)
	shines := func() bool {
		b, err := os.ReadFile(lamp)
		return err == nil && len(b) > 0 && b[0] != '0'
	}
	s := begin(t)
	p := s.paperCloud()
	u, err := url.Parse(p.url)
	s.must(err)
	way, err := system.NewProxy()
	s.must(err)
	way.To(u.Host)
	t.Cleanup(way.Cut)
	p.url = "http://" + way.Addr
	p.device()
	s.saysHealth(0, "healthy")

	way.Cut()
	s.saysHealth(1, "connection, for", "(since ", "the cloud's address is not reached", "connection refused")
	s.within("the lamp blinks", func(context.Context) error {
		if !shines() {
			return fmt.Errorf("it is dark")
		}
		return nil
	})

	s.must(way.Mend())
	s.saysHealth(0, "healthy")
	if shines() {
		t.Error("the lamp still says that the cloud is away")
	}
}
