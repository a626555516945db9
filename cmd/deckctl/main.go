// Command deckctl is the owner's tool: it logs in to a cloud, makes fleets, registers
// devices, pushes projects and reads logs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"deckhand/client"
	"deckhand/state"
	"deckhand/version"
)

// Exit codes: scripts decide by them.
const (
	exitFailed  = 1   // what was asked did not work out; a build failed
	exitUsage   = 2   // wrong arguments, or not a project
	exitAuth    = 3   // not logged in, or not allowed
	exitNetwork = 4   // the cloud cannot be reached, or its answer was cut off
	exitBuilder = 5   // the builder itself failed
	exitInt     = 130 // stopped by Ctrl-C
	exitTerm    = 143 // stopped by SIGTERM
)

// tool is the command line.
type tool struct {
	JSON bool   `help:"Write lists and objects as JSON."`
	URL  string `name:"url" env:"DECKCTL_URL" help:"Address of the cloud's API, instead of the one logged in to." placeholder:"URL"`

	Login   loginCmd   `cmd:"" help:"Log in to a cloud."`
	Logout  logoutCmd  `cmd:"" help:"Forget the login."`
	Whoami  whoamiCmd  `cmd:"" help:"Show who is logged in, and where."`
	Fleet   fleetCmd   `cmd:"" help:"Make and list fleets."`
	Device  deviceCmd  `cmd:"" help:"Register, list and show devices, write their config.json."`
	Push    pushCmd    `cmd:"" help:"Build a project and make it the fleet's release, or have one device run it."`
	Release releaseCmd `cmd:"" help:"List releases."`
	Logs    logsCmd    `cmd:"" help:"Show what a device logs."`
	Scan    scanCmd    `cmd:"" help:"List the devices in this network."`
	Version versionCmd `cmd:"" help:"Show the version of this tool."`
}

// session is what commands work with.
type session struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            func(string) string
	json           bool
	url            string
}

// exitError asks for an exit code; its text, if any, is printed.
type exitError struct {
	code int
	err  error
}

// Error is the text of the cause.
func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

// Unwrap gives the cause.
func (e *exitError) Unwrap() error { return e.err }

func main() { os.Exit(realMain()) }

// realMain gives signals a meaning and runs the tool.
func realMain() int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		code := exitInt
		if <-signals == syscall.SIGTERM {
			code = exitTerm
		}
		signal.Stop(signals) // the next one ends the process at once
		cancel(&exitError{code: code})
	}()
	return run(ctx, &session{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, env: os.Getenv}, os.Args[1:])
}

// run executes one command line and gives its exit code.
func run(ctx context.Context, s *session, args []string) int {
	var t tool
	asked := false // for help
	parser, err := kong.New(&t,
		kong.Name("deckctl"),
		kong.Description("Owns fleets of devices: push a project, and every device of the fleet runs it."),
		kong.Writers(s.stdout, s.stderr),
		kong.Exit(func(int) { asked = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		fmt.Fprintln(s.stderr, "deckctl:", err)
		return exitUsage
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parser.Parse(args)
	if asked {
		return 0
	}
	if err != nil {
		fmt.Fprintf(s.stderr, "deckctl: %v\nSee deckctl --help.\n", err)
		return exitUsage
	}
	s.json, s.url = t.JSON, t.URL
	return s.report(ctx, parsed.Run(s))
}

// report prints a failure and finds its exit code.
func (s *session) report(ctx context.Context, err error) int {
	if err == nil {
		return 0
	}
	if stopped, ok := errors.AsType[*exitError](context.Cause(ctx)); ok {
		return stopped.code
	}
	if asked, ok := errors.AsType[*exitError](err); ok {
		if asked.err != nil {
			fmt.Fprintln(s.stderr, "deckctl:", plain(asked.err))
		}
		return asked.code
	}
	fmt.Fprintln(s.stderr, "deckctl:", plain(err))
	return exitCode(err)
}

// plain is the text of an error without the name of its class, which means nothing to
// people, and with what to do next where the cloud does not say it.
func plain(err error) string {
	if away, ok := errors.AsType[*client.UnreachableError](err); ok {
		return away.Error() // what was going to be done does not matter
	}
	classed, ok := errors.AsType[*state.Error](err)
	if !ok {
		return err.Error()
	}
	text := withoutClass(err.Error(), classed.Class)
	if _, answered := errors.AsType[*client.StatusError](err); answered && classed.Class == state.ClassAuth {
		text += "; log in again with deckctl login"
	}
	return text
}

// conflict says whether the cloud refused what exists already.
func conflict(err error) bool {
	said, ok := errors.AsType[*client.StatusError](err)
	return ok && said.Code == http.StatusConflict
}

func exitCode(err error) int {
	if _, ok := errors.AsType[*state.Error](err); !ok || conflict(err) {
		return exitFailed
	}
	switch state.ClassOf(err) {
	case state.ClassAuth:
		return exitAuth
	case state.ClassNetwork, state.ClassDNS, state.ClassTLS, state.ClassTimeout, state.ClassRateLimit:
		return exitNetwork
	case state.ClassInvalid:
		return exitUsage
	case state.ClassNotFound, state.ClassSpace, state.ClassEngine, state.ClassCancelled:
	}
	return exitFailed
}

// terminal says whether w is one.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s *session) error {
	_, err := fmt.Fprintln(s.stdout, "deckctl", version.Version)
	return err
}
