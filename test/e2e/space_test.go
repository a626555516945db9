//go:build engine && linux

package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"deckhand/state"
	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// onSmallDisk is a scene whose engine has a small disk of its own.
func onSmallDisk(t *testing.T, size string) *scene {
	t.Helper()
	t.Parallel()
	dir, err := os.MkdirTemp("", "dk-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size="+size+",mode=755"); err != nil {
		t.Skipf("no small disk can be made here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	e, stop, err := dockerd.StartIn(filepath.Join(dir, "e"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	own := set
	own.engine = e
	return beginOn(t, own)
}

// An image that cannot fit is refused before it is downloaded, with the numbers;
// the last release runs on, and a release that fits is taken.
func TestImageTooLargeForTheDisk(t *testing.T) {
	s := onSmallDisk(t, "16m")
	fleet := s.fleet()
	duo := system.Compose("small", "large")
	marks := func(m string) map[string]string { return map[string]string{"small": m, "large": m} }
	first := s.push(fleet, duo, marks("1"))
	s.device(fleet)
	s.settles(first)
	before := s.services()
	tape := s.record()
	s.pushProject(fleet, system.Project{Compose: duo, Services: marks("2"), Ballast: map[string]int{"large": 9 << 20}})
	w := s.waits("fetch", state.ClassSpace)
	if !strings.Contains(w.Text, "MB") || !strings.Contains(w.Step, fleet.Name+"/large") || w.Until.IsZero() {
		t.Errorf("the status does not tell enough: %+v", w)
	}
	t.Logf("%s: %s", w.Step, w.Text)
	s.untouched(before)
	s.told([]string{"explain", "large"}, "fetch", string(state.ClassSpace))
	tape.never("kill small 1", "kill large 1")
	third := s.push(fleet, duo, marks("3"))
	s.settles(third)
	s.runs("large", "small")
}
