//go:build engine && linux

package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"deckhand/state"
	"deckhand/test/system"
)

// trio is three services without anything between them, so that many steps of
// an update run side by side.
func trio() string { return system.Compose("one", "two", "three") }

func trioMarks(mark string) map[string]string {
	return map[string]string{"one": mark, "two": mark, "three": mark}
}

// onStep calls f, once, when the supervisor has written the n-th line about a
// step from now on: it started one, or has done one.
func (s *scene) onStep(n int, f func()) (lines func() int) {
	var seen atomic.Int64
	s.unit.Log.Follow(func(l system.Line) {
		if l.Step != "" && (l.Message == "start" || l.Message == "done") && seen.Add(1) == int64(n) {
			f()
		}
	})
	return func() int { return int(seen.Load()) }
}

// kills is how many moments of an update the power is cut at.
const kills = 10

// The power is cut at ten different moments of an update. Each time the device
// starts again and gets there, with one container for each service and nothing
// left of the old release.
func TestKilledAtAnyMoment(t *testing.T) {
	s := beside(t)
	fleet := s.fleet()
	first := s.push(fleet, trio(), trioMarks("first"))
	s.device(fleet)
	s.settles(first)

	lines := s.onStep(-1, nil)
	s.converged(s.push(fleet, trio(), trioMarks("undisturbed")), "undisturbed")
	whole := lines()
	if whole < 2*kills {
		t.Fatalf("an update is told in %d lines; too few for %d moments", whole, kills)
	}
	for i := range kills {
		moment := 1 + i*whole/kills
		t.Run(fmt.Sprintf("after line %d of %d", moment, whole), func(t *testing.T) {
			s := s.in(t)
			dead := s.unit.Process()
			s.onStep(moment, func() { dead.Signal(syscall.SIGKILL) })
			mark := strconv.Itoa(moment)
			next := s.push(fleet, trio(), trioMarks(mark))
			s.within("the supervisor is killed", func(context.Context) error {
				if dead.Running() {
					return fmt.Errorf("it runs; steps so far: %v", s.steps(0))
				}
				return nil
			})
			s.boot()
			s.converged(next, mark)
		})
	}
}

// in is the scene for a subtest.
func (s *scene) in(t *testing.T) *scene {
	inner := *s
	inner.TB = t
	return &inner
}

// converged checks that the device runs a release of the trio and nothing else.
func (s *scene) converged(r release, mark string) {
	s.Helper()
	s.settles(r)
	s.runs("one", "two", "three")
	for name, c := range s.services() {
		_, id, commit, ok := state.ParseContainerName(strings.TrimPrefix(c.Name, "/"))
		if !ok || id != r.id || commit != r.commit || strings.HasPrefix(c.Name, "/old_") {
			s.Errorf("container of %s is named %s", name, c.Name)
		}
		if got := s.mark(c); got != mark {
			s.Errorf("%s runs image %q, want %q", name, got, mark)
		}
	}
	if all := s.images(); len(all) != 3 {
		s.Errorf("images on the device, want 3: %q", all)
	}
}

// SIGTERM ends the supervisor alone.
func TestSigtermLeavesContainers(t *testing.T) {
	s, _, r := installed(t)
	before := s.services()
	s.shutDown()
	if code := s.unit.Process().ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.untouched(before)
	s.boot()
	s.settles(r)
	s.untouched(before)
}

// SIGTERM in the middle of an update is no different from a crash.
func TestSigtermDuringUpdate(t *testing.T) {
	s := beside(t)
	fleet := s.fleet()
	s.device(fleet)
	s.settles(s.push(fleet, trio(), trioMarks("first")))
	p := s.unit.Process()
	s.onStep(12, func() { p.Signal(syscall.SIGTERM) })
	next := s.push(fleet, trio(), trioMarks("second"))
	s.within("the supervisor ends", func(context.Context) error {
		if p.Running() {
			return fmt.Errorf("it runs")
		}
		return nil
	})
	if code := p.ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	s.boot()
	s.converged(next, "second")
}

// A second supervisor on the same device gives up and says why.
func TestSecondInstanceIsRefused(t *testing.T) {
	s, _, r := installed(t)
	before := s.services()
	_, err := s.deckhand(s.unit.Args()...)
	if err == nil || exitCode(err) == 0 {
		t.Fatalf("a second supervisor ran: %v", err)
	}
	if text := err.Error(); !strings.Contains(text, "another") && !strings.Contains(text, "already") {
		t.Errorf("the message does not say that another one runs: %s", text)
	}
	if !strings.Contains(err.Error(), strconv.Itoa(s.unit.Process().PID)) && !strings.Contains(err.Error(), s.unit.DataDir) {
		t.Errorf("the message names neither the other process nor the folder: %v", err)
	}
	s.settles(r)
	s.untouched(before)
}

// A damaged database is set aside; containers, the engine and the cloud tell
// what was in it.
func TestDamagedDatabase(t *testing.T) {
	for _, damage := range []struct {
		name string
		do   func(path string) error
	}{
		{"truncated", func(path string) error { return os.Truncate(path, 5000) }},
		{"empty", func(path string) error { return os.Truncate(path, 0) }},
		{"random bytes", func(path string) error { return scribble(path, 0) }},
		{"random bytes behind the head", func(path string) error { return scribble(path, 8192) }},
		{"a folder", func(path string) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return os.MkdirAll(filepath.Join(path, "x"), 0o755)
		}},
	} {
		t.Run(damage.name, func(t *testing.T) {
			s := beside(t)
			fleet, r := s.installed()
			before := s.services()
			s.shutDown()
			s.must(damage.do(filepath.Join(s.unit.DataDir, "deckhand.db")))
			s.boot()
			s.settles(r)
			s.untouched(before)
			s.settles(s.push(fleet, shop, marks("1", "1", "2")))
			s.within("the old image is cleared up all the same", func(context.Context) error {
				if all := s.images(); len(all) != 3 {
					return fmt.Errorf("images on the device, want 3: %q", all)
				}
				return nil
			})
		})
	}
}

// scribble writes random bytes over a file from an offset on.
func scribble(path string, from int64) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	noise := make([]byte, len(b))
	_, _ = rand.Read(noise) // never fails
	return os.WriteFile(path, bytes.Join([][]byte{b[:min(from, int64(len(b)))], noise[min(from, int64(len(b))):]}, nil), 0o600)
}
