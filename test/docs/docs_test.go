// Package docs keeps the documentation honest: links lead somewhere, and the
// flags and commands it names exist.
package docs

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const root = "../.."

var (
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
	span    = regexp.MustCompile("`[^`\n]+`")
	link    = regexp.MustCompile(`\]\(([^()\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ +(.+?) *$`)
	notInID = regexp.MustCompile(`[^\p{L}\p{N} _-]`)
	flag    = regexp.MustCompile(`(?:^|[\s\x60(\[])(--?[a-z][a-z-]*)`)
)

// A reader who follows a link arrives, also at the heading it names.
func TestLinks(t *testing.T) {
	for _, page := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(prose(read(t, page)), -1) {
			if strings.Contains(m[1], "://") || strings.HasPrefix(m[1], "mailto:") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			to := page
			if file != "" {
				to = filepath.Join(filepath.Dir(page), file)
			}
			if _, err := os.Stat(filepath.Join(root, to)); err != nil {
				t.Errorf("%s links to %s, which is not there", page, m[1])
				continue
			}
			if anchor != "" && !slices.Contains(anchors(read(t, to)), anchor) {
				t.Errorf("%s links to %s; %s has no such heading, but %s", page, m[1], to, strings.Join(anchors(read(t, to)), " "))
			}
		}
	}
}

// manual ties a page to the program it describes, and names the program's
// commands.
type manual struct {
	page, program string
	commands      []string
}

func manuals() []manual {
	return []manual{
		{"docs/device.md", "deckhand", []string{"run", "status", "plan", "explain", "history", "restart", "stop", "start", "purge",
			"override", "retry", "apply", "snapshot", "health"}},
		{"docs/cloud.md", "deckhand-cloud", []string{"serve", "user add", "user list", "user reset-password", "user delete", "audit",
			"gc", "backup", "restore", "doctor"}},
		{"docs/take-over.md", "deckhand-import", []string{""}},
		{"docs/deckctl.md", "deckctl", []string{"login", "logout", "whoami", "fleet create", "fleet list",
			"device register", "device list", "device show", "device config", "push", "release list", "logs", "scan"}},
	}
}

// Every flag in the manual is one of the program, and the manual leaves no flag
// and no command out.
func TestFlags(t *testing.T) {
	bin := t.TempDir()
	args := []string{"build", "-o", bin, "-buildvcs=false", "-ldflags=-s -w"}
	for _, m := range manuals() {
		args = append(args, "./cmd/"+m.program)
	}
	output(t, "go", args...)
	if t.Failed() {
		t.FailNow()
	}
	for _, m := range manuals() {
		t.Run(m.program, func(t *testing.T) { m.compare(t, flagsOf(t, filepath.Join(bin, m.program), m.commands)) })
	}
}

func (m manual) compare(t *testing.T, real map[string]bool) {
	t.Helper()
	text := read(t, m.page)
	for _, f := range mentioned(text, m.program) {
		if !real[f] {
			t.Errorf("%s names the flag %s, which %s does not have", m.page, f, m.program)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(real)) {
		if short := len(f) == 2; !short && f != "--help" && !strings.Contains(text, "`"+f) {
			t.Errorf("%s does not explain the flag %s of %s", m.page, f, m.program)
		}
	}
	for _, c := range m.commands {
		if !strings.Contains(text, m.program+" "+c) {
			t.Errorf("%s does not mention %s %s", m.page, m.program, c)
		}
	}
}

// mentioned are the flags that a page names in code spans, and in the commands
// of examples that call the program. Other programs' flags are not looked at.
func mentioned(text, program string) []string {
	var pieces []string
	for _, block := range fence.FindAllString(text, -1) {
		block = strings.ReplaceAll(block, "\\\n", " ")
		for line := range strings.Lines(block) {
			if line = strings.TrimPrefix(line, "$ "); strings.HasPrefix(line, program+" ") {
				pieces = append(pieces, line)
			}
		}
	}
	for _, s := range span.FindAllString(prose(text), -1) {
		inner := strings.Trim(s, "`")
		if strings.HasPrefix(inner, program+" ") || strings.HasPrefix(inner, "-") {
			pieces = append(pieces, inner)
		}
	}
	var found []string
	for _, p := range pieces {
		for _, m := range flag.FindAllStringSubmatch(p, -1) {
			found = append(found, m[1])
		}
	}
	return found
}

// flagsOf asks a program for the help of each command and returns its flags,
// long ones with two dashes.
func flagsOf(t *testing.T, program string, commands []string) map[string]bool {
	t.Helper()
	var mu sync.Mutex
	var wait sync.WaitGroup
	all := map[string]bool{"--help": true}
	for _, c := range commands {
		wait.Go(func() {
			help := output(t, program, append(strings.Fields(c), "--help")...)
			mu.Lock()
			defer mu.Unlock()
			for line := range strings.Lines(help) {
				if !strings.HasPrefix(strings.TrimSpace(line), "-") {
					continue
				}
				for _, m := range flag.FindAllStringSubmatch(strings.NewReplacer(",", " ", "=", " ").Replace(line), -1) {
					name := strings.TrimLeft(m[1], "-")
					if len(name) > 1 {
						name = "-" + name
					}
					all["-"+name] = true
				}
			}
		})
	}
	wait.Wait()
	return all
}

// pages are all Markdown files of the project, by their path from the root.
func pages(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.md", "*/*.md", "*/*/*.md"} {
		names, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range names {
			rel, err := filepath.Rel(root, n)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(rel, ".") {
				found = append(found, rel)
			}
		}
	}
	return found
}

func read(t *testing.T, page string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, page))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// prose is a page without its examples.
func prose(text string) string { return fence.ReplaceAllString(text, "") }

// anchors are the names under which browsers find the headings.
func anchors(text string) []string {
	var all []string
	for _, m := range heading.FindAllStringSubmatch(prose(text), -1) {
		name := notInID.ReplaceAllString(strings.ToLower(strings.ReplaceAll(m[1], "`", "")), "")
		all = append(all, strings.ReplaceAll(name, " ", "-"))
	}
	return all
}

// output runs a command at the root and returns all that it prints. It may be
// called beside the test.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root
	if strings.ContainsRune(name, filepath.Separator) {
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // variables would show in the help
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	return out.String()
}
