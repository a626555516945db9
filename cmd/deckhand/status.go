package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"deckhand/supervisor"
)

// printStatus prints the device as a person reads it.
func printStatus(w io.Writer, v supervisor.View) error {
	fmt.Fprintf(w, "device   %s\n", cmp.Or(strings.TrimSpace(v.Name+" "+v.Device), "(not registered)"))
	fmt.Fprintf(w, "engine   %s\n", cmp.Or(v.Engine, "not reached"))
	fmt.Fprintf(w, "cloud    %s\n", cloudLine(v.Cloud))
	fmt.Fprintf(w, "state    %s\n", strings.TrimSpace(v.State+" "+reason(v.Reason)))
	for _, a := range v.Unhealthy {
		fmt.Fprintf(w, "unwell   %s, since %s: %s\n", a.Check, when(a.Since, time.Now()), a.Text)
	}
	for _, a := range v.Apps {
		fmt.Fprintf(w, "\n%s  %s\n", a.Name, releaseLine(a))
		if len(a.Services) == 0 {
			continue
		}
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "  SERVICE\tSTATUS\tHEALTH\tRELEASE\tNOW")
		for _, s := range a.Services {
			now := cmp.Or(s.Next, s.Note)
			if s.Progress != nil {
				now += fmt.Sprintf(" %d%%", *s.Progress)
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", s.Name, s.Status, cmp.Or(s.Health, "-"), cmp.Or(commit(s.Release), "-"), cmp.Or(now, "-"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	printStanding(w, v)
	for i, d := range v.Declined {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "not done %s: %s\n", d.Subject, d.Why)
	}
	return nil
}

// printStanding prints what holds the device back and what people allowed or
// asked for.
func printStanding(w io.Writer, v supervisor.View) {
	for _, x := range v.Waiting {
		if x.Tries == 0 {
			fmt.Fprintf(w, "\nwaits    %s\n         %s by %s, for %s\n         %s\n", x.Step, x.Text, cmp.Or(x.Holder, "somebody"), ago(time.Since(x.Since)), x.Advice)
			continue
		}
		fmt.Fprintf(w, "\nwaits    %s until %s (%s), after %d failed tries\n         %s: %s\n         %s\n",
			x.Step, x.Until.Local().Format(time.TimeOnly), until(x.Until), x.Tries, x.Class, x.Text, x.Advice)
	}
	for i, r := range v.Requests {
		if i == 0 {
			fmt.Fprintln(w)
		}
		what := r.App
		if len(r.Services) > 0 {
			what += "/" + strings.Join(r.Services, ", ")
		}
		fmt.Fprintf(w, "asked    %s %s, by %s at %s\n", r.Kind, what, r.By, when(r.At, time.Now()))
	}
	for i, o := range v.Override {
		if i == 0 {
			fmt.Fprintln(w)
		}
		end := "until it is taken back"
		if !o.Until.IsZero() {
			end = "until " + when(o.Until, time.Now())
		}
		fmt.Fprintf(w, "override update locks of %s may be broken %s, allowed by %s\n", cmp.Or(o.App, "every app"), end, o.By)
	}
	printLeases(w, v)
	if v.Reboot {
		fmt.Fprintln(w, "\nreboot   the device has to restart, and does so when all locks allow it")
	}
}

// printLeases prints who holds update locks over the local API.
func printLeases(w io.Writer, v supervisor.View) {
	for i, l := range v.Leases {
		if i == 0 {
			fmt.Fprintln(w)
		}
		who := l.Holder
		if l.Reason != "" {
			who += " (" + l.Reason + ")"
		}
		end := "until " + when(l.Until, time.Now())
		if l.BrokenBy != "" {
			end = "broken at " + when(l.BrokenAt, time.Now()) + ", allowed by " + l.BrokenBy
		}
		fmt.Fprintf(w, "lease    %s/%s: %s, since %s, %s\n", l.App, l.Service, who, when(l.Since, time.Now()), end)
	}
}

func cloudLine(c *supervisor.Cloud) string {
	switch {
	case c == nil:
		return "none configured"
	case c.Endpoint == "":
		return "not known: " + c.Problem
	case !c.Provisioned:
		return c.Endpoint + ", not registered yet " + reason(c.Problem)
	case c.Problem != "":
		return c.Endpoint + " " + reason(c.Problem)
	case c.LastPoll.IsZero():
		return c.Endpoint + ", not reached yet"
	}
	return fmt.Sprintf("%s, asked %s ago", c.Endpoint, time.Since(c.LastPoll).Round(time.Second))
}

func reason(text string) string {
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

func releaseLine(a supervisor.AppView) string {
	switch {
	case a.Rejected != "":
		return fmt.Sprintf("release %s; %s is rejected: %s", cmp.Or(commit(a.Release), "none"), commit(a.Target), a.Rejected)
	case a.Target == "":
		return "no release asked for"
	case a.Release == a.Target:
		return "release " + commit(a.Release)
	case a.Release == "":
		return "moving to release " + commit(a.Target)
	}
	return "moving from release " + commit(a.Release) + " to " + commit(a.Target)
}

// commit is the part of a commit that people compare.
func commit(c string) string { return c[:min(7, len(c))] }

func until(t time.Time) string {
	d := time.Until(t).Round(time.Second)
	if d <= 0 {
		return "now"
	}
	return "in " + d.String()
}
