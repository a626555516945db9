// Package timing draws the diagrams of docs/strategies.md: the real loop updates
// a simulated device on which every step takes its time, in virtual time. The
// tests compare the files with what happens now, so that no diagram tells of a
// planner that is gone.
package timing

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/compose"
	"deckhand/strategy"
)

var update = flag.Bool("update", false, "write docs/images and the numbers in docs/strategies.md")

const (
	images = "../../docs/images"
	page   = "../../docs/strategies.md"
)

// scenes are all diagrams: one for each strategy, and some that show more.
func scenes() []scene {
	var all []scene
	for _, name := range slices.Sorted(maps.Keys(strategy.All)) {
		all = append(all, scene{
			file: "strategy-" + name, title: name, length: 7 * time.Second,
			labels: map[string]string{compose.LabelStrategy: name},
		})
	}
	return append(all,
		scene{file: "depends-on", title: strategy.Default + ", web depends on a healthy api", length: 8 * time.Second, healthy: true},
		scene{file: "locks", title: strategy.Default + ", api holds its update lock", length: 9 * time.Second, held: [2]time.Duration{time.Second, 5500 * time.Millisecond}},
		scene{
			file: "hand-over-kept", title: "hand-over that is not in time, with keep-old", length: 8 * time.Second, silent: true,
			labels: map[string]string{
				compose.LabelStrategy: "hand-over", compose.LabelHandoverTimeout: "2500", compose.LabelHandoverOnTimeout: "keep-old",
			},
		})
}

// The diagrams and the numbers beside them show what the loop does now.
func TestDiagrams(t *testing.T) {
	var table strings.Builder
	table.WriteString("| | `web` down | `api` down | containers running, at most | images on disk, at most | locks held | release reached |\n|---|---|---|---|---|---|---|\n")
	for _, s := range scenes() {
		f := s.play(t)
		golden(t, filepath.Join(images, s.file+".svg"), f.svg())
		reached := "never"
		if f.reached > 0 {
			reached = "after " + seconds(f.reached)
		}
		fmt.Fprintf(&table, "| [%s](#%s) | %s | %s | %d | %d | %s | %s |\n", s.title, anchor(s), seconds(f.down["web"]), seconds(f.down["api"]),
			f.containers, f.images, seconds(f.locked), reached)
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- numbers: written by make update-goldens -->\n", "<!-- end of numbers -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no place for the numbers between %q and %q", page, begin, end)
	}
	golden(t, page, []byte(head+begin+table.String()+end+tail))
}

// anchor is the section of the page that has the diagram.
func anchor(s scene) string {
	if _, ok := strategy.All[s.title]; ok {
		return s.title
	}
	return map[string]string{"depends-on": "depends_on-and-health-checks", "locks": "update-locks", "hand-over-kept": "when-it-is-not-in-time"}[s.file]
}

func golden(t *testing.T, path string, now []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("read %s: %v; make it with: make update-goldens", path, err)
	}
	if !bytes.Equal(want, now) {
		t.Errorf("%s shows something else than what happens (-shown +happens); if that is wanted: make update-goldens\n%s", path, cmp.Diff(string(want), string(now)))
	}
}

// Whoever chooses a strategy finds a section about it, with its diagram, and a
// row in the table; every diagram is shown somewhere.
func TestEveryStrategyIsExplained(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for _, name := range slices.Sorted(maps.Keys(strategy.All)) {
		_, section, ok := strings.Cut(text, "\n### "+name+"\n")
		section, _, _ = strings.Cut(section, "\n##")
		if !ok || !strings.Contains(section, "](images/strategy-"+name+".svg)") {
			t.Errorf("%s has no section \"### %s\" with the diagram images/strategy-%s.svg", page, name, name)
		}
		if !strings.Contains(text, "\n| ["+name+"](#"+name+") |") && !strings.Contains(text, "\n| [`"+name+"`](#"+name+") |") {
			t.Errorf("the table of %s has no row for %s", page, name)
		}
	}
	for _, s := range scenes() {
		if !strings.Contains(text, "](images/"+s.file+".svg)") {
			t.Errorf("%s does not show images/%s.svg", page, s.file)
		}
	}
	files, err := filepath.Glob(filepath.Join(images, "*.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(filepath.Base(f), ".svg"); !slices.ContainsFunc(scenes(), func(s scene) bool { return s.file == name }) {
			t.Errorf("%s is drawn by nobody any more", f)
		}
	}
}

// Every label that says how a service is updated is on the page, with its
// values.
func TestEveryUpdateLabelIsExplained(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{compose.LabelStrategy, compose.LabelHandoverTimeout, compose.LabelHandoverOnTimeout, compose.LabelRequiresReboot,
		"`stop-old`", "`keep-old`", fmt.Sprint(strategy.HandoverTimeout.Milliseconds())}
	for _, w := range want {
		if !strings.Contains(string(b), w) {
			t.Errorf("%s does not mention %s", page, w)
		}
	}
}
