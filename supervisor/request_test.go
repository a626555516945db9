package supervisor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/supervisor/history"
)

// supervised is a supervisor without engine, cloud and sockets.
func supervised(t *testing.T) (*Supervisor, *modelled) {
	m := shop(t)
	s := &Supervisor{cfg: Config{Log: zerolog.Nop()}, device: m.device, store: m.Store}
	s.journal = history.New(history.Config{Store: m.Store.History, Target: m.target, Now: time.Now, Log: zerolog.Nop()})
	s.runner = run.New(run.Config{Device: m.device, Log: zerolog.Nop()})
	return s, m
}

// Each request that comes over the socket is checked, written down and told
// about; what is no request is refused with the reason.
func TestRequests(t *testing.T) {
	s, m := supervised(t)
	for _, c := range []struct{ body, want string }{
		{`{"kind":"restart","app":"shop","services":["web"]}`, "shop/web restarts"},
		{`{"kind":"stop","app":"1","services":["job"],"by":"a test"}`, "shop/job stops and stays stopped"},
		{`{"kind":"start","app":"aaaa"}`, "shop starts"},
		{`{"kind":"purge","app":"shop"}`, "data"},
		{`{"kind":"override","app":"shop","for":"10m"}`, "update locks of shop may be broken for 10m0s"},
		{`{"kind":"override"}`, "update locks of every app may be broken for 1h0m0s"},
		{`{"kind":"end-override"}`, "update locks of every app hold again"},
		{`{"kind":"end-override"}`, "there was no override for every app"},
		{`{"kind":"retry"}`, "the cloud is asked now"},
		{`{"kind":"override","for":"-1s"}`, "!an override lasts more than nothing"},
		{`{"kind":"override","for":"9000h"}`, "!up to 30 days"},
		{`{"kind":"purge","app":"shop","services":["web"]}`, "!volumes belong to the app"},
		{`{"kind":"fly"}`, `!kind: "fly" is not known`},
		{`{"kind":"restart","app":"shop","service":"web"}`, `!unknown field "service"`},
		{`restart`, "!read the request"},
		{``, "!read the request"},
	} {
		v, err := answers{s}.Request(t.Context(), []byte(c.body))
		want, refused := strings.CutPrefix(c.want, "!")
		if refused {
			if state.ClassOf(err) != state.ClassInvalid || err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", c.body, err)
			}
			continue
		}
		b, _ := json.Marshal(v)
		if err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s: %s %v", c.body, b, err)
		}
	}
	w := m.look(t)
	if len(w.Overrides) != 1 || w.Overrides[0].App != "aaaa" || len(w.Intents) == 0 {
		t.Errorf("in force: %v, asked: %v", w.Overrides, w.Intents)
	}
	past, err := s.journal.Past()
	if err != nil || len(past) < 6 {
		t.Errorf("%d entries, %v", len(past), err)
	}
}

// A forced update breaks locks until that update is done, and shortens no longer
// permission.
func TestAForcedUpdateBreaksLocksOnce(t *testing.T) {
	s, m := supervised(t)
	s.update(true, false)
	if w := m.look(t); len(w.Overrides) != 1 || w.Overrides[0].Until.IsZero() {
		t.Fatalf("%+v", w.Overrides)
	}
	s.endOnce(time.Now().Add(time.Minute))
	if w := m.look(t); len(w.Overrides) != 0 {
		t.Fatalf("%+v", w.Overrides)
	}
	if _, err := s.Force(t.Context(), Request{For: state.Duration(24 * time.Hour)}); err != nil {
		t.Fatal(err)
	}
	s.update(true, false)
	s.endOnce(time.Now().Add(time.Minute))
	if w := m.look(t); len(w.Overrides) != 1 || time.Until(w.Overrides[0].Until) < 23*time.Hour {
		t.Errorf("%+v", w.Overrides)
	}
}

// What people see and what the cloud is told are the same words.
func TestStatusAndReportAgree(t *testing.T) {
	x := newTold(t)
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	if _, err := x.wish(t, state.Stop, "db"); err != nil {
		t.Fatal(err)
	}
	x.work(t, nil)
	v := view(x.status(t))
	if len(v.Apps) != 1 || len(v.Apps[0].Services) != 3 || len(v.Requests) != 1 {
		t.Fatalf("%+v", v)
	}
	for _, s := range v.Apps[0].Services {
		want, note := "running", ""
		if s.Name == "db" {
			want, note = "exited", "stopped for the owner"
		}
		if s.Status != want || s.Note != note || s.Release != "r1" {
			t.Errorf("%+v, want %s", s, want)
		}
	}
	x.accept(t, state.Target{Apps: map[string]state.App{"bbbb": {UUID: "bbbb", ID: 2, Name: "lab"}}})
	v = view(x.status(t))
	if len(v.Apps) != 2 || v.Apps[0].Name != "aaaa" || v.Apps[1].Name != "lab" || len(v.Apps[1].Services) != 0 {
		t.Errorf("%+v", v.Apps)
	}
}
