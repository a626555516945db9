package localapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"strings"
	"time"

	"deckhand/state"
)

// Request is one answered request, for the log. Path has no query: keys are
// passed there.
type Request struct {
	Method, Path string
	Status       int
	Took         time.Duration
}

// router finds the route of a request.
type router struct {
	routes []route
	// enter says whether a request that needs a key has one; the request that it
	// gives back carries who makes it.
	enter func(*http.Request) (_ *http.Request, ok bool, err error)
	// tooBad answers a request whose body cannot be read.
	tooBad func(w http.ResponseWriter, err error)
	log    func(Request)
}

// ServeHTTP answers a request. Unknown paths need a key like all others, so that
// nobody without one learns which exist.
func (rt *router) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	started := time.Now()
	rec := &recorder{ResponseWriter: w, request: r}
	defer func() {
		if p := recover(); p != nil {
			if p == http.ErrAbortHandler { //nolint:errorlint // it is compared by identity in net/http too
				panic(p)
			}
			if rec.status == 0 {
				failed(rec, http.StatusServiceUnavailable, "Unknown error")
			}
		}
		if rt.log != nil {
			rt.log(Request{Method: r.Method, Path: r.URL.Path, Status: rec.status, Took: time.Since(started)})
		}
	}()
	rt.serve(rec, r)
}

func (rt *router) serve(w http.ResponseWriter, r *http.Request) {
	found, ok := rt.find(r)
	if !ok || found.key {
		known, may, err := rt.enter(r)
		if errors.Is(err, errTooOften) {
			w.Header().Set("Retry-After", "10")
			failed(w, http.StatusTooManyRequests, reason(err))
			return
		}
		if err != nil {
			plain(w, http.StatusServiceUnavailable, "Unexpected error: "+reason(err))
			return
		}
		if !may {
			plain(w, http.StatusUnauthorized, "Unauthorized")
			return
		}
		r = known
	}
	if !ok {
		notFound(w, r)
		return
	}
	body, err := readBody(w, r, found.limit)
	if err != nil {
		rt.tooBad(w, err)
		return
	}
	found.serve(w, r, body)
}

// find matches paths in any case and with one slash at the end, as balena's
// supervisor does, and answers HEAD like GET.
func (rt *router) find(r *http.Request) (route, bool) {
	method, path := r.Method, strings.ToLower(r.URL.Path)
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if len(path) > 1 {
		path = strings.TrimSuffix(path, "/")
	}
	for _, x := range rt.routes {
		if x.method == method && matches(x.path, path, r) {
			return x, true
		}
	}
	return route{}, false
}

// matches compares a path with that of a route. Parts in braces match anything;
// r.PathValue gives what they are, in lower case.
func matches(pattern, path string, r *http.Request) bool {
	if !strings.Contains(pattern, "{") {
		return pattern == path
	}
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return false
	}
	values := map[string]string{}
	for i, part := range want {
		switch name, variable := strings.CutPrefix(part, "{"); {
		case variable && got[i] != "":
			values[strings.TrimSuffix(name, "}")] = got[i]
		case part != got[i]:
			return false
		}
	}
	for name, value := range values {
		r.SetPathValue(name, value)
	}
	return true
}

var errTooLarge = errors.New("request entity too large")

func readBody(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	if limit == 0 {
		return nil, nil
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, errTooLarge
	}
	return b, err
}

// reason is an error's text for the API's clients, without its class.
func reason(err error) string {
	text := err.Error()
	if e, ok := errors.AsType[*state.Error](err); ok {
		text = strings.Replace(text, string(e.Class)+": ", "", 1)
	}
	return text
}

func plain(w http.ResponseWriter, status int, text string) {
	send(w, status, "text/plain; charset=utf-8", []byte(text))
}

// failed is the error body of most of balena's routes.
func failed(w http.ResponseWriter, status int, message string) {
	answer(w, status, struct {
		Status  string `json:"status"`
		Message string `json:"message"`
	}{"failed", message})
}

func answer(w http.ResponseWriter, status int, v any) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		status = http.StatusServiceUnavailable
		b.Reset()
		_, _ = fmt.Fprintf(&b, "{\"status\":\"failed\",\"message\":%q}\n", "the answer cannot be encoded")
	}
	send(w, status, "application/json; charset=utf-8", b.Bytes())
}

func notFound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusNotFound)
	_, _ = fmt.Fprintf(w, "<!DOCTYPE html>\n<html lang=\"en\"><title>Error</title><pre>Cannot %s %s</pre></html>\n",
		html.EscapeString(r.Method), html.EscapeString(r.URL.Path))
}

// recorder remembers the status of an answer, and leaves out the body of one that
// the client has already.
type recorder struct {
	http.ResponseWriter
	request *http.Request
	status  int
	fresh   bool // the client has it
}

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		if r.fresh = isFresh(r.request, status, r.Header().Get("ETag")); r.fresh {
			r.Header().Del("Content-Type")
			status = http.StatusNotModified
		}
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	if r.fresh {
		return len(b), nil
	}
	return r.ResponseWriter.Write(b)
}

// Unwrap lets net/http reach the writer beneath.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
