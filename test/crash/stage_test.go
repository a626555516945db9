package crash

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
	"deckhand/supervisor"
	"deckhand/test/scenarios/story"
)

// scene is a scenario made ready for the real packages.
type scene struct {
	sides []state.Target
	want  state.Target
	first state.World // what is on the device, in the words of the simulation
	fails []string    // beginnings of the titles of steps that fail every time

	slow map[string]int // beginnings of the titles of steps that take so many times longer

	ends map[string]bool // services whose process ends by itself
	sick map[string]bool // services that never get where others wait for them

	end *state.World // how it ends on the simulated device; nil: not to be compared

}

// unwell tells devices whose containers get well by themselves in the
// simulation, and here do not.
func unwell(w state.World) bool {
	for _, a := range w.Apps {
		if slices.ContainsFunc(a.Containers, func(c state.Container) bool { return c.Health == "unhealthy" }) {
			return true
		}
	}
	return false
}

func load(ctx context.Context, file string) (*scene, error) {
	s, err := story.Read(file)
	if err != nil {
		return nil, err
	}
	d, err := s.Prepare(ctx)
	if err != nil {
		return nil, err
	}
	x := &scene{first: d.World, fails: d.Fails, slow: d.Slow, ends: map[string]bool{}, sick: map[string]bool{}}
	if x.sides, err = s.Sides(ctx); err != nil {
		return nil, err
	}
	// What happens in the middle of a story does not happen here.
	if told, err := s.Play(ctx); err == nil && len(s.Later()) == 0 && !unwell(d.World) {
		x.end = &told.End
	}
	x.want = x.sides[len(x.sides)-1]
	x.processes()
	return x, nil
}

// processes finds out what the scene expects of the services' processes.
func (x *scene) processes() {
	for _, line := range x.fails {
		if who, ok := strings.CutPrefix(line, "await "); ok {
			who, _, _ = strings.Cut(who, " ")
			_, service, _ := strings.Cut(who, "/")
			x.sick[service] = true
		}
	}
	for _, t := range x.sides {
		for _, a := range t.Apps {
			for _, v := range a.Services {
				for _, d := range v.DependsOn {
					if d.Condition == state.Completed {
						x.ends[d.Service] = true
					}
				}
			}
		}
	}
}

// program is what the containers of the scene do.
func (x *scene) program(_ string, c *container.Config) (enginetest.Program, bool) {
	name := c.Labels[state.LabelServiceName]
	p := enginetest.Program{Healthy: !x.sick[name], Check: 700 * time.Millisecond}
	if x.ends[name] {
		p.Ends, p.After = true, 1300*time.Millisecond
		if x.sick[name] {
			p.Code = 1
		}
	}
	return p, true
}

// delay is how long a call takes: each a little different, so that what runs
// side by side ends in an order of its own.
func delay(c enginetest.Call) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(c.Route + c.Object))
	base := 5 * time.Millisecond
	switch c.Route {
	case "HEAD /_ping", "GET /_ping", "GET /info", "GET /version", "GET /networks", "POST /networks/create", "GET /networks/{}", "DELETE /networks/{}":
		return 0 // made under a lock: whoever waits for that holds up virtual time
	case "POST /images/create":
		base = 3 * time.Second
	case "POST /containers/{}/stop":
		base = 800 * time.Millisecond
	case "POST /containers/{}/start":
		base = 300 * time.Millisecond
	case "POST /containers/create", "DELETE /containers/{}", "DELETE /images/{}":
		base = 100 * time.Millisecond
	}
	return base + base*time.Duration(h.Sum32()%1000)/1000
}

// process is one life of a supervisor: everything that a crash takes away.
type process struct {
	x      *scene
	at     place
	fake   *enginetest.Fake
	host   *host
	engine *engine.Engine
	store  *store.Store
	core   *supervisor.Core
	runner *run.Runner
	step   func(reconcile.Step) // told before and after each step; nil: nobody

	cancel context.CancelFunc
	ended  sync.WaitGroup
}

// begin starts a supervisor on what there is.
func begin(x *scene, at place, fake *enginetest.Fake, host *host) (*process, error) {
	p := &process{x: x, at: at, fake: fake, host: host}
	if err := os.MkdirAll(at.run(), 0o755); err != nil {
		return nil, err
	}
	var err error
	if p.store, err = store.Open(at.database(), store.Options{}); err != nil {
		return nil, err
	}
	if p.store.Recovered() != "" {
		return nil, errors.Join(errors.New("the store was damaged"), p.store.Close())
	}
	p.engine, err = engine.New(engine.Config{Host: "tcp://fake:1", Transport: fake, RunDir: at.run(), Log: zerolog.Nop()})
	if err != nil {
		return nil, errors.Join(err, p.store.Close())
	}
	p.core, err = supervisor.NewCore(supervisor.CoreConfig{Engine: p.engine, Store: p.store, RunDir: at.run(), LockUID: lockUID(), Host: host, Log: zerolog.Nop(), Deaf: true})
	if err != nil {
		return nil, errors.Join(err, p.engine.Close(), p.store.Close())
	}
	return p, nil
}

// lockUID is the owner of our lock files: only root can give files away.
func lockUID() int {
	if uid := os.Geteuid(); uid != 0 {
		return uid
	}
	return 0
}

// work runs the loop towards the target.
func (p *process) work(ctx context.Context, again bool) error {
	ctx, p.cancel = context.WithCancel(ctx)
	p.runner = run.New(run.Config{Device: failing{p.core.Device(), p}, Memory: p.core.Memory(), Log: zerolog.Nop()})
	if again {
		p.core.Restore(p.x.want)
		p.runner.RestoreTarget(p.x.want)
	} else {
		if err := p.core.Accept(p.x.want, state.World{}); err != nil {
			return err
		}
		p.runner.SetTarget(p.x.want)
	}
	p.ended.Go(func() { _ = p.runner.Run(ctx) })
	return nil
}

// end stops the loop in good order and closes everything.
func (p *process) end() error {
	if p.cancel != nil {
		p.cancel()
		p.ended.Wait()
	}
	return errors.Join(p.engine.Close(), p.store.Close())
}

// failing fails the steps that the scenario says.
type failing struct {
	run.Device
	p *process
}

// Do implements run.Device.
func (f failing) Do(ctx context.Context, s reconcile.Step, progress func(done, total int64)) error {
	if f.p.step != nil {
		f.p.step(s)
		defer f.p.step(s)
	}
	title := s.Title()
	for begin, n := range f.p.x.slow {
		if begins(title, begin) {
			pause(ctx, time.Duration(n)*5*time.Second)
		}
	}
	for _, begin := range f.p.x.fails {
		if begins(title, begin) || begins(old(s), begin) {
			return state.Classify(state.ClassNetwork, errors.New("no answer"))
		}
	}
	if h, ok := s.(reconcile.Handover); ok { // the new container says that it has taken over
		dir := filepath.Join(f.p.at.run(), "services", fmt.Sprint(h.App.ID), h.Service)
		if err := os.WriteFile(filepath.Join(dir, "handover-complete"), nil, 0o600); err != nil {
			return err
		}
	}
	return f.Device.Do(ctx, s, progress)
}

// old is the title of a removal on the simulated device, whose images have no
// digests beside their tags.
func old(s reconcile.Step) string {
	if r, ok := s.(reconcile.RemoveImage); ok && len(r.Refs) > 0 {
		return "remove image " + r.Refs[0]
	}
	return s.Title()
}

func begins(title, begin string) bool { return title == begin || strings.HasPrefix(title, begin+" ") }

// limit is how long a device may take, back-off included.
const limit = 2 * time.Hour

// calm is how long nothing must happen before a device counts as settled:
// processes end and health checks speak by themselves.
const calm = 8 * time.Second

// settle waits until nothing is left to do, or only what failed often, and stays
// so for a while.
func (p *process) settle(ctx context.Context) (run.Status, error) {
	for range 10 {
		if s, err := p.still(); err != nil {
			return s, err
		}
		pause(ctx, calm)
		if p.host.restarts() {
			return p.runner.Status(), errReboot
		}
		if s := p.runner.Status(); s.Settled || stuck(s) {
			return s, nil
		}
	}
	return p.runner.Status(), errors.New("it settles and goes on, again and again")
}

func (p *process) still() (run.Status, error) {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	for {
		changed := p.runner.Changed()
		s := p.runner.Status()
		if s.Settled || stuck(s) {
			return s, nil
		}
		select {
		case <-changed:
		case <-p.host.asked:
			return s, errReboot
		case <-deadline.C:
			return s, errors.Join(fmt.Errorf("not settled within %v, running %d\n%s%s", limit, len(s.Running), s.Plan, waits(s)), s.Err)
		}
	}
}

// enough tries show that another one does not help.
const enough = 3

func stuck(s run.Status) bool {
	if !s.HasGoal || s.Looked.IsZero() || s.Err != nil || len(s.Running) > 0 || len(s.Plan.Ready()) > 0 || len(s.Plan.Waiting) == 0 {
		return false
	}
	for _, w := range s.Plan.Waiting {
		if w.Holder == "" && w.Tries < enough {
			return false
		}
	}
	return true
}

func waits(s run.Status) string {
	var b strings.Builder
	for _, w := range s.Plan.Waiting {
		fmt.Fprintf(&b, "waiting: %s: %s %s (%d tries)\n", w.Title, w.Class, w.Text, w.Tries)
	}
	return b.String()
}

// portrait is the end state of a device without what differs from run to run.
func (p *process) portrait(ctx context.Context) (string, error) {
	w, err := p.core.Device().Observe(ctx)
	if err != nil {
		return "", err
	}
	return paint(w, p.fake.Volumes()), nil
}

func paint(w state.World, volumes []string) string {
	var b strings.Builder
	for _, uuid := range slices.Sorted(maps.Keys(w.Apps)) {
		a := w.Apps[uuid]
		if len(a.Containers)+len(a.Networks)+len(a.Volumes)+len(a.Locked)+len(a.Files) == 0 && a.Commit == "" {
			continue
		}
		fmt.Fprintf(&b, "app %s commit %q images %v locked %v files %v\n", uuid, a.Commit, a.Images, a.Locked, a.Files)
		var lines []string
		for _, c := range a.Containers {
			if c.Halted {
				c.ExitCode = 0 // it was stopped, in whatever way that went
			}
			lines = append(lines, fmt.Sprintf("  %s %s image %.19s release %d %s service %d phase %s code %d halted %t networks %v volumes %v",
				c.Service, cmp.Or(c.Hash, "foreign"), c.Image, c.ReleaseID, c.Commit, c.ServiceID, c.Phase, c.ExitCode, c.Halted, c.Networks, c.Volumes))
		}
		for _, n := range a.Networks {
			lines = append(lines, fmt.Sprintf("  network %s %s", n.Name, n.Hash))
		}
		for _, v := range a.Volumes {
			lines = append(lines, fmt.Sprintf("  volume %s %s", v.Name, v.Hash))
		}
		slices.Sort(lines)
		for _, l := range a.UserLocks {
			lines = append(lines, "  lock of somebody on "+l.Service)
		}
		b.WriteString(strings.Join(lines, "\n") + "\n")
	}
	for _, id := range slices.Sorted(maps.Keys(w.Images)) {
		i := w.Images[id]
		fmt.Fprintf(&b, "image %.19s %v ours %t\n", id, named(i.Refs), i.Ours)
	}
	fmt.Fprintf(&b, "volumes %v, API network %t, reboot pending %t\n", volumes, w.APINetwork, w.RebootPending)
	for _, i := range w.Intents {
		fmt.Fprintf(&b, "intent %s %s left %v\n", i.Kind, i.App, i.Left)
	}
	return b.String()
}

// named leaves out the tags that a fetch by digest adds at its end.
//
// BUG: a crash between the download and the tag leaves the image without one,
// and nobody adds it later.
func named(refs []string) []string {
	return slices.DeleteFunc(slices.Clone(refs), func(r string) bool {
		repo, latest := strings.CutSuffix(r, ":latest")
		return latest && slices.ContainsFunc(refs, func(o string) bool { return strings.HasPrefix(o, repo+"@") })
	})
}

// essence is what the simulated device and the real packages must agree on.
func essence(w state.World, ends map[string]bool, image func(id string) string) string {
	var lines []string
	for uuid, a := range w.Apps {
		if a.Commit != "" {
			lines = append(lines, fmt.Sprintf("%s at %s", uuid, a.Commit))
		}
		for _, c := range a.Containers {
			lines = append(lines, fmt.Sprintf("%s/%s %s of release %d (%s) runs %t halted %t networks %v volumes %v",
				uuid, c.Service, c.Hash, c.ReleaseID, c.Commit, c.Up() && !ends[c.Service], c.Halted, c.Networks, c.Volumes))
		}
		for _, n := range a.Networks {
			lines = append(lines, fmt.Sprintf("%s network %s %s", uuid, n.Name, n.Hash))
		}
		for _, v := range a.Volumes {
			lines = append(lines, fmt.Sprintf("%s volume %s %s", uuid, v.Name, v.Hash))
		}
		for _, f := range a.Files {
			lines = append(lines, fmt.Sprintf("%s files %s %s", uuid, f.Service, f.Hash))
		}
		for _, service := range a.Locked {
			lines = append(lines, fmt.Sprintf("%s lock on %s", uuid, service))
		}
	}
	for id, i := range w.Images {
		if len(i.Refs) == 0 && !i.Ours {
			continue // the simulation does not know images without a name
		}
		lines = append(lines, fmt.Sprintf("image %.19s ours %t", image(id), i.Ours))
	}
	for _, i := range w.Intents {
		lines = append(lines, fmt.Sprintf("intent %s %s", i.Kind, i.App))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
