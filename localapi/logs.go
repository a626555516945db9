package localapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"deckhand/logs"
	"deckhand/state"
)

// Logs are the lines of containers, of the supervisor and of the host.
type Logs interface {
	// Listen begins to listen to all lines, from now on.
	Listen() *logs.Listener
	// Journal opens a part of the past, as text. It ends with ctx. Class
	// invalid: the query makes no sense.
	Journal(ctx context.Context, q JournalQuery) (io.ReadCloser, error)
}

// JournalQuery says which part of the past somebody wants to see.
type JournalQuery struct {
	All       bool   // also what is long or not printable
	Follow    bool   // go on with what is new
	Unit      string // of the host; empty: all
	Container string // engine ID or its beginning; empty: all
	Count     int    // the last lines only; 0: all
	Since     string // as journalctl understands times; empty: no limit
	Until     string
	Format    string // as journalctl names them
	App       int64  // only containers of this app; 0: of every one
}

// logRoutes are logs. Every key opens them; the key of a service shows lines of its
// own app only.
func (a *api) logRoutes() []route {
	return []route{
		{"GET", "/v2/local/logs", true, 0, a.streamLogs},
		{"POST", "/v2/journal-logs", true, bodyLimit, a.journal},
	}
}

// streamedLine is a line as the owner's tools read it.
type streamedLine struct {
	Message     string `json:"message"`
	Timestamp   int64  `json:"timestamp,omitempty"`
	IsSystem    bool   `json:"isSystem,omitempty"`
	IsStdErr    bool   `json:"isStdErr,omitempty"`
	ServiceID   int64  `json:"serviceId,omitempty"`
	ServiceName string `json:"serviceName,omitempty"`
}

// patience is how long a reader may take nothing.
const patience = time.Minute

// streamLogs writes lines until the client leaves.
func (a *api) streamLogs(w http.ResponseWriter, r *http.Request, _ []byte) {
	listener := a.c.Logs.Listen()
	defer listener.Close()
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := output{w: w, control: http.NewResponseController(w)}
	if out.lines([]logs.Line{{Message: "Streaming logs", System: true}}) != nil || r.Method == http.MethodHead {
		return
	}
	who := callerOf(r)
	for {
		lines, err := listener.Read(r.Context())
		if err != nil {
			return
		}
		mine := lines[:0]
		for _, l := range lines {
			if who.may(l.AppID) {
				mine = append(mine, l)
			}
		}
		if out.lines(mine) != nil {
			return
		}
	}
}

// output is an answer that goes on. A client that takes nothing is given up.
type output struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

func (o output) lines(lines []logs.Line) error {
	if len(lines) == 0 {
		return nil
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	for _, l := range lines {
		x := streamedLine{Message: l.Message, Timestamp: l.At, IsSystem: l.System, IsStdErr: l.Stderr, ServiceID: l.ServiceID, ServiceName: l.Service}
		if err := e.Encode(x); err != nil {
			return err
		}
	}
	return o.write(b.Bytes())
}

func (o output) write(b []byte) error {
	_ = o.control.SetWriteDeadline(time.Now().Add(patience)) // a recorder has none
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	return o.control.Flush()
}

// journal writes a part of the past. Status 200 waits a moment for the first line,
// so that a query which makes no sense is answered as one.
func (a *api) journal(w http.ResponseWriter, r *http.Request, body []byte) {
	q, err := journalQuery(r, body)
	if err != nil {
		plain(w, http.StatusBadRequest, err.Error())
		return
	}
	if who := callerOf(r); !who.all {
		q.App = who.app
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	from, err := a.c.Logs.Journal(ctx, q)
	if err != nil {
		refuseJournal(w, err)
		return
	}
	pieces := readPieces(ctx, from)
	defer func() { cancel(); _ = from.Close(); <-pieces.done }()
	out := output{w: w, control: http.NewResponseController(w)}
	var first []byte
	select {
	case p, ok := <-pieces.out:
		if !ok && pieces.err != nil {
			refuseJournal(w, pieces.err)
			return
		}
		first = p
	case <-time.After(time.Second):
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(http.StatusOK)
	if out.write(first) != nil {
		return
	}
	for p := range pieces.out {
		if out.write(p) != nil {
			return
		}
	}
}

func refuseJournal(w http.ResponseWriter, err error) {
	status := http.StatusServiceUnavailable
	if state.ClassOf(err) == state.ClassInvalid {
		status = http.StatusBadRequest
	}
	plain(w, status, reason(err))
}

// pieces are what comes from a reader, for somebody who waits for other things too.
type pieces struct {
	out  chan []byte // closed at the end
	done chan struct{}
	err  error // why it ended, if not in good order; to be read when out is closed
}

func readPieces(ctx context.Context, from io.Reader) *pieces {
	p := &pieces{out: make(chan []byte), done: make(chan struct{})}
	go func() {
		defer close(p.done)
		defer close(p.out)
		for {
			b := make([]byte, 16<<10)
			n, err := from.Read(b)
			if n > 0 {
				select {
				case p.out <- b[:n]:
				case <-ctx.Done():
					return
				}
			}
			if err != nil {
				if !errors.Is(err, io.EOF) {
					p.err = err
				}
				return
			}
		}
	}()
	return p
}

func journalQuery(r *http.Request, body []byte) (q JournalQuery, err error) {
	f, err := readForm(r, body)
	if err != nil {
		return q, err
	}
	q = JournalQuery{All: f.truthy("all"), Follow: f.truthy("follow"), Format: "short"}
	for name, to := range map[string]*string{
		"unit": &q.Unit, "containerId": &q.Container, "since": &q.Since, "until": &q.Until, "format": &q.Format,
	} {
		value, _, ok := f.scalar(name)
		if !ok || value == "" {
			continue
		}
		if len(value) > 200 || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' }) {
			return q, fmt.Errorf("%s is no text of at most 200 characters in one line", name)
		}
		*to = value
	}
	if n, ok := f.integer("count"); ok && n > 0 {
		q.Count = int(min(n, 1<<30))
	}
	for _, known := range journalFormats() {
		if q.Format == known {
			return q, nil
		}
	}
	return q, fmt.Errorf("format %q is none of %s", q.Format, strings.Join(journalFormats(), ", "))
}

// journalFormats are those of journalctl.
func journalFormats() []string {
	return []string{
		"short", "short-full", "short-iso", "short-iso-precise", "short-precise", "short-monotonic", "short-delta", "short-unix",
		"verbose", "export", "json", "json-pretty", "json-sse", "json-seq", "cat", "with-unit",
	}
}
