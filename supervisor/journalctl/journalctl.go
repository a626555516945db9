// Package journalctl reads past lines of the device's log: from the host's journal where
// there is one, and from the engine otherwise, in the formats of journalctl.
package journalctl

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"deckhand/engine"
	"deckhand/localapi"
	"deckhand/logs"
	"deckhand/state"
)

// Engine is the part of the engine that reads logs of the past.
type Engine interface {
	ReadExcerpt(ctx context.Context, id string, x engine.Excerpt, take func(logs.Record) error) error
}

// Journal is where past lines are.
type Journal struct {
	HostRoot string // where the host's root folder is mounted; empty: /
	Engine   Engine
	Sources  func() []logs.Source // the containers of now
}

// Open answers a question; what it gives ends with ctx. Errors of class invalid say what is
// wrong with the question.
func (j Journal) Open(ctx context.Context, q localapi.JournalQuery) (io.ReadCloser, error) {
	if program, folder, ok := hostJournal(j.HostRoot); ok {
		return journalctl(ctx, program, folder, q)
	}
	x := excerpts{engine: j.Engine, sources: j.Sources(), host: hostname(), now: time.Now()}
	return x.open(ctx, q)
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "localhost"
	}
	return name
}

// hostJournal finds the program and the journal; an empty folder is the usual one.
func hostJournal(root string) (program, folder string, ok bool) {
	program, err := exec.LookPath("journalctl")
	if err != nil {
		return "", "", false
	}
	for _, dir := range []string{"var/log/journal", "run/log/journal"} {
		dir = filepath.Join(cmp.Or(root, "/"), dir)
		if found, _ := filepath.Glob(filepath.Join(dir, "*", "*.journal")); len(found) > 0 {
			return program, dir, true
		}
	}
	return "", "", false
}

// journalArgs are the arguments of journalctl, each whole: nothing is ever read as
// another option.
func journalArgs(folder string, q localapi.JournalQuery) []string {
	args := []string{"--no-pager", "--directory=" + folder, "--output=" + q.Format}
	if q.All {
		args = append(args, "--all")
	}
	if q.Follow {
		args = append(args, "--follow")
	}
	if q.Count > 0 {
		args = append(args, "--lines="+strconv.Itoa(q.Count))
	}
	for name, value := range map[string]string{"unit": q.Unit, "identifier": q.Container, "since": q.Since, "until": q.Until} {
		if value != "" {
			args = append(args, "--"+name+"="+value)
		}
	}
	slices.Sort(args[1:])
	return args
}

// journalctl runs the program; it is killed with ctx.
func journalctl(ctx context.Context, program, folder string, q localapi.JournalQuery) (io.ReadCloser, error) {
	from, to := io.Pipe()
	var complaint bytes.Buffer
	cmd := exec.CommandContext(ctx, program, journalArgs(folder, q)...)
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = to, &limitedWriter{&complaint, 2000}, time.Second
	if err := cmd.Start(); err != nil {
		return nil, state.Classify(state.ClassEngine, fmt.Errorf("start journalctl: %w", err))
	}
	go func() {
		err := cmd.Wait()
		if text := strings.TrimSpace(complaint.String()); err != nil && text != "" {
			err = state.Classify(state.ClassInvalid, errors.New(text))
		}
		_ = to.CloseWithError(err)
	}()
	return from, nil
}

// limitedWriter keeps the beginning of what is written.
type limitedWriter struct {
	to   *bytes.Buffer
	most int
}

// Write implements io.Writer.
func (w *limitedWriter) Write(b []byte) (int, error) {
	w.to.Write(b[:min(len(b), max(w.most-w.to.Len(), 0))])
	return len(b), nil
}

// excerpts reads the past of containers from the engine, as journalctl would show
// it.
type excerpts struct {
	engine  Engine
	sources []logs.Source
	host    string
	now     time.Time
}

// manyLines is how many lines of each of several containers are put in order.
const manyLines = 1000

func (x excerpts) open(ctx context.Context, q localapi.JournalQuery) (io.ReadCloser, error) {
	invalid := func(format string, args ...any) error {
		return state.Classify(state.ClassInvalid, fmt.Errorf(format, args...))
	}
	write, ok := recordWriters()[q.Format]
	if !ok {
		return nil, invalid("format %s needs the host's journal, and there is none; json, cat and most forms of short work without", q.Format)
	}
	if q.Unit != "" {
		return nil, invalid("unit needs the host's journal, and there is none; containerId works without")
	}
	part := engine.Excerpt{Last: -1, Follow: q.Follow}
	var err error
	if part.Since, err = journalTime(q.Since, x.now); err != nil {
		return nil, invalid("since: %w", err)
	}
	if part.Until, err = journalTime(q.Until, x.now); err != nil {
		return nil, invalid("until: %w", err)
	}
	if q.Count > 0 {
		part.Last = q.Count
	}
	var of []logs.Source
	for _, s := range x.sources {
		if (q.Container == "" || strings.HasPrefix(s.Container, q.Container)) && (q.App == 0 || q.App == s.AppID) {
			of = append(of, s)
		}
	}
	if q.Container != "" && len(of) != 1 {
		return nil, invalid("containerId %q is that of %d containers", q.Container, len(of))
	}
	from, to := io.Pipe()
	go func() { _ = to.CloseWithError(x.write(ctx, of, part, record{write, to, x.host})) }()
	return from, nil
}

// write writes one log as it is, and several in order of time.
func (x excerpts) write(ctx context.Context, of []logs.Source, part engine.Excerpt, out record) error {
	if len(of) == 1 {
		return x.engine.ReadExcerpt(ctx, of[0].Container, part, func(r logs.Record) error { return out.line(of[0], r) })
	}
	type found struct {
		of logs.Source
		r  logs.Record
	}
	var all []found
	past := part
	past.Follow = false
	if past.Last < 0 {
		past.Last = manyLines
	}
	newest := map[string]int64{}
	for _, s := range of {
		err := x.engine.ReadExcerpt(ctx, s.Container, past, func(r logs.Record) error {
			r.Text = bytes.Clone(r.Text)
			all = append(all, found{s, r})
			newest[s.Container] = r.At
			return nil
		})
		if class := state.ClassOf(err); err != nil && class != state.ClassNotFound && class != state.ClassInvalid {
			return err
		}
	}
	slices.SortStableFunc(all, func(a, b found) int { return cmp.Compare(a.r.At, b.r.At) })
	if part.Last >= 0 {
		all = all[max(len(all)-part.Last, 0):]
	}
	for _, f := range all {
		if err := out.line(f.of, f.r); err != nil {
			return err
		}
	}
	if !part.Follow {
		return nil
	}
	var mu sync.Mutex
	var followers sync.WaitGroup
	for _, s := range of {
		followers.Go(func() {
			next := part
			next.Last, next.Since = -1, time.Unix(0, max(newest[s.Container]+1, x.now.UnixNano()))
			_ = x.engine.ReadExcerpt(ctx, s.Container, next, func(r logs.Record) error {
				mu.Lock()
				defer mu.Unlock()
				return out.line(s, r)
			})
		})
	}
	followers.Wait()
	return nil
}

// record writes lines in a format.
type record struct {
	write func(r record, s logs.Source, at time.Time, stderr bool, text string) error
	to    io.Writer
	host  string
}

func (r record) line(s logs.Source, x logs.Record) error {
	return r.write(r, s, time.Unix(0, x.At), x.Stderr, logs.Clean(x.Text))
}

// recordWriters are the formats that need no journal.
func recordWriters() map[string]func(record, logs.Source, time.Time, bool, string) error {
	short := func(stamp func(time.Time) string) func(record, logs.Source, time.Time, bool, string) error {
		return func(r record, s logs.Source, at time.Time, _ bool, text string) error {
			_, err := fmt.Fprintf(r.to, "%s %s %s[%s]: %s\n", stamp(at), r.host, s.Service, s.Container[:min(12, len(s.Container))], text)
			return err
		}
	}
	layout := func(l string) func(time.Time) string { return func(t time.Time) string { return t.Local().Format(l) } }
	return map[string]func(record, logs.Source, time.Time, bool, string) error{
		"short":             short(layout("Jan 02 15:04:05")),
		"short-precise":     short(layout("Jan 02 15:04:05.000000")),
		"short-iso":         short(layout("2006-01-02T15:04:05-07:00")),
		"short-iso-precise": short(layout("2006-01-02T15:04:05.000000-07:00")),
		"short-full":        short(layout("Mon 2006-01-02 15:04:05 MST")),
		"short-unix":        short(func(t time.Time) string { return fmt.Sprintf("%d.%06d", t.Unix(), t.Nanosecond()/1000) }),
		"cat": func(r record, _ logs.Source, _ time.Time, _ bool, text string) error {
			_, err := fmt.Fprintln(r.to, text)
			return err
		},
		"json": writeJSON,
	}
}

// writeJSON writes the fields that the engine's journal driver would.
func writeJSON(r record, s logs.Source, at time.Time, stderr bool, text string) error {
	priority := "6"
	if stderr {
		priority = "3"
	}
	e := json.NewEncoder(r.to)
	e.SetEscapeHTML(false)
	return e.Encode(struct {
		At         string `json:"__REALTIME_TIMESTAMP"`
		Message    string `json:"MESSAGE"`
		Priority   string `json:"PRIORITY"`
		Container  string `json:"CONTAINER_ID"`
		Full       string `json:"CONTAINER_ID_FULL"`
		Service    string `json:"SERVICE_NAME"`
		Identifier string `json:"SYSLOG_IDENTIFIER"`
		Host       string `json:"_HOSTNAME"`
	}{strconv.FormatInt(at.UnixMicro(), 10), text, priority, s.Container[:min(12, len(s.Container))], s.Container, s.Service,
		s.Container[:min(12, len(s.Container))], r.host})
}

// distance reads "-1h", "+5min" and "2 days ago".
func distance(text string) (time.Duration, bool) {
	m := relativeTime.FindStringSubmatch(text)
	if m == nil || m[1] == "" && m[4] == "" {
		return 0, false
	}
	n, err := strconv.Atoi(m[2])
	if err != nil || n >= 100_000 {
		return 0, false
	}
	if m[1] == "-" || m[4] != "" {
		n = -n
	}
	units := map[byte]time.Duration{'s': time.Second, 'm': time.Minute, 'h': time.Hour, 'd': 24 * time.Hour, 'w': 7 * 24 * time.Hour}
	return time.Duration(n) * units[m[3][0]], true
}

var relativeTime = regexp.MustCompile(`^([+-]?)(\d+) ?(s|sec|second|seconds|m|min|minute|minutes|h|hr|hour|hours|d|day|days|w|week|weeks)( ago)?$`)

// journalTime reads the usual forms of journalctl's times; empty: none.
func journalTime(text string, now time.Time) (time.Time, error) {
	text = strings.TrimSpace(text)
	today := time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, now.Location())
	switch text {
	case "":
		return time.Time{}, nil
	case "now":
		return now, nil
	case "today":
		return today, nil
	case "yesterday":
		return today.AddDate(0, 0, -1), nil
	}
	if seconds, ok := strings.CutPrefix(text, "@"); ok {
		if f, err := strconv.ParseFloat(seconds, 64); err == nil && f >= 0 && f < 1<<33 {
			return time.UnixMicro(int64(f * 1e6)), nil
		}
	}
	if d, ok := distance(text); ok {
		return now.Add(d), nil
	}
	for _, form := range []string{time.DateTime, "2006-01-02 15:04:05.999999", "2006-01-02 15:04", time.DateOnly, "2006-01-02T15:04:05", "2006-01-02 15:04:05 UTC"} {
		where := now.Location()
		if strings.HasSuffix(form, "UTC") {
			where = time.UTC
		}
		if t, err := time.ParseInLocation(form, text, where); err == nil {
			return t, nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time like 2026-11-22 16:05:00, -1h, yesterday or @1795364146", text)
}
