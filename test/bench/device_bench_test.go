//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"deckhand/supervisor"
	"deckhand/test/system"
)

// device is a running supervisor and its cloud.
type device struct {
	*cloud
	dir     string
	log     *system.Log
	process *system.Process
}

func (d *device) ask() supervisor.Ask { return supervisor.Ask{DataDir: d.dir} }
func (d *device) run() string         { return filepath.Join(d.dir, "run") }

// start runs the real program against an engine and a cloud that wants nothing,
// and waits until it listens.
func (b *bench) start(t *testing.T, engine string) *device {
	t.Helper()
	d := b.unpack(t)
	b.boot(t, d, engine, d.values())
	d.settled(t, "")
	d.listening(t)
	return d
}

// unpack makes a device and its cloud; nothing runs yet.
func (b *bench) unpack(t *testing.T) *device {
	t.Helper()
	dir, err := os.MkdirTemp(b.dir, "device-")
	if err != nil {
		t.Fatal(err)
	}
	return &device{cloud: newCloud(t), dir: dir, log: system.NewLog(nil)}
}

// values are those of its config.json: it is known to its cloud.
func (d *device) values() map[string]any {
	return system.Registered(d.server.URL, deviceUUID, strings.Repeat("a", 32), 1, 1)
}

// boot starts the program of a device.
func (b *bench) boot(t *testing.T, d *device, engine string, values map[string]any) {
	t.Helper()
	config, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(d.dir, "config.json")
	if err := os.WriteFile(path, config, 0o600); err != nil {
		t.Fatal(err)
	}
	d.process, err = system.Run(d.log, nil, b.binary, "run", "--config", path, "--data-dir", d.dir, "--run-dir", d.run(),
		"--engine", engine, "--listen", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.stop(t) })
}

// stop ends the supervisor; its containers go on.
func (d *device) stop(t *testing.T) {
	if d.process.Running() {
		if err := d.process.Stop(); err != nil {
			t.Error(err)
		}
	}
	if t.Failed() {
		lines := strings.Split(d.log.String(), "\n")
		fmt.Println(strings.Join(lines[max(0, len(lines)-50):], "\n"))
	}
}

// settled waits until the device runs a release completely; with an empty commit,
// until it runs nothing.
func (d *device) settled(t *testing.T, commit string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := system.Until(ctx, func(ctx context.Context) error {
		v, err := d.ask().Status(ctx)
		if err != nil {
			return err
		}
		if len(v.Apps) == 1 && v.Apps[0].Release == commit && v.State == supervisor.StateSettled && (commit != "" || len(v.Apps[0].Services) == 0) {
			return nil
		}
		if commit == "" && miscounted(v) {
			fmt.Println("(the engine has lost count of a network's endpoints and keeps the network until it is restarted)")
			return nil
		}
		return fmt.Errorf("the device is %s", system.Describe(v))
	})
	if err != nil {
		t.Fatalf("not settled at %q: %v", commit, err)
	}
}

// miscounted reports whether all that is left is a network that the engine does
// not remove. Under load Docker Engine 20.10 loses count of endpoints: nothing is
// attached, and it says that something is.
func miscounted(v supervisor.View) bool {
	if len(v.Apps) != 1 || len(v.Apps[0].Services) > 0 || len(v.Waiting) == 0 {
		return false
	}
	for _, w := range v.Waiting {
		if w.Tries < 3 || !strings.Contains(w.Text, "has active endpoints") {
			return false
		}
	}
	return true
}

// reach offers a release and waits until the device runs it and listens again.
func (d *device) reach(t *testing.T, r release) {
	t.Helper()
	d.listening(t)
	d.offer(t, r)
	d.settled(t, r.commit)
	d.listening(t)
}

// clear lets the supervisor remove everything.
func (d *device) clear(t *testing.T) {
	t.Helper()
	d.reach(t, release{})
}

// sweep removes what a supervisor that was stopped has left.
func (b *bench) sweep(t *testing.T) {
	t.Helper()
	list, err := b.engine.Client.ContainerList(t.Context(), container.ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	side(t, len(list), 4, func(ctx context.Context, i int) error {
		return b.engine.Client.ContainerRemove(ctx, list[i].ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	})
	if _, err := b.engine.Client.NetworksPrune(t.Context(), filters.NewArgs()); err != nil {
		t.Fatal(err)
	}
}

// memory is a line of /proc/<pid>/status in MiB.
func memory(t *testing.T, pid int, field string) float64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, field+":"); ok {
			kib, _ := strconv.Atoi(strings.Fields(rest)[0])
			return float64(kib) / 1024
		}
	}
	return 0
}

// cpu is the processor time that the threads of a process have used, to the
// nanosecond: a device at rest uses less than the ticks of /proc/<pid>/stat show.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("the threads of process %d: %v", pid, err)
	}
	var sum time.Duration
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		if err != nil {
			t.Fatal(err)
		}
		ran, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(ran, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}
