//go:build engine && interop && linux

package clients

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"deckhand/test/system"
)

// peers is where balena's own programs are.
const peers = "../interop/node_modules"

// deadline is how long anything may take on a loaded machine. Nothing waits so
// long unless it is broken.
const deadline = 90 * time.Second

// owner is somebody who types commands of balena's CLI.
type owner struct {
	testing.TB
	dir     string // the home
	seen    *recorder
	env     []string
	session *session
}

// newOwner gives somebody who is not logged in.
func newOwner(t testing.TB) *owner {
	t.Helper()
	bin, err := filepath.Abs(filepath.Join(peers, ".bin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(bin, "balena")); err != nil {
		t.Fatalf("balena's CLI is not installed, run: make interop-peers (%v)", err)
	}
	o := &owner{TB: t, dir: t.TempDir(), seen: newRecorder(t), session: sessions.begin(t.Name())}
	o.env = []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + o.dir, "DOCKER_HOST=" + set.desk.Host,
		"BALENARC_API_URL=" + o.seen.URL, "BALENARC_BUILDER_URL=" + o.seen.URL, "BALENARC_BALENA_URL=example.test",
		"BALENARC_DASHBOARD_URL=" + o.seen.URL, "BROWSER=true", // nobody looks
		"BALENARC_DATA_DIRECTORY=" + o.data(),
		"BALENARC_NO_SENTRY=1", "BALENARC_NO_ANALYTICS=1", "BALENARC_UNSUPPORTED=1",
		"BALENA_DISABLE_AUTOUPDATE=1", // it would go on in the background, after the test
	}
	return o
}

// data is where the CLI keeps what it remembers.
func (o *owner) data() string { return filepath.Join(o.dir, "balena") }

// loggedIn gives somebody who is logged in as the cloud's owner, and runs beside others.
func loggedIn(t *testing.T) *owner {
	t.Helper()
	t.Parallel()
	o := newOwner(t)
	o.must(os.MkdirAll(o.data(), 0o700))
	o.must(os.WriteFile(filepath.Join(o.data(), "token"), []byte(set.token), 0o600))
	return o
}

func (o *owner) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// command is one that was typed.
type command struct {
	*owner
	line    string
	log     *system.Log
	process *system.Process
	keys    io.Writer // nil: nothing can be typed into it
}

// converses starts a command on a terminal, where it asks questions.
func (o *owner) converses(line string) *command {
	o.Helper()
	typed, keys, err := os.Pipe()
	o.must(err)
	o.Cleanup(func() { _, _ = typed.Close(), keys.Close() })
	c := &command{owner: o, line: line, log: system.NewLog(nil), keys: keys}
	c.process, err = system.RunWith(typed, c.log, o.env, "script", "--quiet", "--return", "--flush", "--command", "balena "+line, "/dev/null")
	o.must(err)
	o.Cleanup(c.process.Kill)
	return c
}

// answers waits for a question and types the answer.
func (c *command) answers(question, answer string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), deadline)
	defer cancel()
	if err := system.Until(ctx, func(context.Context) error { return contains(c.log.String(), question) }); err != nil {
		c.Fatalf("$ balena %s\n%s\n%v", c.line, c.log, err)
	}
	if _, err := io.WriteString(c.keys, answer); err != nil {
		c.Fatal(err)
	}
}

// types starts a command and does not wait for its end.
func (o *owner) types(line string) *command {
	o.Helper()
	c := &command{owner: o, line: line, log: system.NewLog(nil)}
	var err error
	c.process, err = system.Run(c.log, o.env, filepath.Join(peers, ".bin", "balena"), words(line)...)
	o.must(err)
	o.Cleanup(c.process.Kill)
	return c
}

// words splits a line as a shell does; only single quotes are known.
func words(line string) []string {
	var all []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			all = append(all, part)
			continue
		}
		all = append(all, strings.Fields(part)...)
	}
	return all
}

// ends waits for the end and gives the exit code.
func (c *command) ends() int {
	c.Helper()
	select {
	case <-c.process.Done():
	case <-time.After(deadline):
		c.process.Kill()
		c.Errorf("$ balena %s\n%s\nit did not end", c.line, c.log)
	}
	exchanges := c.seen.take()
	c.session.add(c.line, c.log.String(), exchanges)
	for _, e := range exchanges {
		if e.status >= http.StatusInternalServerError || e.status == http.StatusNotFound && e.answer == "404 page not found\n" {
			c.Errorf("$ balena %s\nits request failed: %s", c.line, e)
		}
	}
	return c.process.ExitCode()
}

// interrupt is Ctrl-C.
func (c *command) interrupt() {
	c.Helper()
	c.process.Signal(syscall.SIGINT)
	c.ends()
}

// shows waits until the command has printed a text; the command may go on.
func (c *command) shows(text string) {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.Context(), deadline)
	defer cancel()
	if _, err := c.log.Wait(ctx, 0, text, func(l system.Line) bool { return strings.Contains(l.Text, text) }); err != nil {
		c.Fatalf("$ balena %s\n%s\n%v", c.line, c.log, err)
	}
}

// says types a command that must succeed and show texts, and gives all that it
// shows. Spaces count once: tables are as wide as what is in them.
func (o *owner) says(line string, wants ...string) string {
	o.Helper()
	c := o.types(line)
	good := c.ends() == 0
	if good {
		o.session.works(line)
	}
	return c.end(good, "it failed", wants)
}

// refuses types a command that must fail and say why.
func (o *owner) refuses(line string, wants ...string) {
	o.Helper()
	c := o.types(line)
	c.end(c.ends() > 0, "it did not fail", wants)
}

func (c *command) end(good bool, otherwise string, wants []string) string {
	c.Helper()
	said := c.log.String()
	narrow := squeeze(said)
	missing := slices.DeleteFunc(slices.Clone(wants), func(w string) bool { return strings.Contains(narrow, squeeze(w)) })
	switch {
	case !good:
		c.Errorf("$ balena %s\n%s\n%s", c.line, said, otherwise)
	case len(missing) > 0:
		c.Errorf("$ balena %s\n%s\nit does not show %q", c.line, said, missing)
	}
	return said
}

// control is what moves the cursor of a terminal and gives it colours.
var control = regexp.MustCompile(`\x1b\[[0-9;?]*[A-Za-z]`)

func plain(s string) string { return control.ReplaceAllString(s, "") }

func squeeze(s string) string { return strings.Join(strings.Fields(plain(s)), " ") }

// reads types a command with --json and decodes what it shows.
func (o *owner) reads(line string, into any) {
	o.Helper()
	said := o.says(line + " --json")
	if i := strings.IndexAny(said, "[{"); i > 0 {
		said = said[i:]
	}
	if err := json.Unmarshal([]byte(said), into); err != nil {
		o.Fatalf("$ balena %s --json: %v\n%s", line, err, said)
	}
}

// lists types a command with --json and gives the rows that it shows.
func (o *owner) lists(line string) []row {
	o.Helper()
	var rows []row
	o.reads(line, &rows)
	return rows
}

// row is one of a list.
type row map[string]any

// text gives a field as it would be typed.
func (r row) text(field string) string {
	if n, ok := r[field].(float64); ok {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprint(r[field])
}

// with gives the only row in which a field has a value.
func (o *owner) with(rows []row, field, value string) row {
	o.Helper()
	var found []row
	for _, r := range rows {
		if r.text(field) == value {
			found = append(found, r)
		}
	}
	if len(found) != 1 {
		o.Fatalf("%d rows have %s = %s, want one: %v", len(found), field, value, rows)
	}
	return found[0]
}

// file writes a file below the owner's home and gives its path.
func (o *owner) file(name, content string) string {
	o.Helper()
	path := filepath.Join(o.dir, name)
	o.must(os.MkdirAll(filepath.Dir(path), 0o755))
	o.must(os.WriteFile(path, []byte(content), 0o600))
	return path
}

// fleet makes a fleet for the story, without the CLI, and gives its slug.
func (o *owner) fleet(name string) string {
	o.Helper()
	f, err := set.cloud.Client.CreateFleet(o.Context(), name, "generic-amd64")
	o.must(err)
	return f.Slug
}

// device registers a device of a fleet, without the CLI, and gives its UUID.
func (o *owner) device(fleet, digit string) string {
	o.Helper()
	f, err := set.cloud.Client.Fleet(o.Context(), fleet)
	o.must(err)
	r, err := set.cloud.Client.RegisterDevice(o.Context(), f, strings.Repeat(digit, 32))
	o.must(err)
	return r.UUID
}
