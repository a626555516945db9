package build

import (
	"regexp"
	"strings"
)

// line is one whole line of a service's build output.
type line struct {
	text   string
	stderr bool
}

// assembler makes lines out of the engine's text fragments: a fragment may hold several
// lines, a line may span fragments, and the engine's own lines may follow the output of a
// RUN step without a line break.
type assembler struct {
	partial strings.Builder
	stderr  bool
}

var ansi = regexp.MustCompile("\x1b\\[[0-9;?]*[ -/]*[@-~]")

// Plain is a text without a terminal's colours and movements.
func Plain(text string) string { return ansi.ReplaceAllString(text, "") }

// the engine wraps what a RUN step writes to stderr in this colour
const stderrMark = "\x1b[91m"

// add takes one fragment and gives the lines it completes.
func (a *assembler) add(fragment string) []line {
	var out []line
	stderr := strings.HasPrefix(fragment, stderrMark)
	if a.partial.Len() > 0 && (stderr != a.stderr || fromEngine(fragment)) {
		out = append(out, a.flush()...)
	}
	a.stderr = stderr
	text := strings.ToValidUTF8(Plain(fragment), "\uFFFD")
	for {
		head, rest, found := strings.Cut(text, "\n")
		a.partial.WriteString(head)
		if !found {
			return out
		}
		out = append(out, line{lastOverwrite(a.partial.String()), a.stderr})
		a.partial.Reset()
		text = rest
	}
}

// flush gives an unfinished line, if there is one.
func (a *assembler) flush() []line {
	if a.partial.Len() == 0 {
		return nil
	}
	l := line{lastOverwrite(a.partial.String()), a.stderr}
	a.partial.Reset()
	return []line{l}
}

// fromEngine says whether a fragment starts a line of the engine itself.
func fromEngine(fragment string) bool {
	return strings.HasPrefix(fragment, " ---> ") || strings.HasPrefix(fragment, "Removing intermediate container ") ||
		stepLine.MatchString(fragment)
}

// lastOverwrite is what a terminal would show of a line with carriage returns in it.
func lastOverwrite(s string) string {
	s = strings.TrimRight(s, "\r")
	if i := strings.LastIndexByte(s, '\r'); i >= 0 {
		s = s[i+1:]
	}
	return s
}

var stepLine = regexp.MustCompile(`^Step (\d+)/(\d+) : (.*)`)

// Log keeps the beginning and the end of a log: the end is where the error is.
type Log struct {
	head, tail []string
	headBytes  int
	tailBytes  int
	dropped    int
}

const (
	logHead = 256 << 10
	logTail = 1 << 20
)

func (l *Log) add(text string) {
	if len(l.tail) == 0 && l.dropped == 0 && l.headBytes+len(text) < logHead {
		l.head = append(l.head, text)
		l.headBytes += len(text) + 1
		return
	}
	l.tail = append(l.tail, text)
	l.tailBytes += len(text) + 1
	for l.tailBytes > logTail && len(l.tail) > 1 {
		l.tailBytes -= len(l.tail[0]) + 1
		l.tail = l.tail[1:]
		l.dropped++
	}
}

// String is the log as it is stored.
func (l *Log) String() string {
	lines := append([]string(nil), l.head...)
	if l.dropped > 0 {
		lines = append(lines, "… lines left out here …")
	}
	return strings.Join(append(lines, l.tail...), "\n")
}

// last gives the last n lines.
func (l *Log) last(n int) []string {
	all := append(append([]string(nil), l.head...), l.tail...)
	if len(all) > n {
		all = all[len(all)-n:]
	}
	return all
}
