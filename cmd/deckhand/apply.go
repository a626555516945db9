package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"deckhand/compose"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/target"
)

func applyCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.container(fs)
	project := fs.String("project", "", "`name` of the project (default: the file's, else its folder's)")
	remove := fs.Bool("remove", false, "remove the project's containers and networks; volumes stay")
	dry := fs.Bool("dry-run", false, "show the plan and change nothing")
	return func(ctx context.Context, args []string) error {
		want, name, err := composeTarget(ctx, args[0], *project, os.Stderr)
		if err != nil {
			return err
		}
		if *remove {
			for uuid, app := range want.Apps {
				want.Apps[uuid] = state.App{UUID: uuid, ID: app.ID, Name: app.Name}
			}
		}
		a := supervisor.Apply{
			Engine: engineHost(s.engine), DataDir: s.dataDir, Project: name,
			Log: zerolog.Nop(), Event: printer{os.Stdout}.event,
		}
		if *dry {
			p, err := a.Plan(ctx, want)
			if err == nil {
				fmt.Print(supervisor.ViewPlan(p).Text)
			}
			return err
		}
		begin := time.Now()
		if err := a.Run(ctx, want); err != nil {
			if errors.Is(err, context.Canceled) {
				return errors.New("interrupted; what was done stays, run it again to go on")
			}
			return err
		}
		fmt.Printf("%s is as it should be (%s)\n", name, time.Since(begin).Round(time.Millisecond))
		return nil
	}
}

// composeTarget reads a compose file as a target; problems that do not refuse
// it are printed.
func composeTarget(ctx context.Context, path, name string, warnings io.Writer) (state.Target, string, error) {
	p, problems, err := compose.LoadFile(ctx, path, compose.Options{Name: name, LookupEnv: os.LookupEnv})
	if err != nil {
		return state.Target{}, "", err
	}
	for _, x := range problems {
		if x.Kind != compose.Rejected {
			fmt.Fprintf(warnings, "%s: %s\n", path, x)
		}
	}
	if err := compose.Refusal(problems); err != nil {
		return state.Target{}, "", fmt.Errorf("%s cannot be applied: %w", path, err)
	}
	if name == "" {
		name = p.Name
	}
	if name == "" {
		name = folderName(path)
	}
	return target.FromCompose(p, name), name, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9_-]+`)

// folderName makes a project name out of the folder of the file, as compose does.
func folderName(path string) string {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "project"
	}
	name := strings.TrimLeft(notInNames.ReplaceAllString(strings.ToLower(filepath.Base(filepath.Dir(abs))), ""), "_-")
	if name == "" {
		return "project"
	}
	return name
}

// printer writes one line for each step that ends.
type printer struct{ w io.Writer }

func (p printer) event(e run.Event) {
	switch {
	case !e.Ended:
	case state.ClassOf(e.Err) == state.ClassCancelled && e.Err != nil:
	case e.Err != nil:
		fmt.Fprintf(p.w, "  ✗ %-50s %7s  %s\n", e.Node.Title(), e.Took.Round(time.Millisecond), sentence(e.Err))
	default:
		fmt.Fprintf(p.w, "  ✓ %-50s %7s  %s\n", e.Node.Title(), e.Took.Round(time.Millisecond), e.Node.Why)
	}
}
