//go:build engine && linux

package logs_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/logs"
	"deckhand/state/store"
	"deckhand/test/dockerd"
	"deckhand/uplink"
)

var docker *dockerd.Engine

func TestMain(m *testing.M) {
	var stop func()
	docker, stop = dockerd.StartMain()
	code := m.Run()
	stop()
	os.Exit(code)
}

// cursors are those of a device's store.
type cursors struct{ store.Cursors }

func (c cursors) All() (map[string]logs.Cursor, error) {
	all, err := c.Cursors.All()
	out := map[string]logs.Cursor{}
	for id, x := range all {
		out[id] = logs.Cursor(x)
	}
	return out, err
}

func (c cursors) Save(moved map[string]logs.Cursor, gone []string) error {
	out := map[string]store.Cursor{}
	for id, x := range moved {
		out[id] = store.Cursor(x)
	}
	return c.Cursors.Save(out, gone)
}

// device is everything between the engine and the cloud.
type device struct {
	dir     string
	cloud   *cloud
	sources []logs.Source
	limits  logs.Limits

	outbox    *logs.Outbox
	collector *logs.Collector
	store     *store.Store
	engine    *engine.Engine
	end       func()
}

// start begins where an earlier one ended.
func (d *device) start(t *testing.T) {
	t.Helper()
	var err error
	if d.store, err = store.Open(filepath.Join(d.dir, "db"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	log := zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.ErrorLevel)
	d.engine, err = engine.New(engine.Config{Host: docker.Host, Log: log, Started: func(id string) { d.collector.Started(id) }})
	if err != nil {
		t.Fatal(err)
	}
	d.outbox = logs.OpenOutbox(logs.OutboxConfig{Dir: filepath.Join(d.dir, "logs"), Limits: d.limits, Log: log})
	d.collector = logs.NewCollector(logs.CollectorConfig{Engine: d.engine, Cursors: cursors{d.store.Cursors}, Outbox: d.outbox, Log: log})
	transport := &http.Transport{}
	client, err := uplink.New(uplink.Config{Endpoint: "http://" + d.cloud.address, UUID: "abc", Transport: transport})
	if err != nil {
		t.Fatal(err)
	}
	sender, err := uplink.NewLogs(uplink.LogsConfig{Client: client, Outbox: d.outbox})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { d.collector.Run(ctx) })
	all.Go(func() { sender.Run(ctx) })
	hints := d.engine.Watch(ctx)
	all.Go(func() {
		for range hints {
			continue
		}
	})
	d.collector.Sync(d.sources)
	d.end = func() { cancel(); all.Wait(); transport.CloseIdleConnections() }
}

// stop ends it in good order; crash leaves everything as it is in that moment.
func (d *device) stop(t *testing.T)  { d.over(t, true) }
func (d *device) crash(t *testing.T) { d.over(t, false) }

func (d *device) over(t *testing.T, orderly bool) {
	t.Helper()
	d.end()
	if orderly {
		d.outbox.Close()
		d.collector.Save()
	}
	if err := d.engine.Close(); err != nil {
		t.Error(err)
	}
	if err := d.store.Close(); err != nil {
		t.Error(err)
	}
}

// make creates containers that run a shell program.
func (d *device) make(t *testing.T, n int, program string) {
	t.Helper()
	image := docker.Busybox(t, "logs")
	for range n {
		c, err := docker.Client.ContainerCreate(t.Context(), &container.Config{Image: image, Cmd: []string{"sh", "-c", program}},
			&container.HostConfig{NetworkMode: "none"}, nil, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		id := c.ID
		t.Cleanup(func() {
			_ = docker.Client.ContainerRemove(context.WithoutCancel(t.Context()), id, container.RemoveOptions{Force: true})
		})
		d.sources = append(d.sources, logs.Source{Container: id, Service: fmt.Sprint("s", len(d.sources)), ServiceID: int64(len(d.sources) + 1), Up: true})
	}
}

// startAll starts containers, a few at a time.
func startAll(t *testing.T, all []logs.Source) {
	t.Helper()
	var wg sync.WaitGroup
	turn := make(chan struct{}, 4)
	for _, s := range all {
		wg.Go(func() {
			turn <- struct{}{}
			defer func() { <-turn }()
			if err := docker.Client.ContainerStart(t.Context(), s.Container, container.StartOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func until(t *testing.T, what string, limit time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !ok(); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// Fifty containers print 10,000 lines a second together, and one of them many more
// in one go. The cloud goes away twice; the device is stopped once and crashes once.
func TestEveryLineOnceOrCounted(t *testing.T) {
	const writers, each, burst = 49, 2000, 60_000
	d := &device{dir: t.TempDir(), cloud: newCloud(t), limits: logs.Limits{Grace: time.Second, Disk: 100 << 10}}
	d.make(t, writers, fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo $i; i=$((i+1)); [ $((i%%20)) -ne 0 ] || usleep 100000; done", each))
	d.make(t, 1, fmt.Sprintf("seq 0 %d", burst-1))
	d.start(t)
	began := time.Now()
	startAll(t, d.sources)
	most := watchMemory(t, d)

	came := func(n int) func() bool { return func() bool { return d.cloud.received() >= n } }
	until(t, "the first lines", time.Minute, came(10_000))
	d.cloud.leave()
	until(t, "the disk to be full", time.Minute, func() bool { _, disk := d.outbox.Size(); return disk > 90<<10 })
	d.crash(t)
	d.start(t)
	d.cloud.come(t)
	until(t, "more lines", time.Minute, came(d.cloud.received()+2_000))
	d.stop(t)
	d.start(t)
	d.cloud.leave()
	<-time.After(3 * time.Second) // as long as an outage
	d.cloud.come(t)

	want := map[string]int{}
	for i, s := range d.sources {
		want[s.Container] = each
		if i == writers {
			want[s.Container] = burst
		}
	}
	until(t, "all lines", 2*time.Minute, func() bool {
		for id, n := range want {
			if there, dropped, err := d.cloud.account(id); err != nil {
				t.Fatal(err)
			} else if there+dropped < n {
				return false
			}
		}
		return true
	})
	d.stop(t)
	there, dropped := 0, 0
	for id, n := range want {
		x, y, err := d.cloud.account(id)
		if err != nil || x+y != n {
			t.Errorf("%.12s: %d lines and %d dropped of %d, %v", id, x, y, n, err)
		}
		there, dropped = there+x, dropped+y
	}
	memory, heap := most()
	t.Logf("%d lines in %s, %d dropped and counted; at most %d KiB in the queues, %d MiB on the heap", there, time.Since(began).Round(time.Second), dropped, memory>>10, heap>>20)
	if dropped == 0 {
		t.Error("the outages were too short for a small disk to be full")
	}
	if memory > 3<<20 || heap > 64<<20 {
		t.Errorf("%d bytes in the queues, %d on the heap", memory, heap)
	}
}

// watchMemory looks now and then; the function that it gives ends that.
func watchMemory(t *testing.T, d *device) func() (memory int, heap uint64) {
	t.Helper()
	quit, done := make(chan struct{}), make(chan struct{})
	var most int
	var heap uint64
	outbox := d.outbox // of the first life: the cloud goes away in it
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		var m runtime.MemStats
		for {
			select {
			case <-tick.C:
				now, _ := outbox.Size()
				most = max(most, now)
				runtime.ReadMemStats(&m)
				heap = max(heap, m.HeapAlloc)
			case <-quit:
				return
			}
		}
	}()
	return func() (int, uint64) { close(quit); <-done; return most, heap }
}

// Two hundred lives of containers that print one line and end.
func TestShortLives(t *testing.T) {
	const containers, lives = 20, 10
	d := &device{dir: t.TempDir(), cloud: newCloud(t)}
	d.make(t, containers, "n=$(cat /n 2>/dev/null || echo 0); echo $((n+1)) > /n; echo $n")
	d.start(t)
	defer d.stop(t)
	for range lives {
		startAll(t, d.sources)
		for _, s := range d.sources {
			until(t, "the end of a container", time.Minute, func() bool {
				c, err := docker.Client.ContainerInspect(t.Context(), s.Container)
				return err == nil && !c.State.Running
			})
		}
	}
	for _, s := range d.sources {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		d.collector.Finish(ctx, s.Container)
		cancel()
		if err := docker.Client.ContainerRemove(t.Context(), s.Container, container.RemoveOptions{}); err != nil {
			t.Error(err)
		}
	}
	until(t, "the lines", 30*time.Second, func() bool { return d.cloud.received() >= containers*lives })
	for _, s := range d.sources {
		if there, dropped, err := d.cloud.account(s.Container); there != lives || dropped != 0 || err != nil {
			t.Errorf("%s: %d of %d lines, %d dropped, %v", s.Service, there, lives, dropped, err)
		}
	}
}
