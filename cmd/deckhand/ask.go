package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"deckhand/supervisor"
)

func planCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.container(fs)
	targetFile := fs.String("target", "", "plan for the target in this `file` (a target document, or a compose file) instead of the current one")
	snapshot := fs.String("snapshot", "", "plan from a `file` that \"deckhand snapshot\" wrote; needs no device")
	project := fs.String("project", "", "`name` of the project, with --target COMPOSE_FILE")
	format := fs.String("o", "text", "output `format`: text, json or dot")
	return func(ctx context.Context, _ []string) error {
		if !slices.Contains([]string{"text", "json", "dot"}, *format) {
			return usageError{fmt.Errorf("-o %s: use text, json or dot", *format)}
		}
		answer, err := makePlan(ctx, s, *targetFile, *snapshot, *project)
		if err != nil {
			return err
		}
		switch *format {
		case "json":
			fmt.Println(string(answer.Plan))
		case "dot":
			fmt.Print(answer.DOT)
		default:
			fmt.Print(answer.Text)
		}
		return nil
	}
}

func makePlan(ctx context.Context, s settings, targetFile, snapshot, project string) (supervisor.PlanAnswer, error) {
	ask := supervisor.Ask{DataDir: s.dataDir}
	switch {
	case snapshot != "":
		shot, err := supervisor.ReadSnapshot(snapshot)
		if err != nil {
			return supervisor.PlanAnswer{}, err
		}
		p, err := shot.Plan()
		if err != nil {
			return supervisor.PlanAnswer{}, err
		}
		return supervisor.AnswerPlan(p)
	case slices.Contains([]string{".yml", ".yaml"}, filepath.Ext(targetFile)):
		want, name, err := composeTarget(ctx, targetFile, project, os.Stderr)
		if err != nil {
			return supervisor.PlanAnswer{}, err
		}
		p, err := supervisor.Apply{Engine: engineHost(s.engine), DataDir: s.dataDir, Project: name}.Plan(ctx, want)
		if err != nil {
			return supervisor.PlanAnswer{}, err
		}
		return supervisor.AnswerPlan(p)
	}
	var document []byte
	if targetFile != "" {
		b, err := os.ReadFile(targetFile)
		if err != nil {
			return supervisor.PlanAnswer{}, fmt.Errorf("read target: %w", err)
		}
		document = b
	}
	return ask.Plan(ctx, document)
}

func snapshotCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	return func(ctx context.Context, _ []string) error {
		shot, err := supervisor.Ask{DataDir: s.dataDir}.Snapshot(ctx)
		if err != nil {
			return err
		}
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(shot)
	}
}

func statusCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.place(fs)
	format := fs.String("o", "text", "output `format`: text or json")
	return func(ctx context.Context, _ []string) error {
		if *format != "text" && *format != "json" {
			return usageError{fmt.Errorf("-o %s: use text or json", *format)}
		}
		v, err := supervisor.Ask{DataDir: s.dataDir}.Status(ctx)
		if err != nil {
			return err
		}
		if *format == "text" {
			return printStatus(os.Stdout, v)
		}
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	}
}
