package enginetest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/versions"
)

const (
	apiVersion = "1.41" // of the oldest engine that devices run
	minimumAPI = "1.12"
)

// ErrLost is what Config.Before or Config.After return to break the connection:
// the caller gets no answer.
var ErrLost = errors.New("the connection broke")

// Config says how a fake engine behaves. The zero value is an engine whose
// registries have every image and whose calls take no time.
type Config struct {
	// Before is asked before a call has its effect, After once it had it and
	// before the answer goes out. An error other than ErrLost is answered with
	// status 500 and its text.
	Before, After func(ctx context.Context, c Call) error

	// Delay is how long a call takes; its effect is in the middle.
	Delay func(c Call) time.Duration

	// Program says what a container's process does; ok is false for what its
	// command says, see Program.
	Program func(name string, c *container.Config) (p Program, ok bool)

	// Pull says what the registries answer for a reference.
	Pull func(ref string) Pull
}

// Call is one request on its way.
type Call struct {
	Route  string     // method and path with {} for the object, as in "POST /containers/{}/start"
	Object string     // what the path or the body names
	Query  url.Values // as it came
	Writes bool       // it changes something
}

// Program is what a container's process does after each start. The fake knows
// it from the command: "exit N" as the last argument ends at once with N, and
// everything else idles and ends with 0 when asked to. A health check succeeds
// unless its command is "false".
type Program struct {
	Ends    bool // by itself, After the start, with Code
	After   time.Duration
	Code    int
	Healthy bool          // what its health check finds
	Check   time.Duration // how long after the start that is known
}

// Pull is the registries' answer. The zero value is a small image whose content
// follows from its reference.
type Pull struct {
	Missing bool          // nobody has it
	Fails   string        // what goes wrong in the middle of the download
	Takes   time.Duration // beside Config.Delay
	Digest  string        // of its manifest: references with the same one are the same image
	Size    int64         // bytes
	Labels  map[string]string
}

// Fake is a container engine in memory. It speaks API 1.41 as Docker Engine
// 20.10 does, oddities included, and runs no process. It is an http.Handler and
// an http.RoundTripper: a client needs no socket.
type Fake struct {
	cfg    Config
	routes []route

	mu      sync.Mutex
	m       machine
	alarm   *time.Timer // the next thing that happens by itself
	streams map[*stream]bool
	closed  bool
}

// NewFake makes an engine with nothing on it.
func NewFake(cfg Config) *Fake { return newFake(cfg, newMachine()) }

func newFake(cfg Config, m machine) *Fake {
	if cfg.Before == nil {
		cfg.Before = func(context.Context, Call) error { return nil }
	}
	if cfg.After == nil {
		cfg.After = func(context.Context, Call) error { return nil }
	}
	if cfg.Delay == nil {
		cfg.Delay = func(Call) time.Duration { return 0 }
	}
	if cfg.Program == nil {
		cfg.Program = func(string, *container.Config) (Program, bool) { return Program{}, false }
	}
	if cfg.Pull == nil {
		cfg.Pull = func(string) Pull { return Pull{} }
	}
	f := &Fake{cfg: cfg, routes: routes(), m: m, streams: map[*stream]bool{}}
	f.mu.Lock()
	f.settle()
	f.mu.Unlock()
	return f
}

// Close ends every stream and lets nothing happen any more.
func (f *Fake) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	if f.alarm != nil {
		f.alarm.Stop()
	}
	for s := range f.streams {
		s.end()
	}
	clear(f.streams)
}

// Snapshot is a state of an engine that another one can go on from.
type Snapshot struct{ m machine }

// Snapshot copies the state: what a disk and the kernel keep when a client ends.
func (f *Fake) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Snapshot{f.m.clone()}
}

// Changes counts the changes of the state so far, also those of the fake that
// this one was made from.
func (f *Fake) Changes() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.m.changes
}

// NewFake makes an engine that goes on from the state. A snapshot may be used
// many times.
func (s Snapshot) NewFake(cfg Config) *Fake { return newFake(cfg, s.m.clone()) }

// machine is the whole state of an engine.
type machine struct {
	serial     int
	changes    int
	next       string // see Fake.Name
	containers map[string]*box
	networks   map[string]*net
	volumes    map[string]*vol
	images     map[string]*img
	refs       map[string]string // canonical reference → image
}

func newMachine() machine {
	m := machine{
		containers: map[string]*box{}, networks: map[string]*net{}, volumes: map[string]*vol{},
		images: map[string]*img{}, refs: map[string]string{},
	}
	for _, name := range []string{"bridge", "host", "none"} {
		id := m.id()
		m.networks[id] = &net{id: id, name: name, driver: strings.Replace(name, "none", "null", 1), created: time.Now()}
	}
	return m
}

// clone copies all that changes; settings never do.
func (m machine) clone() machine {
	out := m
	out.containers = make(map[string]*box, len(m.containers))
	for id, c := range m.containers {
		out.containers[id] = c.clone()
	}
	out.networks, out.volumes, out.images, out.refs = maps.Clone(m.networks), maps.Clone(m.volumes), maps.Clone(m.images), maps.Clone(m.refs)
	return out
}

// id makes the ID of a container or network. Its first twelve digits suffice,
// and IDs sort by age.
func (m *machine) id() string {
	m.serial++
	if id := m.next; id != "" {
		m.next = ""
		return id
	}
	return fmt.Sprintf("%012x%052x", 0xc00000000000+m.serial, m.serial)
}

// refusal is an answer that says no.
type refusal struct {
	status int
	text   string
}

// Error implements error.
func (r refusal) Error() string { return r.text }

func refuse(status int, format string, arg ...any) error {
	return refusal{status, fmt.Sprintf(format, arg...)}
}

func notFound(format string, arg ...any) error { return refuse(http.StatusNotFound, format, arg...) }
func conflict(format string, arg ...any) error { return refuse(http.StatusConflict, format, arg...) }
func invalid(format string, arg ...any) error  { return refuse(http.StatusBadRequest, format, arg...) }
func broken(format string, arg ...any) error {
	return refuse(http.StatusInternalServerError, format, arg...)
}

// reply is an answer.
type reply struct {
	status int
	body   any                                                  // as JSON; nil: none
	stream func(ctx context.Context, line func(any) bool) error // lines of JSON instead
}

func answer(body any) (reply, error) { return reply{status: http.StatusOK, body: body}, nil }
func done() (reply, error)           { return reply{status: http.StatusNoContent}, nil }
func made(body any) (reply, error)   { return reply{status: http.StatusCreated, body: body}, nil }
func same() (reply, error)           { return reply{status: http.StatusNotModified}, nil }

// request is a call with all it carries.
type request struct {
	Call
	ctx  context.Context //nolint:containedctx // it lives as long as the request
	body []byte
}

// decode reads the body. Fields that the engine does not know are lost.
func (q request) decode(into any) error {
	if err := json.Unmarshal(q.body, into); err != nil {
		return invalid("invalid JSON: %v", err)
	}
	return nil
}

// yes reads a boolean of the query.
func (q request) yes(key string) bool {
	v := q.Query.Get(key)
	return v == "1" || strings.EqualFold(v, "true")
}

// serve answers one request. An error is ErrLost.
func (f *Fake) serve(r *http.Request) (reply, error) {
	q, at, err := f.parse(r)
	if err == nil {
		var out reply
		if out, err = f.call(q, at); err == nil {
			return out, nil
		}
	}
	if errors.Is(err, ErrLost) {
		return reply{}, err
	}
	no := refusal{http.StatusInternalServerError, err.Error()}
	_ = errors.As(err, &no)
	return reply{status: no.status, body: map[string]string{"message": no.text}}, nil
}

// call does what a request asks for, between the two hooks.
func (f *Fake) call(q request, at route) (reply, error) {
	if at.streams { // it calls the hooks itself
		return at.do(f, q)
	}
	if err := f.cfg.Before(q.ctx, q.Call); err != nil {
		return reply{}, err
	}
	delay := f.cfg.Delay(q.Call)
	pause(context.Background(), delay/2) // what a client began goes on without it
	f.mu.Lock()
	f.settle()
	out, err := at.do(f, q)
	f.settle()
	f.mu.Unlock()
	if err != nil {
		return out, err
	}
	pause(context.Background(), delay-delay/2)
	return out, f.cfg.After(q.ctx, q.Call)
}

// pause waits; it is false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// parse finds the route of a request.
func (f *Fake) parse(r *http.Request) (request, route, error) {
	path := r.URL.Path
	if rest, found := strings.CutPrefix(path, "/v"); found {
		version, tail, _ := strings.Cut(rest, "/")
		switch {
		case versions.GreaterThan(version, apiVersion):
			return request{}, route{}, invalid("client version %s is too new. Maximum supported API version is %s", version, apiVersion)
		case versions.LessThan(version, minimumAPI):
			return request{}, route{}, invalid("client version %s is too old. Minimum supported API version is %s, please upgrade your client to a newer version", version, minimumAPI)
		}
		path = "/" + tail
	}
	q := request{Call: Call{Query: r.URL.Query()}, ctx: r.Context()}
	if r.Body != nil {
		var err error
		if q.body, err = io.ReadAll(r.Body); err != nil {
			return q, route{}, invalid("read the request: %v", err)
		}
	}
	for _, at := range f.routes {
		object, ok := at.match(r.Method, path)
		if !ok {
			continue
		}
		q.Route, q.Object, q.Writes = at.String(), object, at.method != http.MethodGet && at.method != http.MethodHead
		if at.names != nil {
			q.Object = at.names(q)
		}
		return q, at, nil
	}
	return q, route{}, notFound("page not found")
}

// route is one endpoint.
type route struct {
	method, head, tail string // the object's name is between head and tail
	do                 func(f *Fake, q request) (reply, error)
	names              func(q request) string // the object, when the path does not name it
	streams            bool                   // the answer takes its time
}

func (r route) String() string {
	if r.tail == "" && !strings.HasSuffix(r.head, "/") {
		return r.method + " " + r.head
	}
	return r.method + " " + r.head + "{}" + r.tail
}

func (r route) match(method, path string) (object string, ok bool) {
	if r.method != method {
		return "", false
	}
	if r.tail == "" && !strings.HasSuffix(r.head, "/") {
		return "", path == r.head
	}
	object, ok = strings.CutPrefix(path, r.head)
	if !ok {
		return "", false
	}
	object, ok = strings.CutSuffix(object, r.tail)
	return object, ok && object != ""
}

// routes are the endpoints that a device uses. The first that matches counts.
func routes() []route {
	inBody := func(q request) string {
		var b struct{ Name string }
		_ = json.Unmarshal(q.body, &b)
		return b.Name
	}
	const get, head, post, del = http.MethodGet, http.MethodHead, http.MethodPost, http.MethodDelete
	return []route{
		{method: get, head: "/_ping", do: (*Fake).ping},
		{method: head, head: "/_ping", do: (*Fake).ping},
		{method: get, head: "/version", do: (*Fake).version},
		{method: get, head: "/info", do: (*Fake).info},
		{method: get, head: "/events", do: (*Fake).events, streams: true},

		{method: get, head: "/containers/json", do: (*Fake).listContainers},
		{method: post, head: "/containers/create", do: (*Fake).createContainer, names: func(q request) string { return q.Query.Get("name") }},
		{method: get, head: "/containers/", tail: "/json", do: (*Fake).inspectContainer},
		{method: post, head: "/containers/", tail: "/start", do: (*Fake).startContainer},
		{method: post, head: "/containers/", tail: "/stop", do: (*Fake).stopContainer},
		{method: post, head: "/containers/", tail: "/kill", do: (*Fake).killContainer},
		{method: post, head: "/containers/", tail: "/rename", do: (*Fake).renameContainer},
		{method: post, head: "/containers/", tail: "/update", do: (*Fake).updateContainer},
		{method: post, head: "/containers/", tail: "/wait", do: (*Fake).waitContainer, streams: true},
		{method: del, head: "/containers/", do: (*Fake).removeContainer},

		{method: get, head: "/networks", do: (*Fake).listNetworks},
		{method: post, head: "/networks/create", do: (*Fake).createNetwork, names: inBody},
		{method: post, head: "/networks/", tail: "/connect", do: (*Fake).connect},
		{method: post, head: "/networks/", tail: "/disconnect", do: (*Fake).disconnect},
		{method: get, head: "/networks/", do: (*Fake).inspectNetwork},
		{method: del, head: "/networks/", do: (*Fake).removeNetwork},

		{method: get, head: "/volumes", do: (*Fake).listVolumes},
		{method: post, head: "/volumes/create", do: (*Fake).createVolume, names: inBody},
		{method: get, head: "/volumes/", do: (*Fake).inspectVolume},
		{method: del, head: "/volumes/", do: (*Fake).removeVolume},

		{method: get, head: "/images/json", do: (*Fake).listImages},
		{method: post, head: "/images/create", do: (*Fake).pull, streams: true, names: pulled},
		{method: get, head: "/images/", tail: "/json", do: (*Fake).inspectImage},
		{method: post, head: "/images/", tail: "/tag", do: (*Fake).tagImage},
		{method: del, head: "/images/", do: (*Fake).removeImage},
		{method: get, head: "/distribution/", tail: "/json", do: (*Fake).distribution},
	}
}

// ServeHTTP implements http.Handler.
func (f *Fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	out, err := f.serve(r)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	maps.Copy(w.Header(), headers())
	w.WriteHeader(out.status)
	if out.stream == nil {
		_, _ = w.Write(out.bytes())
		return
	}
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	err = out.stream(r.Context(), func(line any) bool {
		b, _ := json.Marshal(line)
		_, err := w.Write(append(b, '\n'))
		return err == nil && flush.Flush() == nil
	})
	if err != nil {
		panic(http.ErrAbortHandler)
	}
}

// RoundTrip implements http.RoundTripper.
func (f *Fake) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	out, err := f.serve(r)
	if r.Body != nil {
		_ = r.Body.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
	}
	a := &http.Response{
		Status: fmt.Sprintf("%d %s", out.status, http.StatusText(out.status)), StatusCode: out.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: headers(), Request: r, ContentLength: -1,
	}
	if out.stream == nil {
		b := out.bytes()
		a.Body, a.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
		return a, nil
	}
	a.Body = live(r.Context(), out.stream)
	return a, nil
}

// live is the body of an answer that takes its time.
func live(ctx context.Context, run func(ctx context.Context, line func(any) bool) error) io.ReadCloser {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	stop := context.AfterFunc(ctx, func() { _ = w.CloseWithError(ctx.Err()) })
	go func() {
		defer stop()
		defer cancel()
		err := run(ctx, func(line any) bool {
			b, _ := json.Marshal(line)
			_, err := w.Write(append(b, '\n'))
			return err == nil
		})
		if err != nil {
			err = fmt.Errorf("%w: %w", err, io.ErrUnexpectedEOF)
		}
		_ = w.CloseWithError(err) // nil is the end of the answer
	}()
	return leaving{r, cancel}
}

// leaving is a body whose reader may leave early.
type leaving struct {
	io.ReadCloser
	cancel context.CancelFunc
}

// Close implements io.Closer.
func (l leaving) Close() error {
	l.cancel()
	return l.ReadCloser.Close()
}

func (r reply) bytes() []byte {
	if r.body == nil {
		return nil
	}
	if text, ok := r.body.(string); ok {
		return []byte(text)
	}
	b, err := json.Marshal(r.body)
	if err != nil {
		panic(err) // the engine's own types
	}
	return append(b, '\n')
}

func headers() http.Header {
	return http.Header{
		"Api-Version": {apiVersion}, "Content-Type": {"application/json"}, "Docker-Experimental": {"false"},
		"Ostype": {"linux"}, "Server": {"Docker/20.10.24 (linux)"},
	}
}
