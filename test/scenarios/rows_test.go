package scenarios

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// rows are the situations that are known of balena's supervisor: what it does in
// each was observed. Every one has a file of its number, or an entry in elsewhere.
var rows = map[string][]int{
	"I": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18},
	"S": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17},
	"U": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23, 25, 26, 27, 28, 30, 31, 32, 33, 35, 36},
	"K": {1, 2, 3, 5, 6, 7, 8, 10},
	"D": {1, 2, 3, 5},
	"H": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13},
	"N": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22},
	"V": {1, 2, 3, 5, 6, 7, 8},
	"P": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18},
	"L": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18, 20, 21, 22, 23},
	"O": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13},
	"F": {1, 2, 3, 5, 6, 7, 8, 10, 11, 12, 13, 15, 16, 17, 18},
	"A": {1, 2, 3, 5, 6, 7, 8},
	"X": {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30},
}

// elsewhere says what shows a row that is not about the planner, or not about it
// alone: the test of another package, or why the situation cannot arise.
var elsewhere = map[string]struct{ pkg, test, why string }{
	"L15": {pkg: "locks", test: "TestOperationsOnOneAppWaitForEachOther"},
	"L16": {pkg: "locks", test: "TestLeftoversAreAdopted"},
	"L17": {pkg: "locks", test: "TestAFailureRemovesLeftovers"},
	"L18": {pkg: "locks", test: "TestAFailureRemovesLeftovers"},
	"L20": {pkg: "locks", test: "TestConcurrentUse"},
	"L21": {pkg: "locks", test: "TestKilledWhileHolding"},
	"L22": {pkg: "locks", test: "TestReleaseRemovesOnlyOurs"},
	"L23": {pkg: "locks", test: "TestForceTakesWhateverIsThere"},
	"F7":  {pkg: "reconcile/run", test: "TestBackOffDoublesAndSurvivesTheProcess"},
	"F13": {why: "the configuration of the host is not applied yet"},

	// These have a file as well; the test shows what a planner cannot.
	"P16": {pkg: "target", test: "TestOptionalServices"},
	"P17": {pkg: "target", test: "TestOneAppWhoseContractIsUnmetHoldsUpNoOther"},
	"F11": {pkg: "reconcile/run", test: "TestANewTargetCancelsAHangingDownload"},
	"S16": {pkg: "locks", test: "TestCleanReleasesUnknownApps"},
}

func TestEveryRowHasAFile(t *testing.T) {
	for letter, numbers := range rows {
		for _, n := range numbers {
			if err := shown(letter, n); err != nil {
				t.Error(err)
			}
		}
	}
	for row := range elsewhere {
		var n int
		if _, err := fmt.Sscan(row[1:], &n); err != nil || !slices.Contains(rows[row[:1]], n) {
			t.Errorf("%s is not a row", row)
		}
	}
}

// shown looks for the file of a row and for the test that elsewhere names.
func shown(letter string, n int) error {
	row := fmt.Sprintf("%s%d", letter, n)
	found, err := filepath.Glob(fmt.Sprintf("*/%s%02d-*.txtar", letter, n))
	if err != nil {
		return err
	}
	other, listed := elsewhere[row]
	if len(found) == 0 && !listed {
		return fmt.Errorf("%s has no file", row)
	}
	if !listed || other.why != "" {
		return nil
	}
	if err := hasTest(filepath.Join("..", "..", other.pkg), other.test); err != nil {
		return fmt.Errorf("%s: %w", row, err)
	}
	return nil
}

// hasTest looks for a test function in the files of a package.
func hasTest(dir, name string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "\nfunc "+name+"(t *testing.T)") {
			return nil
		}
	}
	return fmt.Errorf("there is no %s in %s", name, dir)
}

// A mistake that is known is said in the prose, and the other way round.
func TestKnownMistakesAreTold(t *testing.T) {
	told := regexp.MustCompile(`(?m)^BUG: `)
	for _, path := range files(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		prose, _, _ := strings.Cut(string(b), "\n-- ")
		if strings.Contains(string(b), "\nknown mistake: ") && !told.MatchString(prose) {
			t.Errorf("%s: the mistake is known and the prose has no paragraph that begins with BUG:", path)
		}
	}
}
