package history

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"deckhand/localapi"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
)

// Page is a page of what happened, oldest first.
type Page struct {
	Entries []Line `json:"entries"`
	Next    string `json:"next"` // ask with it, as "after", for what comes behind this page
	More    bool   `json:"more"` // there is something behind it already
}

// Line is one thing that happened.
type Line struct {
	At      time.Time      `json:"at"` // when it began
	App     string         `json:"app,omitempty"`
	UUID    string         `json:"uuid,omitempty"`
	Service string         `json:"service,omitempty"`
	Kind    string         `json:"kind"` // for programs
	Title   string         `json:"title"`
	Why     string         `json:"why,omitempty"`
	Outcome string         `json:"outcome,omitempty"` // done, failed, cancelled or started
	Took    state.Duration `json:"took,omitempty"`
	Class   state.Class    `json:"class,omitempty"`
	Text    string         `json:"text,omitempty"`
	Release string         `json:"release,omitempty"` // the one that was wanted
}

// PageOf picks the entries that a question is about.
func PageOf(past []store.Entry, st run.Status, q localapi.HistoryQuery) (Page, error) {
	page := Page{Entries: []Line{}}
	from, err := parseMark(q.After)
	if err != nil {
		return page, state.Classify(state.ClassInvalid, err)
	}
	uuid := ""
	if q.App != "" {
		if uuid, err = FindApp(st.Target, st.World, q.App); err != nil {
			return page, state.Classify(state.ClassInvalid, err)
		}
	}
	past = slices.DeleteFunc(slices.Clone(past), func(x store.Entry) bool {
		return uuid != "" && x.App != uuid || q.Service != "" && x.Service != q.Service || EndedAt(x).Before(q.Since)
	})
	slices.SortStableFunc(past, func(a, b store.Entry) int { return EndedAt(a).Compare(EndedAt(b)) })
	switch {
	case q.After != "":
		past = from.behind(past)
	case q.Since.IsZero():
		past = past[max(0, len(past)-q.Limit):]
	}
	if page.More = len(past) > q.Limit; page.More {
		past = past[:q.Limit]
	}
	for _, x := range past {
		from.pass(x)
		why := reconcile.Reason{Cause: x.Why, Changes: x.Changes}
		page.Entries = append(page.Entries, Line{
			At: x.At.UTC(), App: st.Target.Apps[x.App].Name, UUID: x.App, Service: x.Service, Kind: x.Kind, Title: x.Title, Why: why.String(),
			Outcome: x.Outcome, Took: x.Took, Class: x.Class, Text: x.Text, Release: x.Commit,
		})
	}
	page.Next = from.String()
	return page, nil
}

// mark is a place in the past: behind so many entries that ended at a time.
type mark struct {
	at int64 // Unix nanoseconds
	n  int
}

func (m mark) String() string { return fmt.Sprintf("%d.%d", m.at, m.n) }

func parseMark(s string) (mark, error) {
	if s == "" {
		return mark{}, nil
	}
	a, b, _ := strings.Cut(s, ".")
	at, errAt := strconv.ParseInt(a, 10, 64)
	n, errN := strconv.Atoi(b)
	if errAt != nil || errN != nil || n < 0 {
		return mark{}, fmt.Errorf(`after: %q is no "next" of an earlier page`, s)
	}
	return mark{at, n}, nil
}

// pass moves the mark behind an entry.
func (m *mark) pass(x store.Entry) {
	if at := EndedAt(x).UnixNano(); at != m.at {
		*m = mark{at: at}
	}
	m.n++
}

// behind are the entries that come after the mark.
func (m mark) behind(past []store.Entry) []store.Entry {
	for i, x := range past {
		switch at := EndedAt(x).UnixNano(); {
		case at < m.at:
		case at == m.at && m.n > 0:
			m.n--
		default:
			return past[i:]
		}
	}
	return nil
}
