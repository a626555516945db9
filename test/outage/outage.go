// Package outage is a cloud for tests with everything between it and the device
// that can go wrong. Cloud answers questions for the target and takes reports;
// Network loses, delays and spoils what passes. Both live in the test's process, so
// that hours pass at once in a synctest bubble.
package outage

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Fault is a way in which one request fails.
type Fault string

// The faults.
const (
	None     Fault = ""         // it passes
	Refuse   Fault = "refuse"   // nobody listens
	Reset    Fault = "reset"    // the connection breaks after the request has arrived
	Stall    Fault = "stall"    // no answer, for ever
	Truncate Fault = "truncate" // the answer breaks off
	Slow     Fault = "slow"     // the answer comes byte by byte
	Locked   Fault = "401"
	Conflict Fault = "409"
	Hasty    Fault = "429" // with a Retry-After
	Broken   Fault = "500"
	Page     Fault = "page" // a sign-in page says 200
	JSON     Fault = "json" // 200 with something else
	Loop     Fault = "loop" // redirects in a circle
)

// Faults lists all of them.
func Faults() []Fault {
	return []Fault{Refuse, Reset, Stall, Truncate, Slow, Locked, Conflict, Hasty, Broken, Page, JSON, Loop}
}

// Cloud is what a balena cloud does for one device, as far as state goes.
type Cloud struct {
	mu     sync.Mutex
	target string // document
	etag   int
	state  map[string]json.RawMessage // fields reported so far
	deny   func(patch map[string]json.RawMessage) int
}

// Offer makes a document the target.
func (c *Cloud) Offer(document string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.target, c.etag = document, c.etag+1
}

// Deny lets the cloud refuse patches with a status; 0 accepts.
func (c *Cloud) Deny(deny func(patch map[string]json.RawMessage) int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deny = deny
}

// State is what the device has reported, by field.
func (c *Cloud) State() map[string]json.RawMessage {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.state)
}

// answer carries a request out.
func (c *Cloud) answer(r *http.Request, body []byte) *http.Response {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Method == http.MethodGet {
		tag := strconv.Quote(strconv.Itoa(c.etag))
		if r.Header.Get("If-None-Match") == tag {
			return respond(r, http.StatusNotModified, "", "ETag", tag)
		}
		return respond(r, http.StatusOK, c.target, "ETag", tag)
	}
	var doc map[string]map[string]json.RawMessage
	if err := json.Unmarshal(body, &doc); err != nil || len(doc) != 1 {
		return respond(r, http.StatusBadRequest, "")
	}
	for _, patch := range doc {
		if c.deny != nil {
			if status := c.deny(patch); status != 0 {
				return respond(r, status, "")
			}
		}
		if c.state == nil {
			c.state = map[string]json.RawMessage{}
		}
		maps.Copy(c.state, patch)
	}
	return respond(r, http.StatusOK, "")
}

func respond(r *http.Request, status int, body string, header ...string) *http.Response {
	h := http.Header{}
	for i := 0; i+1 < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{
		Status: fmt.Sprintf("%d %s", status, http.StatusText(status)), StatusCode: status, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body)), Request: r,
	}
}

// Network is the way to a cloud. It is an http.RoundTripper.
type Network struct {
	Cloud *Cloud

	mu       sync.Mutex
	fault    Fault
	requests map[Fault]int
}

// Suffer lets every request from now on end in a fault.
func (n *Network) Suffer(f Fault) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = f
}

// Requests counts the requests that met a fault.
func (n *Network) Requests(f Fault) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.requests[f]
}

// RoundTrip implements http.RoundTripper.
func (n *Network) RoundTrip(r *http.Request) (*http.Response, error) {
	n.mu.Lock()
	f := n.fault
	if n.requests == nil {
		n.requests = map[Fault]int{}
	}
	n.requests[f]++
	n.mu.Unlock()
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		if err := r.Body.Close(); err != nil {
			return nil, err
		}
	}
	select {
	case <-time.After(20 * time.Millisecond):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	return n.meet(f, r, body)
}

func (n *Network) meet(f Fault, r *http.Request, body []byte) (*http.Response, error) {
	switch f {
	case Refuse:
		return nil, fmt.Errorf("dial: %w", syscall.ECONNREFUSED)
	case Reset: // the cloud has it, and the device does not know
		n.Cloud.answer(r, body)
		return nil, fmt.Errorf("read: %w", syscall.ECONNRESET)
	case Stall:
		<-r.Context().Done()
		return nil, r.Context().Err()
	case Locked, Conflict, Broken:
		status, err := strconv.Atoi(string(f))
		return respond(r, status, "<html>no</html>"), err
	case Hasty:
		return respond(r, http.StatusTooManyRequests, "", "Retry-After", "120"), nil
	case Page:
		return respond(r, http.StatusOK, "<!DOCTYPE html><title>Welcome to our hotel</title>"), nil
	case JSON:
		if r.Method != http.MethodGet { // whatever a cloud answers to a report, it has taken it
			return n.Cloud.answer(r, body), nil
		}
		return respond(r, http.StatusOK, `["is", "this", "a target?"]`, "ETag", `"x"`), nil
	case Loop:
		return respond(r, http.StatusTemporaryRedirect, "", "Location", r.URL.String()), nil
	case Truncate:
		answer := n.Cloud.answer(r, body)
		answer.Body = &spoilt{from: answer.Body, left: answer.ContentLength / 2}
		return answer, nil
	case Slow:
		answer := n.Cloud.answer(r, body)
		answer.Body = &spoilt{from: answer.Body, left: answer.ContentLength, slow: true, r: r}
		return answer, nil
	case None:
	}
	return n.Cloud.answer(r, body), nil
}

// spoilt is an answer that comes byte by byte, or breaks off.
type spoilt struct {
	from io.ReadCloser
	left int64
	slow bool
	r    *http.Request
}

var errCut = errors.New("unexpected end of the answer")

// Read implements io.Reader.
func (s *spoilt) Read(p []byte) (int, error) {
	if !s.slow && s.left <= 0 {
		return 0, errCut
	}
	if !s.slow {
		n, err := s.from.Read(p[:min(int64(len(p)), s.left)])
		s.left -= int64(n)
		return n, err
	}
	select {
	case <-time.After(time.Second):
	case <-s.r.Context().Done():
		return 0, s.r.Context().Err()
	}
	return s.from.Read(p[:min(len(p), 1)])
}

// Close implements io.Closer.
func (s *spoilt) Close() error { return s.from.Close() }

// Same reports whether two documents are the same JSON.
func Same(a, b json.RawMessage) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
