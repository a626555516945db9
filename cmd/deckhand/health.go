package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"deckhand/supervisor"
)

// errUnhealthy says what was printed already.
var errUnhealthy = errors.New("the supervisor is not healthy")

func healthCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	return func(ctx context.Context, _ []string) error {
		v, err := supervisor.Ask{DataDir: s.dataDir}.Status(ctx)
		if err != nil {
			return err
		}
		if printHealth(os.Stdout, v, time.Now()); len(v.Unhealthy) > 0 {
			return errUnhealthy
		}
		return nil
	}
}

// printHealth prints what is wrong, and since when.
func printHealth(w io.Writer, v supervisor.View, now time.Time) {
	if len(v.Unhealthy) == 0 {
		fmt.Fprintln(w, "healthy")
	}
	for _, a := range v.Unhealthy {
		fmt.Fprintf(w, "unhealthy  %s, for %s (since %s): %s\n", a.Check, ago(now.Sub(a.Since)), when(a.Since, now), a.Text)
		if a.Advice != "" {
			fmt.Fprintf(w, "           %s\n", a.Advice)
		}
	}
}
