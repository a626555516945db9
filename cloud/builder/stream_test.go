package builder

import (
	"encoding/json"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"deckhand/build/event"
	"deckhand/test/golden"
)

// aBuild is a build of two services of which one fails.
func aBuild() []event.Event {
	began := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failed := event.Service{Name: "web", Status: event.StatusFailed, Error: "The command '/bin/sh -c make' returned a non-zero code: 2", StartedAt: began, EndedAt: began.Add(64 * time.Second)}
	good := event.Service{Name: "database", Status: event.StatusSuccess, Size: 1384120, StartedAt: began, EndedAt: began.Add(11 * time.Second)}
	return []event.Event{
		{Type: event.ReleaseCreated, ReleaseID: 7, Commit: "abc"},
		{Type: event.BuildStarted, Fleet: "org/gate", User: "ann", Worker: "here", Services: []event.Service{{Name: "web"}, {Name: "database"}}},
		{Type: event.Warning, Message: "service web: service.expose is ignored"},
		{Type: event.Phase, Name: event.PhaseCache, State: event.Skipped},
		{Type: event.ServiceState, Service: "web", State: event.Building},
		{Type: event.EngineLine, Service: "web", Text: "Step 1/2 : FROM scratch"},
		{Type: event.Log, Service: "web", Text: "compiling <all> & more"},
		{Type: event.ServiceState, Service: "database", State: event.Pushing},
		{Type: event.Heartbeat, Running: []string{"web"}},
		{Type: event.Phase, Name: event.PhasePush, State: event.Start},
		{Type: event.Progress, Service: "database", Op: "push", Percent: 40},
		{Type: event.Progress, Service: "database", Op: "push", Percent: 41},
		{Type: event.Phase, Name: event.PhasePush, State: event.Done},
		{Type: event.Error, Service: "web", Message: failed.Error},
		{Type: event.BuildResult, Status: event.StatusFailed, ReleaseID: 7, Commit: "abc", Services: []event.Service{good, failed}},
		{Type: event.BuildResult, Status: event.StatusSuccess, ReleaseID: 7, Commit: "abc", DurationMS: 64_000, Services: []event.Service{good}},
	}
}

func TestWhatBalenasToolsRead(t *testing.T) {
	rec := httptest.NewRecorder()
	s := newStream(&array{out: newFlusher(rec), words: newHosted()})
	for _, e := range aBuild() {
		s.emit(e)
	}
	s.close()
	var elements []message
	if err := json.Unmarshal(rec.Body.Bytes(), &elements); err != nil {
		t.Fatalf("not one array: %v\n%s", err, rec.Body)
	}
	golden.File(t, "testdata/hosted.json", rec.Body.String())
	if !strings.HasPrefix(rec.Body.String(), "[\n{") || !strings.HasSuffix(rec.Body.String(), "}\n]\n") {
		t.Errorf("layout: %q", rec.Body)
	}
}

func TestEventsAreNumberedWithoutGaps(t *testing.T) {
	rec := httptest.NewRecorder()
	s := newStream(&lines{newFlusher(rec)})
	for _, e := range aBuild() {
		s.emit(e)
	}
	s.close()
	for i, text := range strings.Split(strings.TrimSpace(rec.Body.String()), "\n") {
		var e event.Event
		if err := json.Unmarshal([]byte(text), &e); err != nil {
			t.Fatal(err)
		}
		if e.Seq != i+1 || e.V != 1 || e.T.IsZero() || e.Type == event.EngineLine {
			t.Errorf("event %d: %s", i+1, text)
		}
	}
}

func TestSilenceIsKeptAlive(t *testing.T) {
	rec := httptest.NewRecorder()
	s := newStream(&array{out: newFlusher(rec), words: newHosted()})
	s.emit(event.Event{Type: event.ServiceState, Service: "web", State: event.Building})
	before := rec.Body.Len()
	now := time.Now()
	s.tick(now.Add(10 * time.Second))
	if rec.Body.Len() != before {
		t.Error("something was written after ten seconds")
	}
	s.tick(now.Add(20 * time.Second))
	if got := rec.Body.String()[before:]; got != "\n" {
		t.Errorf("after twenty seconds: %q, want a line break", got)
	}
	s.tick(now.Add(70 * time.Second))
	if !strings.Contains(rec.Body.String(), "Still Working...") {
		t.Error("nothing to see after a minute")
	}
	s.close()
	if !json.Valid(rec.Body.Bytes()) {
		t.Errorf("not JSON: %s", rec.Body)
	}
}

func TestDurationsAndSizes(t *testing.T) {
	for d, want := range map[time.Duration]string{
		400 * time.Millisecond: "< 1 second", 26 * time.Second: "26 seconds", 64 * time.Second: "1 minutes, 4 seconds",
	} {
		if got := duration(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{500: "500 B", 1982256: "1.89 MB"} {
		if got := size(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
