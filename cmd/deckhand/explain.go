package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"deckhand/reconcile"
	"deckhand/supervisor"
	"deckhand/supervisor/history"
)

func explainCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	format := fs.String("o", "text", "output `format`: text or json")
	return func(ctx context.Context, args []string) error {
		if *format != "text" && *format != "json" {
			return usageError{fmt.Errorf("-o %s: use text or json", *format)}
		}
		e, err := supervisor.Ask{DataDir: s.dataDir}.Explain(ctx, args[0])
		if err != nil {
			return err
		}
		if *format == "text" {
			return printExplanation(os.Stdout, e)
		}
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(e)
	}
}

// printExplanation prints the answer first, then what it is made of.
func printExplanation(w io.Writer, e history.Explanation) error {
	fmt.Fprintf(w, "%s/%s: %s\n\n", e.App, e.Service, e.Verdict)
	p := paragraphs{w}
	p.write("runs", runsText(e))
	p.write("wanted", wantsText(e))
	for _, b := range e.Blockers {
		p.write("waits", blockerText(b, e.Asked))
	}
	p.write("next", nextText(e.Next))
	if e.Restart != nil {
		p.write("started", restartText(*e.Restart, e.Asked))
	}
	for _, n := range e.Notes {
		p.write("note", n)
	}
	if len(e.Past) == 0 {
		fmt.Fprintln(w, "\nNothing is remembered of it.")
		return nil
	}
	fmt.Fprintln(w, "\nWhat happened, newest first:")
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, x := range e.Past {
		fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", when(x.At, e.Asked), cmp.Or(x.Outcome, "-"), took(x), x.Title, eventText(x))
	}
	return t.Flush()
}

// paragraphs prints labelled text whose further lines are indented.
type paragraphs struct{ w io.Writer }

func (p paragraphs) write(label, text string) {
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			label = ""
		}
		fmt.Fprintf(p.w, "  %-8s  %s\n", label, line)
	}
}

func runsText(e history.Explanation) string {
	r := e.Runs
	if r == nil {
		return "nothing: there is no container"
	}
	parts := []string{"release " + cmp.Or(commit(r.Release), "unknown"), r.Status}
	if r.Health != "" {
		parts = append(parts, r.Health)
	}
	if r.Status == "exited" {
		parts = append(parts, fmt.Sprintf("exit code %d", r.ExitCode))
	}
	parts = append(parts, fmt.Sprintf("container %.12s, made %s ago (%s)", r.Container, ago(e.Asked.Sub(r.Created)), when(r.Created, e.Asked)))
	return strings.Join(parts, ", ")
}

func wantsText(e history.Explanation) string {
	want := e.Wants
	if want == nil {
		return "nothing: the service is in no release that is asked for"
	}
	text := "release " + commit(want.Release)
	if !want.Running {
		text += ", stopped"
	}
	if !want.Since.IsZero() {
		text += fmt.Sprintf(", for %s (%s)", ago(e.Asked.Sub(want.Since)), when(want.Since, e.Asked))
	}
	return text
}

func blockerText(b history.Blocker, now time.Time) string {
	text := b.Text
	if !b.Since.IsZero() {
		text += fmt.Sprintf("\nfor %s (since %s)", ago(now.Sub(b.Since)), when(b.Since, now))
	}
	if b.Tries > 0 {
		text += fmt.Sprintf("\nclass %s, tried %s, next try at %s (%s)", b.Class, times(b.Tries), when(b.Until, now), until(b.Until))
	}
	if b.Advice != "" {
		text += "\n→ " + b.Advice
	}
	return text
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func nextText(steps []history.NextStep) string {
	if len(steps) == 0 {
		return "nothing to do"
	}
	const shown = 6
	var lines []string
	for i, s := range steps {
		if i == shown {
			lines = append(lines, fmt.Sprintf("and %d more, see deckhand plan", len(steps)-shown))
			break
		}
		line := s.Title + ": " + s.Why
		switch {
		case s.Percent != nil:
			line = fmt.Sprintf("now at %d%%: %s", *s.Percent, line)
		case s.Running:
			line = "now: " + line
		}
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n")
}

func restartText(r history.Restart, now time.Time) string {
	why := reconcile.Reason{Cause: r.Cause, Changes: r.Changes}
	text := fmt.Sprintf("%s ago (%s), because: %s", ago(now.Sub(r.At)), when(r.At, now), why)
	if r.By != "" {
		text += fmt.Sprintf("\nby %s (%s)", r.By, when(r.Asked, now))
	}
	var parts []string
	if r.Release != "" {
		parts = append(parts, "for release "+commit(r.Release))
	}
	if r.Down > 0 {
		parts = append(parts, "it was down for "+r.Down.String())
	}
	if len(parts) > 0 {
		text += "\n" + strings.Join(parts, ", ")
	}
	return text
}

func eventText(x history.Event) string {
	text := x.Why
	if x.Text != "" {
		if text != "" {
			text += "; "
		}
		if x.Class != "" {
			text += string(x.Class) + ": "
		}
		text += x.Text
	}
	return text
}

func took(x history.Event) string {
	if x.Took == 0 {
		return "-"
	}
	d := time.Duration(x.Took)
	if d >= time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.String()
}

// when is a time on the clock; with the day if that is not today.
func when(t, now time.Time) string {
	t, now = t.Local(), now.Local()
	if t.Format(time.DateOnly) == now.Format(time.DateOnly) {
		return t.Format(time.TimeOnly)
	}
	return t.Format("2006-01-02 15:04:05")
}

// ago is a length of time without false precision.
func ago(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
