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
	debug.SetGCPercent(1500) // thousands of short lives: time matters, not memory
	goleak.VerifyTestMain(m)
}

// The quick part: a few scenarios of each topic, see everything_test.go.
func TestSample(t *testing.T) {
	everything(t, sample{scenarios: 9, crashes: 3, twice: 9, faults: 7, forEver: 7})
}

// sample says how much is left out: one of so many is tried.
type sample struct{ scenarios, crashes, twice, faults, forEver int }

// tally counts what was tried.
type tally struct {
	mu                                                 sync.Mutex
	scenarios, points, devices, twice, faults, forEver int
}

func (y *tally) add(scenarios, points, devices, twice, faults, forEver int) {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.scenarios += scenarios
	y.points += points
	y.devices += devices
	y.twice += twice
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
	lost := "nothing is lost"
	if t.Failed() {
		lost = "something is lost, see above"
	}
	t.Logf("%d scenarios: %d crash points that leave %d different devices, %d second crashes, %d calls that fail once, %d that fail for ever: %s",
		y.scenarios, y.points, y.devices, y.twice, y.faults, y.forEver, lost)
}

// trial is one scenario on its way.
type trial struct {
	*testing.T
	x  *scene
	f  *film
	at place
}

// one tries one scenario.
func one(t *testing.T, path string, n sample, y *tally) {
	x, err := load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	r := trial{T: t, x: x, at: place{filepath.Join(scratch(t), "device")}}
	inBubble(t, "undisturbed", func(ctx context.Context) (err error) {
		r.f, err = record(ctx, x, r.at)
		return err
	})
	if t.Failed() {
		return
	}
	devices, points := 0, 0
	for i, m := range r.f.moments {
		if i%n.crashes == 0 {
			devices, points = devices+1, points+m.points
			r.crash("crash "+m.what, m)
		}
	}
	y.add(1, points, devices, r.crashTwice(n.twice), r.faults(n.faults), r.forEver(n.forEver))
}

func (r trial) crash(what string, m *moment) {
	inBubble(r.T, what, func(ctx context.Context) error {
		end, err := resume(ctx, r.x, m, r.at)
		if d := cmp.Diff(r.f.end, end); err == nil && d != "" {
			err = fmt.Errorf("the end differs (-undisturbed +crashed):\n%s", d)
		}
		return err
	})
}

// crashTwice ends the supervisor in the middle, and once more while it makes up
// for that.
func (r trial) crashTwice(every int) (count int) {
	middle := r.f.moments[len(r.f.moments)/2]
	var second *film
	inBubble(r.T, "crash "+middle.what, func(ctx context.Context) (err error) {
		second, err = recordAgain(ctx, r.x, middle, r.at)
		return err
	})
	if r.Failed() {
		return 0
	}
	for i, m := range second.moments {
		if i%every == every-1 {
			count++
			r.crash("crash "+middle.what+", then "+m.what, m)
		}
	}
	return count
}

func (r trial) faults(every int) (count int) {
	for i, what := range r.f.once() {
		if i%every == 0 {
			count++
			inBubble(r.T, what.String(), func(ctx context.Context) error { return suffer(ctx, r.x, r.f, r.at, what) })
		}
	}
	return count
}

func (r trial) forEver(every int) (count int) {
	for i, what := range r.f.forEver() {
		if i%every == 0 {
			count++
			inBubble(r.T, what.String(), func(ctx context.Context) error { return endure(ctx, r.x, r.f, r.at, what) })
		}
	}
	return count
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
