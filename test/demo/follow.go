package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"deckhand/supervisor"
)

// longStep is after which time a step is shown before it has ended.
const longStep = 1500 * time.Millisecond

// follower reads what the supervisor logs: one JSON object a line.
type follower struct {
	lines   chan line
	first   time.Time           // of the clock that people see
	running map[string]*running // by step
}

// running is a step on its way.
type running struct {
	since time.Time
	why   string
	shown bool
	done  int // per cent of a download, as last shown
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
	f := &follower{lines: make(chan line, 1000), first: time.Now(), running: map[string]*running{}}
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
	return f.follow(ctx, s, func(l line) bool { return l.Message == "done" && strings.HasPrefix(l.Step, kind+" ") }, nil)
}

// untilLocked prints steps as they end, up to the moment when an update lock is
// all that the device waits for.
func (f *follower) untilLocked(ctx context.Context, s *stage) error {
	return f.follow(ctx, s, nil, func(v supervisor.View) bool {
		return v.State == supervisor.StateWaiting && slices.ContainsFunc(v.Waiting, func(w supervisor.WaitView) bool { return w.Holder != "" })
	})
}

// follow prints steps up to a line of the log, or a state of the device.
func (f *follower) follow(ctx context.Context, s *stage, last func(line) bool, there func(supervisor.View) bool) error {
	timeout := time.After(3 * time.Minute)
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for {
		select {
		case l, open := <-f.lines:
			if !open {
				return fmt.Errorf("the supervisor ended:\n%s", tail(s.path("device.log")))
			}
			f.print(l)
			if last != nil && last(l) {
				return nil
			}
		case <-look.C:
			f.printLong()
			v, err := supervisor.Ask{DataDir: s.path("device")}.Status(ctx)
			if err != nil {
				continue // it is just starting
			}
			f.printDownloads(v)
			if there != nil && there(v) && len(f.lines) == 0 {
				return nil
			}
		case <-timeout:
			return fmt.Errorf("the device did not get there in time:\n%s", tail(s.path("device.log")))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// say prints a line with the time.
func (f *follower) say(format string, a ...any) {
	say("%6.2fs  "+format, append([]any{time.Since(f.first).Seconds()}, a...)...)
}

// printLong prints each step once that takes long.
func (f *follower) printLong() {
	for step, r := range f.running {
		if !r.shown && time.Since(r.since) > longStep {
			r.shown = true
			f.say("→ %-54s %s", step+" …", r.why)
		}
	}
}

// printDownloads prints how far each long download is, when that has changed.
func (f *follower) printDownloads(v supervisor.View) {
	for _, a := range v.Apps {
		for _, x := range a.Services {
			r := f.running[x.Next]
			if r != nil && r.shown && x.Progress != nil && *x.Progress != r.done {
				r.done = *x.Progress
				f.say("  %s: %d%% downloaded", x.Name, r.done)
			}
		}
	}
}

func (f *follower) print(l line) {
	switch {
	case l.Step == "" && l.Level == "info":
		f.say("  %s", l.Message)
	case l.Message == "start":
		f.running[l.Step] = &running{since: time.Now(), why: l.Why}
	case l.Message == "done":
		why := ""
		if r := f.running[l.Step]; r != nil {
			why = r.why
		}
		delete(f.running, l.Step)
		f.say("✓ %-44s %5.0f ms  %s", l.Step, l.Took, why)
	case l.Message == "cancelled": // what it waited for has shown meanwhile
		delete(f.running, l.Step)
	case l.Step != "" && l.Level == "warn":
		delete(f.running, l.Step)
		f.say("✗ %-44s %s: %s", l.Step, l.Class, l.Message)
	case l.Level == "warn" || l.Level == "error":
		f.say("! %s %s", l.Message, l.Error)
	}
}
