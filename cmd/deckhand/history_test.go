package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/localapi"
	"deckhand/state"
	"deckhand/supervisor"
	"deckhand/supervisor/history"
)

func TestPrintHistory(t *testing.T) {
	now := time.Date(2026, 3, 1, 3, 7, 0, 0, time.Local)
	h := history.Page{More: true, Entries: []history.Line{
		{At: now.AddDate(0, 0, -1), Title: "deckhand 1.0 started"},
		{At: now, Title: "fetch 1234 for shop/web", Why: "missing", Outcome: "failed", Took: state.Duration(1234 * time.Millisecond), Class: state.ClassDNS, Text: "no such host"},
	}}
	for name, c := range map[string]struct {
		h    history.Page
		want string
	}{
		"entries": {h, "2026-02-28 03:07:00  -       -     deckhand 1.0 started     \n" +
			"03:07:00             failed  1.2s  fetch 1234 for shop/web  missing; dns: no such host\n… there is more; ask with a larger -n\n"},
		"none": {history.Page{}, "nothing is remembered of it\n"},
	} {
		var b strings.Builder
		if err := printHistory(&b, c.h, now); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestStatusShowsLeases(t *testing.T) {
	since := time.Now().Add(-48 * time.Hour)
	lease := localapi.Lease{App: "shop", Service: "db", Holder: "backup", Reason: "nightly copy", Since: since, Until: since.Add(time.Hour)}
	broken := lease
	broken.Reason, broken.BrokenBy, broken.BrokenAt = "", "the owner", since
	var b strings.Builder
	printLeases(&b, supervisor.View{Leases: []localapi.Lease{lease, broken}})
	at := func(t time.Time) string { return t.Format("2006-01-02 15:04:05") }
	want := "\nlease    shop/db: backup (nightly copy), since " + at(since) + ", until " + at(lease.Until) + "\n" +
		"lease    shop/db: backup, since " + at(since) + ", broken at " + at(since) + ", allowed by the owner\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
