//go:build engine && interop && linux

package clients

import (
	"encoding/json"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// verdict is a row of the manual's table: commands, and how they fare.
var verdict = regexp.MustCompile("^\\| (`[a-z].*`) \\| (works|differs|absent) \\|")

var quoted = regexp.MustCompile("`([^`]+)`")

// The manual names each command of the CLI once, and what works has been typed.
func manual(t *testing.T) {
	page, err := os.ReadFile("../../docs/compatibility.md")
	if err != nil {
		t.Fatal(err)
	}
	verdicts := map[string]string{}
	for line := range strings.Lines(string(page)) {
		m := verdict.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		for _, name := range quoted.FindAllStringSubmatch(m[1], -1) {
			if verdicts[name[1]] != "" {
				t.Errorf("docs/compatibility.md names %q twice", name[1])
			}
			verdicts[name[1]] = m[2]
		}
	}
	all := commands(t)
	for name := range verdicts {
		if !slices.Contains(all, name) {
			t.Errorf("docs/compatibility.md: there is no command %q", name)
		}
	}
	worked := map[string]bool{}
	for _, line := range sessions.worked() {
		worked[commandOf(line, all)] = true
	}
	for _, name := range all {
		switch {
		case verdicts[name] == "":
			t.Errorf("docs/compatibility.md does not say how %q fares", name)
		case verdicts[name] == "works" && !worked[name]:
			t.Errorf("docs/compatibility.md: %q works, but no story has it succeed", name)
		case verdicts[name] == "absent" && worked[name]:
			t.Errorf("docs/compatibility.md: %q is absent, but it succeeded", name)
		}
	}
}

// commands are all of the CLI's, by its own list.
func commands(t *testing.T) []string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(peers, "balena-cli/oclif.manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var manifest struct {
		Commands map[string]struct{ Hidden bool }
	}
	if err := json.Unmarshal(content, &manifest); err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(manifest.Commands, func(_ string, c struct{ Hidden bool }) bool { return c.Hidden })
	var all []string
	for _, id := range slices.Sorted(maps.Keys(manifest.Commands)) {
		all = append(all, strings.ReplaceAll(id, ":", " "))
	}
	return all
}

// commandOf is the longest command that a line begins with.
func commandOf(line string, all []string) string {
	found := ""
	for _, name := range all {
		if strings.HasPrefix(line+" ", name+" ") && len(name) > len(found) {
			found = name
		}
	}
	return found
}
