package timing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"deckhand/compose"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/reconcile/sim"
	"deckhand/state"
)

const app = "shop"

// services are in the order of the diagrams.
func services() []string { return []string{"web", "api"} }

// scene is a story that a diagram tells: a device that runs release 1 is asked
// for release 2. Every service has a new image.
type scene struct {
	file, title string
	labels      map[string]string // of both services
	healthy     bool              // web depends on a healthy api
	silent      bool              // no new container says that it has taken over
	held        [2]time.Duration  // when the program in api holds its update lock
	length      time.Duration     // of the time axis
}

// before is how much of the old release is seen.
const before = 500 * time.Millisecond

// noticed is when deckhand sees on average that a lock is gone.
const noticed = 250 * time.Millisecond

// release is what the device is asked for.
func (s scene) release(ctx context.Context, number int) (state.Target, error) {
	doc := map[string]any{}
	for _, name := range services() {
		labels := map[string]any{}
		for k, v := range s.labels {
			labels[k] = v
		}
		x := map[string]any{"image": fmt.Sprintf("%s:%d", name, number), "labels": labels}
		if s.healthy && name == "api" {
			x["healthcheck"] = map[string]any{"test": []any{"CMD", "check"}}
		}
		if s.healthy && name == "web" {
			x["depends_on"] = map[string]any{"api": map[string]any{"condition": "service_healthy"}}
		}
		doc[name] = x
	}
	p, problems, err := compose.Load(ctx, compose.Options{Release: true, Name: app}, map[string]any{"services": doc})
	if err == nil && len(problems) > 0 {
		err = fmt.Errorf("%v", problems)
	}
	if err != nil {
		return state.Target{}, fmt.Errorf("load release %d: %w", number, err)
	}
	a := state.App{
		UUID: app, ID: 1, Name: app, ReleaseID: int64(number), Commit: fmt.Sprintf("r%d", number),
		Services: p.Services, Networks: p.Networks, Volumes: p.Volumes,
	}
	for i, name := range services() {
		x := a.Services[name]
		x.ID, x.ImageID, x.Running = int64(i+1), int64(10*number+i), true
		a.Services[name] = x
	}
	return state.Target{Apps: map[string]state.App{app: a}}, nil
}

// play lets the real loop bring the device to release 2.
func (s scene) play(t *testing.T) film {
	t.Helper()
	var d *device
	synctest.Test(t, func(t *testing.T) {
		d = newDevice(!s.silent)
		r := run.New(run.Config{Device: d})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.Run(ctx) }()
		for number := 1; number <= 2; number++ {
			want, err := s.release(ctx, number)
			if err != nil {
				t.Fatal(err)
			}
			d.begin()
			r.SetTarget(want)
			if number == 2 {
				s.interfere(d)
			}
			pass(time.Minute)
		}
		if st := r.Status(); !st.Settled {
			t.Errorf("%s does not come to rest:\n%s", s.file, st.Plan)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s.develop(d)
}

// interfere is the program in api.
func (s scene) interfere(d *device) {
	if s.held[1] == 0 {
		return
	}
	pass(s.held[0])
	d.lock(app, state.UserLock{Service: "api", Holder: "updates.lock, owner uid 0"})
	pass(s.held[1] - s.held[0])
	d.lock(app)
	pass(noticed)
	d.hint <- struct{}{}
}

// bar is a piece of a row.
type bar struct {
	kind     string // a class of the diagram's style
	from, to time.Duration
}

func (b bar) lasts() time.Duration { return b.to - b.from }

// row is one line of a diagram.
type row struct {
	group, name string
	bars        []bar
}

// film is what happened to the device.
type film struct {
	scene
	rows               []row
	down               map[string]time.Duration // how long nothing of a service ran
	reached            time.Duration            // the release was committed; zero: it was not
	locked             time.Duration            // how long deckhand held the locks
	containers, images int                      // the most that ran, and that were there, at one time
}

// The kinds of bars.
const (
	oldRuns, newRuns   = "old", "new"
	oldMoves, newMoves = "old pale", "new pale" // a container stops or starts, an image grows
	oldIdle, newIdle   = "old idle", "new idle" // a container exists and does not run
	fetching           = "fetch"
	ours, theirs       = "ours", "theirs" // who holds locks
	nothing            = "down"           // no container of the service runs
)

// develop makes the rows of a diagram from what the device remembers.
func (s scene) develop(d *device) film {
	f := film{scene: s, down: map[string]time.Duration{}}
	moments := s.moments(d)
	for _, x := range d.deeds {
		if _, ok := x.step.(reconcile.Commit); ok {
			f.reached = x.to
		}
	}
	add := func(group, name string, kind func(moment) string) row {
		r := row{group: group, name: name}
		for i, to := range moments[1:] {
			k := kind(d.at((moments[i] + to) / 2))
			if n := len(r.bars); n > 0 && r.bars[n-1].kind == k && r.bars[n-1].to == moments[i] {
				r.bars[n-1].to = to
			} else if k != "" {
				r.bars = append(r.bars, bar{k, moments[i], to})
			}
		}
		f.rows = append(f.rows, r)
		return r
	}
	for _, name := range services() {
		add(name, "old", func(m moment) string { return m.container(name + ":1") })
		add(name, "new", func(m moment) string { return m.container(name + ":2") })
		r := add(name, "down", func(m moment) string { return m.down(name) })
		for _, b := range r.bars {
			f.down[name] += b.lasts()
		}
	}
	for _, name := range services() {
		add("download", name+":2", func(m moment) string { return m.download(name + ":2") })
	}
	for _, name := range services() {
		for _, tag := range []string{":1", ":2"} {
			add("on disk", name+tag, func(m moment) string { return m.image(name + tag) })
		}
	}
	if s.held[1] > 0 {
		add("locks", "api", func(m moment) string { return when(len(m.app().UserLocks) > 0, theirs) })
	}
	for _, b := range add("locks", "deckhand", func(m moment) string { return when(len(m.app().Locked) > 0, ours) }).bars {
		f.locked += b.lasts()
	}
	for i, to := range moments[1:] {
		m := d.at((moments[i] + to) / 2)
		f.containers, f.images = max(f.containers, m.running()), max(f.images, m.images())
	}
	return f
}

// moments are the ends of the axis, and when anything changed between them.
func (s scene) moments(d *device) []time.Duration {
	all := []time.Duration{-before, s.length}
	for _, l := range d.looks {
		all = append(all, l.at)
	}
	for _, x := range d.deeds {
		all = append(all, x.from, x.to)
	}
	all = slices.DeleteFunc(all, func(at time.Duration) bool { return at > s.length })
	slices.Sort(all)
	return slices.Compact(all)
}

// moment is what the device was like at one time, and what was being done.
type moment struct {
	world state.World
	steps []reconcile.Step
}

func (d *device) at(t time.Duration) moment {
	m := moment{world: d.looks[0].world}
	for _, l := range d.looks {
		if l.at <= t {
			m.world = l.world
		}
	}
	for _, x := range d.deeds {
		if x.from <= t && t < x.to {
			m.steps = append(m.steps, x.step)
		}
	}
	return m
}

func (m moment) app() state.AppNow { return m.world.Apps[app] }

func when(yes bool, kind string) string {
	if yes {
		return kind
	}
	return ""
}

// container is how the container of an image is.
func (m moment) container(image string) string {
	runs, moves, idle := oldRuns, oldMoves, oldIdle
	if image[len(image)-1] == '2' {
		runs, moves, idle = newRuns, newMoves, newIdle
	}
	for _, c := range m.app().Containers {
		if c.Image != sim.ImageID(image) {
			continue
		}
		if slices.ContainsFunc(m.steps, func(s reconcile.Step) bool {
			stop, stops := s.(reconcile.Stop)
			start, starts := s.(reconcile.Start)
			return stops && stop.Container == c.ID || starts && start.Image == image
		}) {
			return moves
		}
		if c.Up() {
			return runs
		}
		return idle
	}
	return ""
}

// down reports whether nothing of a service runs. What has been told to stop
// does not count as running.
func (m moment) down(service string) string {
	return when(m.container(service+":1") != oldRuns && m.container(service+":2") != newRuns, nothing)
}

func (m moment) download(image string) string {
	return when(slices.ContainsFunc(m.steps, func(s reconcile.Step) bool {
		f, ok := s.(reconcile.Fetch)
		return ok && f.Image == image
	}), fetching)
}

func (m moment) image(image string) string {
	_, here := m.world.Images[sim.ImageID(image)]
	switch {
	case here && image[len(image)-1] == '1':
		return oldRuns
	case here:
		return newRuns
	case m.download(image) != "":
		return newMoves
	}
	return ""
}

func (m moment) running() int {
	n := 0
	for _, c := range m.app().Containers {
		if c.Up() {
			n++
		}
	}
	return n
}

func (m moment) images() int {
	n := len(m.world.Images)
	for _, name := range services() {
		if m.image(name+":2") == newMoves {
			n++
		}
	}
	return n
}

// desc tells the diagram to those who do not see it.
func (f film) desc() string {
	var b strings.Builder
	b.WriteString("The update of two services over time.")
	for _, r := range f.rows {
		fmt.Fprintf(&b, " %s, %s:", r.group, r.name)
		if len(r.bars) == 0 {
			b.WriteString(" never")
		}
		for i, x := range r.bars {
			if i > 0 {
				b.WriteString(",")
			}
			fmt.Fprintf(&b, " %s from %s to %s", r.means(x.kind), seconds(max(x.from, 0)), seconds(x.to))
		}
		b.WriteString(".")
	}
	return b.String()
}

// means is a kind of bar in a word.
func (r row) means(kind string) string {
	container := r.name == "old" || r.name == "new"
	switch {
	case kind == nothing, kind == fetching, kind == ours, kind == theirs:
		return "yes"
	case kind == oldIdle, kind == newIdle:
		return "not running"
	case container && (kind == oldRuns || kind == newRuns):
		return "runs"
	case container:
		return "stops or starts"
	case kind == newMoves:
		return "grows"
	}
	return "there"
}
