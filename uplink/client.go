package uplink

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"deckhand/state"
)

// DefaultTimeout is how long the cloud may be silent, in any phase of a request.
const DefaultTimeout = 59 * time.Second

const (
	maxTarget = 16 << 20 // bytes of a target document, unpacked
	maxAnswer = 1 << 20  // bytes of any other answer
	maxShown  = 300      // bytes of an error's body that people see
)

// Config says how to reach the cloud.
type Config struct {
	Endpoint  string        // base URL, for example https://api.example.com
	UUID      string        // of the device
	Key       func() string // the key in force; asked for each request
	UserAgent string        // starts with "Supervisor/"
	Timeout   time.Duration // of silence, in any phase; 0: DefaultTimeout

	// Patience is asked for each request and goes over Timeout; nil or 0: Timeout.
	Patience func() time.Duration

	// Transport replaces the network in tests; nil: a transport of our own.
	Transport http.RoundTripper
}

// Client talks to the cloud for one device. It may be used by several
// goroutines.
type Client struct {
	base      *url.URL
	uuid      string
	key       func() string
	userAgent string
	timeout   time.Duration
	patience  func() time.Duration // may be nil
	http      *http.Client
}

// New makes a client. It makes no request.
func New(c Config) (*Client, error) {
	base, err := url.Parse(strings.TrimRight(c.Endpoint, "/"))
	if err != nil || base.Host == "" || (base.Scheme != "http" && base.Scheme != "https") {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("cloud address %q is not of the form https://host", c.Endpoint))
	}
	if c.Key == nil {
		c.Key = func() string { return "" }
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Transport == nil {
		c.Transport = NewTransport(TransportConfig{})
	}
	return &Client{
		base: base, uuid: c.UUID, key: c.Key, userAgent: c.UserAgent, timeout: c.Timeout, patience: c.Patience,
		http: &http.Client{Transport: c.Transport, CheckRedirect: checkRedirect},
	}, nil
}

// checkRedirect follows redirects that mean the same request. Others would turn
// a report into a GET whose success means nothing, or send the key in clear.
func checkRedirect(r *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case len(via) >= 10:
		return errors.New("too many redirects")
	case r.Method != first.Method:
		return http.ErrUseLastResponse
	case first.URL.Scheme == "https" && r.URL.Scheme != "https":
		return errors.New("the cloud redirects to an address without encryption")
	}
	return nil
}

// Endpoint is the cloud's address.
func (c *Client) Endpoint() string { return c.base.String() }

// RegistryAuth is the name and password with which the device asks for registry
// tokens.
func (c *Client) RegistryAuth() (user, password string) {
	return "d_" + c.uuid, c.key()
}

// Answer is what the cloud said about the target.
type Answer struct {
	Modified bool   // false: nothing changed since the given ETag
	Body     []byte // the document, when Modified
	ETag     string // of the document; empty: the cloud gave none
	Held     bool   // the cloud can hold a request until something changes, and did
	Called   bool   // the cloud ended the request because of calls, see RunCalls
}

// Target asks for the target state. etag is that of the document the caller
// has, or empty. With wait > 0 the cloud may hold the request for that long
// (rounded to seconds) until the target changes.
func (c *Client) Target(ctx context.Context, etag string, wait time.Duration) (Answer, error) {
	header := http.Header{callsHeader: {"1"}}
	if etag != "" {
		header.Set("If-None-Match", etag)
	}
	if s := int(wait.Seconds()); s > 0 {
		header.Set("Prefer", "wait="+strconv.Itoa(s))
	}
	res, err := c.do(ctx, request{
		method: http.MethodGet, path: "/device/v3/" + url.PathEscape(c.uuid) + "/state",
		header: header, patience: wait, limit: maxTarget,
	})
	if err != nil {
		return Answer{}, fmt.Errorf("ask for the target state: %w", err)
	}
	a := Answer{ETag: res.header.Get("ETag"), Held: held(res.header)}
	_, a.Called = called(res.header)
	switch {
	case res.status == http.StatusNotModified && etag != "":
		a.ETag = etag
		return a, nil
	case res.status == http.StatusNotModified:
		return Answer{}, state.Classify(state.ClassAuth, errors.New(
			"ask for the target state: the cloud answered 304 though nothing was asked for before; the device is deleted or frozen there"))
	case res.status != http.StatusOK:
		return Answer{}, fmt.Errorf("ask for the target state: %w", res.failure())
	case !json.Valid(res.body):
		return Answer{}, state.Classify(state.ClassInvalid, errors.New("ask for the target state: the answer is not JSON; is the cloud address right?"))
	}
	a.Modified, a.Body = true, res.body
	return a, nil
}

// held reports whether the cloud says that it honoured Prefer: wait.
func held(h http.Header) bool {
	for _, v := range h.Values("Preference-Applied") {
		for p := range strings.SplitSeq(v, ",") {
			name, _, _ := strings.Cut(strings.TrimSpace(p), "=")
			if strings.EqualFold(name, "wait") {
				return true
			}
		}
	}
	return false
}

// Report sends the changed part of the state report, a JSON document.
func (c *Client) Report(ctx context.Context, patch []byte) error {
	res, err := c.do(ctx, request{method: http.MethodPatch, path: "/device/v3/state", body: patch, limit: maxAnswer})
	switch {
	case err == nil && res.status/100 != 2:
		err = res.failure()
	case err == nil && bytes.HasPrefix(bytes.TrimSpace(res.body), []byte("<")):
		// A hotel's sign-in page says 200 to everything.
		err = state.Classify(state.ClassNetwork, errors.New("a page came back instead of an answer; something stands between the device and its cloud"))
	}
	if err != nil {
		return fmt.Errorf("report to the cloud: %w", err)
	}
	return nil
}

// request is one request. patience is how much longer than usual the first byte
// of the answer may take.
type request struct {
	method, path string
	query        string // encoded
	header       http.Header
	key          string // empty: the client's
	body         []byte
	patience     time.Duration
	timeout      time.Duration // 0: the client's
	limit        int64         // bytes of the answer
}

type response struct {
	method, url string
	status      int
	header      http.Header
	body        []byte
}

// silence is how long the cloud may be silent in this request.
func (c *Client) silence() time.Duration {
	if c.patience != nil {
		if d := c.patience(); d > 0 {
			return d
		}
	}
	return c.timeout
}

var errSilent = errors.New("no answer in time")

// do makes one request and reads the whole answer. The time limit is for
// silence: a slow answer that goes on coming is not cut off.
func (c *Client) do(ctx context.Context, q request) (*response, error) {
	limit := q.timeout
	if limit <= 0 {
		limit = c.silence()
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(limit+q.patience, func() { cancel(errSilent) })
	defer silence.Stop()

	r, err := c.newRequest(ctx, q)
	if err != nil {
		return nil, state.Classify(state.ClassInvalid, err)
	}
	answer, err := c.http.Do(r)
	if err != nil {
		return nil, c.classify(ctx, err)
	}
	defer func() { _ = answer.Body.Close() }()
	body := &watched{from: answer.Body, silence: silence, limit: limit}
	silence.Reset(limit)
	b, err := io.ReadAll(io.LimitReader(body, q.limit+1))
	if err != nil {
		return nil, c.classify(ctx, fmt.Errorf("%s %s: read the answer: %w", q.method, r.URL.Redacted(), err))
	}
	if int64(len(b)) > q.limit {
		return nil, state.Classify(state.ClassInvalid, fmt.Errorf("%s %s: the answer is larger than %d MiB", q.method, r.URL.Redacted(), q.limit>>20))
	}
	return &response{method: q.method, url: r.URL.Redacted(), status: answer.StatusCode, header: answer.Header, body: b}, nil
}

func (c *Client) newRequest(ctx context.Context, q request) (*http.Request, error) {
	u := *c.base
	u.Path = strings.TrimRight(c.base.Path, "/") + q.path
	u.RawQuery = q.query
	var body io.Reader
	if q.body != nil {
		body = bytes.NewReader(q.body)
	}
	r, err := http.NewRequestWithContext(ctx, q.method, u.String(), body)
	if err != nil {
		return nil, err
	}
	for k, v := range q.header {
		r.Header[k] = v
	}
	r.Header.Set("User-Agent", c.userAgent)
	if q.body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	key := q.key
	if key == "" {
		key = c.key()
	}
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	return r, nil
}

// watched resets the silence timer with every piece that arrives.
type watched struct {
	from    io.Reader
	silence *time.Timer
	limit   time.Duration
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.from.Read(p)
	if n > 0 {
		w.silence.Reset(w.limit)
	}
	return n, err
}
