package main

import (
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"deckhand/build/event"
)

// plainView shows a build line by line, each with the time since its start and the name of
// its service. It never moves the cursor.
type plainView struct {
	out     io.Writer
	colours bool
	device  bool // it is built on a device: there are no releases
	width   int  // of the service column
	start   time.Time
	heard   map[string]int      // service + operation → the last percentage told
	tails   map[string][]string // service → its last lines
	steps   map[string]event.Event
	logFile func(service string) string // where its whole log is; "" when nowhere
}

const (
	buildLabel = "build"
	tailLines  = 40
)

func newPlain(out io.Writer, colours bool) *plainView {
	return &plainView{
		out: out, colours: colours, width: 8, heard: map[string]int{}, tails: map[string][]string{}, steps: map[string]event.Event{},
		logFile: func(string) string { return "" },
	}
}

// show prints what an event has to say.
func (p *plainView) show(e event.Event) {
	if p.start.IsZero() {
		p.start = e.T
	}
	switch e.Type {
	case event.BuildQueued:
		p.line(e, "waiting for a free builder, place %d", e.Position)
	case event.BuildStarted:
		for _, s := range e.Services {
			p.width = max(p.width, min(len(s.Name), 24))
		}
		p.line(e, "fleet %s, %s, %d services", e.Fleet, e.Arch, len(e.Services))
	case event.ReleaseCreated:
		kind := "final"
		if e.Draft {
			kind = "draft"
		}
		p.line(e, "release %s (id %d), %s", e.Commit, e.ReleaseID, kind)
	case event.Phase:
		p.phase(e)
	case event.ServiceState:
		p.state(e)
	case event.Step:
		p.step(e)
	case event.Log:
		p.log(e)
	case event.Progress:
		p.progress(e)
	case event.Warning:
		p.line(e, "warning: %s", e.Message)
	case event.Error:
		p.error(e)
	case event.Heartbeat:
		p.line(e, "still running: %s", strings.Join(e.Running, ", "))
	}
}

func (p *plainView) line(e event.Event, format string, args ...any) {
	name := e.Service
	if name == "" {
		name = buildLabel
	}
	if len(name) > p.width {
		keep := p.width - 1
		name = name[:keep-keep/2] + "…" + name[len(name)-keep/2:]
	}
	pad := strings.Repeat(" ", max(0, p.width-len([]rune(name))))
	since := e.T.Sub(p.start)
	fmt.Fprintf(p.out, "%s  %s | %s\n", clock(since), p.paint(serviceColour(e.Service), name)+pad, fmt.Sprintf(format, args...))
}

func clock(d time.Duration) string {
	seconds := int(max(d, 0) / time.Second)
	return fmt.Sprintf("%02d:%02d", seconds/60, seconds%60)
}

// serviceColour is the same for a service in every build.
func serviceColour(name string) int {
	if name == "" {
		return 1
	}
	palette := []int{31, 32, 33, 34, 35, 36, 91, 92, 93, 94, 95, 96}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name))
	return palette[sum.Sum32()%uint32(len(palette))]
}

func (p *plainView) paint(colour int, text string) string {
	if !p.colours {
		return text
	}
	return fmt.Sprintf("\x1b[%dm%s\x1b[0m", colour, text)
}

func (p *plainView) phase(e event.Event) {
	switch e.Name + " " + e.State {
	case event.PhaseCache + " " + event.Start:
		p.line(e, "fetching the images of the release before, for the cache")
	case event.PhasePush + " " + event.Start:
		p.line(e, "all builds ended, uploading what is left")
	}
}

func (p *plainView) state(e event.Event) {
	switch e.State {
	case event.Pulling:
		p.line(e, "pulling")
	case event.Pushing:
		p.line(e, "built, uploading")
	case event.Done:
		p.line(e, "done")
	case event.Cancelled:
		p.line(e, "cancelled")
	}
}

func (p *plainView) step(e event.Event) {
	if e.State == event.Start {
		p.steps[e.Service] = e
		p.line(e, "step %d/%d %s", e.N, e.Total, e.Text)
		return
	}
	if e.State == event.Done {
		delete(p.steps, e.Service) // what stays is the step that failed
	}
	if e.Cached {
		p.line(e, "step %d/%d cached", e.N, e.Total)
	}
}

func (p *plainView) log(e event.Event) {
	mark := ""
	if e.Stream == "err" {
		mark = "! "
	}
	tail := append(p.tails[e.Service], mark+e.Text)
	p.tails[e.Service] = tail[max(0, len(tail)-tailLines):]
	p.line(e, "%s%s", mark, e.Text)
}

// progress tells each quarter of a transfer once.
func (p *plainView) progress(e event.Event) {
	key := e.Service + " " + e.Op
	quarter := e.Percent / 25 * 25
	if quarter <= p.heard[key] {
		return
	}
	p.heard[key] = quarter
	p.line(e, "%s %d %%", e.Op, quarter)
}

func (p *plainView) error(e event.Event) {
	if e.Service == "" {
		p.line(e, "error: %s", e.Message)
		return
	}
	where := ""
	if step, ok := p.steps[e.Service]; ok {
		where = fmt.Sprintf(" in step %d/%d %s", step.N, step.Total, step.Text)
	}
	p.line(e, "%s%s: %s", p.paint(31, "FAILED"), where, e.Message)
}

// summary prints the table of services, then what failed, last of all the release.
func (p *plainView) summary(e event.Event, took time.Duration) {
	fmt.Fprintln(p.out)
	if len(e.Services) > 0 {
		p.table(e.Services)
	}
	p.failures(e)
	switch {
	case p.device && e.Status == event.StatusSuccess: // what it does is said next
	case p.device:
		fmt.Fprintln(p.out, "The device was not changed.")
	case e.ReleaseID == 0:
		fmt.Fprintln(p.out, "No release was made.")
	case e.Status == event.StatusSuccess:
		fmt.Fprintf(p.out, "Release %s (id %d): %s\n", e.Commit, e.ReleaseID, p.paint(32, "success"))
	default:
		fmt.Fprintf(p.out, "Release %s (id %d): %s; devices were not changed\n", e.Commit, e.ReleaseID, p.paint(31, e.Status))
	}
	fmt.Fprintf(p.out, "Total %s\n", brief(took))
}

func (p *plainView) table(services []event.Service) {
	w := tabwriter.NewWriter(p.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "Service\tResult\tSteps\tImage\tTime\tDigest")
	for _, s := range services {
		steps := "-"
		if s.Steps > 0 {
			steps = fmt.Sprintf("%d (%d cached)", s.Steps, s.CachedSteps)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, outcome(s), steps, size(s.Size), brief(s.EndedAt.Sub(s.StartedAt)), digest(s))
	}
	_ = w.Flush() // the same place as everything else here
	fmt.Fprintln(p.out)
}

func outcome(s event.Service) string {
	switch {
	case s.Status != event.StatusSuccess && s.Status != event.StatusCancelled:
		return strings.ToUpper(s.Status)
	case s.Status == event.StatusSuccess && s.Steps == 0:
		return "pulled"
	case s.Status == event.StatusSuccess:
		return "built"
	}
	return s.Status
}

func digest(s event.Service) string {
	if s.ContentHash == "" {
		return "-"
	}
	text := s.ContentHash[:min(len(s.ContentHash), len("sha256:")+12)]
	if s.Unchanged {
		text += " unchanged"
	}
	return text
}

// failures prints, last of all services, those that failed: which step, and the end of the log.
func (p *plainView) failures(e event.Event) {
	for _, s := range e.Services {
		if s.Status != event.StatusFailed && s.Status != event.StatusError {
			continue
		}
		head := s.Name + ":"
		if step, ok := p.steps[s.Name]; ok {
			head += fmt.Sprintf(" step %d/%d failed", step.N, step.Total)
			if s.ExitCode != 0 {
				head += fmt.Sprintf(" with exit status %d", s.ExitCode)
			}
			head += "\n    " + step.Text
		}
		fmt.Fprintln(p.out, p.paint(31, head))
		for _, l := range p.tails[s.Name] {
			fmt.Fprintln(p.out, "    │ "+l)
		}
		fmt.Fprintf(p.out, "    %s\n", s.Error)
		if file := p.logFile(s.Name); file != "" {
			fmt.Fprintf(p.out, "    whole log: %s\n", file)
		}
		fmt.Fprintln(p.out)
	}
}

func brief(d time.Duration) string {
	seconds := int(max(d, 0).Round(time.Second) / time.Second)
	return fmt.Sprintf("%d:%02d", seconds/60, seconds%60)
}

// size writes bytes in steps of 1024.
func size(bytes int64) string {
	if bytes <= 0 {
		return "-"
	}
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < 4 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.1f %s", value, []string{"B", "kB", "MB", "GB", "TB"}[unit])
}
