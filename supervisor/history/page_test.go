package history

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
)

// somePast are entries of two apps, several in the same moment.
func somePast() []store.Entry {
	var past []store.Entry
	for i, s := range []int64{1, 2, 2, 2, 2, 3, 5, 5} {
		past = append(past, store.Entry{At: time.Unix(s, 0), App: "aaaa", Title: fmt.Sprint(i)})
	}
	return append(past, store.Entry{At: time.Unix(0, 0), Took: state.Duration(4 * time.Second), App: "bbbb", Service: "web", Title: "long"})
}

func titles(t *testing.T, past []store.Entry, q localapi.HistoryQuery) (string, Page) {
	t.Helper()
	p, err := PageOf(past, run.Status{Target: state.Target{Apps: map[string]state.App{"bbbb": {Name: "lab", Services: map[string]state.Service{"web": {}}}}}}, q)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range p.Entries {
		out = append(out, e.Title)
	}
	return strings.Join(out, " "), p
}

// Whoever pages through the past gets every entry once, and what comes later with
// the mark that they have.
func TestPagesOfThePast(t *testing.T) {
	past := somePast()
	for limit := 1; limit < 12; limit++ {
		var all []string
		q := localapi.HistoryQuery{Since: time.Unix(0, 0), Limit: limit}
		for more := true; more; {
			text, p := titles(t, past, q)
			all = append(all, text)
			q.After, more = p.Next, p.More
		}
		if got := strings.Join(all, " "); got != "0 1 2 3 4 5 long 6 7" {
			t.Errorf("pages of %d: %s", limit, got)
		}
		if text, p := titles(t, past, q); text != "" || p.Next != q.After {
			t.Errorf("behind the end: %s, %s", text, p.Next)
		}
		later := append(slices.Clone(past), store.Entry{At: time.Unix(5, 0), Title: "new"}) // in the same moment as the last one
		if text, _ := titles(t, later, q); text != "new" {
			t.Errorf("what came meanwhile: %s", text)
		}
	}
}

func TestPartsOfThePast(t *testing.T) {
	past := somePast()
	for _, c := range []struct {
		q    localapi.HistoryQuery
		want string
	}{
		{localapi.HistoryQuery{Limit: 3}, "long 6 7"},
		{localapi.HistoryQuery{Since: time.Unix(4, 0), Limit: 9}, "long 6 7"},
		{localapi.HistoryQuery{App: "lab", Service: "web", Limit: 9}, "long"},
		{localapi.HistoryQuery{Service: "web", Limit: 9}, "long"},
		{localapi.HistoryQuery{Service: "none", Limit: 9}, ""},
	} {
		if text, p := titles(t, past, c.q); text != c.want || p.More {
			t.Errorf("%+v: %s", c.q, text)
		}
	}
	for _, q := range []localapi.HistoryQuery{{After: "x"}, {After: "1.-1"}, {After: "1"}, {App: "none"}} {
		if _, err := PageOf(past, run.Status{}, q); state.ClassOf(err) != state.ClassInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
}
