package uplink

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/state"
)

const testUUID = "0123456789abcdef0123456789abcdef"

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// serve starts a cloud and a client of it.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return client(t, s.URL, 5*time.Second)
}

func client(t *testing.T, endpoint string, timeout time.Duration) *Client {
	t.Helper()
	c, err := New(Config{Endpoint: endpoint, UUID: testUUID, Key: func() string { return "secret-key" }, UserAgent: "Supervisor/1", Timeout: timeout})
	must(t, err)
	return c
}

func TestTargetRequestAndAnswer(t *testing.T) {
	const doc = `{"a": 1}`
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.URL.Path != "/device/v3/"+testUUID+"/state" || r.Header.Get("Authorization") != "Bearer secret-key" || r.Header.Get("User-Agent") != "Supervisor/1" {
			t.Errorf("request %s %s %v", r.Method, r.URL, r.Header)
		}
		if r.Header.Get("If-None-Match") == `"one"` {
			if r.Header.Get("Prefer") != "wait=30" {
				t.Errorf("Prefer %q", r.Header.Get("Prefer"))
			}
			w.Header().Set("Preference-Applied", "wait=30")
			w.WriteHeader(http.StatusNotModified)
			return
		}
		if r.Header.Get("Prefer") != "" {
			t.Error("wait was asked for")
		}
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = z.Write([]byte(doc))
		_ = z.Close()
	})
	first, err := c.Target(t.Context(), "", 0)
	must(t, err)
	if !first.Modified || string(first.Body) != doc || first.ETag != `"one"` || first.Held {
		t.Errorf("first answer %+v", first)
	}
	second, err := c.Target(t.Context(), first.ETag, 30*time.Second)
	must(t, err)
	if second.Modified || second.ETag != first.ETag || !second.Held {
		t.Errorf("second answer %+v", second)
	}
}

func TestFailuresHaveAClassAndAReason(t *testing.T) {
	answer := func(status int, body string, header ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i+1 < len(header); i += 2 {
				w.Header().Set(header[i], header[i+1])
			}
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	cases := map[string]struct {
		cloud  http.HandlerFunc
		class  state.Class
		reason string
		after  time.Duration
	}{
		"wrong key":      {answer(401, "Unauthorized\x1b[31m\n"), state.ClassAuth, "401 Unauthorized: Unauthorized [31m", 0},
		"forbidden":      {answer(403, ""), state.ClassAuth, "403", 0},
		"unknown":        {answer(404, "no"), state.ClassNotFound, "404", 0},
		"too fast":       {answer(429, "", "Retry-After", "7"), state.ClassRateLimit, "429", 7 * time.Second},
		"overloaded":     {answer(503, "", "Retry-After", "120"), state.ClassRateLimit, "503", 2 * time.Minute},
		"down":           {answer(500, "<html>"+strings.Repeat("x", 5000)), state.ClassNetwork, "500", 0},
		"until a date":   {answer(503, "", "Date", "Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After", "Wed, 21 Oct 2026 07:30:00 GMT"), state.ClassRateLimit, "503", 2 * time.Minute},
		"a date is over": {answer(503, "", "Date", "Wed, 21 Oct 2026 07:28:00 GMT", "Retry-After", "Wed, 21 Oct 2026 07:27:00 GMT"), state.ClassNetwork, "503", 0},
		"no time at all": {answer(503, "", "Retry-After", "soon"), state.ClassNetwork, "503", 0},
		"for ages":       {answer(503, "", "Retry-After", "99999999999"), state.ClassRateLimit, "503", 24 * time.Hour},
		"negative after": {answer(503, "", "Retry-After", "-5"), state.ClassNetwork, "503", 0},
		"bad request":    {answer(400, "mac_address"), state.ClassInvalid, "mac_address", 0},
		"no content":     {answer(204, ""), state.ClassInvalid, "204", 0},
		"frozen":         {answer(304, ""), state.ClassAuth, "deleted or frozen", 0},
		"login page":     {answer(200, "<html>sign in</html>"), state.ClassInvalid, "not JSON", 0},
		"cut JSON":       {answer(200, `{"a":`), state.ClassInvalid, "not JSON", 0},
		"cut body":       {answer(200, "{", "Content-Length", "100"), state.ClassNetwork, "unexpected EOF", 0},
		"bad gzip":       {answer(200, "this is no gzip stream", "Content-Encoding", "gzip"), state.ClassNetwork, "gzip", 0},
		"too large":      {answer(200, `"`+strings.Repeat("x", maxTarget)+`"`), state.ClassInvalid, "larger than 16 MiB", 0},
		"bomb":           {answer(200, bomb(t), "Content-Encoding", "gzip"), state.ClassInvalid, "larger than 16 MiB", 0},
		"silent":         {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, state.ClassTimeout, "no answer in time", 0},
		"hangs up":       {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, state.ClassNetwork, "EOF", 0},
		"stops in it":    {stalling, state.ClassTimeout, "no answer in time", 0},
		"loops":          {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path, http.StatusFound) }, state.ClassNetwork, "redirects", 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cloud := serve(t, c.cloud)
			if c.class == state.ClassTimeout {
				cloud.timeout = 100 * time.Millisecond
			}
			_, err := cloud.Target(t.Context(), "", 0)
			if err == nil {
				t.Fatal("no error")
			}
			if state.ClassOf(err) != c.class || !strings.Contains(err.Error(), c.reason) || RetryAfter(err) != c.after {
				t.Errorf("error %v, retry after %v; want class %s, %q and %v", err, RetryAfter(err), c.class, c.reason, c.after)
			}
			fitToShow(t, err)
		})
	}
}

func fitToShow(t *testing.T, err error) {
	t.Helper()
	if s := err.Error(); len(s) > 700 || strings.Contains(s, "secret-key") || strings.ContainsAny(s, "\x1b\n") {
		t.Errorf("error is not fit to be shown: %q", s)
	}
}

// bomb is a small gzip stream of 40 MiB.
func bomb(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	for range 40 {
		_, _ = z.Write(make([]byte, 1<<20))
	}
	must(t, z.Close())
	return b.String()
}

func stalling(w http.ResponseWriter, r *http.Request) {
	_, _ = io.WriteString(w, `{"a"`)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func TestConnectionFailuresHaveAClass(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, closed.Close())
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()

	for endpoint, class := range map[string]state.Class{
		"http://" + closed.Addr().String():                       state.ClassNetwork,
		"http://no-such-host.invalid":                            state.ClassDNS,
		secure.URL:                                               state.ClassTLS,
		strings.Replace(plain.URL, "http://", "https://", 1):     state.ClassTLS,
		strings.Replace(secure.URL, "127.0.0.1", "localhost", 1): state.ClassTLS,
		strings.Replace(secure.URL, "https://", "http://", 1):    state.ClassInvalid, // it answers 400
	} {
		_, err := client(t, endpoint, 5*time.Second).Target(t.Context(), "", 0)
		if err == nil || state.ClassOf(err) != class {
			t.Errorf("%s: error %v, want class %s", endpoint, err, class)
		}
	}
}

func TestACancelledRequest(t *testing.T) {
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Target(ctx, "", 0); state.ClassOf(err) != state.ClassCancelled {
		t.Errorf("error %v", err)
	}
}

// A held request may be silent for longer than others, and a slow answer that
// goes on coming is not cut off.
func TestPatience(t *testing.T) {
	held := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		<-time.After(600 * time.Millisecond)
		w.WriteHeader(http.StatusNotModified)
	})
	held.timeout = 300 * time.Millisecond
	if _, err := held.Target(t.Context(), "e", 5*time.Second); err != nil {
		t.Errorf("held request: %v", err)
	}
	if _, err := held.Target(t.Context(), "e", 0); state.ClassOf(err) != state.ClassTimeout {
		t.Errorf("request that was not to be held: %v", err)
	}
	slow := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		for _, b := range []byte(`{"a":12345}`) {
			_, _ = w.Write([]byte{b})
			w.(http.Flusher).Flush()
			<-time.After(60 * time.Millisecond)
		}
	})
	slow.timeout = 500 * time.Millisecond
	if a, err := slow.Target(t.Context(), "", 0); err != nil || string(a.Body) != `{"a":12345}` {
		t.Errorf("slow answer: %s %v", a.Body, err)
	}
}

func TestReport(t *testing.T) {
	var got []byte
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		if r.Method != http.MethodPatch || r.URL.Path != "/device/v3/state" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("request %s %s %v", r.Method, r.URL, r.Header)
		}
		w.WriteHeader(http.StatusOK)
	})
	must(t, c.Report(t.Context(), []byte(`{"u":{}}`)))
	if !bytes.Equal(got, []byte(`{"u":{}}`)) {
		t.Errorf("body %s", got)
	}
}

// A redirect that turns the report into a GET is no success.
func TestARedirectIsNoAcknowledgement(t *testing.T) {
	var requests atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		if r.URL.Path == "/login" {
			w.WriteHeader(http.StatusOK)
			return
		}
		http.Redirect(w, r, "/login", http.StatusFound)
	})
	if err := c.Report(t.Context(), []byte(`{}`)); err == nil {
		t.Error("no error")
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests", n)
	}
}

func TestOneRequestForEachAttempt(t *testing.T) {
	var requests atomic.Int32
	c := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		requests.Add(1)
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	if err := c.Report(t.Context(), []byte(`{}`)); err == nil {
		t.Error("no error")
	}
	if n := requests.Load(); n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

func TestRedirectedTargetIsFollowed(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/moved") {
			http.Redirect(w, r, "/moved"+r.URL.Path, http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, "{}")
	})
	_, err := c.Target(t.Context(), "", 0)
	must(t, err)
}

func TestWrongEndpoints(t *testing.T) {
	for _, e := range []string{"", "example.com", "ftp://x", "http://", "://", "http://a b"} {
		if _, err := New(Config{Endpoint: e}); err == nil || state.ClassOf(err) != state.ClassInvalid {
			t.Errorf("%q: error %v", e, err)
		}
	}
}

func TestRegistryAuth(t *testing.T) {
	user, password := client(t, "http://x", 0).RegistryAuth()
	if user != "d_"+testUUID || password != "secret-key" {
		t.Errorf("%s %s", user, password)
	}
}

func TestRetryAfterOfOtherErrors(t *testing.T) {
	if RetryAfter(nil) != 0 || RetryAfter(errors.New("x")) != 0 {
		t.Error("want 0")
	}
}
