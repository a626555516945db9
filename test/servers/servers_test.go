//go:build engine

package servers

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"deckhand/client"
	"deckhand/test/postgres"
)

// soon is within which time a device that holds a question at one server hears of
// what was done at another.
const soon = 2 * time.Second

// lastWords is how many lines of a log are stored right before a server is killed.
const lastWords = 10

// What is done at one server is seen at the other, and one that is killed in the
// middle of it is not missed.
func TestTwoServers(t *testing.T) {
	c := start(t, postgres.Database(t, nil))
	fleet := c.fleet(c.a.url, "kitchen")
	near, far, desk := c.register(c.a.url, fleet, "a"), c.register(c.b.url, fleet, "b"), c.register(c.a.url, fleet, "c")
	balanced := "http://" + c.balancer.addr
	c.run(near, balanced) // it is passed to the first server
	c.run(far, c.b.url)
	c.hears(near, `"name"`)
	c.hears(far, `"name"`)

	announced := c.announces(fleet, far)
	c.followsLogs(near)
	c.calls(far)

	online := c.watches(near, far)
	held := c.holds(c.b.url, desk)
	lines := c.follows(c.b.url, desk)
	killed := c.kill(c.register(c.a.url, fleet, "d"), func() {
		for i := range lastWords {
			c.says(c.a.url, desk, fmt.Sprintf("last words %d", i))
		}
		c.a.process.Kill()
	})
	died := time.Now()
	for i := range lastWords {
		c.reads(lines, fmt.Sprintf("last words %d", i))
	}
	heard := time.Since(died)
	select {
	case got := <-held:
		t.Errorf("the question that the other server holds was answered: %d %s", got.status, got.body)
	default:
	}
	c.variable(c.b.url, desk, "AFTER", "the-kill")
	if got := <-held; got.status != http.StatusOK || !strings.Contains(got.body, "the-kill") {
		t.Errorf("the held question was answered %d %s", got.status, got.body)
	}
	c.variable(balanced, near, "AFTER", "reconnected")
	c.hears(near, "reconnected")
	c.rejoins(fleet, far)
	online()
	t.Logf("two servers: %d writes acknowledged, %d lost; a change was announced within %s; the longest gap at the balancer was %s; what the killed one had stored was read at the other within %s",
		killed.acknowledged, killed.lost, announced.Round(time.Millisecond), killed.gap.Round(time.Millisecond), heard.Round(time.Millisecond))
}

// announces changes things at the first server and gives the longest time until a
// question that the second one holds was answered with it.
func (c *cloud) announces(fleet int64, d *device) (longest time.Duration) {
	c.Helper()
	change := func(words string, do func()) {
		held := c.holds(c.b.url, d)
		began := time.Now()
		do()
		got := <-held
		took := time.Since(began)
		if got.status != http.StatusOK || took > soon {
			c.Errorf("%s: %d after %s, want an answer within %s", words, got.status, took, soon)
		}
		longest = max(longest, took)
		c.hears(d, words) // the device itself, too
	}
	change("abc123", func() { c.release(c.a.url, fleet, "abc123") })
	for i := range 5 {
		word := fmt.Sprintf("value-%d", i)
		change(word, func() { c.variable(c.a.url, d, fmt.Sprintf("NAME_%d", i), word) })
	}
	return longest
}

// follows reads a device's log at a server, as it comes, until the test ends.
func (c *cloud) follows(url string, d *device) <-chan string {
	c.Helper()
	reader, err := client.New(client.Config{URL: url, Token: c.session})
	if err != nil {
		c.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	lines := make(chan string, 100)
	var following sync.WaitGroup
	following.Go(func() {
		_ = reader.FollowLogs(ctx, d.uuid, 10, func(l client.LogLine) error { // it ends with the context
			lines <- l.Message
			return nil
		})
	})
	c.Cleanup(func() { cancel(); following.Wait() })
	return lines
}

// says sends a line of a device's log to a server, which stores it.
func (c *cloud) says(url string, d *device, line string) {
	c.Helper()
	c.want(http.StatusCreated, url, "POST", "/device/v2/"+d.uuid+"/logs", d.key, fmt.Sprintf(`[{"message":%q,"timestamp":%d}]`, line, time.Now().UnixMilli()))
}

// reads waits for the next line.
func (c *cloud) reads(lines <-chan string, want string) {
	c.Helper()
	select {
	case got := <-lines:
		if got != want {
			c.Fatalf("followed %q, want %q", got, want)
		}
	case <-time.After(patience):
		c.Fatalf("%q did not come", want)
	}
}

// followsLogs sends lines to the first server while somebody follows at the second.
func (c *cloud) followsLogs(d *device) {
	c.Helper()
	lines := c.follows(c.b.url, d)
	for i := range 5 {
		line := fmt.Sprintf("line %d", i)
		c.says(c.a.url, d, line)
		c.reads(lines, line)
	}
}

// calls asks the first server to have a device do something that the second one holds.
func (c *cloud) calls(d *device) {
	c.Helper()
	until(c.T, func(context.Context) error {
		got, err := do(c.Context(), plain, c.a.url, "POST", "/supervisor/v1/blink", c.session, fmt.Sprintf(`{"uuid":%q}`, d.uuid))
		if err == nil && (got.status != http.StatusOK || got.body != "/v1/blink by "+d.uuid[:1]) {
			err = fmt.Errorf("the call was answered %d %s", got.status, got.body)
		}
		return err
	})
}

// watches looks all the time whether the devices count as online; the function it
// returns ends that.
func (c *cloud) watches(devices ...*device) (end func()) {
	c.Helper()
	type row struct {
		UUID  string `json:"uuid"`
		State string `json:"api_heartbeat_state"`
	}
	var ids []string
	for _, d := range devices {
		ids = append(ids, fmt.Sprint(d.id))
	}
	look := func() (looked []row) {
		return rows[row](c, c.b.url, "device", "$select=uuid,api_heartbeat_state&$filter=id in ("+strings.Join(ids, ",")+")")
	}
	ctx, cancel := context.WithCancel(c.Context())
	var watching sync.WaitGroup
	watching.Go(func() {
		for ctx.Err() == nil {
			for _, r := range look() {
				if r.State != "online" {
					c.Errorf("%s: device %s is %s", time.Now().Format(time.TimeOnly), r.UUID[:1], r.State)
				}
			}
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
		}
	})
	return func() { cancel(); watching.Wait() }
}

// load is what became of writes through both servers.
type load struct {
	acknowledged, lost int
	gap                time.Duration // the longest time in which no write through the balancer was acknowledged
}

const (
	writersEach   = 4
	writesBefore  = 200 // all together, before the kill
	writesBetween = 50  // of those through the balancer, after it
)

// writes collects what was acknowledged.
type writes struct {
	mu       sync.Mutex
	names    []string
	balanced []time.Time
}

func (w *writes) acknowledged(name string, balanced bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.names = append(w.names, name)
	if balanced {
		w.balanced = append(w.balanced, time.Now())
	}
}

func (w *writes) count() (all, balanced int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.names), len(w.balanced)
}

// kill writes through the balancer, which means the first server, and through the
// second one; kills the first in the middle of it, and looks at the second for what
// was acknowledged.
func (c *cloud) kill(d *device, kill func()) load {
	c.Helper()
	ctx, cancel := context.WithCancel(c.Context())
	var w writes
	var writing sync.WaitGroup
	for i := range 2 * writersEach {
		balanced := i%2 == 0
		url := c.b.url
		if balanced {
			url = "http://" + c.balancer.addr
		}
		writing.Go(func() {
			c.write(ctx, url, d, fmt.Sprintf("W%d", i), func(name string) { w.acknowledged(name, balanced) })
		})
	}
	until(c.T, func(context.Context) error { return atLeast(first(w.count()), writesBefore) })
	kill()
	_, before := w.count()
	until(c.T, func(context.Context) error { return atLeast(second(w.count()), before+writesBetween) })
	cancel()
	writing.Wait()
	result := load{acknowledged: len(w.names)}
	for i := 1; i < len(w.balanced); i++ {
		result.gap = max(result.gap, w.balanced[i].Sub(w.balanced[i-1]))
	}
	there := c.names(c.b.url, d)
	for _, name := range w.names {
		if !slices.Contains(there, name) {
			c.Errorf("%s was acknowledged and is lost", name)
			result.lost++
		}
	}
	return result
}

func first(n, _ int) int  { return n }
func second(_, n int) int { return n }

func atLeast(n, want int) error {
	if n < want {
		return fmt.Errorf("%d writes, want %d", n, want)
	}
	return nil
}

// write adds one variable after the other and says which were acknowledged. It keeps its
// connection as clients do, and makes a new one when it breaks.
func (c *cloud) write(ctx context.Context, url string, d *device, prefix string, acknowledged func(name string)) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	keeping := &http.Client{Transport: transport}
	for n := 0; ctx.Err() == nil; n++ {
		name := fmt.Sprintf("%s_%d", prefix, n)
		// What is on its way at the end is of no interest.
		got, err := do(ctx, keeping, url, "POST", "/v7/device_environment_variable", c.session, fmt.Sprintf(`{"device":%d,"name":%q,"value":"1"}`, d.id, name))
		switch {
		case err != nil: // not acknowledged; perhaps written
		case got.status == http.StatusCreated:
			acknowledged(name)
		default:
			c.Errorf("a write was answered %d %s", got.status, got.body)
			return
		}
	}
}

// names are those of a device's variables, as a server sees them.
func (c *cloud) names(url string, d *device) (all []string) {
	c.Helper()
	type row struct {
		Name string `json:"name"`
	}
	for _, r := range rows[row](c, url, "device_environment_variable", fmt.Sprintf("$select=name&$filter=device eq %d", d.id)) {
		all = append(all, r.Name)
	}
	return all
}

// rejoins starts the first server again: it knows what happened meanwhile, and tells
// the second one what it does.
func (c *cloud) rejoins(fleet int64, d *device) {
	c.Helper()
	c.a.start(c.T)
	c.a.ready(c.T)
	if got, want := c.names(c.a.url, d), c.names(c.b.url, d); !slices.Equal(slices.Sorted(slices.Values(got)), slices.Sorted(slices.Values(want))) {
		c.Errorf("the servers do not agree: %v, %v", got, want)
	}
	c.variable(c.a.url, d, "REJOINED", "told-again")
	c.hears(d, "told-again")
	c.calls(d)
}
