package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"deckhand/supervisor"
)

// follower reads what the supervisor logs: one JSON object a line.
type follower struct {
	lines chan line
	first time.Time
}

// line is a line of the supervisor's log.
type line struct {
	Message string  `json:"message"`
	Step    string  `json:"step"`
	Why     string  `json:"why"`
	Class   string  `json:"class"`
	Took    float64 `json:"took_ms"`
	Error   string  `json:"error"`
	Level   string  `json:"level"`
}

// supervise starts the supervisor and follows its log.
func (s *stage) supervise() (*follower, error) {
	listen, err := freeAddress()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("bin/deckhand", "run", "--config", s.path("config.json"), "--data-dir", s.path("device"),
		"--run-dir", s.path("locks"), "--engine", s.engineHost, "--listen", listen)
	out, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(s.path("device.log"))
	if err != nil {
		return nil, err
	}
	if err := s.spawn(cmd); err != nil {
		return nil, err
	}
	f := &follower{lines: make(chan line, 1000), first: time.Now()}
	go func() {
		defer close(f.lines)
		defer log.Close()
		in := bufio.NewScanner(io.TeeReader(out, log))
		for in.Scan() {
			var l line
			if json.Unmarshal(in.Bytes(), &l) == nil {
				select {
				case f.lines <- l:
				default: // nobody follows any more
				}
			}
		}
	}()
	return f, nil
}

// until prints steps as they end, up to the first done step of a kind.
func (f *follower) until(ctx context.Context, s *stage, kind string) error {
	timeout := time.After(3 * time.Minute)
	progress := time.NewTicker(200 * time.Millisecond)
	defer progress.Stop()
	shown := map[string]int{}
	for {
		select {
		case l, open := <-f.lines:
			if !open {
				return fmt.Errorf("the supervisor ended:\n%s", tail(s.path("device.log")))
			}
			f.print(l)
			if l.Message == "done" && strings.HasPrefix(l.Step, kind+" ") {
				return nil
			}
		case <-progress.C:
			f.downloads(ctx, s, shown)
		case <-timeout:
			return fmt.Errorf("the device did not get there in time:\n%s", tail(s.path("device.log")))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// downloads prints how far each download is, when that has changed.
func (f *follower) downloads(ctx context.Context, s *stage, shown map[string]int) {
	v, err := supervisor.Ask{DataDir: s.path("device")}.Status(ctx)
	if err != nil {
		return // it is just starting
	}
	for _, a := range v.Apps {
		for _, x := range a.Services {
			if x.Progress != nil && *x.Progress != shown[x.Name] {
				shown[x.Name] = *x.Progress
				say("%6.2fs    %s: %d%% downloaded", time.Since(f.first).Seconds(), x.Name, *x.Progress)
			}
		}
	}
}

func (f *follower) print(l line) {
	at := time.Since(f.first).Seconds()
	switch {
	case l.Step == "" && l.Level == "info":
		say("%6.2fs    %s", at, l.Message)
	case l.Message == "start":
		say("%6.2fs  → %-60s %s", at, l.Step, l.Why)
	case l.Message == "done":
		say("%6.2fs  ✓ %-60s %.0f ms", at, l.Step, l.Took)
	case l.Step != "" && l.Level == "warn":
		say("%6.2fs  ✗ %-60s %s: %s", at, l.Step, l.Class, l.Message)
	case l.Level == "warn" || l.Level == "error":
		say("%6.2fs  ! %s %s", at, l.Message, l.Error)
	}
}

// downtimes measures with the engine's own clock how long each service is away.
type downtimes struct {
	cancel context.CancelFunc
	done   chan struct{}
	seen   []events.Message
}

func (s *stage) watchDowntime() (*downtimes, error) {
	ctx, cancel := context.WithCancel(context.Background())
	messages, failed := s.engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("label", "io.balena.supervised"))})
	select {
	case err := <-failed:
		cancel()
		return nil, errors.Join(errors.New("watch the engine"), err)
	default:
	}
	d := &downtimes{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		for {
			select {
			case m := <-messages:
				d.seen = append(d.seen, m)
			case err := <-failed: // the end of ctx, or of the engine: both end the recording
				if err != nil {
					return
				}
			}
		}
	}()
	return d, nil
}

func (d *downtimes) print() {
	d.cancel()
	<-d.done
	died, down := map[string]int64{}, map[string]time.Duration{}
	for _, m := range d.seen {
		service := m.Actor.Attributes["io.balena.service-name"]
		switch m.Action {
		case events.ActionDie:
			died[service] = m.TimeNano
		case events.ActionStart:
			if at, ok := died[service]; ok {
				down[service] = time.Duration(m.TimeNano - at)
			}
		default:
		}
	}
	fmt.Println()
	say("downtime of each service, by the engine's clock:")
	for _, name := range slices.Sorted(slices.Values([]string{"counter", "web", "worker"})) {
		if d, was := down[name]; was {
			say("  %-8s %4.0f ms", name, d.Seconds()*1000)
		} else {
			say("  %-8s    0 ms   (not touched)", name)
		}
	}
}
