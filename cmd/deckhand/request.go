package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/term"

	"deckhand/state"
	"deckhand/supervisor"
)

// requestCommand asks for one thing about APP or APP/SERVICE.
func requestCommand(kind supervisor.RequestKind) func(fs *flag.FlagSet) func(context.Context, []string) error {
	return func(fs *flag.FlagSet) func(context.Context, []string) error {
		var s settings
		s.place(fs)
		return func(ctx context.Context, args []string) error {
			return s.request(ctx, about(kind, args))
		}
	}
}

// about names what a request is about.
func about(kind supervisor.RequestKind, args []string) supervisor.Request {
	r := supervisor.Request{Kind: kind}
	if len(args) == 0 {
		return r
	}
	app, service, named := strings.Cut(args[0], "/")
	r.App = app
	if named {
		r.Services = []string{service}
	}
	return r
}

func (s settings) request(ctx context.Context, r supervisor.Request) error {
	done, err := supervisor.Ask{DataDir: s.dataDir}.Request(ctx, r)
	if err != nil {
		return err
	}
	text := done.Text
	if done.Joined && r.Kind != supervisor.RequestEndOverride {
		text += " (that was asked for already)"
	}
	fmt.Println(text)
	return nil
}

func purgeCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	yes := fs.Bool("yes", false, "do not ask whether the data may be deleted")
	return func(ctx context.Context, args []string) error {
		if !*yes {
			if err := confirm("Delete all volumes of " + args[0] + " with the data in them? Type yes: "); err != nil {
				return err
			}
		}
		return s.request(ctx, about(supervisor.RequestPurge, args))
	}
}

// confirm asks the person at the terminal; without one there is nobody to ask.
func confirm(question string) error {
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return usageError{errors.New("purge deletes data; say --yes where nobody can be asked")}
	}
	fmt.Fprint(os.Stderr, question)
	line, err := bufio.NewReader(os.Stdin).ReadString('\n')
	if err != nil || strings.TrimSpace(line) != "yes" {
		return errors.New("nothing was deleted")
	}
	return nil
}

func overrideCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	length := fs.Duration("for", time.Hour, "how `long` locks may be broken")
	end := fs.Bool("end", false, "take the permission back")
	return func(ctx context.Context, args []string) error {
		r := about(supervisor.RequestOverride, args)
		if len(r.Services) > 0 {
			return usageError{errors.New("locks are broken for a whole app; name it without a service")}
		}
		r.For = state.Duration(*length)
		if *end {
			r.Kind = supervisor.RequestEndOverride
		} else if *length <= 0 {
			return usageError{fmt.Errorf("--for %v: it must be longer than nothing", *length)}
		}
		return s.request(ctx, r)
	}
}
