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
	for _, a := range v.Apps {
		fmt.Fprintf(w, "\n%s  %s\n", a.Name, releaseLine(a))
		if len(a.Services) == 0 {
			continue
		}
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
		fmt.Fprintln(t, "  SERVICE\tSTATUS\tHEALTH\tRELEASE\tNOW")
		for _, s := range a.Services {
			now := s.Next
			if s.Progress != nil {
				now += fmt.Sprintf(" %d%%", *s.Progress)
			}
			fmt.Fprintf(t, "  %s\t%s\t%s\t%s\t%s\n", s.Name, s.Status, cmp.Or(s.Health, "-"), cmp.Or(commit(s.Release), "-"), cmp.Or(now, "-"))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, x := range v.Waiting {
		fmt.Fprintf(w, "\nwaits    %s until %s (%s), after %d failed tries\n         %s: %s\n         %s\n",
			x.Step, x.Until.Local().Format(time.TimeOnly), until(x.Until), x.Tries, x.Class, x.Text, x.Advice)
	}
	for i, d := range v.Declined {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "not done %s: %s\n", d.Subject, d.Why)
	}
	return nil
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
