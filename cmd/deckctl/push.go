package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"deckhand/build/event"
	"deckhand/client"
	"deckhand/state"
)

type pushCmd struct {
	Fleet      string `arg:"" help:"Fleet to push to; or a device in local mode, by its address or .local name."`
	Dir        string `arg:"" optional:"" default:"." help:"Folder of the project."`
	Dockerfile string `help:"Another Dockerfile, for projects without a compose file." placeholder:"FILE"`
	Draft      bool   `help:"Make a draft: no device runs it by itself."`
	Nocache    bool   `short:"c" aliases:"no-cache" help:"Build every step anew."`
	Progress   string `enum:"auto,plain,json,quiet" default:"auto" help:"How to show the build: ${enum}."`
	NoColor    bool   `help:"No colours, as with the variable NO_COLOR."`
	Detached   bool   `short:"d" help:"Do not show what the device logs; for devices only."`
	Engine     string `help:"The device's engine, where it is not at port 2375." placeholder:"HOST"`
}

// Run pushes, shows the build, and ends with an exit code that tells how it went.
func (c *pushCmd) Run(ctx context.Context, s *session) error {
	if info, err := os.Stat(c.Dir); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return &exitError{exitUsage, fmt.Errorf("there is no folder %s", c.Dir)}
	}
	if client.IsDevice(c.Fleet) {
		return c.toDevice(ctx, s)
	}
	cloud, err := s.cloud()
	if err != nil {
		return err
	}
	fleet, err := cloud.Fleet(ctx, c.Fleet)
	if err != nil {
		return err
	}
	kept := newRecord(s.env)
	show, finish := c.renderer(s, kept)
	var release int64
	began := time.Now()
	result, err := cloud.Build(ctx, client.BuildRequest{
		Slug: fleet.Slug, Source: c.Dir, Dockerfile: c.Dockerfile, Draft: c.Draft, NoCache: c.Nocache,
	}, func(e event.Event) {
		if e.Type == event.ReleaseCreated {
			release = e.ReleaseID
		}
		kept.add(e)
		show(e)
	})
	if lost := kept.close(); lost != nil && c.Progress != "json" && !s.json {
		fmt.Fprintln(s.stderr, "deckctl:", lost)
	}
	if err != nil {
		if ctx.Err() != nil && release != 0 {
			s.cancelRelease(ctx, cloud, release)
		}
		return s.broken(ctx, err, s.json || c.Progress == "json")
	}
	finish(result, time.Since(began))
	switch result.Status {
	case event.StatusSuccess:
		return nil
	case event.StatusError:
		return &exitError{code: exitBuilder}
	}
	if result.ReleaseID == 0 { // the project was refused before there was a release
		return &exitError{code: exitUsage}
	}
	return &exitError{code: exitFailed}
}

// renderer chooses how events are shown while they come, and how the build is summed up.
func (c *pushCmd) renderer(s *session, kept *record) (show func(event.Event), finish func(event.Event, time.Duration)) {
	if s.json || c.Progress == "json" {
		enc := json.NewEncoder(s.stdout)
		return func(e event.Event) { _ = enc.Encode(e) }, func(event.Event, time.Duration) {}
	}
	colours := terminal(s.stdout) && !c.NoColor && s.env("NO_COLOR") == "" && s.env("TERM") != "dumb"
	if s.env("CLICOLOR_FORCE") != "" && !c.NoColor && s.env("NO_COLOR") == "" {
		colours = true
	}
	p := newPlain(s.stdout, colours)
	p.logFile, p.device = kept.file, client.IsDevice(c.Fleet)
	if c.Progress == "quiet" {
		p.out = io.Discard
		return p.show, func(e event.Event, took time.Duration) {
			if e.Status == event.StatusSuccess {
				fmt.Fprintln(s.stdout, e.Commit)
				return
			}
			p.out = s.stderr
			p.failures(e)
		}
	}
	return p.show, p.summary
}

// cancelRelease tells the cloud as well: the broken connection may not reach the builder.
func (s *session) cancelRelease(ctx context.Context, cloud *client.Client, release int64) {
	fmt.Fprintf(s.stderr, "deckctl: cancelling release %d\n", release)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := cloud.CancelRelease(ctx, release); err != nil {
		fmt.Fprintln(s.stderr, "deckctl: cancel:", plain(err))
	}
}

// broken is for builds without a result.
func (s *session) broken(ctx context.Context, err error, asJSON bool) error {
	if !asJSON || ctx.Err() != nil {
		return err
	}
	code := exitCode(err)
	if asked, ok := errors.AsType[*exitError](err); ok {
		code = asked.code
	}
	doc := struct {
		V       int         `json:"v"`
		Type    string      `json:"type"`
		Code    state.Class `json:"code"`
		Message string      `json:"message"`
	}{event.Version, event.Error, state.ClassOf(err), plain(err)}
	_ = json.NewEncoder(s.stderr).Encode(doc)
	return &exitError{code: code}
}
