//go:build bench

package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/client"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/state"
	"deckhand/target"
)

const (
	manyPasses = 10_000
	// updateEvery is after how many passes one of the services is replaced:
	// bookkeeping that grows does so when something happens.
	updateEvery = 25
	// What the measurement itself may be off by, in MiB.
	heapTolerance, residentTolerance = 0.5, 3.0
)

// ages is the memory of a process that makes passes, at some of them.
type age struct {
	Passes, Updates      int
	Heap, Resident, Anon float64 // MiB
	Objects              uint64
	Goroutines           int
}

// memoryOverTime lets another process make 10,000 passes on a simulated engine
// with 20 services, of which one is replaced now and then.
func memoryOverTime(t *testing.T, b *bench) {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestManyPasses$", "-test.timeout", "5m", "-test.v")
	cmd.Env = append(os.Environ(), "BENCH_CHILD="+b.dir)
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	var all []age
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "age "); ok {
			var a age
			if err := json.NewDecoder(bytes.NewReader([]byte(rest))).Decode(&a); err != nil {
				t.Fatal(err)
			}
			all = append(all, a)
		}
	}
	if len(all) < 2 {
		t.Fatalf("it says nothing:\n%s", text)
	}
	out := b.table("Memory over many passes, 20 services, simulated engine in the same process",
		"passes", "services replaced so far", "heap MiB", "objects", "resident MiB", "of it anonymous", "goroutines")
	for _, a := range all {
		out.row(a.Passes, a.Updates, a.Heap, a.Objects, a.Resident, a.Anon, a.Goroutines)
	}
	first, last := all[0], all[len(all)-1]
	if grown := last.Heap - first.Heap; grown > heapTolerance {
		t.Errorf("the heap has grown by %.2f MiB", grown)
	}
	if grown := last.Resident - first.Resident; grown > residentTolerance {
		t.Errorf("resident memory has grown by %.2f MiB", grown)
	}
}

// TestManyPasses is the other process.
func TestManyPasses(t *testing.T) {
	base := os.Getenv("BENCH_CHILD")
	if base == "" {
		t.Skip("a part of TestBench")
	}
	dir, err := os.MkdirTemp(base, "passes-")
	if err != nil {
		t.Fatal(err)
	}
	fake := enginetest.NewFake(enginetest.Config{})
	defer fake.Close()
	l := newLoop(t, dir, engine.Config{Host: "tcp://simulated:1", Transport: fake, RunDir: filepath.Join(dir, "run")}, false)
	defer l.close(t)
	other := stranger(t, fake)
	l.reach(t, decoded(t, alike(20, "c1", "registry.test/a:1")))
	updates := 0
	grow := func(passes int) {
		for i := range passes {
			if i%updateEvery == 0 {
				updates++
				r := alike(20, "c1", "registry.test/a:1")
				s := r.services["s0"]
				s.level = fmt.Sprint(updates)
				r.services["s0"] = s
				l.reach(t, decoded(t, r))
				continue
			}
			other(i)
			l.pass(t)
		}
	}
	grow(manyPasses / 10) // caches fill, the file of the store finds its size
	updates = 0
	tell(t, 0, 0)
	for i := range 4 {
		grow(manyPasses / 4)
		tell(t, (i+1)*manyPasses/4, updates)
	}
}

// stranger is a container of somebody else that gets another name now and then, so
// that there is something to look at.
func stranger(t *testing.T, fake *enginetest.Fake) func(i int) {
	t.Helper()
	c, err := client.NewClientWithOpts(client.WithHTTPClient(&http.Client{Transport: fake}), client.WithVersion("1.41"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.ImagePull(t.Context(), "registry.test/other:1", image.PullOptions{})
	if err == nil {
		_, err = io.Copy(io.Discard, out)
	}
	if err != nil {
		t.Fatal(err)
	}
	made, err := c.ContainerCreate(t.Context(), &container.Config{Image: "registry.test/other:1"}, nil, nil, nil, "stranger")
	if err != nil {
		t.Fatal(err)
	}
	return func(i int) {
		if err := c.ContainerRename(t.Context(), made.ID, fmt.Sprintf("stranger%d", i)); err != nil {
			t.Fatal(err)
		}
	}
}

func decoded(t *testing.T, r release) state.Target {
	t.Helper()
	doc, err := r.document()
	if err != nil {
		t.Fatal(err)
	}
	want, _, err := target.DecodeV3(t.Context(), doc, target.Options{Device: deviceUUID})
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func tell(t *testing.T, passes, updates int) {
	t.Helper()
	<-time.After(200 * time.Millisecond) // goroutines of the last step end
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b, err := json.Marshal(age{
		Passes: passes, Updates: updates, Heap: float64(m.HeapAlloc) / (1 << 20), Objects: m.HeapObjects,
		Resident: memory(t, os.Getpid(), "VmRSS"), Anon: memory(t, os.Getpid(), "RssAnon"), Goroutines: runtime.NumGoroutine(),
	})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("age %s\n", b)
}
