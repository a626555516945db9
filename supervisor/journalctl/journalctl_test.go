package journalctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/engine"
	"deckhand/localapi"
	"deckhand/logs"
	"deckhand/state"
)

// program writes a journalctl of our own.
func program(t *testing.T, script string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "journalctl")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return path
}

func TestTheHostsJournal(t *testing.T) {
	q := localapi.JournalQuery{All: true, Count: 5, Unit: "-x --y", Container: "c1", Since: "-1h", Until: "now", Format: "short"}
	from, err := journalctl(t.Context(), program(t, `for a in "$@"; do echo "[$a]"; done`), "/j", q)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(from)
	want := "[--no-pager]\n[--all]\n[--directory=/j]\n[--identifier=c1]\n[--lines=5]\n[--output=short]\n[--since=-1h]\n[--unit=-x --y]\n[--until=now]\n"
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}

	from, err = journalctl(t.Context(), program(t, `echo "Failed to parse timestamp: x" >&2; exit 1`), "/j", localapi.JournalQuery{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.ReadAll(from); state.ClassOf(err) != state.ClassInvalid || !strings.Contains(err.Error(), "Failed to parse timestamp") {
		t.Errorf("of arguments that make no sense: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	from, err = journalctl(ctx, program(t, `echo one; exec sleep 600`), "/j", localapi.JournalQuery{Follow: true})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := from.Read(make([]byte, 10)); n != 4 || err != nil {
		t.Errorf("read %d, %v", n, err)
	}
	cancel()
	if _, err := io.ReadAll(from); err == nil {
		t.Error("it goes on after its reader has left")
	}
}

// pastEngine has logs of the past.
type pastEngine map[string][]logs.Record

func (p pastEngine) ReadExcerpt(ctx context.Context, id string, x engine.Excerpt, take func(logs.Record) error) error {
	all := p[id]
	if x.Last >= 0 {
		all = all[max(0, len(all)-x.Last):]
	}
	for _, r := range all {
		if at := time.Unix(0, r.At); at.Before(x.Since) || !x.Until.IsZero() && at.After(x.Until) {
			continue
		}
		if err := take(r); err != nil {
			return err
		}
	}
	if x.Follow {
		if err := take(logs.Record{At: 9e9, Text: []byte("followed\n")}); err != nil {
			return err
		}
		<-ctx.Done()
	}
	return nil
}

func past(t *testing.T, q localapi.JournalQuery) (string, error) {
	t.Helper()
	at := func(s int64, text string) logs.Record {
		return logs.Record{At: s * 1e9, Text: []byte(text + "\n"), Stderr: text == "b1"}
	}
	x := excerpts{
		engine:  pastEngine{"aaaa": {at(1, "a1"), at(3, "a3"), at(5, "a5")}, "bbbb": {at(2, "b2"), at(4, "b1")}},
		sources: []logs.Source{{Container: "aaaa", Service: "web", AppID: 1}, {Container: "bbbb", Service: "db", AppID: 2}},
		host:    "dev", now: time.Unix(6, 0).UTC(),
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	from, err := x.open(ctx, q)
	if err != nil {
		return "", err
	}
	var out strings.Builder
	b := make([]byte, 1000)
	for !strings.Contains(out.String(), "followed") {
		n, err := from.Read(b)
		out.Write(b[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return out.String(), err
		}
	}
	return out.String(), nil
}

func TestThePastWithoutAJournal(t *testing.T) {
	for name, c := range map[string]struct {
		q    localapi.JournalQuery
		want string
	}{
		"in order of time":    {localapi.JournalQuery{Format: "cat"}, "a1\nb2\na3\nb1\na5\n"},
		"the last ones":       {localapi.JournalQuery{Format: "cat", Count: 2}, "b1\na5\n"},
		"of one container":    {localapi.JournalQuery{Format: "cat", Container: "bb"}, "b2\nb1\n"},
		"of one app":          {localapi.JournalQuery{Format: "cat", App: 1}, "a1\na3\na5\n"},
		"a while":             {localapi.JournalQuery{Format: "cat", Since: "@2", Until: "-2s"}, "b2\na3\nb1\n"},
		"and on":              {localapi.JournalQuery{Format: "cat", Container: "aaaa", Count: 1, Follow: true}, "a5\nfollowed\n"},
		"and on, of several":  {localapi.JournalQuery{Format: "cat", Count: 1, Follow: true}, "a5\nfollowed\n"},
		"with time and place": {localapi.JournalQuery{Format: "short-unix", Count: 1}, "5.000000 dev web[aaaa]: a5\n"},
		"for programs": {localapi.JournalQuery{Format: "json", Container: "bbbb", Count: 1},
			`{"__REALTIME_TIMESTAMP":"4000000","MESSAGE":"b1","PRIORITY":"3","CONTAINER_ID":"bbbb","CONTAINER_ID_FULL":"bbbb","SERVICE_NAME":"db","SYSLOG_IDENTIFIER":"bbbb","_HOSTNAME":"dev"}` + "\n"},
	} {
		if got, err := past(t, c.q); err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", name, got, err, c.want)
		}
	}
	for _, q := range []localapi.JournalQuery{
		{Format: "verbose"}, {Format: "cat", Unit: "a.service"}, {Format: "cat", Since: "some day"}, {Format: "cat", Container: "cc"},
		{Format: "cat", Container: "aaaa", App: 2},
	} {
		if _, err := past(t, q); state.ClassOf(err) != state.ClassInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

func TestTimesOfJournals(t *testing.T) {
	now := time.Date(2026, 11, 22, 16, 5, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"now": "2026-11-22 16:05:00", "today": "2026-11-22 00:00:00", "yesterday": "2026-11-21 00:00:00", "-1h": "2026-11-22 15:05:00",
		"2 hours ago": "2026-11-22 14:05:00", "2026-11-20": "2026-11-20 00:00:00", "2026-11-20 10:00:01": "2026-11-20 10:00:01",
		"2026-11-20T10:00:00Z": "2026-11-20 10:00:00", "@1795364146": "2026-11-22 16:15:46", "2 hours": "", "tomorrow's": "", "-99999999999d": "",
	} {
		got, err := journalTime(text, now)
		if s := got.UTC().Format(time.DateTime); err == nil && s != want || err != nil && want != "" {
			t.Errorf("%q is %s, %v; want %s", text, s, err, want)
		}
	}
	if fmt.Sprint(journalArgs("/j", localapi.JournalQuery{Format: "cat"})) != "[--no-pager --directory=/j --output=cat]" {
		t.Error(journalArgs("/j", localapi.JournalQuery{Format: "cat"}))
	}
}
