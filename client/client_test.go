package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/build/event"
	"deckhand/state"
)

func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	c, err := New(Config{URL: srv.URL + "/", Token: "tok"})
	if err != nil {
		t.Fatal(err)
	}
	return eager(c)
}

func TestRefusalsKeepTheServersWords(t *testing.T) {
	for _, c := range []struct {
		status     int
		body, want string
		class      state.Class
	}{
		{401, ``, "the cloud answers 401 Unauthorized", state.ClassAuth},
		{409, `"\"slug\" must be unique."`, `"slug" must be unique.`, state.ClassInvalid},
		{400, `{"error":"API key required"}`, "API key required", state.ClassInvalid},
		{404, `{"message":"no device"}`, "no device", state.ClassNotFound},
		{429, `wait`, "wait", state.ClassRateLimit},
		{503, `<html>gateway</html>`, "the cloud answers 503 Service Unavailable", state.ClassNetwork},
	} {
		cl := serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(c.status)
			_, _ = io.WriteString(w, c.body)
		})
		_, err := cl.Whoami(t.Context())
		said, ok := errors.AsType[*StatusError](err)
		if !ok || said.Message != c.want || said.Code != c.status || state.ClassOf(err) != c.class {
			t.Errorf("%d %s: %v", c.status, c.body, err)
		}
	}
}

// eager asks again without a wait that a test would feel.
func eager(c *Client) *Client {
	c.reads.RetryWaitMin, c.reads.RetryWaitMax = time.Millisecond, time.Millisecond
	return c
}

func TestNoAnswerIsExplained(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	open := httptest.NewServer(http.NotFoundHandler())
	defer open.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	broken := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer broken.Close()
	httpsToHTTP := strings.Replace(open.URL, "http:", "https:", 1)
	const running = "is it running, and is the address right?"
	for _, c := range []struct {
		address, said string
		class         state.Class
	}{
		{gone.URL, "connection refused; " + running, state.ClassNetwork},
		{broken.URL, "the connection was closed; " + running, state.ClassNetwork},
		{httpsToHTTP, "it does not speak https; is it an address with http://?", state.ClassTLS},
		{secure.URL, "certificate signed by unknown authority; is the address right, and does this machine trust who signed the certificate?", state.ClassTLS},
	} {
		cl, err := New(Config{URL: c.address + "/"})
		if err != nil {
			t.Fatal(err)
		}
		_, err = eager(cl).Devices(t.Context(), 0)
		said, ok := errors.AsType[*UnreachableError](err)
		want := "the cloud at " + c.address + " cannot be reached: " + c.said
		if !ok || said.Error() != want || state.ClassOf(err) != c.class {
			t.Errorf("%s\n got %v\nwant %s of class %s", c.address, err, want, c.class)
		}
	}
	if _, err := New(Config{URL: "not an address"}); state.ClassOf(err) != state.ClassInvalid {
		t.Errorf("bad address: %v", err)
	}
}

// silent fails every request with one error.
type silent struct{ err error }

func (s silent) RoundTrip(*http.Request) (*http.Response, error) { return nil, s.err }

// What a name server or a slow network does is told by the error alone.
func TestNamesAndTimeOutsAreExplained(t *testing.T) {
	for _, c := range []struct {
		err   error
		said  string
		class state.Class
	}{
		{&net.DNSError{Name: "cloud.example", Err: "no such host", IsNotFound: true}, "there is no host cloud.example; is the address right?", state.ClassDNS},
		{&net.DNSError{Name: "cloud.example", Err: "server misbehaving"}, "the name cloud.example cannot be looked up: server misbehaving; is this machine connected?", state.ClassDNS},
		{context.DeadlineExceeded, "no answer came in time; is it running, and is the address right?", state.ClassTimeout},
	} {
		cl, err := New(Config{URL: "http://cloud.example", HTTP: &http.Client{Transport: silent{c.err}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = eager(cl).Whoami(t.Context())
		said, ok := errors.AsType[*UnreachableError](err)
		if want := "the cloud at http://cloud.example cannot be reached: " + c.said; !ok || said.Error() != want || state.ClassOf(err) != c.class {
			t.Errorf("got %v, want %s of class %s", err, want, c.class)
		}
	}
}

func TestQueriesAreSpelledForTheCloud(t *testing.T) {
	var asked []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.URL.RequestURI())
		_, _ = io.WriteString(w, `{"d":[]}`)
	})
	if _, err := c.Device(t.Context(), "a'b c"); state.ClassOf(err) != state.ClassNotFound {
		t.Errorf("no device: %v", err)
	}
	if !strings.Contains(asked[0], "/v7/device?") || !strings.Contains(asked[0], "$filter=startswith%28uuid%2C%27a%27%27b%20c%27%29") {
		t.Errorf("asked %s", asked[0])
	}
}

func TestForeignKeysInAllSpellings(t *testing.T) {
	for text, want := range map[string]reference{`null`: 0, `{"__id":7}`: 7, `[{"id":8}]`: 8, `[]`: 0, `9`: 9} {
		var got reference = 1
		if err := got.UnmarshalJSON([]byte(text)); err != nil || got != want && text != "null" {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
}

func TestAStreamWithoutAResultIsAnError(t *testing.T) {
	for what, body := range map[string]string{
		"cut off":  `{"v":1,"seq":1,"type":"phase"}` + "\n",
		"nonsense": "hello\n",
		"nothing":  "",
	} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = io.WriteString(w, body)
		})
		_, err := c.Build(t.Context(), BuildRequest{Slug: "a/b", Archive: strings.NewReader("x")}, nil)
		if !errors.Is(err, ErrNoResult) || state.ClassOf(err) != state.ClassNetwork {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestBuildSendsTheProjectAndHandsOverEvents(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		body, err := io.ReadAll(r.Body)
		if err != nil || len(body) == 0 || q.Get("slug") != "org/fleet" || q.Get("isdraft") != "true" ||
			r.Header.Get("Content-Encoding") != "gzip" || r.Header.Get("Authorization") != "Bearer tok" {
			http.Error(w, "bad request", http.StatusBadRequest)
			return
		}
		_, _ = io.WriteString(w, "\n"+`{"v":1,"seq":1,"type":"release.created","releaseId":5}`+"\n\n"+`{"v":1,"seq":2,"type":"build.result","status":"success"}`+"\n")
	})
	var got []string
	result, err := c.Build(t.Context(), BuildRequest{Slug: "org/fleet", Source: folder(t, map[string]string{"Dockerfile": "x"}), Draft: true},
		func(e event.Event) { got = append(got, e.Type) })
	if err != nil || result.Status != event.StatusSuccess {
		t.Fatalf("%+v, %v", result, err)
	}
	if diff := cmp.Diff([]string{event.ReleaseCreated, event.BuildResult}, got); diff != "" {
		t.Error(diff)
	}
	_, err = c.Build(t.Context(), BuildRequest{Slug: "org/fleet", Source: t.TempDir()}, nil)
	if state.ClassOf(err) != state.ClassInvalid {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestFollowedLogsSkipHeartbeats(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("stream") != "1" {
			http.NotFound(w, r)
			return
		}
		for i := range 3 {
			fmt.Fprintf(w, "\n{\"message\":\"line %d\",\"timestamp\":%d}\n", i, time.Now().UnixMilli())
		}
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithCancel(t.Context())
	var got []string
	err := c.FollowLogs(ctx, "abc", 10, func(l LogLine) error {
		if got = append(got, l.Message); len(got) == 3 {
			cancel()
		}
		return nil
	})
	if state.ClassOf(err) != state.ClassCancelled {
		t.Errorf("after the context ended: %v", err)
	}
	if diff := cmp.Diff([]string{"line 0", "line 1", "line 2"}, got); diff != "" {
		t.Error(diff)
	}
}

// A cloud that is restarting answers 503 for a moment: a question is asked
// again, an order is given once.
func TestQuestionsAreRepeatedOrdersAreNot(t *testing.T) {
	calls := map[string]int{}
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls[r.Method]++
		if calls[r.Method] == 1 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte(`{"d":[]}`))
	})
	if _, err := c.Fleets(t.Context()); err != nil || calls[http.MethodGet] < 2 {
		t.Errorf("list: %v after %d requests, want success at the second try", err, calls[http.MethodGet])
	}
	if _, err := c.CreateFleet(t.Context(), "x", "generic-amd64"); err == nil || calls[http.MethodPost] > 1 {
		t.Errorf("create: %v after %d requests, want the failure of one", err, calls[http.MethodPost])
	}
}
