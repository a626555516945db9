package server

import (
	"bufio"
	"context"
	"crypto/rand"
	"io"
	stdlog "log"
	"net"
	"net/http"
	"regexp"
	"runtime/debug"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"deckhand/cloud/answer"
	"deckhand/cloud/asset"
	"deckhand/cloud/metrics"
	"deckhand/cloud/park"
)

// middleware is what every request passes: a log line, time limits, a limit
// for the body, and an answer even when the code fails.
type middleware struct {
	next   http.Handler
	log    zerolog.Logger
	images bool // the registry: layers have any size and take their time

	metrics *metrics.Metrics
}

// visit is what the parts of the server tell each other about one request.
type visit struct{ route string }

type visitKey struct{}

// noted notes which route of the mux a request took.
type noted struct{ mux *http.ServeMux }

func (n noted) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if v, ok := r.Context().Value(visitKey{}).(*visit); ok && r.Pattern != "" {
			v.route = r.Pattern
		}
	}()
	n.mux.ServeHTTP(w, r)
}

// requestIDHeader names a request in our log and in that of a proxy in front.
const requestIDHeader = "X-Request-Id"

var requestIDRule = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)

// requestID is the one that the client or a proxy gave, or a new one.
func requestID(r *http.Request) string {
	if id := r.Header.Get(requestIDHeader); requestIDRule.MatchString(id) {
		return id
	}
	return rand.Text()[:16]
}

const (
	bodyTime   = 2 * time.Minute
	answerTime = 3 * time.Minute
	// pause is how long a file that has any size may stand still.
	pause = time.Minute
	// maxWire bounds a body as it is sent.
	maxWire = 16 << 20
)

// endless says whether a request may take as long as it wants: it is watched
// over where it is served.
func (m middleware) endless(r *http.Request) bool {
	return m.images || r.URL.Path == "/v3/build" || r.URL.Path == "/v3/buildFromUrl" || strings.HasSuffix(r.URL.Path, "/log-stream")
}

// file says whether a request is about a file that has any size: it may take as
// long as it wants while it gets on.
func file(r *http.Request) bool {
	form := strings.HasPrefix(r.Header.Get("Content-Type"), "multipart/form-data") && strings.HasPrefix(r.URL.Path, "/v7/release_asset")
	return form || asset.Serves(r)
}

func (m middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	if back := park.BackOf(r); back != nil {
		began = back.Began
	}
	recorder := &recorder{ResponseWriter: w}
	m.limit(recorder, r)
	id, v := requestID(r), &visit{route: "none"}
	if m.images {
		v.route = imageRoute(r.URL.Path)
	}
	recorder.Header().Set(requestIDHeader, id)
	ended := m.metrics.Begun(m.name())
	log := m.log.With().Str("request_id", id).Str("method", r.Method).Str("path", r.URL.Path).Logger()
	r = r.WithContext(context.WithValue(log.WithContext(r.Context()), visitKey{}, v))
	defer func() {
		if recorder.parked {
			return // it ends when it has come back
		}
		defer func() { ended(v.route, r.Method, recorder.status, time.Since(began)) }()
		if m.recovered(recorder, log, recover()) {
			panic(http.ErrAbortHandler) // the way to drop a connection
		}
		// Polls and layers are many and say little.
		level := zerolog.DebugLevel
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !m.images || recorder.status >= http.StatusInternalServerError {
			level = zerolog.InfoLevel
		}
		log.WithLevel(level).Str("route", v.route).Int("status", recorder.status).Int64("bytes", recorder.bytes).Dur("ms", time.Since(began)).Str("client", r.RemoteAddr).Msg("request")
	}()
	m.next.ServeHTTP(recorder, r)
}

func (m middleware) name() string {
	if m.images {
		return "registry"
	}
	return "api"
}

// imageRoute is the kind of thing that a request to the registry is about.
func imageRoute(path string) string {
	for _, kind := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/tags/", "/referrers/"} {
		if strings.Contains(path, kind) {
			return "/v2/{name}" + kind
		}
	}
	if path == "/v2/" {
		return path
	}
	return "none"
}

// limit sets the deadlines. Those of the previous request on the connection
// would stay otherwise.
func (m middleware) limit(w *recorder, r *http.Request) {
	control := http.NewResponseController(w)
	var read, write time.Time
	switch {
	case m.endless(r):
	case file(r):
		w.hurry = func() { control.SetWriteDeadline(time.Now().Add(pause)) }               //nolint:errcheck // see below
		r.Body = steady{r.Body, func() { control.SetReadDeadline(time.Now().Add(pause)) }} //nolint:errcheck // see below
		read = time.Now().Add(pause)
	default:
		write = time.Now().Add(answerTime)
		if r.ContentLength != 0 {
			read = time.Now().Add(bodyTime)
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxWire)
	}
	// Without support for deadlines there are none.
	control.SetReadDeadline(read)   //nolint:errcheck // see above
	control.SetWriteDeadline(write) //nolint:errcheck // see above
}

// steady is a body that may take long but must not stand still.
type steady struct {
	io.ReadCloser
	hurry func()
}

func (s steady) Read(b []byte) (int, error) {
	s.hurry()
	return s.ReadCloser.Read(b)
}

// recovered logs a panic and answers 500 if nothing was sent; true means that
// the connection must be dropped.
func (m middleware) recovered(w *recorder, log zerolog.Logger, p any) (drop bool) {
	switch p {
	case nil:
		return false
	case http.ErrAbortHandler: // compared as net/http does
		return true
	}
	log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("request failed")
	if w.status != 0 {
		return true
	}
	answer.JSON(w, http.StatusInternalServerError, "The cloud could not do this; its log says why.")
	return false
}

// recorder remembers what was answered.
type recorder struct {
	http.ResponseWriter
	status int
	bytes  int64
	hurry  func() // before each write; nil: nothing
	parked bool   // somebody else has the connection
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	if r.hurry != nil {
		r.hurry()
	}
	n, err := r.ResponseWriter.Write(b)
	r.bytes += int64(n)
	return n, err
}

// Hijack is for requests that are parked.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buffered, err := http.NewResponseController(r.ResponseWriter).Hijack()
	r.parked = err == nil
	return conn, buffered, err
}

// Flush is for handlers that ask for a Flusher themselves.
func (r *recorder) Flush() { http.NewResponseController(r.ResponseWriter).Flush() }

// Unwrap is for http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// quietLog takes what net/http says about broken connections.
func quietLog(log zerolog.Logger) *stdlog.Logger {
	return stdlog.New(writeLog{log}, "", 0)
}

type writeLog struct{ log zerolog.Logger }

func (w writeLog) Write(b []byte) (int, error) {
	w.log.Debug().Msg(strings.TrimSpace(string(b)))
	return len(b), nil
}
