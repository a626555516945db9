//go:build bench

package bench

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/dockerd"
)

type bench struct {
	engine *dockerd.Engine
	binary string
	dir    string
	names  atomic.Int64
}

func (b *bench) unique(prefix string) string { return fmt.Sprintf("%s%d", prefix, b.names.Add(1)) }

// TestBench prints the tables. It asserts nothing: figures are for people, who
// know what else the machine did.
func TestBench(t *testing.T) {
	b := &bench{engine: dockerd.Start(t), dir: t.TempDir()}
	b.binary = build(t, b.dir, "amd64", "")
	for _, tag := range []string{"bench:1", "bench:2"} {
		b.engine.Busybox(t, tag, tag)
	}
	b.rawInstall(t, 2, 2) // the first containers of an engine are slow
	fmt.Println("\nInstall: from the new target to the last start, images present (medians, seconds)")
	fmt.Println("services  raw, one by one  raw, 4 abreast  raw, 8 abreast  deckhand  ratio to raw's best")
	for _, n := range []int{1, 5, 20, 50} {
		b.install(t, n)
	}
	fmt.Println("\nUpdate of every service to another image, images present (seconds)")
	fmt.Println("services  target → last start  settled  downtime median  downtime most")
	for _, n := range []int{1, 5, 20, 50} {
		b.update(t, n)
	}
	b.idle(t)
	b.calls(t)
	planning()
	sizes(t, b.dir)
}

func (b *bench) install(t *testing.T, n int) {
	rounds := 3
	if n >= 50 {
		rounds = 1 // a minute each
	}
	var one, four, eight, ours []time.Duration
	for range rounds {
		one = append(one, b.rawInstall(t, n, 1))
		ours = append(ours, b.ourInstall(t, n))
		four = append(four, b.rawInstall(t, n, 4))
		eight = append(eight, b.rawInstall(t, n, 8))
	}
	best := min(median(one), median(four), median(eight))
	fmt.Printf("%8d  %15.2f  %14.2f  %14.2f  %8.2f  %19.2f\n", n, median(one).Seconds(), median(four).Seconds(), median(eight).Seconds(),
		median(ours).Seconds(), median(ours).Seconds()/best.Seconds())
}

func (b *bench) ourInstall(t *testing.T, n int) time.Duration {
	c := newCloud(t)
	c.offer(t, 0, "", "", "")
	d := b.start(t, c)
	d.settled(t, "")
	c.listening(t)
	events := b.watch(t)
	began := c.offer(t, n, "c1", "bench:1", "info")
	took := events.last(t, "start", n).Sub(began)
	events.stop()
	d.settled(t, "c1")
	b.clear(t, c, d)
	return took
}

// clear removes the app through the supervisor and stops it.
func (b *bench) clear(t *testing.T, c *cloud, d *device) {
	c.listening(t)
	c.offer(t, 0, "", "", "")
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if v, err := d.ask.Status(t.Context()); err == nil && v.State == "settled" && len(v.Apps) == 1 && len(v.Apps[0].Services) == 0 {
			break
		}
	}
	d.stop(t)
	b.removeAll(t)
}

func (b *bench) update(t *testing.T, n int) {
	c := newCloud(t)
	c.offer(t, n, "c1", "bench:1", "info")
	d := b.start(t, c)
	d.settled(t, "c1")
	var total, settled, down []time.Duration
	for i := range 3 {
		c.listening(t)
		events := b.watch(t)
		commit := fmt.Sprintf("u%d", i)
		began := c.offer(t, n, commit, []string{"bench:2", "bench:1"}[i%2], "info")
		total = append(total, events.last(t, "start", n).Sub(began))
		d.settled(t, commit)
		settled = append(settled, time.Since(began))
		down = append(down, events.downtimes()...)
		events.stop()
	}
	fmt.Printf("%8d  %19.2f  %7.2f  %15.2f  %13.2f\n", n, median(total).Seconds(), median(settled).Seconds(), median(down).Seconds(), slices.Max(down).Seconds())
	b.clear(t, c, d)
}

func (b *bench) idle(t *testing.T) {
	fmt.Println("\nIdle")
	fmt.Println("services  resident MiB  of it anonymous  most resident  own CPU s/min  engine CPU s/min")
	for _, n := range []int{20, 50} {
		c := newCloud(t)
		c.offer(t, n, "c1", "bench:1", "info")
		d := b.start(t, c)
		d.settled(t, "c1")
		pid := d.cmd.Process.Pid
		<-time.After(5 * time.Second) // garbage of the installation goes
		own, theirs := cpu(t, pid), cpu(t, b.engine.PID)
		<-time.After(time.Minute)
		mib := func(field string) float64 { return float64(memory(t, pid, field)) / 1024 }
		fmt.Printf("%8d  %12.1f  %15.1f  %13.1f  %13.2f  %16.2f\n", n, mib("VmRSS"), mib("RssAnon"), mib("VmHWM"),
			(cpu(t, pid) - own).Seconds(), (cpu(t, b.engine.PID) - theirs).Seconds())
		b.clear(t, c, d)
	}
}

// calls counts what one look costs, however many containers there are.
func (b *bench) calls(t *testing.T) {
	e, err := engine.New(engine.Config{Host: b.engine.Host, Identity: func() state.Identity { return state.Identity{} }})
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := e.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := e.Calls()
	if _, err := e.Observe(t.Context()); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nEngine calls of a pass in which nothing is to do: %d\n", e.Calls()-before)
}

// planning measures the planner alone.
func planning() {
	fmt.Println("\nPlanning 1,000 services")
	for _, c := range []struct {
		name string
		now  state.World
		want state.Target
	}{
		{"install", state.World{}, many(1000, 1)},
		{"nothing to do", running(1000, 1), many(1000, 1)},
		{"all images new", running(1000, 1), many(1000, 2)},
	} {
		r := testing.Benchmark(func(b *testing.B) {
			for b.Loop() {
				if _, err := reconcile.Make(c.now, c.want, reconcile.Facts{}); err != nil {
					b.Fatal(err)
				}
			}
		})
		fmt.Printf("  %-14s  %6.1f ms\n", c.name, float64(r.NsPerOp())/1e6)
	}
}

// sizes builds the device binary the way it is shipped.
func sizes(t *testing.T, dir string) {
	fmt.Println("\nDevice binary, stripped")
	for _, a := range [][3]string{{"amd64", "amd64", ""}, {"arm v6", "arm", "6"}, {"arm v7", "arm", "7"}, {"arm64", "arm64", ""}} {
		info, err := os.Stat(build(t, dir, a[1], a[2]))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("  %-7s  %10d bytes\n", a[0], info.Size())
	}
}

func build(t *testing.T, dir, arch, arm string) string {
	t.Helper()
	out := filepath.Join(dir, "deckhand-"+arch+arm)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", out, "deckhand/cmd/deckhand")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOARM="+arm)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build for %s: %v\n%s", arch, err, text)
	}
	return out
}

func median(d []time.Duration) time.Duration {
	s := slices.Sorted(slices.Values(d))
	return s[len(s)/2]
}

func many(n, release int) state.Target {
	a := state.App{UUID: appUUID, ID: 1, Name: "bench", Commit: fmt.Sprintf("r%d", release), ReleaseID: int64(release), Services: map[string]state.Service{}}
	for i := range n {
		s := state.Service{Name: fmt.Sprintf("s%04d", i), ID: int64(i + 1), ImageID: int64(release*n + i), Running: true, Image: image(release, i)}
		s.Spec.Environment = map[string]string{"N": fmt.Sprint(i)}
		s.Hash = s.Spec.Hash()
		a.Services[s.Name] = s
	}
	return state.Target{Apps: map[string]state.App{appUUID: a}}
}

func image(release, i int) string {
	return fmt.Sprintf("registry.test/v2/%d@sha256:%d-%d", i, release, i)
}

func running(n, release int) state.World {
	a := state.AppNow{UUID: appUUID, ID: 1, Commit: fmt.Sprintf("r%d", release)}
	w := state.World{Images: map[string]state.Image{}}
	services := many(n, release).Apps[appUUID].Services
	for i := range n {
		s := services[fmt.Sprintf("s%04d", i)]
		id := fmt.Sprintf("id-%d-%d", release, i)
		w.Images[id] = state.Image{ID: id, Refs: []string{s.Image}, Ours: true}
		a.Containers = append(a.Containers, state.Container{
			ID: fmt.Sprintf("c%d", i), Name: state.ContainerName(s.Name, s.ImageID, int64(release), a.Commit), Service: s.Name, ImageID: s.ImageID,
			ReleaseID: int64(release), Commit: a.Commit, Image: id, Hash: s.Hash, Phase: state.Running,
		})
	}
	w.Apps = map[string]state.AppNow{appUUID: a}
	return w
}
