// Command deckhand-import takes over what balena's supervisor remembers, once,
// before deckhand first runs on a device.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"deckhand/takeover"
	"deckhand/version"
)

const usage = `deckhand-import takes over what balena's supervisor remembers: the keys that
containers call it with, releases, the last target, tags. Stop balena's
supervisor, run this once, start deckhand. The supervisor's files are only read.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run gives the exit code: 0 done, 1 it failed, 2 the command line is wrong.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	fs := flag.NewFlagSet("deckhand-import", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() { fmt.Fprint(stderr, usage); help(stderr, fs) }
	var c takeover.Config
	fs.StringVar(&c.Database, "from", "/resin-data/balena-supervisor/database.sqlite", "database of balena's supervisor, a `file`")
	fs.StringVar(&c.Config, "config", "/mnt/boot/config.json", "config.json of the device, a `file`")
	fs.StringVar(&c.DataDir, "data-dir", "/var/lib/deckhand", "deckhand's own memory, a `folder`")
	fs.BoolVar(&c.DryRun, "dry-run", false, "say what would be taken over, and write nothing")
	fs.BoolVar(&c.Force, "force", false, "write over what deckhand remembers")
	without := fs.String("without", "", "`parts` to leave out, separated by commas: "+strings.Join(takeover.Parts(), ", "))
	show := fs.Bool("version", false, "show the version")
	switch err := fs.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	case fs.NArg() > 0:
		fmt.Fprintf(stderr, "deckhand-import: what is %q? There are only flags; see --help\n", fs.Arg(0))
		return 2
	}
	if *show {
		fmt.Fprintln(stdout, version.Version)
		return 0
	}
	if *without != "" {
		c.Without = strings.Split(*without, ",")
	}
	f, err := takeover.Run(ctx, c)
	if err != nil {
		fmt.Fprintf(stderr, "deckhand-import: %v\nNothing was taken over.\n", err)
		return 1
	}
	tell(stdout, f, c.DryRun)
	return 0
}

func help(w io.Writer, fs *flag.FlagSet) {
	fs.VisitAll(func(f *flag.Flag) {
		name, does := flag.UnquoteUsage(f)
		line := "  --" + f.Name
		if name != "" {
			line += " " + strings.ToUpper(name)
		}
		if f.DefValue != "" && f.DefValue != "false" {
			does += " (" + f.DefValue + ")"
		}
		fmt.Fprintf(w, "%-22s  %s\n", line, does)
	})
}

func tell(w io.Writer, f takeover.Found, dry bool) {
	for _, line := range f.Lines {
		fmt.Fprintln(w, "  "+line)
	}
	if len(f.Left) > 0 {
		fmt.Fprintln(w, "Not taken over:")
		for _, line := range f.Left {
			fmt.Fprintln(w, "  "+line)
		}
	}
	if dry {
		fmt.Fprintln(w, "Nothing was written.")
		return
	}
	fmt.Fprintln(w, "Taken over. Start deckhand now, and look at \"deckhand plan\".")
}
