package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"deckhand/supervisor"
)

func runCommand(fs *flag.FlagSet) func(context.Context, []string) error {
	var s settings
	s.container(fs)
	fs.StringVar(&s.config, "config", "/mnt/boot/config.json", "balena's config.json `file`")
	fs.StringVar(&s.runDir, "run-dir", "/tmp/balena-supervisor", "`folder` for locks and breadcrumbs, as the host sees it")
	fs.StringVar(&s.listen, "listen", "", "`address` of the local API (default: listenPort of config.json, on every interface if a cloud is configured, else on loopback)")
	root := fs.String("host-root", "/", "`folder` where the host's root is mounted")
	apps := fs.String("apps", "", "apps.json `file` that came with the disk image (default: mnt/data/apps.json below --host-root)")
	level := fs.String("log-level", "info", "least `level` that is logged: debug, info, warn, error")
	return func(ctx context.Context, _ []string) error {
		l, err := zerolog.ParseLevel(*level)
		if err != nil {
			return usageError{fmt.Errorf("--log-level %q: use debug, info, warn or error", *level)}
		}
		runDir, err := filepath.Abs(s.runDir) // the engine binds it into containers
		if err != nil {
			return err
		}
		return supervisor.Run(ctx, supervisor.Config{
			ConfigFile: s.config, Engine: engineHost(s.engine), DataDir: s.dataDir, RunDir: runDir,
			Listen: s.listen, HostRoot: *root, AppsFile: cmp.Or(*apps, filepath.Join(*root, "mnt/data/apps.json")), Log: logger(l),
		})
	}
}

// logger is readable on a terminal and JSON elsewhere.
func logger(level zerolog.Level) zerolog.Logger {
	if term.IsTerminal(int(os.Stderr.Fd())) {
		w := zerolog.ConsoleWriter{Out: os.Stderr, TimeFormat: time.TimeOnly, NoColor: os.Getenv("NO_COLOR") != ""}
		return zerolog.New(w).Level(level).With().Timestamp().Logger()
	}
	return zerolog.New(os.Stderr).Level(level).With().Timestamp().Logger()
}
