package builder

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"deckhand/build/event"
)

// message is one element of the array that balena's own tools read.
type message struct {
	Message   string `json:"message,omitempty"`
	Replace   bool   `json:"replace,omitempty"` // overwrites the current terminal line
	IsError   bool   `json:"isError,omitempty"` // makes the client exit 1
	IsSuccess bool   `json:"isSuccess,omitempty"`
	Type      string `json:"type,omitempty"` // "metadata": then only the next two count
	Resource  string `json:"resource,omitempty"`
	Value     any    `json:"value,omitempty"`
}

const (
	red    = 31
	green  = 32
	yellow = 33
	blue   = 34
	cyan   = 36
	grey   = 90
)

// hosted words events the way the hosted builder does: users and scripts look for these lines.
type hosted struct {
	column  int // where text starts
	worker  string
	barred  bool           // a progress bar stands on the current line
	percent map[string]int // of each transfer under way
	shown   int
	sending bool
}

func newHosted() *hosted { return &hosted{column: 11, percent: map[string]int{}} }

func (h *hosted) messages(e event.Event) []message {
	switch e.Type {
	case event.BuildQueued:
		return h.info("Waiting for a free builder (position %d)", e.Position)
	case event.ReleaseCreated:
		return []message{{Type: "metadata", Resource: "buildLogId", Value: e.ReleaseID}}
	case event.BuildStarted:
		return h.started(e)
	case event.Phase:
		return h.phase(e)
	case event.ServiceState:
		return h.service(e)
	case event.Log, event.EngineLine:
		return h.say(e.Service, serviceColour(e.Service), e.Text, false)
	case event.Progress:
		return h.progress(e)
	case event.Warning:
		return h.say("Warning", yellow, about(e), false)
	case event.Error:
		if e.Service == "" {
			return h.say("Error", red, e.Message, true)
		}
	case event.Heartbeat:
		return h.info("Still Working...")
	case event.BuildResult:
		return h.result(e)
	}
	return nil
}

func about(e event.Event) string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// say lays out one line: a coloured label, then the text in its column.
func (h *hosted) say(label string, colour int, text string, isError bool) []message {
	label = "[" + label + "]"
	pad := strings.Repeat(" ", max(1, h.column-len(label)))
	return []message{{Message: sgr(colour, label) + pad + text, IsError: isError}}
}

func (h *hosted) info(format string, args ...any) []message {
	return h.say("Info", cyan, fmt.Sprintf(format, args...), false)
}

func sgr(code int, text string) string { return fmt.Sprintf("\x1b[%dm%s\x1b[0m", code, text) }

// serviceColour is the same for a service in every build.
func serviceColour(name string) int {
	palette := []int{34, 35, 36, 32, 33, 94, 95, 96, 92, 93}
	sum := fnv.New32a()
	_, _ = sum.Write([]byte(name))
	return palette[sum.Sum32()%uint32(len(palette))]
}

func (h *hosted) started(e event.Event) []message {
	for _, s := range e.Services {
		h.column = max(h.column, 2+len(s.Name)+2)
	}
	h.worker = e.Worker
	out := h.info("Starting build for %s, user %s", e.Fleet, e.User)
	return append(out, h.info("Building on %s", e.Worker)...)
}

func (h *hosted) phase(e event.Event) []message {
	switch e.Name + " " + e.State {
	case event.PhaseCache + " " + event.Start:
		return h.info("Pulling previous images for caching purposes...")
	case event.PhaseCache + " " + event.Skipped:
		return h.info("No suitable previous release for caching, skipping cache pull")
	case event.PhaseCache + " " + event.Done:
		return append(h.erase(), h.say("Success", green, "Successfully pulled cache images", false)...)
	case event.PhasePush + " " + event.Start:
		h.sending = true
		return h.info("Uploading images")
	case event.PhasePush + " " + event.Done:
		return append(h.erase(), h.say("Success", green, "Successfully uploaded images", false)...)
	case event.PhasePush + " " + event.Failed:
		return h.erase()
	}
	return nil
}

func (h *hosted) service(e event.Event) []message {
	switch e.State {
	case event.Building:
		return h.info("Starting to build %s", e.Service)
	case event.Pushing:
		return h.say("Success", green, "Successfully built service "+e.Service, false)
	}
	return nil
}

// progress shows the mean of all transfers as one bar, and only while nothing else is said:
// between log lines it would be torn to pieces.
func (h *hosted) progress(e event.Event) []message {
	if e.Op == "push" {
		h.percent[e.Service] = e.Percent
	}
	if e.Op != "push" || !h.sending {
		return nil
	}
	sum := 0
	for _, p := range h.percent {
		sum += p
	}
	mean := sum / len(h.percent)
	if h.barred && mean-h.shown < 2 {
		return nil
	}
	h.barred, h.shown = true, mean
	out := h.info("%s", bar(mean))
	out[0].Replace = true
	return out
}

func bar(percent int) string {
	const cells = 50
	full := max(1, min(percent, 100)*cells/100)
	return fmt.Sprintf("[%s>%s] %d%%", strings.Repeat("=", full-1), strings.Repeat(" ", cells-full), percent)
}

func (h *hosted) erase() []message {
	h.sending = false
	if !h.barred {
		return nil
	}
	h.barred = false
	return []message{{Type: "metadata", Resource: "cursor", Value: "erase"}}
}

func (h *hosted) result(e event.Event) []message {
	out := h.failures(e)
	if h.worker != "" {
		out = append(out, h.info("Built on %s", h.worker)...)
	}
	if e.Status != event.StatusSuccess {
		text := "Not deploying release."
		if e.Status == event.StatusCancelled {
			text = "The build was cancelled. " + text
		}
		return append(out, h.say("Error", red, text, true)...)
	}
	out = append(out, h.say("Success", green, "Release successfully created!", false)...)
	out = append(out, h.info("Release: %s (id: %s)", sgr(blue, e.Commit), sgr(green, fmt.Sprint(e.ReleaseID)))...)
	for _, row := range table(e.Services) {
		out = append(out, h.info("%s", row)...)
	}
	last := h.info("Build finished in %s", duration(time.Duration(e.DurationMS)*time.Millisecond))
	last[0].IsSuccess = true
	return append(out, last...)
}

func (h *hosted) failures(e event.Event) []message {
	var out []message
	for _, s := range e.Services {
		if s.Status != event.StatusFailed && s.Status != event.StatusError {
			continue
		}
		if out == nil {
			out = h.say("Error", red, "Some services failed to build:", true)
		}
		out = append(out, h.say("Error", red, "  Service: "+s.Name, false)...)
		out = append(out, h.say("Error", red, "    Error: "+s.Error, false)...)
	}
	return out
}

// table is the summary with size and time of each image.
func table(services []event.Service) []string {
	rows := [][3]string{{"Service", "Image Size", "Build Time"}}
	for _, s := range services {
		rows = append(rows, [3]string{s.Name, size(s.Size), duration(s.EndedAt.Sub(s.StartedAt))})
	}
	var width [3]int
	for _, r := range rows {
		for i, cell := range r {
			width[i] = max(width[i], len(cell))
		}
	}
	border := func(left, middle, right string) string {
		var parts []string
		for _, w := range width {
			parts = append(parts, strings.Repeat("─", w+2))
		}
		return sgr(grey, left+strings.Join(parts, middle)+right)
	}
	out := []string{border("┌", "┬", "┐")}
	for i, r := range rows {
		text := sgr(grey, "│")
		for c, cell := range r {
			padded := cell + strings.Repeat(" ", width[c]-len(cell))
			if i == 0 {
				padded = sgr(1, padded)
			}
			text += " " + padded + " " + sgr(grey, "│")
		}
		out = append(out, text)
		if i == 0 {
			out = append(out, border("├", "┼", "┤"))
		}
	}
	return append(out, border("└", "┴", "┘"))
}

// size writes bytes in steps of 1024 with the labels people know.
func size(bytes int64) string {
	value, unit := float64(bytes), 0
	for value >= 1024 && unit < 4 {
		value /= 1024
		unit++
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", bytes)
	}
	return fmt.Sprintf("%.2f %s", value, []string{"B", "kB", "MB", "GB", "TB"}[unit])
}

func duration(d time.Duration) string {
	seconds := int(d.Round(time.Second) / time.Second)
	if seconds < 1 {
		return "< 1 second"
	}
	if seconds < 60 {
		return fmt.Sprintf("%d seconds", seconds)
	}
	return fmt.Sprintf("%d minutes, %d seconds", seconds/60, seconds%60)
}
