//go:build bench

package bench

import (
	"context"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"deckhand/test/dockerd"
)

// call is one request to an engine.
type call struct {
	what       string // method and path, with {} for what it is about
	begin, end time.Time
}

// proxy stands before an engine and writes down what it is asked. It costs a
// little time, so nothing that is compared goes through one.
type proxy struct {
	host string

	mu    sync.Mutex
	calls []call
}

// object is the part of a path that names what a call is about.
var object = regexp.MustCompile(`^(/(?:containers|networks|volumes|images))/(.+?)(/(?:json|start|stop|kill|rename|update|wait|connect|disconnect|tag))?$`)

func newProxy(t *testing.T, e *dockerd.Engine) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "bench-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &proxy{host: "unix://" + filepath.Join(dir, "sock")}
	l, err := new(net.ListenConfig).Listen(t.Context(), "unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	to := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		FlushInterval: -1, // events are for now
		Transport: &http.Transport{MaxIdleConnsPerHost: 16, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.Host, "unix://"))
		}},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begin := time.Now()
		defer func() { // also when a stream is broken off
			p.mu.Lock()
			defer p.mu.Unlock()
			p.calls = append(p.calls, call{route(r), begin, time.Now()})
		}()
		to.ServeHTTP(w, r)
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return p
}

func route(r *http.Request) string {
	path := r.URL.Path
	if strings.HasPrefix(path, "/v1.") {
		if _, rest, ok := strings.Cut(path[1:], "/"); ok {
			path = "/" + rest
		}
	}
	switch path {
	case "/containers/json", "/containers/create", "/images/json", "/images/create", "/networks/create", "/volumes/create":
	default:
		path = object.ReplaceAllString(path, "$1/{}$3")
	}
	return r.Method + " " + path
}

// take gives what was asked since it was called last.
func (p *proxy) take() []call {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := p.calls
	p.calls = nil
	return all
}

// count tells calls apart: the lists of a look, other questions, and changes.
type count struct{ lists, questions, changes int }

func counted(all []call) count {
	var n count
	for _, c := range all {
		switch c.what {
		case "GET /containers/json", "GET /images/json", "GET /networks", "GET /volumes":
			n.lists++
		case "GET /events", "HEAD /_ping":
		default:
			if strings.HasPrefix(c.what, "GET") {
				n.questions++
			} else {
				n.changes++
			}
		}
	}
	return n
}

func (n count) total() int { return n.lists + n.questions + n.changes }
