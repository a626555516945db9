// Package architecture checks what the architecture promises of the tree as a
// whole: which entries it has, what the device's binary links and weighs, and
// that every package says once what it is for.
package architecture

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

const (
	root   = "../.."
	device = "./cmd/deckhand"
	owner  = "./cmd/deckctl"
	golden = "testdata/deps.txt"
)

// A newcomer and the tools that build the images find these at the top.
func TestTopLevelEntries(t *testing.T) {
	for _, name := range []string{
		"cmd", "reconcile", "state", "strategy", "locks", "hostapp", "test",
		"Dockerfile.arm", "Dockerfile.amd64", "go.mod",
	} {
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			t.Errorf("the tree lacks %s: %v", name, err)
		}
	}
}

// Somebody who imports a package of ours gets what we tested, not what their
// own go.mod says: a replace would hold for us alone.
func TestGoModReplacesNothing(t *testing.T) {
	for _, file := range []string{"go.mod", "tools/go.mod", "test/s3/server/go.mod"} {
		var mod struct {
			Replace []struct{ Old, New struct{ Path string } }
		}
		if err := json.Unmarshal(run(t, "go", "mod", "edit", "-json", file), &mod); err != nil {
			t.Fatalf("read %s: %v", file, err)
		}
		for _, r := range mod.Replace {
			t.Errorf("%s replaces %s by %s", file, r.Old.Path, r.New.Path)
		}
	}
}

// The dependencies of the device's binary grow on purpose or not at all. After
// a wanted change: make update-goldens, and look at the difference.
func TestDeviceDependencies(t *testing.T) {
	skipWithoutDevice(t)
	now := strings.Split(strings.TrimSpace(string(run(t, "go", "list", "-deps",
		"-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", device))), "\n")
	slices.Sort(now)

	for _, dep := range now {
		for _, never := range []string{"deckhand/build", "deckhand/cloud", "deckhand/client", "deckhand/test"} {
			if dep == never || strings.HasPrefix(dep, never+"/") {
				t.Errorf("%s links %s: the device knows the cloud only through uplink", device, dep)
			}
		}
	}

	text := strings.Join(now, "\n") + "\n"
	if *update {
		if err := os.MkdirAll(filepath.Dir(golden), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(golden, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatalf("read golden: %v; make it with: make update-goldens", err)
	}
	if diff := cmp.Diff(strings.Fields(string(want)), now); diff != "" {
		t.Errorf("dependencies of %s changed (-want +now); if wanted: make update-goldens\n%s", device, diff)
	}
}

// Who pushes to a device needs neither the cloud nor its database.
func TestOwnersProgramWithoutCloud(t *testing.T) {
	for _, dep := range strings.Fields(string(run(t, "go", "list", "-deps", owner))) {
		for _, never := range []string{"deckhand/cloud", "database/sql", "modernc.org/sqlite"} {
			if dep == never || strings.HasPrefix(dep, never+"/") {
				t.Errorf("%s links %s: what it shares with the cloud belongs to package build", owner, dep)
			}
		}
	}
}

// Each package says in exactly one place what it is for.
func TestOnePackageComment(t *testing.T) {
	sources := map[string][]string{}  // package directory → its Go files, tests apart
	comments := map[string][]string{} // package directory → files with a package comment
	walk(t, func(path string) {
		dir := filepath.Dir(path)
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, path), nil,
			parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Errorf("parse %s: %v", path, err)
			return
		}
		if !strings.HasSuffix(path, "_test.go") {
			sources[dir] = append(sources[dir], path)
		}
		if file.Doc != nil && file.Doc.Text() != "" {
			comments[dir] = append(comments[dir], path)
		}
	})
	for dir := range sources {
		if len(comments[dir]) == 0 {
			t.Errorf("package %s has no package comment", dir)
		}
	}
	for dir, files := range comments {
		if len(files) > 1 {
			t.Errorf("package %s has more than one package comment: %s", dir, strings.Join(files, ", "))
		}
	}
}

// walk calls do with each Go file of the module, by its path from the root.
func walk(t *testing.T, do func(path string)) {
	t.Helper()
	err := fs.WalkDir(os.DirFS(root), ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			hidden := name != "." && (strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_"))
			if hidden || name == "testdata" || name == "node_modules" || path == "tools" || path == "dist" || path == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(name, ".go") {
			do(path)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("walk the tree: %v", err)
	}
}

// skipWithoutDevice skips while the device's program is not written.
func skipWithoutDevice(t *testing.T) {
	t.Helper()
	if found, _ := filepath.Glob(filepath.Join(root, device, "*.go")); len(found) == 0 {
		t.Skipf("no %s yet", device)
	}
}

// run runs a command at the root for the smallest board and returns what it
// prints.
func run(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm", "GOARM=6")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return out
}
