package supervisor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"

	"deckhand/localapi"
	"deckhand/logs"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor/history"
)

// withLab is the shop beside another app, the lab, with a failing download.
func withLab(t *testing.T) (*told, run.Status) {
	t.Helper()
	x := newTold(t)
	want := release(1, "r1")
	lab := state.App{UUID: "bbbb", ID: 2, Name: "lab", Commit: "secret1", Services: map[string]state.Service{}}
	for _, name := range []string{"web", "probe"} {
		s := state.Service{Name: name, ID: 9, ImageID: 9, Image: "reg.test/lab/" + name + ":1", Running: true}
		s.Hash = s.Spec.Hash()
		lab.Services[name] = s
	}
	want.Apps["bbbb"] = lab
	x.accept(t, want)
	x.work(t, func(s reconcile.Step) error {
		if f, ok := s.(reconcile.Fetch); ok && strings.Contains(f.Image, "probe") {
			return state.Classify(state.ClassAuth, errors.New("lab credentials refused"))
		}
		return nil
	})
	return x, x.status(t)
}

// seenBy is all that a caller can see, as text, and how many services.
func seenBy(t *testing.T, scope localapi.Scope, st run.Status, past []store.Entry) (text string, services int) {
	t.Helper()
	mine := scoped(st, scope)
	page, err := history.PageOf(visible(past, mine, scope), mine, localapi.HistoryQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	v := view(mine)
	b, err := json.Marshal([]any{v, ViewPlan(mine.Plan), page})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range v.Apps {
		services += len(a.Services)
	}
	_, err = history.Explain("lab/probe", question(mine, visible(past, mine, scope), time.Time{}))
	if (err == nil) != (scope.All || scope.App == 2) {
		t.Errorf("%+v: explanation of another app's service: %v", scope, err)
	}
	return string(b), services
}

// The key of a service shows nothing of other apps, wherever one looks.
func TestAServiceSeesItsAppOnly(t *testing.T) {
	x, st := withLab(t)
	st.World.Intents = []state.Intent{{App: "bbbb", By: "somebody in the lab"}, {App: "aaaa", By: "somebody in the shop"}}
	st.World.Overrides = []state.Override{{App: "bbbb", By: "somebody in the lab"}, {By: "everybody"}}
	st.Running = []run.Running{{Node: reconcile.Node{Step: reconcile.Fetch{Image: "reg.test/lab/web:1"}}}}
	past, err := x.j.Past()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		scope    localapi.Scope
		shows    []string
		hides    []string
		services int
	}{
		{localapi.Scope{All: true}, []string{"lab", "shop", "secret1", "in the lab", "in the shop", "everybody"}, nil, 5},
		{localapi.Scope{App: 1}, []string{"shop", "in the shop", "everybody"}, []string{"lab", "bbbb", "secret1", "probe"}, 3},
		{localapi.Scope{App: 2}, []string{"lab", "probe", "in the lab", "credentials refused"}, []string{"shop", "aaaa"}, 2},
		{localapi.Scope{App: 3}, []string{"everybody"}, []string{"lab", "bbbb", "shop", "aaaa"}, 0},
	} {
		text, services := seenBy(t, c.scope, st, past)
		for _, s := range slices.Concat(c.shows, c.hides) {
			if strings.Contains(text, s) != slices.Contains(c.shows, s) {
				t.Errorf("%+v and %q: %s", c.scope, s, text)
			}
		}
		if services != c.services {
			t.Errorf("%+v sees %d services, want %d", c.scope, services, c.services)
		}
	}
}

// What is left out of a plan leaves no hole: the order of the rest stays.
func TestThePlanOfOneApp(t *testing.T) {
	app := func(uuid string) reconcile.App { return reconcile.App{UUID: uuid, Name: uuid} }
	node := func(uuid string, after ...string) reconcile.Node {
		s := reconcile.Start{App: app(uuid[:1]), Service: uuid}
		n := reconcile.Node{Step: s, Key: reconcile.Key(uuid)}
		for _, k := range after {
			n.After = append(n.After, reconcile.Key(k))
		}
		return n
	}
	p := reconcile.Plan{
		Nodes:    []reconcile.Node{node("a1"), node("b1", "a1"), {Key: "gate", Gate: "all fetched", After: []reconcile.Key{"a1", "b1"}}, node("a2", "gate"), node("b2", "a2"), node("a3", "a1", "b2")},
		Waiting:  []reconcile.Waiting{{Key: "a2", Title: "of a"}, {Key: "b2", Title: "of b"}},
		Declined: []reconcile.Declined{{Subject: "start of a/web"}, {Subject: "start of ab/web"}, {Subject: "release of a"}, {Subject: "release of b"}},
	}
	got := planOf(p, state.Target{}, map[string]bool{"a": true})
	var lines []string
	for _, n := range got.Nodes {
		lines = append(lines, fmt.Sprint(n.Key, " ", n.After))
	}
	for _, w := range got.Waiting {
		lines = append(lines, w.Title)
	}
	for _, d := range got.Declined {
		lines = append(lines, d.Subject)
	}
	if diff := cmp.Diff([]string{"a1 []", "a2 [a1]", "a3 [a1 a2]", "of a", "start of a/web", "release of a"}, lines); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// heard writes events down.
type heard struct{ lines []string }

func (h *heard) Publish(app int64, kind string, data any) {
	b, err := json.Marshal(data)
	if err != nil {
		panic(err)
	}
	var f map[string]any
	_ = json.Unmarshal(b, &f)
	line := fmt.Sprint(app, " ", kind)
	for _, name := range []string{"service", "status", "release", "target", "step", "holder", "class", "over", "state"} {
		if v, ok := f[name]; ok {
			line += fmt.Sprintf(" %s=%v", name, v)
		}
	}
	h.lines = append(h.lines, line)
}

func (h *heard) all() []string {
	out := h.lines
	h.lines = nil
	return out
}

// Listeners hear of what changes, and of nothing else.
func TestNews(t *testing.T) {
	x := newTold(t)
	h := &heard{}
	n := news{to: h}
	expect := func(what string, want ...string) {
		t.Helper()
		n.status(x.status(t))
		if diff := cmp.Diff(want, h.all()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	x.accept(t, release(1, "r1"))
	x.work(t, nil)
	expect("the first look")
	expect("nothing new")
	l := x.take(t, "db", time.Hour)
	expect("a lock", "1 lock service=db holder=lease of backup (nightly copy)")
	if _, err := x.leases.Renew(l.ID, time.Hour, mayTouch(ofShop("db"))); err != nil {
		t.Fatal(err)
	}
	expect("a renewal")
	x.accept(t, release(2, "r2"))
	x.work(t, nil)
	n.status(x.status(t))
	got := h.all()
	for _, want := range []string{
		"1 release release=r1 target=r2", "1 wait step=take locks of shop holder=" + leaseWait + " class=locked", "0 state state=waiting",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	if err := x.leases.Release(l.ID, mayTouch(ofShop("db"))); err != nil {
		t.Fatal(err)
	}
	x.work(t, nil)
	n.status(x.status(t))
	got = h.all()
	for _, want := range []string{
		"1 release release=r2 target=r2", "1 service service=web status=running release=r2",
		"1 lock service=db holder=lease of backup (nightly copy) over=true",
		"1 wait step=take locks of shop holder=" + leaseWait + " class=locked over=true", "0 state state=settled",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
	x.accept(t, state.Target{Apps: map[string]state.App{}})
	x.work(t, nil)
	n.status(x.status(t))
	got = h.all()
	for _, want := range []string{"1 service service=web status=gone", "1 release"} {
		if !slices.Contains(got, want) {
			t.Errorf("no %q in %q", want, got)
		}
	}
}

var (
	metricName = regexp.MustCompile(`^[a-z_][a-z0-9_]*$`)
	sampleLine = regexp.MustCompile(`^([a-z_][a-z0-9_]*)(?:\{((?:[a-z_]+="(?:[^"\\\n]|\\\\|\\"|\\n)*",?)*)\})? (\S+)$`)
)

// readMetrics reads Prometheus' text format as strictly as its own tools.
func readMetrics(t *testing.T, text string) map[string]float64 {
	t.Helper()
	out, kinds := map[string]float64{}, map[string]string{}
	family := ""
	if !strings.HasSuffix(text, "\n") {
		t.Error("the last line has no end")
	}
	for lines := bufio.NewScanner(strings.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		f := strings.SplitN(line, " ", 4)
		if f[0] == "#" {
			switch {
			case len(f) < 4 || !metricName.MatchString(f[2]):
				t.Errorf("bad comment: %s", line)
			case f[1] == "HELP" && kinds[f[2]] == "":
				family = f[2]
			case f[1] == "TYPE" && f[2] == family && kinds[family] == "" && (f[3] == "gauge" || f[3] == "counter"):
				kinds[family] = f[3]
			default:
				t.Errorf("bad comment: %s", line)
			}
			continue
		}
		m := sampleLine.FindStringSubmatch(line)
		if m == nil || m[1] != family || kinds[family] == "" {
			t.Errorf("bad sample: %s", line)
			continue
		}
		if kinds[family] == "counter" != strings.HasSuffix(family, "_total") {
			t.Errorf("%s is a %s", family, kinds[family])
		}
		v, err := strconv.ParseFloat(m[3], 64)
		if err != nil {
			t.Errorf("bad value: %s", line)
		}
		name := strings.TrimSuffix(line, " "+m[3])
		if _, twice := out[name]; twice {
			t.Errorf("twice: %s", name)
		}
		out[name] = v
	}
	return out
}

func TestMetrics(t *testing.T) {
	x, st := withLab(t)
	s := x.supervisor()
	s.meter = newMeter(func() time.Time { return x.clock })
	d := metered{x.device, s.meter}
	x.take(t, "db", time.Minute)
	if _, err := d.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	start, fetch := reconcile.Node{Step: reconcile.Start{}}, reconcile.Node{Step: reconcile.Fetch{Image: "i"}}
	for _, e := range []run.Event{
		{Node: start}, {Node: start, Ended: true, Took: time.Second}, {Node: start, Ended: true, Took: time.Second},
		{Node: fetch, Ended: true, Err: state.Classify(state.ClassDNS, errors.New("x"))},
		{Node: fetch, Ended: true, Err: state.Classify(state.ClassCancelled, errors.New("x"))},
	} {
		s.meter.event(e)
	}
	c := meteredCloud{cloudSays{errors.New("refused")}, s.meter}
	_ = c.Report(t.Context(), nil)
	s.runner = run.New(run.Config{Device: d, Log: zerolog.Nop()})
	s.logs = newLogging()
	s.logs.outbox = logs.OpenOutbox(logs.OutboxConfig{Log: zerolog.Nop()})
	s.logs.ready.Store(true)
	s.logs.outbox.Put(t.Context(), "c", logs.Line{Message: "x", AppUUID: "a", Service: "db"}, logs.Cursor{Pos: 1})
	var b strings.Builder
	s.writeMetrics(&b)
	x.clock = x.clock.Add(time.Second)
	writeApps(exposition{new(strings.Builder)}, st)
	got := readMetrics(t, b.String())
	for name, want := range map[string]float64{
		"deckhand_passes_total": 1, "deckhand_passes_failed_total": 0, `deckhand_steps_total{kind="start",outcome="done"}`: 2,
		`deckhand_step_seconds_total{kind="start"}`: 2, `deckhand_steps_total{kind="fetch",outcome="failed"}`: 1,
		`deckhand_steps_total{kind="fetch",outcome="cancelled"}`: 1, `deckhand_failures_total{class="dns"}`: 1, "deckhand_leases": 1, "deckhand_settled": 0,
		`deckhand_log_lines_read_total{app="a",service="db"}`: 1, `deckhand_log_waiting_bytes{where="memory"}`: 201,
		`deckhand_log_waiting_bytes{where="disk"}`: 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes", "process_open_fds"} {
		if got[name] <= 0 {
			t.Errorf("%s is %v", name, got[name])
		}
	}
	if _, ok := got["deckhand_last_report_age_seconds"]; ok {
		t.Error("a report that was refused counts")
	}

	c.Cloud = cloudSays{}
	_ = c.Report(t.Context(), nil)
	b.Reset()
	s.writeMetrics(&b)
	if _, ok := readMetrics(t, b.String())["deckhand_last_report_age_seconds"]; !ok {
		t.Error("a report that was acknowledged does not count")
	}
	b.Reset()
	writeApps(exposition{&b}, st)
	got = readMetrics(t, b.String())
	for name, want := range map[string]float64{
		`deckhand_services{app="shop",status="running"}`: 3, `deckhand_waits{class="auth"}`: 1, `deckhand_locks_held{by="user"}`: 0,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v:\n%s", name, v, ok, want, b.String())
		}
	}
	b.Reset()
	w := exposition{&b}
	w.family("x", "gauge", "Names of people.")
	w.sample("x", 1, "app", "a \"b\"\\\n")
	readMetrics(t, b.String())
}

// Apps of one name are one sample, and our own lines have a name too.
func TestMetricsOfLogs(t *testing.T) {
	var b strings.Builder
	writeTallies(exposition{&b}, []logs.Tally{
		{Read: 1}, {AppUUID: "a", Service: "web", Read: 2, Bytes: 20, Sent: 1, Dropped: 1, Spooled: 5},
		{AppUUID: "b", Service: "web", Read: 3, Sent: 3}, {AppUUID: "gone", Service: "web", Read: 4},
	}, map[string]string{"a": "shop", "b": "shop"})
	got := readMetrics(t, b.String())
	for name, want := range map[string]float64{
		`deckhand_log_lines_read_total{app="",service="deckhand"}`: 1, `deckhand_log_lines_read_total{app="shop",service="web"}`: 5,
		`deckhand_log_bytes_read_total{app="shop",service="web"}`: 20, `deckhand_log_lines_sent_total{app="shop",service="web"}`: 4,
		`deckhand_log_lines_dropped_total{app="shop",service="web"}`: 1, `deckhand_log_spooled_bytes_total{app="shop",service="web"}`: 5,
		`deckhand_log_lines_read_total{app="gone",service="web"}`: 4,
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %v (%v), want %v", name, v, ok, want)
		}
	}
}

// Bytes are counted once, though a download that broke off begins again.
func TestDownloadedBytes(t *testing.T) {
	m := newMeter(time.Now)
	d := metered{downloads{3, 10, 2, 12}, m}
	if err := d.Do(t.Context(), reconcile.Fetch{}, func(int64, int64) {}); err != nil {
		t.Fatal(err)
	}
	if m.downloaded != 12 {
		t.Errorf("%d bytes, want 12", m.downloaded)
	}
}

// downloads is a device whose steps report so many bytes.
type downloads []int64

func (downloads) Observe(context.Context) (state.World, error) { return state.World{}, nil }
func (downloads) Watch(context.Context) <-chan struct{}        { return nil }
func (d downloads) Do(_ context.Context, _ reconcile.Step, progress func(done, total int64)) error {
	for _, n := range d {
		progress(n, 100)
	}
	return nil
}

// cloudSays is a cloud with one answer.
type cloudSays struct{ err error }

func (c cloudSays) Report(context.Context, []byte) error { return c.err }
func (cloudSays) Refusal(error) (int, time.Duration)     { return 0, 0 }
