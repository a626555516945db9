//go:build engine

package servers

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"deckhand/uplink"
)

// fleet makes a fleet through a server and gives its id.
func (c *cloud) fleet(url, name string) int64 {
	c.Helper()
	return c.make(url, "application", map[string]any{"app_name": name, "is_for__device_type": 1, "organization": 1, "is_of__class": "fleet"})
}

// device is a device in the cloud and, once it is run, its end of the conversation.
type device struct {
	id        int64
	uuid, key string

	mu      sync.Mutex
	target  string        // the last one it got
	changed chan struct{} // closed with the next one
}

// register makes a device through a server; its uuid is the digit 32 times.
func (c *cloud) register(url string, fleet int64, digit string) *device {
	c.Helper()
	d := &device{uuid: strings.Repeat(digit, 32), key: digit + "-key-of-a-device", changed: make(chan struct{})}
	d.id = c.make(url, "device", map[string]any{"belongs_to__application": fleet, "uuid": d.uuid, "is_of__device_type": 1})
	c.want(http.StatusOK, url, "POST", fmt.Sprintf("/api-key/device/%d/device-key", d.id), c.session, fmt.Sprintf(`{"apiKey":%q}`, d.key))
	return d
}

// run has the device hold questions, and answer what it is asked, at the given address.
func (c *cloud) run(d *device, url string) {
	c.Helper()
	transport := &http.Transport{}
	client, err := uplink.New(uplink.Config{Endpoint: url, UUID: d.uuid, Key: func() string { return d.key }, Transport: transport})
	if err != nil {
		c.Fatal(err)
	}
	waiting := make(chan struct{}, 1)
	poller := uplink.NewPoller(uplink.PollConfig{
		Source: client, Wait: 30 * time.Second, Interval: func() time.Duration { return time.Second }, Jitter: -1,
		OnTarget: func(_ context.Context, body []byte, _ string) error { d.got(string(body)); return nil },
		OnCalls: func() {
			select {
			case waiting <- struct{}{}:
			default:
			}
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = poller.Run(ctx) }) // it ends with the context
	running.Go(func() {
		_ = uplink.RunCalls(ctx, uplink.CallConfig{Waiting: waiting, Fetch: client.Calls, Answer: client.AnswerCalls,
			Carry: func(_ context.Context, call uplink.Call) uplink.CallAnswer {
				return uplink.CallAnswer{Status: http.StatusOK, Type: "text/plain", Body: call.Path + " by " + d.uuid[:1]}
			}})
	})
	c.Cleanup(func() { cancel(); running.Wait(); transport.CloseIdleConnections() })
}

func (d *device) got(target string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.target = target
	close(d.changed)
	d.changed = make(chan struct{})
}

// hears waits until the device has a target with the words in it.
func (c *cloud) hears(d *device, words string) {
	c.Helper()
	timeout := time.After(patience)
	for {
		d.mu.Lock()
		target, changed := d.target, d.changed
		d.mu.Unlock()
		if strings.Contains(target, words) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			c.Fatalf("the device was not told %q; it has %s", words, target)
		}
	}
}

// state is what a device with that tag is answered at once; tag "": whatever it has.
func (c *cloud) state(url string, d *device, tag string) answer {
	c.Helper()
	got, err := do(c.Context(), plain, url, "GET", "/device/v3/"+d.uuid+"/state", d.key, "", "If-None-Match", tag)
	if err != nil {
		c.Fatal(err)
	}
	return got
}

// holds sends a question that the server holds; the answer comes through the channel.
func (c *cloud) holds(url string, d *device) <-chan answer {
	c.Helper()
	tag := c.state(url, d, "").header.Get("ETag")
	done := make(chan answer, 1)
	ctx, cancel := context.WithCancel(context.Background())
	var waiting sync.WaitGroup
	waiting.Go(func() {
		got, err := do(ctx, plain, url, "GET", "/device/v3/"+d.uuid+"/state", d.key, "", "If-None-Match", tag, "Prefer", "wait=120")
		if err != nil && ctx.Err() == nil {
			c.Errorf("the held question of %s: %v", d.uuid[:1], err)
		}
		done <- got
	})
	c.Cleanup(func() { cancel(); waiting.Wait() })
	return done
}

// variable sets a variable of a device for the first time.
func (c *cloud) variable(url string, d *device, name, value string) {
	c.Helper()
	c.make(url, "device_environment_variable", map[string]any{"device": d.id, "name": name, "value": value})
}

// release pushes a release of one service, row by row as clients do.
func (c *cloud) release(url string, fleet int64, commit string) {
	c.Helper()
	release := c.make(url, "release", map[string]any{"belongs_to__application": fleet, "commit": commit, "status": "running", "source": "local",
		"is_created_by__user": 1, "start_timestamp": time.Now().UnixMilli(), "composition": map[string]any{"services": map[string]any{"web": map[string]any{"image": "x"}}}})
	type row struct {
		ID int64 `json:"id"`
	}
	service := row{}
	if there := rows[row](c, url, "service", fmt.Sprintf("$select=id&$filter=application eq %d", fleet)); len(there) > 0 {
		service = there[0]
	} else {
		service.ID = c.make(url, "service", map[string]any{"application": fleet, "service_name": "web"})
	}
	image := c.make(url, "image", map[string]any{"is_a_build_of__service": service.ID, "status": "running", "start_timestamp": time.Now().UnixMilli()})
	c.make(url, "image__is_part_of__release", map[string]any{"is_part_of__release": release, "image": image})
	c.want(http.StatusOK, url, "PATCH", fmt.Sprintf("/v7/image(%d)", image), c.session, fmt.Sprintf(`{"status":"success","end_timestamp":%d,"push_timestamp":%[1]d,"content_hash":"sha256:%s","image_size":1}`, time.Now().UnixMilli(), strings.Repeat("a", 64)))
	c.want(http.StatusOK, url, "PATCH", fmt.Sprintf("/v7/release(%d)", release), c.session, fmt.Sprintf(`{"status":"success","end_timestamp":%d}`, time.Now().UnixMilli()))
}
