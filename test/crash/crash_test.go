// Package crash ends the supervisor at every point of every scenario and fails
// every call it makes, on the real packages and a simulated engine, and looks
// whether the device gets where it was going.
package crash

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // thousands of short lives: time matters, not memory
	goleak.VerifyTestMain(m)
}

// The quick part: a few scenarios of each topic, see everything_test.go.
func TestSample(t *testing.T) {
	everything(t, sample{scenarios: 9, crashes: 3, faults: 7, forEver: 7})
}

// sample says how much is left out: one of so many is tried.
type sample struct{ scenarios, crashes, faults, forEver int }

// tally counts what was tried.
type tally struct {
	mu                                          sync.Mutex
	scenarios, points, devices, faults, forEver int
}

func (y *tally) add(scenarios, points, devices, faults, forEver int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.scenarios += scenarios
	y.points += points
	y.devices += devices
	y.faults += faults
	y.forEver += forEver
}

// everything tries the scenarios side by side and prints how much that was.
func everything(t *testing.T, n sample) {
	files, err := filepath.Glob("../scenarios/*/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scenarios: %v", err)
	}
	var y tally
	t.Run("scenarios", func(t *testing.T) {
		for i, path := range files {
			if i%n.scenarios != 0 {
				continue
			}
			t.Run(strings.TrimSuffix(strings.TrimPrefix(path, "../scenarios/"), ".txtar"), func(t *testing.T) {
				t.Parallel()
				one(t, path, n, &y)
			})
		}
	})
	t.Logf("%d scenarios: %d crash points that leave %d different devices, %d calls that fail once, %d that fail for ever",
		y.scenarios, y.points, y.devices, y.faults, y.forEver)
}

// one tries one scenario.
func one(t *testing.T, path string, n sample, y *tally) {
	x, err := load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	at := place{filepath.Join(scratch(t), "device")}
	var f *film
	inBubble(t, "undisturbed", func(ctx context.Context) (err error) {
		f, err = record(ctx, x, at)
		return err
	})
	if t.Failed() {
		return
	}
	devices, points := 0, 0
	for i, m := range f.moments {
		if i%n.crashes != 0 {
			continue
		}
		devices, points = devices+1, points+m.points
		inBubble(t, "crash "+m.what, func(ctx context.Context) error {
			end, err := resume(ctx, x, m, at)
			if d := cmp.Diff(f.end, end); err == nil && d != "" {
				err = fmt.Errorf("the end differs (-undisturbed +crashed):\n%s", d)
			}
			return err
		})
	}
	faults, forEver := 0, 0
	for i, what := range f.once() {
		if i%n.faults == 0 {
			faults++
			inBubble(t, what.String(), func(ctx context.Context) error { return suffer(ctx, x, f, at, what) })
		}
	}
	for i, what := range f.forEver() {
		if i%n.forEver == 0 {
			forEver++
			inBubble(t, what.String(), func(ctx context.Context) error { return endure(ctx, x, f, at, what) })
		}
	}
	y.add(1, points, devices, faults, forEver)
}

// scratch is a folder in memory where there is one: nothing here is about what a
// disk does in a power cut.
func scratch(t *testing.T) string {
	t.Helper()
	if dir, err := os.MkdirTemp("/dev/shm", "crash"); err == nil {
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	return t.TempDir()
}
