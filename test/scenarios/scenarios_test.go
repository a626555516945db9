// Package scenarios tells what a device does in concrete situations. Each file
// beneath it is one situation: what the device runs, what the cloud asks for,
// and, as the golden part, the plan and the story of its rounds. README.md
// describes the format.
package scenarios

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/strategy"
	"deckhand/test/scenarios/story"
)

var update = flag.Bool("update", false, "rewrite the plan and story sections")

func TestScenarios(t *testing.T) {
	for _, path := range files(t) {
		t.Run(strings.TrimSuffix(path, ".txtar"), func(t *testing.T) {
			s, err := story.Read(path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := s.Play(t.Context())
			if err != nil {
				t.Errorf("%v\nplan\n%s\nstory\n%s", err, got.Plan, got.Story)
			}
			if *update {
				if err := s.Write(got); err != nil {
					t.Error(err)
				}
				return
			}
			if diff := cmp.Diff(s.Plan, got.Plan); diff != "" {
				t.Errorf("the plan differs (-file +now); if this is wanted, run with -update and look at the difference\n%s", diff)
			}
			if diff := cmp.Diff(s.Story, got.Story); diff != "" {
				t.Errorf("the story differs (-file +now); if this is wanted, run with -update and look at the difference\n%s", diff)
			}
		})
	}
}

// A strategy counts as shown when a service that asks for it is replaced.
func TestEveryStrategyHasAScenario(t *testing.T) {
	shown := map[string]bool{}
	for _, path := range files(t) {
		s, err := story.Read(path)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Play(t.Context())
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		for _, n := range got.First.Nodes {
			if stop, ok := n.Step.(reconcile.Stop); ok {
				shown[got.Want.Apps[stop.App.UUID].Services[stop.Service].Strategy] = true
			}
		}
	}
	for name := range strategy.All {
		if !shown[name] {
			t.Errorf("no scenario shows how %s replaces a container; add one under strategies/", name)
		}
	}
}

// People find a scenario by its number, so each has exactly one.
func TestNamesAreUnique(t *testing.T) {
	form := regexp.MustCompile(`^([A-Z]\d\d)-[a-z0-9]+(-[a-z0-9]+)*\.txtar$`)
	seen := map[string]string{}
	for _, path := range files(t) {
		m := form.FindStringSubmatch(filepath.Base(path))
		if m == nil {
			t.Errorf("%s: want a name like U05-metadata-only.txtar", path)
			continue
		}
		if other := seen[m[1]]; other != "" {
			t.Errorf("%s and %s have the same number", other, path)
		}
		seen[m[1]] = path
	}
}

// What a scenario may say is looked up in the README, so it must be there.
func TestReadmeListsEveryLine(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range story.Words() {
		if !strings.Contains(string(readme), "`"+line+"`") {
			t.Errorf("README.md does not explain `%s`", line)
		}
	}
}

func files(t *testing.T) []string {
	t.Helper()
	out, err := filepath.Glob("*/*.txtar")
	if err == nil && len(out) == 0 {
		err = errors.New("there are no scenarios")
	}
	if err != nil {
		t.Fatal(err)
	}
	return out
}
