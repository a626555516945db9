package engine_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/logs"
	"deckhand/state"
)

// logServer answers as an engine with one container.
type logServer struct {
	body   string
	status int
	query  string
}

func (s *logServer) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := func(status int, body string) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{"Api-Version": {"1.41"}, "Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	}
	switch {
	case strings.HasSuffix(r.URL.Path, "/_ping"):
		return answer(200, "OK")
	case strings.HasSuffix(r.URL.Path, "/logs"):
		s.query = r.URL.RawQuery
		return answer(s.status, s.body)
	}
	return answer(404, `{"message":"No such container"}`)
}

func (s *logServer) read(t *testing.T, tty bool) (lines []string, err error) {
	t.Helper()
	e, err := engine.New(engine.Config{Host: "unix:///nowhere", Transport: s, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	err = e.ReadLog(t.Context(), "c1", logs.Request{TTY: tty, Since: time.Unix(5, 7), Follow: true}, func(r logs.Record) error {
		lines = append(lines, fmt.Sprintf("%d %v %.40q %d", r.At, r.Stderr, r.Text, len(r.Text)))
		return nil
	})
	return lines, err
}

// frame is a piece of a stream as the engine sends it.
func frame(stream byte, text string) string {
	head := make([]byte, 8)
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
	return string(head) + text
}

const stamp = "1970-01-01T00:00:09.000000001Z "

func TestLogsOfContainers(t *testing.T) {
	part := strings.Repeat("x", 16<<10)
	for name, c := range map[string]struct {
		tty  bool
		body string
		want []string
	}{
		"both streams": {body: frame(1, stamp+"out\n") + frame(2, stamp+"err\n"), want: []string{`9000000001 false "out\n" 4`, `9000000001 true "err\n" 4`}},
		"parts are joined, by stream": {
			body: frame(1, stamp+part) + frame(2, stamp+"other\n") + frame(1, stamp+"line\n"),
			want: []string{`9000000001 true "other\n" 6`, `9000000001 false "` + part[:40] + `" 16389`},
		},
		"a last part without an end": {
			body: frame(1, stamp+part) + frame(1, stamp+"x") + frame(1, stamp+"next\n"),
			want: []string{`9000000001 false "` + part[:40] + `" 16385`, `9000000001 false "next\n" 5`},
		},
		"the same on a terminal": {
			tty: true, body: stamp + part + stamp + "x" + stamp + "next\n",
			want: []string{`9000000001 false "` + part[:40] + `" 16385`, `9000000001 false "next\n" 5`},
		},
		"no end":              {body: frame(1, stamp+"no end"), want: []string{`9000000001 false "no end" 6`}},
		"a terminal":          {tty: true, body: stamp + "a\r\n" + stamp + "b\n", want: []string{`9000000001 false "a\r\n" 3`, `9000000001 false "b\n" 2`}},
		"parts on a terminal": {tty: true, body: stamp + part + stamp + "end\n", want: []string{`9000000001 false "` + part[:40] + `" 16388`}},
		"a huge line":         {body: strings.Repeat(frame(1, stamp+part), 10) + frame(1, stamp+"\n"), want: []string{`9000000001 false "` + part[:40] + `" 65536`}},
		"nothing":             {},
	} {
		s := logServer{status: 200, body: c.body}
		got, err := s.read(t, c.tty)
		if diff := cmp.Diff(c.want, got); diff != "" || err != nil {
			t.Errorf("%s: %v %s", name, err, diff)
		}
		if !strings.Contains(s.query, "since=5.000000007") || !strings.Contains(s.query, "follow=1") {
			t.Errorf("asked for %s", s.query)
		}
	}
}

func TestLogsThatCannotBeRead(t *testing.T) {
	for name, c := range map[string]struct {
		status int
		body   string
		want   state.Class
	}{
		"cut off":          {200, frame(1, stamp+"x\n")[:20], state.ClassEngine},
		"no frames at all": {200, "plain text", state.ClassEngine},
		"the engine fails": {200, frame(3, "disk error"), state.ClassEngine},
		"unreadable":       {501, `{"message":"configured logging driver does not support reading"}`, state.ClassInvalid},
		"gone":             {404, `{"message":"No such container: c1"}`, state.ClassNotFound},
	} {
		if _, err := (&logServer{status: c.status, body: c.body}).read(t, false); state.ClassOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := logServer{status: 200, body: frame(1, stamp+"x\n")}
	e, err := engine.New(engine.Config{Host: "unix:///nowhere", Transport: &s, Log: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	enough := errors.New("enough")
	if err := e.ReadLog(t.Context(), "c1", logs.Request{}, func(logs.Record) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("a reader that has had enough: %v", err)
	}
}
