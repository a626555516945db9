package logs_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"deckhand/logs"
)

func TestListenersGetWhatComesWhileTheyListen(t *testing.T) {
	var s logs.Stream
	s.Send(logs.Line{Message: "before"})
	a, b := s.Listen(), s.Listen()
	s.Send(logs.Line{Message: "one"})
	b.Close()
	s.Send(logs.Line{Message: "two"})
	lines, err := a.Read(t.Context())
	if err != nil || len(lines) != 2 || lines[0].Message != "one" || lines[1].Message != "two" {
		t.Errorf("got %v, %v", lines, err)
	}
	if n := s.Listeners(); n != 1 {
		t.Errorf("%d listeners are left", n)
	}
	a.Close()
	if _, err := a.Read(t.Context()); !errors.Is(err, logs.ErrClosed) {
		t.Errorf("after close: %v", err)
	}
	b = s.Listen()
	s.End()
	for _, l := range []*logs.Listener{b, s.Listen()} {
		if _, err := l.Read(t.Context()); !errors.Is(err, logs.ErrClosed) || s.Listeners() != 0 {
			t.Errorf("after the end: %v", err)
		}
		l.Close()
	}
	s = logs.Stream{}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Listen().Read(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("after the context ended: %v", err)
	}
}

func TestSlowListenersLoseTheOldestAndKnowHowMany(t *testing.T) {
	var s logs.Stream
	l := s.Listen()
	defer l.Close()
	for i := range 5000 {
		s.Send(logs.Line{Message: strconv.Itoa(i)})
	}
	lines, err := l.Read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2001 || lines[0].Message != "Warning: Suppressed 3000 message(s) due to slow reading" || lines[1].Message != "3000" {
		t.Errorf("%d lines, the first two are %q and %q", len(lines), lines[0].Message, lines[1].Message)
	}
}

func TestLinesAreMadeFitToBeSent(t *testing.T) {
	long := logs.Clean([]byte(strings.Repeat("ä", 20_000)))
	if n := utf8.RuneCountInString(long); n != logs.Longest || !strings.HasSuffix(long, "ä[...]") {
		t.Errorf("a long line has %d characters and ends in %q", n, long[len(long)-10:])
	}
	for in, want := range map[string]string{
		"plain\r\n":                        "plain",
		"a\xff\xfeb\n":                     "a\uFFFDb",
		strings.Repeat("ä", logs.Longest):  strings.Repeat("ä", logs.Longest),
		strings.Repeat("x", 10_001) + "\n": strings.Repeat("x", 9995) + "[...]",
		"":                                 "",
	} {
		if got := logs.Clean([]byte(in)); got != want {
			t.Errorf("%.20q became %.20q (%d bytes)", in, got, len(got))
		}
	}
}
