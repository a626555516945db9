//go:build bench

package bench

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"deckhand/test/system"
)

var planned = regexp.MustCompile(`(?m)^BenchmarkMake/([a-z_]+)/(\d+)\S*\s+\d+\s+([\d.]+) ns/op`)

// planner shows how planning grows, by the planner's own benchmark.
func planner(t *testing.T, b *bench) {
	root, err := system.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-run", "^$", "-bench", "^BenchmarkMake$",
		"-benchtime", "200ms", "-count", strconv.Itoa(b.rounds(3)), "./reconcile")
	cmd.Dir = root
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	type key struct {
		kind string
		n    int
	}
	found := map[key][]float64{}
	var kinds []string
	for _, m := range planned.FindAllStringSubmatch(string(text), -1) {
		n, _ := strconv.Atoi(m[2])
		ns, _ := strconv.ParseFloat(m[3], 64)
		k := key{m[1], n}
		if n == 10 && found[k] == nil {
			kinds = append(kinds, m[1])
		}
		found[k] = append(found[k], ns/1e6)
	}
	if len(kinds) == 0 {
		t.Fatalf("the planner's benchmark prints something else:\n%s", text)
	}
	out := b.table("Planning, milliseconds (medians), and how it grows with ten times the services",
		"plan", "10", "100", "growth", "1,000", "growth", "10,000", "growth", "target")
	for _, kind := range kinds {
		cells := []any{kind}
		for n := 10; n <= 10_000; n *= 10 {
			ms := median(found[key{kind, n}])
			cells = append(cells, fmt.Sprintf("%.3g", ms))
			if n > 10 {
				cells = append(cells, fmt.Sprintf("%.1f×", ms/median(found[key{kind, n / 10}])))
			}
		}
		out.row(append(cells, "10,000 < 250")...)
	}
}
