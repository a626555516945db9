// Command deckhand keeps every container of a device in the state its owner
// asked for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"

	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/version"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

const usage = `deckhand keeps every container of a device in the state its owner asked for.

  deckhand run                    supervise this device
  deckhand status                 apps, services and what they wait for
  deckhand plan                   what would be done now, and why; changes nothing
  deckhand explain APP/SERVICE    why a service was restarted, and why it does not update
  deckhand history [APP/SERVICE]  what happened, newest last
  deckhand restart APP[/SERVICE]  replace containers by new ones
  deckhand stop APP[/SERVICE]     stop services until they are started or a new release comes
  deckhand start APP[/SERVICE]    start services that were stopped or have ended
  deckhand purge APP              delete the volumes of an app with the data in them
  deckhand override [APP]         break update locks for a while
  deckhand retry                  ask the cloud now, and try again what failed
  deckhand apply COMPOSE_FILE     bring up a compose file without any cloud
  deckhand snapshot               what plans are made from, as one file
  deckhand health                 exit 0 if the supervisor is healthy
  deckhand version

Run "deckhand COMMAND --help" for the flags of a command. Each flag has a
variable: --data-dir is DECKHAND_DATA_DIR.
`

// command is one subcommand: it registers its flags and gives what to run.
type command struct {
	name, args, does string
	setup            func(fs *flag.FlagSet) func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"run", "", "supervise this device", runCommand},
		{"status", "", "show apps, services and what they wait for", statusCommand},
		{"plan", "", "show what would be done now, and why; changes nothing", planCommand},
		{"explain", "APP/SERVICE", "show why a service was last restarted, and why it does not update; the app may be left out where only one has the service", explainCommand},
		{"history", "[APP/SERVICE]", "show what happened: steps, targets, requests, waits, what containers did; newest last. With a SERVICE only what is about it", historyCommand},
		{"restart", "APP[/SERVICE]", "replace containers by new ones, in the order of their dependencies", requestCommand(supervisor.RequestRestart)},
		{"stop", "APP[/SERVICE]", "stop services; they stay stopped, also over a reboot, until they are started or a new release comes", requestCommand(supervisor.RequestStop)},
		{"start", "APP[/SERVICE]", "start services that were stopped or have ended", requestCommand(supervisor.RequestStart)},
		{"purge", "APP", "delete the volumes of an app with the data in them, and make them anew", purgeCommand},
		{"override", "[APP]", "allow to break the update locks of an app, or of every app, for a while", overrideCommand},
		{"retry", "", "ask the cloud for news now, and try again what failed", requestCommand(supervisor.RequestRetry)},
		{"apply", "COMPOSE_FILE", "bring up a compose file without any cloud", applyCommand},
		{"snapshot", "", "write what plans are made from to standard output", snapshotCommand},
		{"health", "", "exit 0 if the supervisor is healthy", healthCommand},
		{"version", "", "show the version", versionCommand},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := dispatch(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

func dispatch(ctx context.Context, args []string, stderr io.Writer) int {
	if len(args) == 0 || args[0] == "help" || args[0] == "--help" || args[0] == "-h" {
		fmt.Fprint(stderr, usage)
		if len(args) == 0 {
			return exitUsage
		}
		return exitOK
	}
	all := commands()
	i := slices.IndexFunc(all, func(c command) bool { return c.name == args[0] })
	if i < 0 {
		fmt.Fprintf(stderr, "deckhand: there is no command %q\n\n%s", args[0], usage)
		return exitUsage
	}
	return all[i].run(ctx, args[1:], stderr)
}

func (c command) run(ctx context.Context, args []string, stderr io.Writer) int {
	fs := flag.NewFlagSet(c.name, flag.ContinueOnError)
	fs.SetOutput(stderr)
	do := c.setup(fs)
	fs.Usage = func() {
		fmt.Fprintf(stderr, "usage: deckhand %s [flags] %s\n\n  %s\n\n", c.name, c.args, c.does)
		fs.PrintDefaults()
	}
	rest, err := parse(fs, args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case err != nil:
		return exitUsage
	case len(rest) > 1, c.args == "" && len(rest) > 0, c.args != "" && c.args[0] != '[' && len(rest) == 0:
		fs.Usage()
		return exitUsage
	}
	if err := do(ctx, rest); err != nil {
		fmt.Fprintf(stderr, "deckhand: %s\n", sentence(err))
		if e, ok := errors.AsType[usageError](err); ok && e.error != nil {
			return exitUsage
		}
		return exitFailed
	}
	return exitOK
}

// usageError is a mistake in how the program was called.
type usageError struct{ error }

// parse lets flags stand before and behind arguments.
func parse(fs *flag.FlagSet, args []string) (rest []string, err error) {
	if err := fromEnvironment(fs); err != nil {
		fmt.Fprintln(fs.Output(), "deckhand:", err)
		return nil, err
	}
	for {
		if err := fs.Parse(args); err != nil {
			return nil, err
		}
		if fs.NArg() == 0 {
			return rest, nil
		}
		rest = append(rest, fs.Arg(0))
		args = fs.Args()[1:]
	}
}

func versionCommand(*flag.FlagSet) func(context.Context, []string) error {
	return func(context.Context, []string) error {
		fmt.Printf("deckhand %s %s/%s %s\n", version.Version, runtime.GOOS, runtime.GOARCH, runtime.Version())
		return nil
	}
}

// sentence is an error as people read it: classes are for programs.
func sentence(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*state.Error](err); ok {
		text = strings.Replace(text, e.Error(), e.Err.Error(), 1)
	}
	return text
}
