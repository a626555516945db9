package supervisor

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"deckhand/logs"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/report"
	"deckhand/state"
	"deckhand/supervisor/history"
	"deckhand/version"
)

// meter counts what Prometheus is told. Counts begin anew with the process, as
// Prometheus expects.
type meter struct {
	now func() time.Time

	mu         sync.Mutex
	looks      int
	blind      int // looks that failed
	looking    time.Duration
	steps      map[pair]int
	working    map[string]time.Duration // by kind of step
	failures   map[state.Class]int
	downloaded int64     // bytes
	reported   time.Time // the cloud last acknowledged a report
}

// pair is two labels of a sample.
type pair [2]string

// pairs are the keys of a map, sorted.
func pairs[V any](m map[pair]V) []pair {
	return slices.SortedFunc(maps.Keys(m), func(a, b pair) int { return slices.Compare(a[:], b[:]) })
}

func newMeter(now func() time.Time) *meter {
	return &meter{now: now, steps: map[pair]int{}, working: map[string]time.Duration{}, failures: map[state.Class]int{}}
}

// metered is the device as the loop sees it, counted.
type metered struct {
	run.Device
	m *meter
}

// Observe implements run.Device.
func (d metered) Observe(ctx context.Context) (state.World, error) {
	began := d.m.now()
	w, err := d.Device.Observe(ctx)
	d.m.mu.Lock()
	defer d.m.mu.Unlock()
	d.m.looks++
	d.m.looking += d.m.now().Sub(began)
	if err != nil {
		d.m.blind++
	}
	return w, err
}

// Do implements run.Device.
func (d metered) Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error {
	if _, fetch := s.(reconcile.Fetch); !fetch {
		return d.Device.Do(ctx, s, progress)
	}
	var mu sync.Mutex
	var most int64 // a repeated layer begins again
	return d.Device.Do(ctx, s, func(done, total int64) {
		mu.Lock()
		more := max(0, done-most)
		most += more
		mu.Unlock()
		d.m.mu.Lock()
		d.m.downloaded += more
		d.m.mu.Unlock()
		progress(done, total)
	})
}

// event counts a step that ended.
func (m *meter) event(e run.Event) {
	if !e.Ended {
		return
	}
	x := pair{history.SubjectOf(e.Node.Step).Kind, history.OutcomeDone}
	m.mu.Lock()
	defer m.mu.Unlock()
	if e.Err != nil {
		class := state.ClassOf(e.Err)
		x[1] = history.OutcomeFailed
		if class == state.ClassCancelled {
			x[1] = history.OutcomeCancelled
		}
		m.failures[class]++
	}
	m.steps[x]++
	m.working[x[0]] += e.Took
}

// meteredCloud is the cloud that is reported to; it notes when it last heard.
type meteredCloud struct {
	report.Cloud
	m *meter
}

// Report implements report.Cloud.
func (c meteredCloud) Report(ctx context.Context, patch []byte) error {
	err := c.Cloud.Report(ctx, patch)
	if err == nil {
		c.m.mu.Lock()
		defer c.m.mu.Unlock()
		c.m.reported = c.m.now()
	}
	return err
}

// exposition writes Prometheus' text format.
type exposition struct{ w io.Writer }

// family begins a metric; its samples follow.
func (x exposition) family(name, kind, help string) {
	fmt.Fprintf(x.w, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, kind)
}

// sample writes a value; labels are pairs of a name and a value.
func (x exposition) sample(name string, value float64, labels ...string) {
	var pairs []string
	for i := 0; i+1 < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+`="`+strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(labels[i+1])+`"`)
	}
	if len(pairs) > 0 {
		name += "{" + strings.Join(pairs, ",") + "}"
	}
	fmt.Fprintf(x.w, "%s %s\n", name, strconv.FormatFloat(value, 'g', -1, 64))
}

func (x exposition) gauge(name, help string, value float64) {
	x.family(name, "gauge", help)
	x.sample(name, value)
}

func (x exposition) counter(name, help string, value float64) {
	x.family(name, "counter", help)
	x.sample(name, value)
}

// writeMetrics writes all figures.
func (s *Supervisor) writeMetrics(w io.Writer) {
	st, now := s.runner.Status(), time.Now()
	x := exposition{w}
	x.family("deckhand_build_info", "gauge", "The version that runs.")
	x.sample("deckhand_build_info", 1, "goversion", runtime.Version(), "version", version.Version)
	x.gauge("deckhand_settled", "1 if the device is as it was asked to be.", number(st.Settled))
	x.gauge("deckhand_steps_running", "Steps on their way.", float64(len(st.Running)))
	x.gauge("deckhand_steps_planned", "Steps of the plan, those on their way too.", float64(st.Plan.Steps()))
	if !st.Looked.IsZero() {
		x.gauge("deckhand_last_look_age_seconds", "Time since the device was last looked at with success.", now.Sub(st.Looked).Seconds())
	}
	s.meter.write(x, now)
	writeApps(x, st)
	s.writeLogs(x, st)
	x.family("deckhand_leases", "gauge", "Update-lock leases that hold.")
	x.sample("deckhand_leases", float64(s.device.leases.Holding()))
	s.mu.Lock()
	p := s.poller
	s.mu.Unlock()
	if p != nil && !p.LastSuccess().IsZero() {
		x.gauge("deckhand_last_poll_age_seconds", "Time since the cloud last answered for the target.", now.Sub(p.LastSuccess()).Seconds())
	}
	writeProcess(x)
}

func number(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// write writes the counts.
func (m *meter) write(x exposition, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x.counter("deckhand_passes_total", "Passes of the loop: looks at the device, with what followed.", float64(m.looks))
	x.counter("deckhand_passes_failed_total", "Passes in which the device could not be looked at.", float64(m.blind))
	x.counter("deckhand_look_seconds_total", "Time spent looking.", m.looking.Seconds())
	x.family("deckhand_steps_total", "counter", "Steps that ended, by kind and outcome.")
	for _, k := range pairs(m.steps) {
		x.sample("deckhand_steps_total", float64(m.steps[k]), "kind", k[0], "outcome", k[1])
	}
	x.family("deckhand_step_seconds_total", "counter", "Time that steps took, by kind.")
	for _, k := range slices.Sorted(maps.Keys(m.working)) {
		x.sample("deckhand_step_seconds_total", m.working[k].Seconds(), "kind", k)
	}
	x.family("deckhand_failures_total", "counter", "Steps that failed, by class.")
	for _, c := range slices.Sorted(maps.Keys(m.failures)) {
		x.sample("deckhand_failures_total", float64(m.failures[c]), "class", string(c))
	}
	x.counter("deckhand_downloaded_bytes_total", "Bytes of images that were downloaded.", float64(m.downloaded))
	if !m.reported.IsZero() {
		x.gauge("deckhand_last_report_age_seconds", "Time since the cloud last acknowledged a report.", now.Sub(m.reported).Seconds())
	}
}

// writeApps writes what waits, runs and is locked.
func writeApps(x exposition, st run.Status) {
	waits := map[state.Class]int{}
	for _, w := range st.Plan.Waiting {
		waits[w.Class]++
	}
	x.family("deckhand_waits", "gauge", "Steps that wait: for a lock, or for the next try after a failure, by class.")
	for _, c := range slices.Sorted(maps.Keys(waits)) {
		x.sample("deckhand_waits", float64(waits[c]), "class", string(c))
	}
	services := map[pair]int{} // by app and status
	for _, a := range view(st).Apps {
		for _, v := range a.Services {
			services[pair{a.Name, v.Status}]++
		}
	}
	x.family("deckhand_services", "gauge", "Services, by app and status.")
	for _, k := range pairs(services) {
		x.sample("deckhand_services", float64(services[k]), "app", k[0], "status", k[1])
	}
	ours, users := 0, 0
	for _, a := range st.World.Apps {
		ours, users = ours+len(a.Locked), users+len(a.UserLocks)
	}
	x.family("deckhand_locks_held", "gauge", "Services whose update lock is held, by whom.")
	x.sample("deckhand_locks_held", float64(ours), "by", "supervisor")
	x.sample("deckhand_locks_held", float64(users), "by", "user")
}

// writeLogs writes what became of the lines of services, and of our own.
func (s *Supervisor) writeLogs(x exposition, st run.Status) {
	if !s.logs.ready.Load() {
		return
	}
	names := map[string]string{}
	for _, a := range view(st).Apps {
		names[a.UUID] = a.Name
	}
	writeTallies(x, s.logs.outbox.Tallies(), names)
	memory, disk := s.logs.outbox.Size()
	x.family("deckhand_log_waiting_bytes", "gauge", "Bytes of lines that wait for the cloud, by where.")
	x.sample("deckhand_log_waiting_bytes", float64(disk), "where", "disk")
	x.sample("deckhand_log_waiting_bytes", float64(memory), "where", "memory")
}

// writeTallies writes counts of lines; names are those of apps by UUID.
func writeTallies(x exposition, all []logs.Tally, names map[string]string) {
	sums := map[pair]logs.Tally{} // by app and service
	for _, t := range all {
		// Two apps may have one name, and a sample may be there once.
		k := pair{cmp.Or(names[t.AppUUID], t.AppUUID), cmp.Or(t.Service, "deckhand")}
		n := sums[k]
		n.Read, n.Bytes, n.Sent, n.Dropped, n.Spooled = n.Read+t.Read, n.Bytes+t.Bytes, n.Sent+t.Sent, n.Dropped+t.Dropped, n.Spooled+t.Spooled
		sums[k] = n
	}
	keys := pairs(sums)
	for _, f := range []struct {
		name, help string
		of         func(logs.Tally) int64
	}{
		{"deckhand_log_lines_read_total", "Lines that were read.", func(t logs.Tally) int64 { return t.Read }},
		{"deckhand_log_bytes_read_total", "Bytes of their text.", func(t logs.Tally) int64 { return t.Bytes }},
		{"deckhand_log_lines_sent_total", "Lines that the cloud acknowledged.", func(t logs.Tally) int64 { return t.Sent }},
		{"deckhand_log_lines_dropped_total", "Lines that were given up: there was no room for them.", func(t logs.Tally) int64 { return t.Dropped }},
		{"deckhand_log_spooled_bytes_total", "Bytes written to the disk, packed.", func(t logs.Tally) int64 { return t.Spooled }},
	} {
		x.family(f.name, "counter", f.help)
		for _, k := range keys {
			x.sample(f.name, float64(f.of(sums[k])), "app", k[0], "service", k[1])
		}
	}
}

// writeProcess writes what every exporter tells of its process.
func writeProcess(x exposition) {
	x.gauge("go_goroutines", "Goroutines that exist.", float64(runtime.NumGoroutine()))
	if b, err := os.ReadFile("/proc/self/statm"); err == nil {
		if f := strings.Fields(string(b)); len(f) > 1 {
			if pages, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				x.gauge("process_resident_memory_bytes", "Resident memory.", float64(pages*int64(os.Getpagesize())))
			}
		}
	}
	if files, err := os.ReadDir("/proc/self/fd"); err == nil {
		x.gauge("process_open_fds", "Open file descriptors.", float64(len(files)))
	}
}
