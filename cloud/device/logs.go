package device

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

const (
	flushEvery = 500 * time.Millisecond
	// longestLine is the size in bytes of the longest log line taken.
	longestLine = 1 << 20
	// longestBatch is how many lines the older route takes at once.
	longestBatch = 10
	ndjson       = "application/x-ndjson"
	// longestSource is the length of the longest name of a source of lines.
	longestSource = 128
	// acknowledge is a header of devices that want to know how many lines are
	// stored. Such a request is answered at once, and the body of the answer has
	// the number of lines of the request that are stored so far, one number a
	// line. Lines have a mark, SOURCE:POSITION; positions grow within a source.
	// After a break the device sends again what it has no number for, and what is
	// stored already is known by its mark.
	acknowledge = "Deckhand-Acknowledge"
	// flushLines is how many lines are stored at once without waiting for more.
	flushLines = 250
)

// sentLine is a log line as a device sends it.
type sentLine struct {
	Message   string   `json:"message"`
	Timestamp *float64 `json:"timestamp"` // milliseconds since 1970
	IsSystem  bool     `json:"isSystem"`
	IsStdErr  bool     `json:"isStdErr"`
	ServiceID int64    `json:"serviceId"`
	UUID      string   `json:"uuid"` // of a dependent device
	Mark      string   `json:"mark"` // source and position, see acknowledge
}

func (l sentLine) line(now time.Time) model.LogLine {
	at := now
	if l.Timestamp != nil {
		at = time.UnixMilli(int64(min(max(*l.Timestamp, 0), 1<<53)))
	}
	out := model.LogLine{Timestamp: at, System: l.IsSystem, Stderr: l.IsStdErr, Service: l.ServiceID, Message: l.Message}
	if source, text, ok := strings.Cut(l.Mark, ":"); ok && len(source) <= longestSource {
		if position, err := strconv.ParseInt(text, 10, 64); err == nil && position > 0 {
			out.Source, out.Position = source, position
		}
	}
	return out
}

// logWriter checks that the request comes from the device itself; ok is
// false when it is answered.
func (d *Device) logWriter(w http.ResponseWriter, r *http.Request) (*model.Device, bool) {
	device, err := d.find(r.Context(), r.PathValue("uuid"))
	if err != nil {
		answer.Failure(w, r, err)
		return nil, false
	}
	if device == nil {
		// A device that is gone here would try again at once, for ever.
		select {
		case <-time.After(d.refusal):
		case <-r.Context().Done():
		}
		answer.Empty(w, http.StatusUnauthorized)
		return nil, false
	}
	actor, ok := d.auth.Require(w, r, auth.Device)
	if !ok {
		return nil, false
	}
	if actor.ID != device.ID {
		answer.Empty(w, http.StatusUnauthorized)
		return nil, false
	}
	return device, true
}

// logStream takes one long request of log lines, one JSON object a line.
func (d *Device) logStream(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	if r.ProtoMajor == 1 {
		// A refusal would wait for the body's end otherwise; the connection
		// cannot be used again, since the body may go on.
		control.EnableFullDuplex() //nolint:errcheck // a recorder cannot
		w.Header().Set("Connection", "close")
	}
	control.SetReadDeadline(time.Time{})  //nolint:errcheck // a recorder has no deadlines
	control.SetWriteDeadline(time.Time{}) //nolint:errcheck // the same
	// A stop of the cloud ends the read; it would wait for the next line.
	defer context.AfterFunc(r.Context(), func() { control.SetReadDeadline(time.Now()) })() //nolint:errcheck // the same
	if r.Header.Get("Content-Type") != ndjson {
		answer.Text(w, http.StatusUnsupportedMediaType, "Streaming requests require Content-Type "+ndjson)
		return
	}
	device, ok := d.logWriter(w, r)
	if !ok {
		return
	}
	sink := &logBuffer{db: d.db, device: device.ID, full: make(chan struct{}, 1)}
	if r.Header.Get(acknowledge) == "lines" {
		d.acknowledged(w, r, sink)
		return
	}
	body, err := unpacked(r)
	switch {
	case errors.Is(err, io.EOF):
		answer.Empty(w, http.StatusCreated)
		return
	case err != nil:
		answer.Text(w, http.StatusBadRequest, "The body is not valid gzip.")
		return
	}
	stop := sink.start(r.Context())
	err = readLines(body, func(l sentLine) { sink.add(l.line(d.db.Now())) })
	if flushed := stop(); flushed != nil {
		answer.Empty(w, http.StatusServiceUnavailable)
		return
	}
	if bad, ok := errors.AsType[*rowError](err); ok {
		answer.Text(w, http.StatusBadRequest, bad.Error())
		return
	}
	answer.Empty(w, http.StatusCreated)
}

// unpacked is the body as text; io.EOF: there is none.
func unpacked(r *http.Request) (io.Reader, error) {
	if r.Header.Get("Content-Encoding") != "gzip" {
		return r.Body, nil
	}
	return gzip.NewReader(r.Body)
}

// acknowledged takes lines and says how many are stored. What goes wrong ends the
// answer: the device sends again what it has no number for. Nothing is dropped, a
// device that sends fast waits.
func (d *Device) acknowledged(w http.ResponseWriter, r *http.Request, sink *logBuffer) {
	control := http.NewResponseController(w)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set(acknowledge, "lines")
	w.WriteHeader(http.StatusOK)
	if control.Flush() != nil {
		return
	}
	sink.room = make(chan struct{}, 1)
	sink.stored = func(total int) error {
		control.SetWriteDeadline(time.Now().Add(keepAlive)) //nolint:errcheck // a recorder has no deadlines
		if _, err := fmt.Fprintln(w, total); err != nil {
			return err
		}
		return control.Flush()
	}
	body, err := unpacked(r)
	if err != nil {
		return
	}
	sink.abort = func() { control.SetReadDeadline(time.Now()) } //nolint:errcheck // the same
	stop := sink.start(r.Context())
	_ = readLines(body, func(l sentLine) { sink.add(l.line(d.db.Now())) })
	_ = stop()
}

type rowError struct{ row string }

func (e *rowError) Error() string { return "Could not parse row " + e.row }

// readLines gives each line to take. Blank lines and lines of dependent
// devices are skipped.
func readLines(body io.Reader, take func(sentLine)) error {
	scanner := bufio.NewScanner(body)
	scanner.Buffer(make([]byte, 0, 4096), longestLine)
	for scanner.Scan() {
		row := bytes.TrimSpace(scanner.Bytes())
		if len(row) == 0 {
			continue
		}
		var l sentLine
		if err := json.Unmarshal(row, &l); err != nil {
			return &rowError{row: string(row[:min(len(row), 200)])}
		}
		if l.UUID == "" {
			take(l)
		}
	}
	if errors.Is(scanner.Err(), bufio.ErrTooLong) {
		return &rowError{row: fmt.Sprintf("(longer than %d bytes)", longestLine)}
	}
	return scanner.Err()
}

// logBuffer collects the lines of one device and stores them twice a second, or
// when there are many. If nobody is told how many are stored, more lines than the
// whole log keeps are dropped in between, and counted; otherwise they wait.
type logBuffer struct {
	db     *model.DB
	device int64
	full   chan struct{} // there are many

	stored func(total int) error // is told how many lines are stored; nil: nobody is
	room   chan struct{}         // there is room again; only with stored
	abort  func()                // ends the reading of lines; only with stored

	mu      sync.Mutex
	lines   []model.LogLine
	dropped int
	total   int // stored
	failed  error
}

func (b *logBuffer) add(l model.LogLine) {
	for !b.try(l) {
		<-b.room
	}
}

func (b *logBuffer) try(l model.LogLine) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.lines) >= model.LogLimit-1 && b.failed == nil {
		if b.stored == nil {
			b.dropped++
			return true
		}
		return false
	}
	if b.failed == nil {
		b.lines = append(b.lines, l)
	}
	if len(b.lines) >= flushLines {
		signal(b.full)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// start stores now and then; the function returned stores the rest, ends
// that, and gives the first error of all.
func (b *logBuffer) start(ctx context.Context) func() error {
	// What was read is stored even when the client is gone.
	ctx = context.WithoutCancel(ctx)
	quit, done := make(chan struct{}), make(chan error, 1)
	go func() {
		ticker := time.NewTicker(flushEvery)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				b.flush(ctx)
			case <-b.full:
				b.flush(ctx)
			case <-quit:
				b.flush(ctx)
				done <- b.failed
				return
			}
		}
	}()
	return func() error {
		close(quit)
		return <-done
	}
}

// flush stores what there is. After a failure nothing more is taken.
func (b *logBuffer) flush(ctx context.Context) {
	b.mu.Lock()
	lines, dropped, failed := b.lines, b.dropped, b.failed
	b.lines, b.dropped = nil, 0
	b.mu.Unlock()
	if failed != nil || len(lines)+dropped == 0 {
		return
	}
	if dropped > 0 {
		lines = append(lines, model.LogLine{Timestamp: b.db.Now(), System: true,
			Message: fmt.Sprintf("Warning: Suppressed %d message(s) due to rate limiting", dropped)})
	}
	err := b.db.AppendLogs(ctx, b.device, lines)
	if err == nil && b.stored != nil {
		b.total += len(lines)
		err = b.stored(b.total)
	}
	b.mu.Lock()
	b.failed = err
	b.mu.Unlock()
	if b.stored == nil {
		return
	}
	signal(b.room)
	if err != nil {
		b.abort()
	}
}

// logBatch takes a few lines at once, as a JSON array.
func (d *Device) logBatch(w http.ResponseWriter, r *http.Request) {
	device, ok := d.logWriter(w, r)
	if !ok {
		return
	}
	var sent []sentLine
	if err := answer.Decode(r, &sent); err != nil {
		answer.BadBody(w, err)
		return
	}
	if len(sent) > longestBatch {
		answer.JSON(w, http.StatusBadRequest, "Batches cannot include more than 10 logs")
		return
	}
	if pause := d.batches.take(device.ID, d.db.Now()); pause > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(pause.Seconds()))))
		answer.JSON(w, http.StatusTooManyRequests, "Too many batches of logs; send fewer, or use the log stream.")
		return
	}
	var lines []model.LogLine
	for _, l := range sent {
		if l.UUID == "" {
			lines = append(lines, l.line(d.db.Now()))
		}
	}
	if err := d.db.AppendLogs(r.Context(), device.ID, lines); err != nil {
		answer.Failure(w, r, err)
		return
	}
	answer.Empty(w, http.StatusCreated)
}

// readLine is a log line as people read it.
type readLine struct {
	CreatedAt int64  `json:"createdAt"`
	Timestamp int64  `json:"timestamp"`
	IsSystem  bool   `json:"isSystem"`
	IsStdErr  bool   `json:"isStdErr"`
	ServiceID int64  `json:"serviceId,omitempty"`
	Message   string `json:"message"`
}

func read(l model.LogLine) readLine {
	return readLine{l.CreatedAt.UnixMilli(), l.Timestamp.UnixMilli(), l.System, l.Stderr, l.Service, l.Message}
}

// readLogs answers the newest lines, and with stream=1 those that follow.
func (d *Device) readLogs(w http.ResponseWriter, r *http.Request) {
	actor, ok := d.auth.Require(w, r, auth.User)
	if !ok {
		return
	}
	uuid := r.PathValue("uuid")
	device, err := d.db.DeviceByUUID(r.Context(), uuid)
	may := false
	if err == nil {
		may, err = d.may(r.Context(), actor, access.Read, device)
	}
	if err != nil && !errors.Is(err, model.ErrNotFound) {
		answer.Failure(w, r, err)
		return
	}
	if !may {
		answer.JSON(w, http.StatusNotFound, "No device with uuid "+uuid)
		return
	}
	streaming := r.URL.Query().Get("stream") == "1" || r.URL.Query().Get("stream") == "true"
	count, since := d.history(r, streaming)
	if streaming {
		d.streamLogs(w, r, device.ID, count, since)
		return
	}
	lines, err := d.db.Logs(r.Context(), device.ID, 0, since, count)
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	all := make([]readLine, len(lines))
	for i, l := range lines {
		all[i] = read(l)
	}
	answer.JSON(w, http.StatusOK, all)
}

// history reads count and start. What makes no sense is put right, not refused.
func (d *Device) history(r *http.Request, streaming bool) (count int, since time.Time) {
	count, back := model.LogLimit, 30*24*time.Hour
	if streaming {
		count, back = 0, 24*time.Hour
	}
	query := r.URL.Query()
	if text := query.Get("count"); text == "all" {
		count = model.LogLimit
	} else if n, err := strconv.Atoi(text); err == nil {
		count = min(max(n, 0), model.LogLimit)
	}
	since = d.db.Now().Add(-back)
	if text := query.Get("start"); text != "" {
		if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
			since = time.UnixMilli(ms)
		} else if t, err := time.Parse(time.RFC3339, text); err == nil {
			since = t
		}
	}
	return count, since
}

// keepAlive is how often a quiet log stream sends an empty line.
const keepAlive = 58 * time.Second

func (d *Device) streamLogs(w http.ResponseWriter, r *http.Request, device int64, count int, since time.Time) {
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Time{}) //nolint:errcheck // a recorder has no deadlines
	ctx, cancel := context.WithCancel(r.Context())
	changes := d.db.Changes().Watch(model.Topic{Kind: model.DeviceLog, ID: device})
	defer changes.Stop()
	f := follower{db: d.db, device: device, more: make(chan struct{}, 1)}
	if err := f.begin(ctx, count, since); err != nil {
		cancel()
		answer.Failure(w, r, err)
		return
	}
	var following sync.WaitGroup
	following.Go(func() {
		f.follow(ctx, changes.C())
		cancel() // the database is not there: so is no log
	})
	defer following.Wait()
	defer cancel()
	w.Header().Set("Content-Type", ndjson)
	w.WriteHeader(http.StatusOK)
	ticker := time.NewTicker(keepAlive)
	defer ticker.Stop()
	for {
		// A reader that takes nothing for a while is dropped, not waited for.
		control.SetWriteDeadline(time.Now().Add(keepAlive)) //nolint:errcheck // a recorder has no deadlines
		if writeLines(w, f.take()) != nil || control.Flush() != nil {
			return
		}
		select {
		case <-f.more:
		case <-ticker.C:
			if _, err := io.WriteString(w, "\n"); err != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

// follower has the lines that a reader has not taken yet, no more than a whole log.
type follower struct {
	db     *model.DB
	device int64
	last   int64         // line that was read from the database last
	more   chan struct{} // there are lines

	mu      sync.Mutex
	lines   []model.LogLine
	dropped int // that the reader was too slow for
}

// begin takes what was there before.
func (f *follower) begin(ctx context.Context, count int, since time.Time) (err error) {
	if f.last, err = f.db.LastLog(ctx, f.device); err != nil || count == 0 {
		return err
	}
	lines, err := f.db.Logs(ctx, f.device, 0, since, count)
	f.add(lines)
	return err
}

// follow takes lines as they come, however slow the reader is.
func (f *follower) follow(ctx context.Context, changed <-chan struct{}) {
	for {
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
		lines, err := f.db.Logs(ctx, f.device, f.last, time.Time{}, model.LogLimit)
		if err != nil {
			return
		}
		f.add(lines)
	}
}

func (f *follower) add(lines []model.LogLine) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range lines {
		f.last = max(f.last, l.ID)
	}
	f.lines = append(f.lines, lines...)
	if over := len(f.lines) - model.LogLimit; over > 0 {
		f.dropped += over
		f.lines = append([]model.LogLine(nil), f.lines[over:]...)
	}
	signal(f.more)
}

// take gives the lines to send, after one that says what is missing.
func (f *follower) take() []model.LogLine {
	f.mu.Lock()
	defer f.mu.Unlock()
	lines := f.lines
	if f.dropped > 0 {
		now := f.db.Now()
		lines = append([]model.LogLine{{CreatedAt: now, Timestamp: now, System: true,
			Message: fmt.Sprintf("Warning: Suppressed %d message(s) due to slow reading", f.dropped)}}, lines...)
	}
	f.lines, f.dropped = nil, 0
	return lines
}

func writeLines(w io.Writer, lines []model.LogLine) error {
	for _, l := range lines {
		b, err := answer.Marshal(read(l))
		if err != nil {
			return err
		}
		if _, err := w.Write(append(b, '\n')); err != nil {
			return err
		}
	}
	return nil
}
