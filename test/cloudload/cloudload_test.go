//go:build bench && linux

package cloudload

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/auth"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/test/postgres"
	"deckhand/test/system"
)

var (
	sizes    = flag.String("devices", "1000,10000,100000", "how many devices are registered, comma-separated")
	phase    = flag.Duration("phase", 5*time.Second, "how long each thing is measured")
	waitings = flag.Int("waiting", 10_000, "how many devices wait for a release at most")
)

// TestMain ends the database.
func TestMain(m *testing.M) { cloudtest.Main(m) }

// workers is how many devices talk at a time: enough to keep the server busy.
const workers = 64

// reporters is how many devices report.
const reporters = 2000

// Half of what a cloud is meant to bear in a second, all at the same time: polls of
// devices that have their state, polls of those whose state changed, and reports.
const (
	halfSame    = 2500
	halfChanged = 500
	halfReports = 500
)

// restless is how many devices have a state that changes all the time. They are of a
// fleet of their own: others keep theirs.
const restless = 100

// crowd is a server with its devices.
type crowd struct {
	testing.TB
	cfg     model.Config
	dir     string
	url     string
	process *system.Process
	client  *http.Client

	fleet    model.Fleet
	releases []model.Release // the second one is not built yet
	images   []model.Image   // of the first
	session  string
	key      string // registers devices
	devices  []simulated

	changing model.Fleet
	restless []simulated // its devices
}

type simulated struct {
	uuid, key string
	tag       atomic.Pointer[string]
}

// TestCloud prints the table. It fails when something is answered wrongly; how fast a
// machine is does not fail it.
func TestCloud(t *testing.T) {
	name := "SQLite"
	if postgres.Wanted() {
		name = "PostgreSQL"
	}
	program := build(t)
	all := strings.Split(*sizes, ",")
	table := &strings.Builder{}
	fmt.Fprintf(table, "| %s, devices registered | %s |\n|---%s|\n", name, strings.Join(all, " | "), strings.Repeat("|---", len(all)))
	var lines []line
	for i, size := range all {
		n, err := strconv.Atoi(size)
		if err != nil {
			t.Fatal(err)
		}
		for j, l := range measure(t, program, n) {
			if i == 0 {
				lines = append(lines, line{name: l.name})
			}
			lines[j].value += " | " + l.value
		}
	}
	for _, l := range lines {
		fmt.Fprintf(table, "| %s%s |\n", l.name, l.value)
	}
	fmt.Printf("\n%s\n", table)
}

// line is a line of the table: what was measured, and how much it was.
type line struct{ name, value string }

// build makes the server's program.
func build(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "deckhand-cloud")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "deckhand/cmd/deckhand-cloud").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// measure gives one column of the table.
func measure(t *testing.T, program string, n int) []line {
	c := &crowd{TB: t, dir: t.TempDir(), client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: workers, DisableCompression: true}}}
	c.prepare(n)
	c.serve(program)
	defer func() {
		if err := c.process.Stop(); err != nil {
			t.Error(err)
		}
	}()
	registered := c.run(c.register)
	c.all(func(d *simulated) { c.poll(d, http.StatusOK) }) // everybody has its state
	same := c.run(func(int) { c.poll(c.anyone(), http.StatusNotModified) })
	changed := c.changes(c.fleet, func() result {
		return c.run(func(int) { c.pollChanged(c.anyone()) })
	})
	c.all(func(d *simulated) { c.poll(d, 0) })
	// Devices that have reported before: the first report of one is longer.
	reporting := c.devices[:min(len(c.devices), reporters)]
	each(reporting, c, func(d *simulated) { c.report(d, -1) })
	reports := c.run(func(i int) { c.report(&reporting[i%len(reporting)], i) })
	half := c.paced(
		load{same.rate / 4, func() { c.poll(c.anyone(), 0) }},
		load{reports.rate / 4, func() { c.report(anyOf(reporting), rand.IntN(1000)) }})
	target := c.changes(c.changing, func() result {
		return c.paced(
			load{halfSame, func() { c.poll(c.anyone(), http.StatusNotModified) }},
			load{halfChanged, func() { c.pollChanged(anyOf(c.restless)) }},
			load{halfReports, func() { c.report(anyOf(reporting), rand.IntN(1000)) }})
	})
	memory := c.memory("VmRSS:")
	told, waiting, took, busy := c.release()
	megabytes := func(n int) string { return fmt.Sprintf("%d MB", n) }
	return []line{
		{"registrations a second", registered.String()},
		{"polls that change nothing a second", same.String()},
		{"polls of a changed target a second", changed.String()},
		{"reports a second", reports.String()},
		{"p50, p99 at half of such polls and reports together", half.latency()},
		{"p50, p99 at half of the target", target.latency()},
		{"resident", megabytes(memory)},
		{fmt.Sprintf("resident while devices wait, %d at most", *waitings), megabytes(waiting)},
		{"resident at most", megabytes(c.memory("VmHWM:"))},
		{"until the last one that waits has a release", fmt.Sprintf("%.2f s for %d (%.2f s of a core)", took.Seconds(), told, busy.Seconds())},
	}
}

// composition has ten services.
func composition() string {
	services := map[string]any{}
	for i := range 10 {
		services[fmt.Sprintf("service%d", i)] = map[string]any{
			"image": "x", "restart": "always", "ports": []string{fmt.Sprintf("%d:80", 8000+i)}, "networks": []string{"front"},
			"volumes": []string{"data:/data"}, "depends_on": []string{}, "command": []string{"serve", "--verbose"},
		}
	}
	b, _ := json.Marshal(map[string]any{"services": services, "networks": map[string]any{"front": nil}, "volumes": map[string]any{"data": nil}})
	return string(b)
}

// prepare fills a database before the server starts.
func (c *crowd) prepare(n int) {
	c.Helper()
	world := *cloudtest.New(c, nil)
	w := &world
	c.cfg = w.Config
	if c.cfg.Database == "" {
		// The server opens the file that is filled here, once it is closed.
		c.cfg = model.Config{Path: filepath.Join(c.dir, "cloud.db")}
		var err error
		w.DB, err = model.Open(c.Context(), c.cfg)
		c.must(err)
		identity, err := auth.New(auth.Config{DB: w.DB, KeyDir: filepath.Join(c.dir, "keys"), PasswordMemory: 64})
		c.must(err)
		_, _, err = identity.FirstLogin(c.Context())
		c.must(err)
		w.Auth = identity
		w.Admin, err = w.DB.UserByName(c.Context(), "admin")
		c.must(err)
		defer w.DB.Close()
	}
	c.fleet = w.Fleet(w.Admin, "crowd")
	first, images := w.Release(c.fleet, "aaaa", composition())
	c.images = images
	c.releases = []model.Release{first, w.Building(c.fleet, "bbbb", composition())}
	building, err := w.DB.Images(c.Context(), c.releases[1].ID)
	c.must(err)
	for _, i := range building {
		c.must(w.DB.FinishImage(c.Context(), i.ID, model.ImageResult{Status: model.StatusSuccess, ContentHash: "sha256:" + strings.Repeat("d", 64), PushedAt: time.Now(), Size: 42}))
	}
	c.changing = w.Fleet(w.Admin, "restless")
	w.Release(c.changing, "cccc", composition())
	for i := range 10 {
		for _, fleet := range []model.Fleet{c.fleet, c.changing} {
			_, err := w.DB.AddVariable(c.Context(), model.FleetEnvironment, fleet.ID, fmt.Sprintf("SETTING_%d", i), "a value of some length")
			c.must(err)
		}
	}
	c.key = w.Key(c.fleet.Actor, model.RoleProvisioning)
	c.session = w.Key(w.Admin.Actor, model.RoleUser)
	began := time.Now()
	c.devices, c.restless = c.made(w.DB, c.fleet, n, 0), c.made(w.DB, c.changing, restless, n)
	c.Logf("%d devices made in %s", n, time.Since(began).Round(time.Millisecond))
}

// made are new devices of a fleet, behind so many others.
func (c *crowd) made(db *model.DB, fleet model.Fleet, n, others int) []simulated {
	devices := make([]simulated, n)
	for i := range devices {
		devices[i].uuid, devices[i].key = fmt.Sprintf("%032x", others+i+1), fmt.Sprintf("key-of-device-%08d", others+i)
	}
	each(devices, c, func(d *simulated) {
		_, err := db.RegisterDevice(c.Context(), model.NewDevice{Fleet: fleet.ID, UUID: d.uuid, DeviceType: "generic-amd64", Key: d.key})
		c.must(err)
	})
	return devices
}

func (c *crowd) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// serve starts the server and waits until it answers.
func (c *crowd) serve(program string) {
	c.Helper()
	listen, err := system.FreeAddr()
	c.must(err)
	images, err := system.FreeAddr()
	c.must(err)
	args := []string{"serve", "--data-dir", c.dir, "--listen", listen, "--registry-listen", images, "--log-level", "warn"}
	if c.cfg.Database != "" {
		args = append(args, "--database", c.cfg.Database)
	}
	log := system.NewLog(nil)
	c.process, err = system.Run(log, nil, program, args...)
	c.must(err)
	c.url = "http://" + listen
	ctx, cancel := context.WithTimeout(c.Context(), time.Minute)
	defer cancel()
	if err := system.Until(ctx, func(context.Context) error {
		resp, err := c.client.Get(c.url + "/ping")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}); err != nil {
		c.Fatalf("%v\n%s", err, log)
	}
}

// memory is what the server's process holds now (VmRSS:) or has held at most (VmHWM:),
// in MB.
func (c *crowd) memory(which string) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", c.process.PID))
	c.must(err)
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, which); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			c.must(err)
			return kb >> 10
		}
	}
	return 0
}

func (c *crowd) anyone() *simulated { return anyOf(c.devices) }

func anyOf(devices []simulated) *simulated { return &devices[rand.IntN(len(devices))] }

// do makes a request; 0 takes any status.
func (c *crowd) do(method, path, key, body string, status int, headers ...string) (*http.Response, []byte) {
	req, err := http.NewRequest(method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.Error(err)
		return nil, nil
	}
	req.Header.Set("Authorization", "Bearer "+key)
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := c.client.Do(req)
	if err != nil {
		c.Error(err)
		return nil, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || status != 0 && resp.StatusCode != status {
		c.Errorf("%s %s: %d %s, want %d (%v)", method, path, resp.StatusCode, b, status, err)
	}
	return resp, b
}

// poll asks for the target; what comes is remembered.
func (c *crowd) poll(d *simulated, status int) *http.Response {
	var headers []string
	if tag := d.tag.Load(); tag != nil {
		headers = []string{"If-None-Match", *tag}
	}
	resp, _ := c.do("GET", "/device/v3/"+d.uuid+"/state", d.key, "", status, headers...)
	if resp != nil && resp.StatusCode == http.StatusOK {
		d.tag.Store(new(resp.Header.Get("ETag")))
	}
	return resp
}

// pollChanged asks for a target which is not the one that the device has.
func (c *crowd) pollChanged(d *simulated) {
	// Not its own tag: in a small crowd most have been told already.
	c.do("GET", "/device/v3/"+d.uuid+"/state", d.key, "", http.StatusOK, "If-None-Match", `"old"`)
}

// report says something new.
func (c *crowd) report(d *simulated, i int) {
	var services []string
	for _, image := range c.images {
		services = append(services, fmt.Sprintf(`%q:{"image":%q,"status":"Running"}`, image.Service, image.Location))
	}
	c.do("PATCH", "/device/v3/state", d.key, fmt.Sprintf(`{%q:{"status":"Idle %d","memory_usage":%d,"cpu_usage":7,"apps":{%q:{"release_uuid":"aaaa","releases":{"aaaa":{"update_status":"done","services":{%s}}}}}}}`,
		d.uuid, i, i%1000, c.fleet.UUID, strings.Join(services, ",")), http.StatusOK)
}

func (c *crowd) register(i int) {
	c.do("POST", "/device/register", c.key, fmt.Sprintf(`{"application":%d,"uuid":"%032x","device_type":"generic-amd64","api_key":"new-key-of-device-%08d"}`,
		c.fleet.ID, uint64(1)<<40+uint64(i), i), http.StatusCreated)
}

// result is what was measured.
type result struct {
	rate  float64 // a second
	core  float64 // in each second that a core worked for the server
	times []time.Duration
}

func (r result) String() string {
	return fmt.Sprintf("%.0f (%.0f a core), %s", r.rate, r.core, r.latency())
}

func (r result) latency() string { return r.at(50) + ", " + r.at(99) + " ms" }

// at is a percentile in milliseconds.
func (r result) at(percent int) string {
	if len(r.times) == 0 {
		return "-"
	}
	slices.Sort(r.times)
	return fmt.Sprintf("%.1f", float64(r.times[(len(r.times)-1)*percent/100].Microseconds())/1000)
}

// run does something with all workers for a phase.
func (c *crowd) run(do func(i int)) result {
	var mu sync.Mutex
	var r result
	var running sync.WaitGroup
	var next atomic.Int64
	began, before := time.Now(), c.worked()
	for range workers {
		running.Go(func() {
			var times []time.Duration
			for time.Since(began) < *phase && !c.Failed() {
				at := time.Now()
				do(int(next.Add(1)))
				times = append(times, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			r.times = append(r.times, times...)
		})
	}
	running.Wait()
	r.rate = float64(len(r.times)) / time.Since(began).Seconds()
	r.core = float64(len(r.times)) / (c.worked() - before).Seconds()
	return r
}

// all does something once with each device.
func (c *crowd) all(do func(d *simulated)) { each(c.devices, c, do) }

func each(devices []simulated, c *crowd, do func(d *simulated)) {
	var running sync.WaitGroup
	var next atomic.Int64
	for range workers {
		running.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(devices)) && !c.Failed(); i = next.Add(1) - 1 {
				do(&devices[i])
			}
		})
	}
	running.Wait()
}

// changes has a variable of a fleet change all the time: each device that asks has an
// old target.
func (c *crowd) changes(fleet model.Fleet, do func() result) result {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				c.do("PATCH", fmt.Sprintf("/v7/application_environment_variable?$filter=application%%20eq%%20%d%%20and%%20name%%20eq%%20'SETTING_0'", fleet.ID),
					c.session, fmt.Sprintf(`{"value":"%d"}`, i), http.StatusOK)
			}
		}
	}()
	r := do()
	close(stop)
	<-done
	return r
}

// load is something that is done so many times a second.
type load struct {
	rate float64
	do   func()
}

// paced has all loads at the same time for a phase, and gives how long each thing took.
func (c *crowd) paced(loads ...load) result {
	var mu sync.Mutex
	var r result
	var running sync.WaitGroup
	end := time.Now().Add(*phase)
	for _, l := range loads {
		gap := time.Duration(workers / 2 / l.rate * float64(time.Second))
		for w := range workers / 2 {
			running.Go(func() {
				var times []time.Duration
				next := time.Now().Add(time.Duration(w) * gap / (workers / 2))
				turn := time.NewTimer(time.Until(next))
				defer turn.Stop()
				for ; next.Before(end) && !c.Failed(); next = next.Add(gap) {
					turn.Reset(time.Until(next))
					<-turn.C
					l.do()
					times = append(times, time.Since(next)) // also what had to wait for its turn
				}
				mu.Lock()
				defer mu.Unlock()
				r.times = append(r.times, times...)
			})
		}
	}
	running.Wait()
	return r
}

// release has many devices wait, releases, and measures until the last one knows, and
// how long the server worked for that.
func (c *crowd) release() (told, memory int, took, busy time.Duration) {
	n := min(*waitings, len(c.devices))
	transport := &http.Transport{MaxIdleConnsPerHost: n, DisableCompression: true}
	held := *c
	held.client = &http.Client{Transport: transport}
	defer transport.CloseIdleConnections()
	var running sync.WaitGroup
	var last, knows atomic.Int64
	for i := range n {
		d := &c.devices[i]
		c.poll(d, 0)
		running.Go(func() {
			resp, _ := held.do("GET", "/device/v3/"+d.uuid+"/state", d.key, "", 0, "If-None-Match", *d.tag.Load(), "Prefer", "wait=240")
			if resp != nil && resp.StatusCode == http.StatusOK {
				knows.Add(1)
				last.Store(time.Now().UnixNano())
			}
		})
	}
	c.settled()
	memory = c.memory("VmRSS:")
	began, before := time.Now(), c.worked()
	c.do("PATCH", fmt.Sprintf("/v7/release(%d)", c.releases[1].ID), c.session, `{"status":"success","end_timestamp":"2030-01-01T00:00:00.000Z"}`, http.StatusOK)
	running.Wait()
	if int(knows.Load()) != n {
		c.Errorf("%d of %d devices were told", knows.Load(), n)
	}
	return n, memory, time.Unix(0, last.Load()).Sub(began), c.worked() - before
}

// settled waits until the server has nothing to do: all that wait do so.
func (c *crowd) settled() {
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	before, quiet := time.Duration(-1), 0
	for deadline := time.After(time.Minute); quiet < 3; {
		select {
		case <-tick.C:
		case <-deadline:
			return
		}
		if now := c.worked(); now == before {
			quiet++
		} else {
			before, quiet = now, 0
		}
	}
}

// clockTick is the unit of the times in /proc.
const clockTick = 10 * time.Millisecond

// worked is how long the server's process worked until now, in user and kernel mode.
func (c *crowd) worked() time.Duration {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", c.process.PID))
	c.must(err)
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')'):]))
	var ticks time.Duration
	for _, field := range fields[12:14] {
		n, err := strconv.Atoi(field)
		c.must(err)
		ticks += time.Duration(n)
	}
	return ticks * clockTick
}
