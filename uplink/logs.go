package uplink

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"deckhand/logs"
	"deckhand/state"
)

// AcknowledgeLines is a header: a device says that it understands, and a cloud
// that it gives, the number of lines it has stored so far, as one decimal number a
// line, in the body of an answer that begins before the request ends. Clouds that
// do not know it ignore it.
const (
	AcknowledgeHeader = "Deckhand-Acknowledge"
	AcknowledgeLines  = "lines"
)

const logType = "application/x-ndjson"

// logTimes are the times of the protocol; tests are in a hurry.
type logTimes struct {
	grace      time.Duration // a cloud that refuses does so before any line is sent
	flush      time.Duration // between two flushes
	idle       time.Duration // without a line the connection is closed
	retryFirst time.Duration
	retryMost  time.Duration
	// sure is after which time a line counts as delivered to a cloud that does
	// not acknowledge, if the connection still lives.
	sure     time.Duration
	probe    time.Duration // how soon after a write a dead connection shows
	farewell time.Duration // how long an end in good order may take
}

func usualLogTimes() logTimes {
	return logTimes{
		grace: 5 * time.Second, flush: 100 * time.Millisecond, idle: 60 * time.Second,
		retryFirst: 5 * time.Second, retryMost: 300 * time.Second, sure: 3 * time.Second, probe: 500 * time.Millisecond, farewell: 3 * time.Second,
	}
}

// LogsConfig says what is sent where.
type LogsConfig struct {
	Client *Client
	// Endpoint is the base URL of the log service; empty: the client's.
	Endpoint string
	Outbox   *logs.Outbox
	// OnError is told why a connection ended, and when the next may begin. May be nil.
	OnError func(err error, next time.Time)
}

// Logs sends lines to the cloud, over one connection that is open while there are
// lines to send.
type Logs struct {
	LogsConfig
	base  *url.URL
	times logTimes
}

// NewLogs makes no connection yet.
func NewLogs(c LogsConfig) (*Logs, error) {
	l := &Logs{LogsConfig: c, base: c.Client.base, times: usualLogTimes()}
	if c.Endpoint != "" {
		u, err := url.Parse(strings.TrimRight(c.Endpoint, "/"))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, state.Classify(state.ClassInvalid, fmt.Errorf("log address %q is not of the form https://host", c.Endpoint))
		}
		l.base = u
	}
	if l.OnError == nil {
		l.OnError = func(error, time.Time) {}
	}
	return l, nil
}

// Run sends until ctx ends, and then what is left, for a moment.
func (l *Logs) Run(ctx context.Context) {
	failures := 0
	next := time.Now()
	for l.Outbox.WaitPending(ctx) == nil && sleepUntil(ctx, next) {
		began := time.Now()
		reached, err := l.connection(ctx)
		if reached {
			failures = 0
		}
		wait := l.times.retryFirst
		if err != nil {
			failures++
			wait = max(min(l.times.retryFirst<<min(failures, 10), l.times.retryMost), min(RetryAfter(err), l.times.retryMost))
		}
		next = began.Add(wait)
		if err != nil && ctx.Err() == nil {
			l.OnError(err, next)
		}
	}
}

func sleepUntil(ctx context.Context, t time.Time) bool {
	wait := time.Until(t)
	if wait <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// wire is one connection.
type wire struct {
	outbox  *logs.Outbox
	session *logs.Session
	acks    bool // the cloud says what it has
	times   logTimes

	body    *io.PipeWriter
	out     *bufio.Writer
	zip     *gzip.Writer
	json    *json.Encoder
	flushed time.Time
	dirty   int // lines since the last flush

	sure []handed // without acks: what was flushed when

	limit   time.Duration // without anything moving while it should
	stall   *time.Timer
	moved   atomic.Int64 // when something did, Unix nanoseconds
	writing atomic.Bool
}

type handed struct {
	at     time.Time
	lines  int
	probed bool
}

// answered is what became of a request.
type answered struct {
	response *http.Response
	err      error
}

// connection is open while there are lines. reached: the cloud took it.
func (l *Logs) connection(ctx context.Context) (reached bool, err error) {
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	from, to := io.Pipe()
	request, err := l.request(own, from)
	if err != nil {
		return false, err
	}
	result := make(chan answered, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r, err := l.Client.http.Do(request) //nolint:bodyclose // whoever takes the result closes it, see below
		result <- answered{r, err}
	}()
	var response *http.Response
	defer func() {
		cancel(nil)
		_ = to.Close()
		<-done
		select {
		case a := <-result:
			response = a.response
		default:
		}
		if response != nil {
			_ = response.Body.Close()
		}
	}()
	w := &wire{outbox: l.Outbox, times: l.times, body: to, limit: l.Client.timeout}
	select {
	case a := <-result:
		if a.err != nil {
			return false, l.Client.classify(own, a.err)
		}
		response = a.response
		if response.StatusCode != http.StatusOK || response.Header.Get(AcknowledgeHeader) != AcknowledgeLines {
			return false, refusal(response)
		}
		w.acks = true
	case <-time.After(l.times.grace):
	case <-ctx.Done():
		return false, nil
	}
	w.begin(func() { cancel(errStalled) })
	defer w.end()
	failed := make(chan error, 1)
	if w.acks {
		listened := make(chan struct{})
		go func() { defer close(listened); failed <- w.listen(response.Body) }()
		defer func() { cancel(nil); _ = response.Body.Close(); <-listened }()
	}
	err = w.send(ctx, failed, result)
	if errors.Is(context.Cause(own), errStalled) {
		err = state.Classify(state.ClassTimeout, errStalled)
	}
	return true, err
}

var errStalled = errors.New("send logs: the cloud takes nothing any more")

func (l *Logs) request(ctx context.Context, body io.Reader) (*http.Request, error) {
	u := *l.base
	u.Path = strings.TrimRight(l.base.Path, "/") + "/device/v2/" + url.PathEscape(l.Client.uuid) + "/log-stream"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), body)
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("send logs: %w", err))
	}
	r.Header.Set("Authorization", "Bearer "+l.Client.key())
	r.Header.Set("Content-Type", logType)
	r.Header.Set("Content-Encoding", "gzip")
	r.Header.Set(AcknowledgeHeader, AcknowledgeLines)
	r.Header["User-Agent"] = nil
	return r, nil
}

// refusal is the error of an answer that should not have come.
func refusal(r *http.Response) error {
	b, _ := io.ReadAll(io.LimitReader(r.Body, maxShown))
	x := response{method: r.Request.Method, url: r.Request.URL.Redacted(), status: r.StatusCode, header: r.Header, body: b}
	return fmt.Errorf("send logs: %w", x.failure())
}

func (w *wire) begin(stalled func()) {
	w.session = w.outbox.Open()
	w.moves()
	w.stall = time.AfterFunc(w.limit, func() {
		if !w.writing.Load() && (!w.acks || w.session.Flying() == 0) {
			w.moves()
		}
		if quiet := time.Since(time.Unix(0, w.moved.Load())); quiet >= w.limit {
			stalled()
			return
		}
		w.stall.Reset(w.limit / 4)
	})
	w.out = bufio.NewWriterSize(w.body, 16<<10)
	w.zip = gzip.NewWriter(w.out)
	w.json = json.NewEncoder(w.zip)
	w.json.SetEscapeHTML(false)
}

func (w *wire) end() {
	w.stall.Stop()
	w.session.Close()
}

// send works until there is nothing to send for a while, or the connection ends.
func (w *wire) send(ctx context.Context, failed <-chan error, result chan answered) error {
	idle := time.NewTimer(w.times.idle)
	defer idle.Stop()
	for {
		n, err := w.round()
		if err != nil {
			return w.broken(err, failed, result)
		}
		if n > 0 {
			idle.Reset(w.times.idle)
			select {
			case <-ctx.Done():
			default:
				continue
			}
		}
		select {
		case <-w.outbox.Pending():
			if !w.session.Alive() {
				return w.farewell(failed, result)
			}
		case <-w.due():
		case err := <-failed:
			return state.Classify(state.ClassNetwork, fmt.Errorf("send logs: %w", err))
		case a := <-result:
			return w.answered(a)
		case <-idle.C:
			return w.farewell(failed, result)
		case <-ctx.Done():
			return w.farewell(failed, result)
		}
	}
}

// round sends what there is, a batch at most, and says how many lines that were.
func (w *wire) round() (int, error) {
	if w.session.Flying() == 0 {
		w.moves()
	}
	batch := w.session.Next()
	if err := w.write(batch); err != nil {
		return 0, err
	}
	now := time.Now()
	if w.dirty > 0 && now.Sub(w.flushed) >= w.times.flush {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	return len(batch), w.settleOld(now)
}

// settleOld takes lines for delivered that were flushed a while ago. The end of a
// connection shows only when something is written, so something is.
func (w *wire) settleOld(now time.Time) error {
	for len(w.sure) > 0 && w.sure[0].probed && now.Sub(w.sure[0].at) >= w.times.probe {
		w.session.Settle(w.sure[0].lines)
		w.sure = w.sure[1:]
	}
	if len(w.sure) == 0 || w.sure[0].probed || now.Sub(w.sure[0].at) < w.times.sure {
		return nil
	}
	for i := range w.sure {
		if now.Sub(w.sure[i].at) >= w.times.sure {
			w.sure[i].at, w.sure[i].probed = now, true
		}
	}
	return w.push()
}

// moves notes that the connection lives. One that died in silence is known by
// nothing moving while lines are on their way.
func (w *wire) moves() { w.moved.Store(time.Now().UnixNano()) }

func (w *wire) write(batch []logs.Parcel) error {
	w.writing.Store(true)
	defer w.writing.Store(false)
	for _, p := range batch {
		if err := w.json.Encode(w.line(p)); err != nil {
			return err
		}
	}
	w.dirty += len(batch)
	return nil
}

func (w *wire) flush() error {
	if err := w.push(); err != nil {
		return err
	}
	w.flushed = time.Now()
	if !w.acks {
		w.sure = append(w.sure, handed{at: w.flushed, lines: w.dirty})
	}
	w.dirty = 0
	return nil
}

// push sends everything that is written, and at least a few bytes.
func (w *wire) push() error {
	w.writing.Store(true)
	defer w.writing.Store(false)
	err := errors.Join(w.zip.Flush(), w.out.Flush())
	w.moves()
	return err
}

// due is when time alone makes a round worth while; nil: never.
func (w *wire) due() <-chan time.Time {
	switch {
	case w.dirty > 0:
		return time.After(max(w.times.flush-time.Since(w.flushed), time.Millisecond))
	case len(w.sure) > 0:
		wait := w.times.sure
		if w.sure[0].probed {
			wait = w.times.probe
		}
		return time.After(max(wait-time.Since(w.sure[0].at), time.Millisecond))
	}
	return nil
}

// sentLine is a line on the wire.
type sentLine struct {
	Message   string `json:"message"`
	Timestamp int64  `json:"timestamp"`
	IsSystem  bool   `json:"isSystem,omitempty"`
	IsStdErr  bool   `json:"isStdErr,omitempty"`
	ServiceID int64  `json:"serviceId,omitempty"`
	// Mark lets a cloud that acknowledges know a line again.
	Mark string `json:"mark,omitempty"`
}

func (w *wire) line(p logs.Parcel) sentLine {
	l := sentLine{Message: p.Message, Timestamp: p.At, IsSystem: p.System, IsStdErr: p.Stderr, ServiceID: p.ServiceID}
	if w.acks {
		l.Mark = p.Mark()
	}
	return l
}

// listen takes the cloud's acknowledgements; it returns when there are no more.
func (w *wire) listen(body io.Reader) error {
	settled := 0
	numbers := bufio.NewScanner(body)
	for numbers.Scan() {
		n, err := strconv.Atoi(strings.TrimSpace(numbers.Text()))
		if err != nil || n < settled {
			return errors.New("the cloud's acknowledgement is no number that grows")
		}
		w.session.Settle(n - settled)
		settled = n
		w.moves()
	}
	if err := numbers.Err(); err != nil {
		return err
	}
	return io.EOF
}

// farewell ends the body in good order and waits a moment for the cloud's answer.
func (w *wire) farewell(failed <-chan error, result chan answered) error {
	giveUp := time.AfterFunc(w.times.farewell, func() { _ = w.body.CloseWithError(errStalled) })
	defer giveUp.Stop()
	for batch := w.session.Next(); len(batch) > 0; batch = w.session.Next() { // what came until now still goes
		if err := w.write(batch); err != nil {
			return w.broken(err, failed, result)
		}
	}
	if err := errors.Join(w.zip.Close(), w.out.Flush(), w.body.Close()); err != nil {
		return w.broken(err, failed, result)
	}
	late := time.NewTimer(w.times.farewell)
	defer late.Stop()
	select {
	case err := <-failed: // the end of the acknowledgements
		if errors.Is(err, io.EOF) {
			return nil
		}
		return state.Classify(state.ClassNetwork, fmt.Errorf("send logs: %w", err))
	case a := <-result:
		if a.err == nil && a.response.StatusCode/100 == 2 {
			w.session.Settle(w.session.Flying())
			return a.response.Body.Close()
		}
		return w.answered(a)
	case <-late.C:
		return state.Classify(state.ClassTimeout, errors.New("send logs: the cloud does not confirm the end"))
	}
}

// broken finds out why writing failed: the cloud may have said so.
func (w *wire) broken(err error, failed <-chan error, result chan answered) error {
	select {
	case a := <-result:
		return w.answered(a)
	case e := <-failed:
		err = e
	case <-time.After(100 * time.Millisecond):
	}
	return state.Classify(errorClass(err), fmt.Errorf("send logs: %w", err))
}

// answered is the error of an answer in the middle of the stream.
func (w *wire) answered(a answered) error {
	if a.err != nil {
		return state.Classify(errorClass(a.err), fmt.Errorf("send logs: %w", a.err))
	}
	defer func() { _ = a.response.Body.Close() }()
	if a.response.StatusCode == http.StatusBadRequest {
		// The same lines would be refused again, for ever.
		w.session.Settle(w.session.Flying())
	}
	return refusal(a.response)
}
