//go:build bench

package bench

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// budget bounds a run: what has not begun by then is left out, and said so.
const budget = 13 * time.Minute

// bench is what the parts share: an engine for deckhand, and one for the bare
// calls that it is compared with, so that neither disturbs the other.
type bench struct {
	engine *dockerd.Engine
	raw    *raw
	binary string
	dir    string
	began  time.Time
	names  atomic.Int64
}

// part is one topic.
type part struct {
	name   string
	engine bool // it needs engines
	extra  bool // only when asked for
	run    func(t *testing.T, b *bench)
}

func parts() []part {
	return []part{
		{name: "planner", run: planner},
		{name: "locks", run: lockFolders},
		{name: "memory", run: memoryOverTime},
		{name: "variable", engine: true, run: variable},
		{name: "update", engine: true, run: update},
		{name: "install", engine: true, run: install},
		{name: "calls", engine: true, run: calls},
		{name: "strategies", engine: true, run: strategies},
		{name: "idle", engine: true, extra: true, run: idle},
		{name: "size", run: sizes},
		{name: "trace", engine: true, extra: true, run: trace},
	}
}

// TestBench prints the tables. It asserts what does not depend on the machine;
// times are for people, who know what else the machine did.
//
//	BENCH=install,update  only these parts (planner, locks, memory, variable,
//	                      update, install, calls, strategies, size; trace
//	                      and idle only so)
//	BENCH_N=1,5           other numbers of services
//	BENCH_ROUNDS=1        fewer or more repetitions
func TestBench(t *testing.T) {
	b := &bench{dir: t.TempDir(), began: time.Now()}
	b.header(t)
	b.binary = build(t, b.dir, "amd64", "")
	if runtime.GOARCH != "amd64" {
		b.binary = build(t, b.dir, runtime.GOARCH, "")
	}
	for _, p := range parts() {
		if !wanted(p) {
			continue
		}
		if time.Since(b.began) > budget {
			fmt.Printf("\n(left out for want of time: %s; BENCH=%s measures it alone)\n", p.name, p.name)
			continue
		}
		if p.engine {
			b.engines(t)
		}
		if !t.Run(p.name, func(t *testing.T) { p.run(t, b) }) && t.Context().Err() != nil {
			return
		}
	}
	fmt.Printf("\nMeasured in %s; load at the end %s\n", time.Since(b.began).Round(time.Second), load())
}

func wanted(p part) bool {
	only := os.Getenv("BENCH")
	if only == "" {
		return !p.extra
	}
	return slices.Contains(strings.Split(only, ","), p.name)
}

// header says what the figures are from.
func (b *bench) header(t *testing.T) {
	root, err := system.Root(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "git", "-C", root, "describe", "--always", "--dirty").Output()
	commit := cmp.Or(strings.TrimSpace(string(out)), "unknown")
	if err != nil {
		commit = "unknown"
	}
	fmt.Printf("deckhand %s, %s, %d cores, load at the start %s, %s\n", commit, runtime.Version(), runtime.NumCPU(), load(),
		time.Now().Format("2006-01-02 15:04"))
}

func load() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	return strings.Join(strings.Fields(string(b))[:3], " ")
}

// engines starts both engines once, and gives both the same past: the first
// containers of an engine are slow.
func (b *bench) engines(t *testing.T) {
	if b.engine != nil {
		return
	}
	b.engine = dockerd.Start(t)
	b.raw = &raw{Engine: dockerd.Start(t), dir: b.dir}
	for _, e := range []*dockerd.Engine{b.engine, b.raw.Engine} {
		for _, tag := range []string{"bench:1", "bench:2"} {
			e.Busybox(t, tag, tag)
		}
		first := &raw{Engine: e, dir: b.dir}
		first.install(t, 4, 4, "bench:1")
		first.update(t, way{phases: true, k: 4}, "bench:2")
		first.clear(t)
	}
	v, err := b.engine.Client.ServerVersion(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("Engine %s on Linux %s\n", v.Version, v.KernelVersion)
}

func (b *bench) unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, b.names.Add(1)) }

// sizes are the numbers of services to measure with.
func (b *bench) sizes(usual ...int) []int {
	var out []int
	for _, s := range strings.Split(os.Getenv("BENCH_N"), ",") {
		if n, err := strconv.Atoi(strings.TrimSpace(s)); err == nil && n > 0 {
			out = append(out, n)
		}
	}
	if len(out) > 0 {
		return out
	}
	return usual
}

// rounds is how often something is measured.
func (b *bench) rounds(usual int) int {
	if n, err := strconv.Atoi(os.Getenv("BENCH_ROUNDS")); err == nil && n > 0 {
		return n
	}
	return usual
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// sizes builds the device binary the way it is shipped.
func sizes(t *testing.T, b *bench) {
	out := b.table("Device binary, stripped", "for", "bytes")
	for _, a := range [][3]string{{"amd64", "amd64", ""}, {"arm v6", "arm", "6"}, {"arm v7", "arm", "7"}, {"arm64", "arm64", ""}} {
		info, err := os.Stat(build(t, b.dir, a[1], a[2]))
		if err != nil {
			t.Fatal(err)
		}
		out.row(a[0], info.Size())
	}
}

func build(t *testing.T, dir, arch, arm string) string {
	t.Helper()
	out := filepath.Join(dir, "deckhand-"+arch+arm)
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", out, "deckhand/cmd/deckhand")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOARM="+arm)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build for %s: %v\n%s", arch, err, text)
	}
	return out
}
