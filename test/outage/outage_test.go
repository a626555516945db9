package outage_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"deckhand/report"
	"deckhand/state"
	"deckhand/test/outage"
	"deckhand/uplink"
)

// interval is the poll interval of these devices.
const interval = 10 * time.Minute

// memory keeps a report as a store does.
type memory struct {
	mu   sync.Mutex
	last []byte
}

func (m *memory) Last() ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last, nil
}

func (m *memory) Put(b []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = b
	return nil
}

// device polls and reports.
type device struct {
	network *outage.Network
	memory  memory
	changed chan struct{}

	mu      sync.Mutex
	address string
	load    int
	apps    []string
	target  string // document in force
	etag    string
	story   []string
}

func (d *device) note(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.story = append(d.story, fmt.Sprintf(format, args...))
}

func (d *device) change(f func()) {
	d.mu.Lock()
	f()
	d.mu.Unlock()
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

func (d *device) report() report.Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	want := state.Target{Apps: map[string]state.App{}}
	for i, uuid := range d.apps {
		want.Apps[uuid] = state.App{UUID: uuid, ID: int64(i + 1), Commit: "c-" + uuid}
	}
	return report.Build(report.Input{Facts: report.Facts{UUID: "u", IPAddress: d.address}, Target: want})
}

// run lets the device work until stop is called.
func (d *device) run(parent context.Context, t rapid.TB) (stop func()) {
	ctx, cancel := context.WithCancel(parent)
	client, err := uplink.New(uplink.Config{Endpoint: "https://cloud.test", UUID: "u", Transport: d.network})
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		_ = report.Run(ctx, report.Config{
			Now: d.report, Changed: d.changed, Cloud: client, Memory: &d.memory, Era: "boot",
			Metrics: func() report.Metrics {
				d.mu.Lock()
				defer d.mu.Unlock()
				return report.Metrics{CPUUsage: new(d.load)}
			},
			MaxBackoff: func() time.Duration { return interval },
			OnError:    func(err error, next time.Duration) { d.note("report: %v, next in %v", err, next) },
		})
	})
	all.Go(func() {
		_ = uplink.NewPoller(uplink.PollConfig{
			Source: client, Interval: func() time.Duration { return interval }, Jitter: -1, ETag: d.etag,
			OnTarget: func(_ context.Context, body []byte, etag string) error {
				var doc map[string]any
				if json.Unmarshal(body, &doc) != nil || doc["u"] == nil {
					return state.Classify(state.ClassInvalid, errors.New("no target"))
				}
				d.mu.Lock()
				defer d.mu.Unlock()
				d.target, d.etag = string(body), etag
				return nil
			},
			OnError: func(err error, next time.Duration) { d.note("poll: %v, next in %v", err, next) },
		}).Run(ctx)
	})
	return func() { cancel(); all.Wait() }
}

// settled checks that the cloud knows everything, and the device the target.
func (d *device) settled(t rapid.TB, target string) {
	t.Helper()
	d.mu.Lock()
	got := d.target
	story := slices.Clone(d.story)
	d.mu.Unlock()
	if got != target {
		t.Errorf("the target is %s, want %s; %q", got, target, story)
	}
	b, err := json.Marshal(d.report())
	if err != nil {
		t.Fatal(err)
	}
	var want map[string]map[string]json.RawMessage
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	known := d.network.Cloud.State()
	for name, value := range want["u"] {
		if !outage.Same(known[name], value) {
			t.Errorf("the cloud has %s %s, the device %s; %q", name, known[name], value, story)
		}
	}
}

func document(n int) string { return fmt.Sprintf(`{"u":{"n":%d}}`, n) }

// Each fault alone, for an hour: nothing is lost, nothing is believed that is not
// so, and the cloud is not stormed.
func TestAnHourOfEachFault(t *testing.T) {
	for _, f := range outage.Faults() {
		t.Run(string(f), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := &device{network: &outage.Network{Cloud: &outage.Cloud{}}, changed: make(chan struct{}, 1), address: "10.0.0.1", apps: []string{"a"}}
				d.network.Cloud.Offer(document(1))
				stop := d.run(t.Context(), t)
				defer stop()
				<-time.After(time.Minute)
				d.settled(t, document(1))
				d.network.Suffer(f)
				d.network.Cloud.Offer(document(2))
				d.change(func() { d.address, d.apps = "10.0.0.2", []string{"a", "b"} })
				<-time.After(30 * time.Minute)
				d.mu.Lock()
				if d.target != document(1) && d.target != document(2) {
					t.Errorf("the target is %s", d.target)
				}
				d.mu.Unlock()
				d.change(func() { d.address, d.load = "10.0.0.3", 90 })
				<-time.After(30 * time.Minute)
				most := 60
				if f == outage.Loop {
					most *= 10 // each attempt follows ten redirects
				}
				if n := d.network.Requests(f); n > most || n < 2 {
					t.Errorf("%d requests in an hour", n)
				}
				d.network.Suffer(outage.None)
				<-time.After(interval + time.Minute)
				d.settled(t, document(2))
				if f == outage.Broken && d.network.Cloud.State()["cpu_usage"] == nil {
					t.Error("no metrics were reported")
				}
			})
		})
	}
}

// An outage of any kind and length, with restarts of the supervisor in between,
// ends with one correct report and the newest target.
func TestAnyOutageEndsWell(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		faults := rapid.SliceOfN(rapid.SampledFrom(append(outage.Faults(), outage.None)), 1, 8).Draw(rt, "faults")
		lengths := rapid.SliceOfN(rapid.IntRange(1, 3000), len(faults), len(faults)).Draw(rt, "seconds")
		restarts := rapid.SliceOfN(rapid.Bool(), len(faults), len(faults)).Draw(rt, "restarts")
		apps := rapid.SliceOfN(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID), len(faults), len(faults)).Draw(rt, "apps")
		synctest.Test(t, func(t *testing.T) {
			d := &device{network: &outage.Network{Cloud: &outage.Cloud{}}, changed: make(chan struct{}, 1), address: "10.0.0.1"}
			d.network.Cloud.Offer(document(0))
			stop := d.run(t.Context(), rt)
			for i, f := range faults {
				d.network.Suffer(f)
				d.network.Cloud.Offer(document(i + 1))
				d.change(func() { d.address, d.apps, d.load = fmt.Sprint("10.0.1.", i), apps[i], 30*i })
				<-time.After(time.Duration(lengths[i]) * time.Second)
				if restarts[i] {
					stop()
					stop = d.run(t.Context(), rt)
				}
			}
			d.network.Suffer(outage.None)
			<-time.After(interval + 2*time.Minute)
			stop()
			d.settled(rt, document(len(faults)))
		})
	})
}

// refusal is a cloud that refuses whole reports because of a part of them.
type refusal struct {
	deny func(map[string]json.RawMessage) int
	left []string // apps that the cloud knows in the end
	most int      // requests of the first minutes
}

func appsIn(patch map[string]json.RawMessage) map[string]report.App {
	var apps map[string]report.App
	_ = json.Unmarshal(patch["apps"], &apps)
	return apps
}

// without denies reports of apps.
func without(status int, apps ...string) func(map[string]json.RawMessage) int {
	return func(patch map[string]json.RawMessage) int {
		for uuid := range appsIn(patch) {
			if slices.Contains(apps, uuid) {
				return status
			}
		}
		return 0
	}
}

// The cloud refuses the whole report because of a part of it. The rest arrives.
func TestARefusedPartDoesNotSilenceTheDevice(t *testing.T) {
	for name, c := range map[string]refusal{
		"one app was deleted": {without(401, "b"), []string{"a", "c"}, 8},
		"two apps":            {without(401, "a", "c"), []string{"b"}, 8},
		"a field that the cloud does not like": {func(p map[string]json.RawMessage) int {
			if _, ok := p["ip_address"]; ok {
				return 400
			}
			return 0
		}, []string{"a", "b", "c"}, 20},
		"too large": {func(p map[string]json.RawMessage) int {
			if len(p["apps"]) > 150 {
				return 413
			}
			return 0
		}, []string{"a"}, 10},
	} {
		t.Run(name, func(t *testing.T) { synctest.Test(t, c.play) })
	}
}

func (c refusal) play(t *testing.T) {
	d := &device{network: &outage.Network{Cloud: &outage.Cloud{}}, changed: make(chan struct{}, 1), address: "10.0.0.1", apps: []string{"a", "b", "c"}}
	d.network.Cloud.Offer(document(1))
	d.network.Cloud.Deny(c.deny)
	stop := d.run(t.Context(), t)
	defer stop()
	<-time.After(5 * time.Minute)
	known := d.network.Cloud.State()
	if got := slices.Sorted(maps.Keys(appsIn(known))); !slices.Equal(got, c.left) {
		t.Errorf("the cloud knows %v, want %v; %q", got, c.left, d.story)
	}
	if string(known["status"]) != `"Idle"` {
		t.Errorf("the cloud knows %v", known)
	}
	if n := d.network.Requests(outage.None); n > c.most {
		t.Errorf("%d requests; %q", n, d.story)
	}
	// What was refused stays out without more questions, and other news pass.
	before := d.network.Requests(outage.None)
	d.change(func() { d.load = 99 })
	<-time.After(6 * time.Minute)
	if n := d.network.Requests(outage.None) - before; n > 3 {
		t.Errorf("%d more requests; %q", n, d.story)
	}
	if string(d.network.Cloud.State()["cpu_usage"]) != "99" {
		t.Errorf("the cloud knows %v; %q", d.network.Cloud.State(), d.story)
	}
}

// A device that was deleted or frozen in the cloud asks once for each attempt, and
// reports all when it is welcome again.
func TestADeviceThatIsNotWelcome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := &device{network: &outage.Network{Cloud: &outage.Cloud{}}, changed: make(chan struct{}, 1), address: "10.0.0.1", apps: []string{"a"}}
		d.network.Cloud.Offer(document(1))
		d.network.Cloud.Deny(func(map[string]json.RawMessage) int { return 401 })
		stop := d.run(t.Context(), t)
		defer stop()
		<-time.After(2 * time.Hour)
		if n := d.network.Requests(outage.None); n > 50 {
			t.Errorf("%d requests in two hours", n)
		}
		d.network.Cloud.Deny(nil)
		<-time.After(interval + time.Minute)
		d.settled(t, document(1))
	})
}
