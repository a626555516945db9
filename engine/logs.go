package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"

	"deckhand/logs"
	"deckhand/state"
)

const (
	// longestLog is how many bytes of a line are kept while it is put together.
	longestLog = 64 << 10
	// logPart is where the engine cuts lines into parts, each with a time of its own.
	logPart = 16 << 10
	// logTime is how the engine writes times in front of lines.
	logTime = "2006-01-02T15:04:05.000000000Z07:00"
)

// LogState looks at a container whose log is to be read.
func (e *Engine) LogState(ctx context.Context, id string) (logs.Container, error) {
	c, err := e.connected(ctx)
	if err != nil {
		return logs.Container{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	is, err := doing{e: e, Client: c}.inspect(ctx, id)
	if err != nil {
		return logs.Container{}, e.failLog("look at the log of a container", err)
	}
	out := logs.Container{TTY: is.Config.Tty, Running: is.State.Running && !is.State.Restarting, Level: variable(is.Config.Env, "BALENA_LOGS_LEVEL")}
	if began, err := time.Parse(time.RFC3339Nano, is.State.StartedAt); err == nil && began.Year() > 1 {
		out.Run = began.UnixNano()
	}
	return out, nil
}

// failLog sorts an error; a container that is gone is nobody's fault.
func (e *Engine) failLog(what string, err error) error {
	if errdefs.IsNotFound(err) {
		return state.Classify(state.ClassNotFound, fmt.Errorf("%s: %w", what, err))
	}
	return e.fail(what, err)
}

// variable is the value of an environment variable; of several the last counts.
func variable(env []string, name string) (value string) {
	for _, v := range env {
		if rest, ok := strings.CutPrefix(v, name+"="); ok {
			value = rest
		}
	}
	return value
}

// ReadLog hands over the lines of a container's log.
func (e *Engine) ReadLog(ctx context.Context, id string, r logs.Request, take func(logs.Record) error) error {
	return e.readLog(ctx, id, container.LogsOptions{Since: engineTime(r.Since), Follow: r.Follow}, r.TTY, take)
}

// engineTime is a time as the engine reads it; empty: none.
func engineTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond())
}

func (e *Engine) readLog(ctx context.Context, id string, o container.LogsOptions, tty bool, take func(logs.Record) error) error {
	c, err := e.connected(ctx)
	if err != nil {
		return err
	}
	o.ShowStdout, o.ShowStderr, o.Timestamps = true, true, true
	body, err := c.ContainerLogs(ctx, id, o)
	if err != nil {
		if errdefs.IsNotImplemented(err) || strings.Contains(err.Error(), "does not support reading") {
			return state.Classify(state.ClassInvalid, fmt.Errorf("read the log of a container: %w; use the log driver json-file, local or journald", err))
		}
		return e.failLog("read the log of a container", err)
	}
	defer func() { _ = body.Close() }()
	lines := logLines{take: take}
	if tty {
		err = lines.raw(bufio.NewReader(body))
	} else {
		err = lines.frames(bufio.NewReader(body))
	}
	switch {
	case lines.refused != nil:
		return lines.refused
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return state.Classify(state.ClassEngine, fmt.Errorf("read the log of a container: %w", err))
	}
	return lines.rest()
}

// logLines puts lines together from what the engine sends.
type logLines struct {
	take    func(logs.Record) error
	open    [3]logs.Record // by stream: a line whose end has not come yet
	refused error          // of take
}

// frames reads the stream of a container without a terminal: each piece has a
// header that says how long it is and of which stream.
func (l *logLines) frames(in *bufio.Reader) error {
	var head [8]byte
	var piece []byte
	for {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return ended(err)
		}
		n, stream := int64(binary.BigEndian.Uint32(head[4:])), head[0]
		if stream > 3 {
			return errors.New("the engine's answer is no stream of pieces")
		}
		keep := min(n, longestLog)
		if int64(cap(piece)) < keep {
			piece = make([]byte, keep)
		}
		piece = piece[:keep]
		if _, err := io.ReadFull(in, piece); err != nil {
			return unexpected(err)
		}
		if _, err := io.CopyN(io.Discard, in, n-keep); err != nil {
			return unexpected(err)
		}
		if stream == 3 {
			return fmt.Errorf("the engine says: %s", bytes.TrimSpace(piece))
		}
		at, text, ok := cutTime(piece)
		if !ok {
			continue // not a line
		}
		if !l.add(stream == 2, at, text, n > keep) {
			return nil
		}
	}
}

// ended: the end of a log is no error.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// unexpected: the end within a piece is one.
func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// raw reads the stream of a container with a terminal: lines as they are. Where
// the engine had to cut one, the time stands once more within it.
func (l *logLines) raw(in *bufio.Reader) error {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if room := 2*longestLog - len(line); room > 0 {
			line = append(line, part[:min(len(part), room)]...)
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if err != nil {
			if len(line) > 0 && !l.rawLine(line) {
				return nil
			}
			return ended(err)
		}
		if line[len(line)-1] != '\n' { // its end did not fit
			line = append(line, '\n')
		}
		if !l.rawLine(line) {
			return nil
		}
		line = line[:0]
	}
}

// rawLine takes what stands between two line breaks: one line, in parts if it is
// long.
func (l *logLines) rawLine(line []byte) bool {
	for parts := 0; ; parts++ {
		at, text, ok := cutTime(line)
		if !ok {
			return true // the engine writes a time in front of every line
		}
		next := -1
		if len(text) > logPart {
			if _, _, ok := cutTime(text[logPart:]); ok {
				next = logPart
			}
		}
		if next < 0 && parts > 0 {
			next = timeWithin(text) // a line's last part may lack its end
		}
		if next < 0 {
			return l.add(false, at, text, false)
		}
		if !l.add(false, at, text[:next], false) {
			return false
		}
		line = text[next:]
	}
}

// timeWithin is where the next line begins in what should be one; -1: nowhere.
func timeWithin(text []byte) int {
	for i := range len(text) {
		if text[i] >= '0' && text[i] <= '9' && len(text)-i > len("2006-01-02T") && text[i+4] == '-' && text[i+10] == 'T' {
			if _, _, ok := cutTime(text[i:]); ok {
				return i
			}
		}
	}
	return -1
}

// cutTime takes the time off that stands in front of a line.
func cutTime(b []byte) (at int64, text []byte, ok bool) {
	n := bytes.IndexByte(b[:min(len(b), len(logTime)+1)], ' ')
	if n < 0 {
		return 0, nil, false
	}
	t, err := time.Parse(time.RFC3339Nano, string(b[:n]))
	if err != nil {
		return 0, nil, false
	}
	return t.UnixNano(), b[n+1:], true
}

// add takes a piece of a line; false: nobody wants more.
func (l *logLines) add(stderr bool, at int64, text []byte, cut bool) bool {
	stream := 0
	if stderr {
		stream = 1
	}
	x := &l.open[stream]
	if x.At != 0 && x.At != at && !l.emit(x) { // parts of a line have one time
		return false
	}
	if x.At == 0 {
		*x = logs.Record{At: at, Stderr: stderr, Text: x.Text[:0]}
	}
	if room := longestLog - len(x.Text); room > 0 {
		x.Text = append(x.Text, text[:min(len(text), room)]...)
	}
	// The engine cuts long lines into parts of one size. That the last one may
	// lack a line break depends on the driver.
	if !cut && len(text) == logPart && text[logPart-1] != '\n' {
		return true
	}
	return l.emit(x)
}

func (l *logLines) emit(x *logs.Record) bool {
	l.refused = l.take(*x)
	x.At = 0
	return l.refused == nil
}

// rest hands over what has no end: the log ends here.
func (l *logLines) rest() error {
	for i := range l.open {
		if x := &l.open[i]; x.At != 0 && !l.emit(x) {
			return l.refused
		}
	}
	return nil
}

// Excerpt says which part of a container's log people want to see.
type Excerpt struct {
	Since, Until time.Time // zero: no limit
	Last         int       // how many lines before now; negative: all
	Follow       bool      // go on with new ones
}

// ReadExcerpt hands over a part of the log of a container, by its name or ID.
func (e *Engine) ReadExcerpt(ctx context.Context, id string, x Excerpt, take func(logs.Record) error) error {
	is, err := e.LogState(ctx, id)
	if err != nil {
		return err
	}
	o := container.LogsOptions{Since: engineTime(x.Since), Until: engineTime(x.Until), Follow: x.Follow}
	if x.Last >= 0 {
		o.Tail = fmt.Sprint(x.Last)
	}
	return e.readLog(ctx, id, o, is.TTY, take)
}

// started tells whoever reads logs that a container was started; empty: any may
// have been, while nobody looked.
func (e *Engine) started(m events.Message) {
	if e.cfg.Started != nil && (m.Type == "" || m.Type == events.ContainerEventType && m.Action == events.ActionStart) {
		e.cfg.Started(m.Actor.ID)
	}
}
