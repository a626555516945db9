package system

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
)

// Log collects what a program writes, over all its runs.
type Log struct {
	mu      sync.Mutex
	lines   []string
	rest    []byte
	changed chan struct{} // closed and replaced with each new line
	follow  []func(Line)
	copyTo  io.Writer
}

// Line is one line of a program's log: its fields when it is JSON, as the
// programs write when nobody looks; its text always.
type Line struct {
	Text    string
	Level   string `json:"level"`
	Message string `json:"message"`
	Step    string `json:"step"`
	Why     string `json:"why"`
	Class   string `json:"class"`
	Error   string `json:"error"`
}

// NewLog makes a log that also passes everything on to a writer, unless it is nil.
func NewLog(copyTo io.Writer) *Log { return &Log{changed: make(chan struct{}), copyTo: copyTo} }

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	l.rest = append(l.rest, p...)
	var fresh []Line
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			break
		}
		l.rest = rest
		l.lines = append(l.lines, string(line))
		fresh = append(fresh, parse(string(line)))
	}
	if len(fresh) > 0 {
		close(l.changed)
		l.changed = make(chan struct{})
	}
	follow, copyTo := l.follow, l.copyTo
	l.mu.Unlock()
	for _, x := range fresh {
		for _, f := range follow {
			f(x)
		}
	}
	if copyTo != nil {
		return copyTo.Write(p)
	}
	return len(p), nil
}

func parse(text string) Line {
	x := Line{}
	if json.Unmarshal([]byte(text), &x) != nil {
		x.Message = text
	}
	x.Text = text
	return x
}

// Follow calls f for each line from now on, before the program can write
// much more: it may kill the program at just this moment.
func (l *Log) Follow(f func(Line)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.follow = append(l.follow, f)
}

// Len is the number of lines so far; a mark for Since.
func (l *Log) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// Since gives the lines from a mark on.
func (l *Log) Since(mark int) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Line
	for _, text := range l.lines[min(mark, len(l.lines)):] {
		out = append(out, parse(text))
	}
	return out
}

// String is the whole log.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines, "\n") + "\n" + string(l.rest)
}

// Wait gives the first line from a mark on that the condition is true for.
func (l *Log) Wait(ctx context.Context, mark int, what string, is func(Line) bool) (Line, error) {
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		lines := l.Since(mark)
		for _, x := range lines {
			if is(x) {
				return x, nil
			}
		}
		mark += len(lines)
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("wait for %s in the log: %w", what, context.Cause(ctx))
		}
	}
}
