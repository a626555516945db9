//go:build engine && interop && linux

package clients

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
)

// exchange is one request of a client, and what it was answered.
type exchange struct {
	method, address string // decoded, with the query
	body            string
	status          int
	answer          string // of refusals
}

func (e exchange) String() string {
	text := fmt.Sprintf("%s %s -> %d", e.method, e.address, e.status)
	if e.body != "" {
		text += "\n    > " + e.body
	}
	if e.answer != "" {
		text += "\n    < " + e.answer
	}
	return text
}

// recorder stands before the cloud and writes down what clients ask of it.
type recorder struct {
	URL  string
	mu   sync.Mutex
	seen []exchange
}

func newRecorder(t testing.TB) *recorder {
	t.Helper()
	cloud, err := url.Parse(set.cloud.URL)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	proxy := httputil.NewSingleHostReverseProxy(cloud)
	proxy.FlushInterval = -1 // logs and builds are watched while they run
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		e := exchange{method: req.Method, address: decoded(req.URL)}
		if strings.Contains(req.Header.Get("Content-Type"), "application/json") {
			body, err := io.ReadAll(req.Body)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			e.body, req.Body = string(body), io.NopCloser(bytes.NewReader(body))
		}
		answer := &answer{ResponseWriter: w}
		defer func() { // a stream that the client leaves ends in a panic
			e.status, e.answer = answer.status, answer.refusal.String()
			r.mu.Lock()
			defer r.mu.Unlock()
			r.seen = append(r.seen, e)
		}()
		proxy.ServeHTTP(answer, req)
	}))
	t.Cleanup(server.Close)
	r.URL = server.URL
	return r
}

// take gives what was asked since the last time.
func (r *recorder) take() []exchange {
	r.mu.Lock()
	defer r.mu.Unlock()
	seen := r.seen
	r.seen = nil
	return seen
}

func decoded(u *url.URL) string {
	text, err := url.PathUnescape(u.RequestURI())
	if err != nil {
		return u.RequestURI()
	}
	return text
}

// answer passes an answer on and keeps its status, and its text if it is a refusal.
type answer struct {
	http.ResponseWriter
	status  int
	refusal strings.Builder
}

func (a *answer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *answer) Write(b []byte) (int, error) {
	if a.status == 0 {
		a.status = http.StatusOK
	}
	if a.status >= http.StatusBadRequest {
		a.refusal.Write(b)
	}
	return a.ResponseWriter.Write(b)
}

// Unwrap lets the proxy flush.
func (a *answer) Unwrap() http.ResponseWriter { return a.ResponseWriter }
