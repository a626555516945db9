//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"deckhand/supervisor"
)

// device is a running supervisor.
type device struct {
	cmd *exec.Cmd
	ask supervisor.Ask
	log string
}

// start runs the real program against the engine and the cloud.
func (b *bench) start(t *testing.T, c *cloud) *device {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "device-")
	if err != nil {
		t.Fatal(err)
	}
	config, err := json.Marshal(map[string]any{
		"apiEndpoint": c.server.URL, "uuid": deviceUUID, "deviceApiKey": strings.Repeat("a", 32),
		"deviceId": 1, "registered_at": 1, "applicationId": 1, "deviceType": "generic-amd64",
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	d := &device{ask: supervisor.Ask{DataDir: dir}, log: filepath.Join(dir, "log")}
	log, err := os.Create(d.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	d.cmd = exec.Command(b.binary, "run", "--config", path, "--data-dir", dir, "--run-dir", filepath.Join(dir, "run"),
		"--engine", b.engine.Host, "--listen", "127.0.0.1:0")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // it never outlives a benchmark that is killed
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop(t) })
	return d
}

func (d *device) stop(t *testing.T) {
	if d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(os.Interrupt)
	_ = d.cmd.Wait()
	if t.Failed() {
		text, _ := os.ReadFile(d.log)
		fmt.Println(string(text))
	}
}

// settled waits until the device runs a release completely.
func (d *device) settled(t *testing.T, commit string) {
	t.Helper()
	for deadline := time.Now().Add(3 * time.Minute); time.Now().Before(deadline); {
		v, err := d.ask.Status(t.Context())
		if err == nil && v.State == supervisor.StateSettled && len(v.Apps) == 1 && v.Apps[0].Release == commit {
			return
		}
		<-time.After(20 * time.Millisecond)
	}
	v, err := d.ask.Status(t.Context())
	t.Fatalf("not settled at %q: %v %+v", commit, err, v)
}

// memory is a line of /proc/<pid>/status in KiB.
func memory(t *testing.T, pid int, field string) int {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	return 0
}

// cpu is the processor time a process has used.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+2:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	const tick = 10 * time.Millisecond // USER_HZ is 100 on Linux
	return time.Duration(user+system) * tick
}

// recording is what the engine itself says happened, with its own clock.
type recording struct {
	cancel context.CancelFunc
	seen   <-chan events.Message
	failed <-chan error
	got    []events.Message
}

func (b *bench) watch(t *testing.T) *recording {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen, failed := b.engine.Client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"))})
	return &recording{cancel: cancel, seen: seen, failed: failed}
}

func (r *recording) stop() { r.cancel() }

// last waits for n events of an action and gives the time of the last.
func (r *recording) last(t *testing.T, action string, n int) time.Time {
	t.Helper()
	deadline := time.After(3 * time.Minute)
	for {
		count := 0
		for _, m := range r.got {
			if string(m.Action) == action {
				if count++; count == n {
					return time.Unix(0, m.TimeNano)
				}
			}
		}
		select {
		case m := <-r.seen:
			r.got = append(r.got, m)
		case err := <-r.failed:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("%d of %d %s events", count, n, action)
		}
	}
}

// downtimes is, for each service, the time between the end of its old container
// and the start of its new one.
func (r *recording) downtimes() []time.Duration {
	died := map[string]int64{}
	var out []time.Duration
	for _, m := range r.got {
		service := m.Actor.Attributes["io.balena.service-name"]
		switch string(m.Action) {
		case "die":
			died[service] = m.TimeNano
		case "start":
			if at, ok := died[service]; ok {
				out = append(out, time.Duration(m.TimeNano-at))
				delete(died, service)
			}
		}
	}
	return out
}
