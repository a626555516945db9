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

	"deckhand/supervisor"
	"deckhand/supervisor/history"
)

func historyCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	format := fs.String("o", "text", "output `format`: text or json")
	last := fs.Int("n", 50, "how many `entries`, up to 1000")
	since := fs.Duration("since", 0, "only what ended within this `time`, 2h for example")
	return func(ctx context.Context, args []string) error {
		if *format != "text" && *format != "json" {
			return usageError{fmt.Errorf("-o %s: use text or json", *format)}
		}
		h, err := supervisor.Ask{DataDir: s.dataDir}.History(ctx, strings.Join(args, ""), *since, *last)
		if err != nil {
			return err
		}
		if *format == "text" {
			return printHistory(os.Stdout, h, time.Now())
		}
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(h)
	}
}

// printHistory prints one entry a line, newest last.
func printHistory(w io.Writer, h history.Page, now time.Time) error {
	if len(h.Entries) == 0 {
		fmt.Fprintln(w, "nothing is remembered of it")
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	for _, x := range h.Entries {
		e := history.Event{Why: x.Why, Text: x.Text, Class: x.Class, Took: x.Took}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", when(x.At, now), cmp.Or(x.Outcome, "-"), took(e), x.Title, eventText(e))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if h.More {
		fmt.Fprintln(w, "… there is more; ask with a larger -n")
	}
	return nil
}
