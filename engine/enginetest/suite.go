// Package enginetest holds what every implementation of a device's engine must
// do, be it the real one or a simulated one.
package enginetest

import (
	"context"
	"fmt"
	"hash/fnv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/state"
)

const patience = time.Minute // for anything that should happen at once

// Device is what the suite tests.
type Device interface {
	Observe(ctx context.Context) (state.World, error)
	Do(ctx context.Context, step reconcile.Step, progress func(done, total int64)) error
}

// Fixture says which images exist in the registry the device pulls from. The
// images hold a shell; what a container does is decided by its command, which is
// one of
//
//	(none)                 idles, and ends with 0 when asked to
//	sh -c "exit N"         ends at once with N
//
// and its health check, which is `true` or `false`.
type Fixture struct {
	Image   string // repository:tag; its command idles and ends when asked to
	Digest  string // the same image, repository@digest
	Other   string // an image with other content
	Missing string // a tag the registry does not have
}

// Run tests a device. newDevice may return the same one each time: every test
// uses an app of its own.
func Run(t *testing.T, f Fixture, newDevice func(t *testing.T) Device) {
	for _, c := range []struct {
		name string
		test func(s *suite)
	}{
		{"fetch an image, again, and by digest", (*suite).fetch},
		{"fetch of a missing tag says not-found", (*suite).fetchMissing},
		{"create with two networks", (*suite).twoNetworks},
		{"create twice makes one container", (*suite).createTwice},
		{"create without its network leaves nothing", (*suite).noNetwork},
		{"create without its image says not-found", (*suite).noImage},
		{"start, stop and remove, each twice", (*suite).twice},
		{"remove of a running container is refused", (*suite).removeRunning},
		{"a network is made once", (*suite).networkOnce},
		{"a volume is made once", (*suite).volumeOnce},
		{"two looks see the same", (*suite).stable},
		{"rename keeps the container running", (*suite).rename},
		{"await healthy", (*suite).healthy},
		{"await healthy fails when unhealthy", (*suite).unhealthy},
		{"await completed and the exit code", (*suite).completed},
		{"await started", (*suite).started},
		{"await ends with its context", (*suite).awaitCancelled},
		{"an image in use stays", (*suite).imageInUse},
		{"a volume in use stays, and goes when it is free", (*suite).removeVolume},
		{"hand over to a container that becomes healthy", (*suite).handover},
		{"a hand-over that nobody takes ends with its time", (*suite).handoverTimeout},
		{"a hand-over to a container that ends keeps the old one", (*suite).handoverEnds},
		{"the API network is made and joined", (*suite).apiNetwork},
		{"a service uses the network of another one", (*suite).sharedNetwork},
		{"an external network that is missing is the release's mistake", (*suite).noExternalNetwork},
		{"an older container gives up its name", (*suite).nameConflict},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newSuite(t, f, newDevice(t))) })
	}
}

// suite is one test's app on the device.
type suite struct {
	*testing.T
	f   Fixture
	d   Device
	app reconcile.App
}

func newSuite(t *testing.T, f Fixture, d Device) *suite {
	h := fnv.New64a()
	fmt.Fprint(h, t.Name())
	s := &suite{T: t, f: f, d: d}
	s.app = reconcile.App{UUID: fmt.Sprintf("%032x", h.Sum64()), ID: int64(h.Sum64() % 1_000_000_007), Name: "suite"}
	s.do(reconcile.Fetch{Image: f.Image})
	s.Cleanup(s.clear)
	return s
}

// clear removes what the test made, except volumes.
func (s *suite) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	w, err := s.d.Observe(ctx)
	if err != nil {
		s.Error(err)
		return
	}
	for _, c := range w.Apps[s.app.UUID].Containers {
		_ = s.d.Do(ctx, reconcile.Stop{App: s.app, Service: c.Service, Container: c.ID}, nil)
		_ = s.d.Do(ctx, reconcile.Remove{App: s.app, Service: c.Service, Container: c.ID}, nil)
	}
	for _, n := range w.Apps[s.app.UUID].Networks {
		_ = s.d.Do(ctx, reconcile.RemoveNetwork{App: s.app, Name: n.Name, ID: n.ID}, nil)
	}
}

func (s *suite) try(step reconcile.Step) error {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	return s.d.Do(ctx, step, nil)
}

func (s *suite) do(step reconcile.Step) {
	s.Helper()
	if err := s.try(step); err != nil {
		s.Fatalf("%s: %v", step.Key(), err)
	}
}

// refused does a step that must fail with the class.
func (s *suite) refused(step reconcile.Step, want state.Class) {
	s.Helper()
	err := s.try(step)
	if err == nil {
		s.Fatalf("%s succeeded", step.Key())
	}
	if got := state.ClassOf(err); got != want {
		s.Fatalf("%s: %v: class %q, want %q", step.Key(), err, got, want)
	}
}

func (s *suite) world() state.World {
	s.Helper()
	w, err := s.d.Observe(s.Context())
	if err != nil {
		s.Fatal(err)
	}
	return w
}

func (s *suite) now() state.AppNow { s.Helper(); return s.world().Apps[s.app.UUID] }

// only is the app's single container.
func (s *suite) only() state.Container {
	s.Helper()
	c := s.now().Containers
	if len(c) != 1 {
		s.Fatalf("%d containers, want 1: %+v", len(c), c)
	}
	return c[0]
}

// until looks until the only container satisfies ok.
func (s *suite) until(what string, ok func(state.Container) bool) state.Container {
	s.Helper()
	for deadline := time.Now().Add(patience); ; {
		c := s.only()
		if ok(c) {
			return c
		}
		if time.Now().After(deadline) {
			s.Fatalf("not %s in time: %+v", what, c)
		}
	}
}

// create is a step that makes a service on the networks a and b.
func (s *suite) create(change func(*state.Service)) reconcile.Create {
	svc := state.Service{Name: "web", ID: 7, ImageID: 8, Image: s.f.Image, Running: true, Spec: state.Spec{
		Networks: map[string]state.Attachment{"a": {Aliases: []string{"web"}}}, MainNetwork: "a",
		Restart: state.RestartPolicy{Name: "no"},
	}}
	if change != nil {
		change(&svc)
	}
	svc.Hash = svc.Spec.Hash()
	return reconcile.Create{App: s.app, Commit: "c0ffee", ReleaseID: 9, Service: svc}
}

func (s *suite) network(name string) reconcile.CreateNetwork {
	n := state.Network{Name: name, Spec: state.NetworkSpec{Driver: "bridge"}}
	n.Hash = n.Spec.Hash()
	return reconcile.CreateNetwork{App: s.app, Network: n}
}

// running makes and starts a service.
func (s *suite) running(change func(*state.Service)) state.Container {
	s.Helper()
	s.do(s.network("a"))
	c := s.create(change)
	s.do(c)
	made := s.only()
	s.do(reconcile.Start{App: s.app, Service: "web", Hash: c.Service.Hash, Image: c.Service.Image, Container: made.ID})
	return made
}

func (s *suite) stop(id string) reconcile.Stop {
	return reconcile.Stop{App: s.app, Service: "web", Container: id}
}

func (s *suite) remove(id string) reconcile.Remove {
	return reconcile.Remove{App: s.app, Service: "web", Container: id}
}

func (s *suite) awaiting(c state.Container, cond state.Condition) reconcile.Await {
	return reconcile.Await{App: s.app, Service: "web", Hash: c.Hash, Condition: cond, Container: c.ID}
}

// image finds an image by reference.
func (s *suite) image(ref string) (state.Image, bool) {
	s.Helper()
	for _, i := range s.world().Images {
		if i.Leads(ref) {
			return i, true
		}
	}
	return state.Image{}, false
}

func (s *suite) fetch() {
	s.do(reconcile.Fetch{Image: s.f.Image})
	i, ok := s.image(s.f.Image)
	if !ok || i.Size == 0 {
		s.Fatalf("image is not there after fetch: %+v", i)
	}
	s.do(reconcile.Fetch{Image: s.f.Digest})
	j, ok := s.image(s.f.Digest)
	if !ok || j.ID != i.ID {
		s.Fatalf("by digest: %+v, by tag: %+v", j, i)
	}
}

func (s *suite) fetchMissing() {
	s.refused(reconcile.Fetch{Image: s.f.Missing}, state.ClassNotFound)
	if _, ok := s.image(s.f.Missing); ok {
		s.Fatal("an image nobody has is there")
	}
}

func (s *suite) twoNetworks() {
	s.do(s.network("a"))
	s.do(s.network("b"))
	step := s.create(func(v *state.Service) {
		v.Spec.Networks["b"] = state.Attachment{Aliases: []string{"other", "web"}}
	})
	s.do(step)
	got := s.only()
	image, _ := s.image(s.f.Image)
	want := state.Container{
		ID: got.ID, Name: "web_8_9_c0ffee", Service: "web", ServiceID: 7, ImageID: 8, ReleaseID: 9, Commit: "c0ffee",
		Image: image.ID, Hash: step.Service.Hash, Phase: state.Created, Created: got.Created, Networks: []string{"a", "b"},
	}
	if d := cmp.Diff(want, got); d != "" {
		s.Fatal(d)
	}
	if app := s.now(); app.ID != s.app.ID || len(app.Networks) != 2 {
		s.Fatalf("app: %+v", app)
	}
}

func (s *suite) createTwice() {
	s.do(s.network("a"))
	s.do(s.create(nil))
	was := s.only()
	s.do(s.create(nil))
	if now := s.only(); now.ID != was.ID {
		s.Fatal("made a second time")
	}
}

func (s *suite) noNetwork() {
	s.do(s.network("a"))
	step := s.create(func(v *state.Service) { v.Spec.Networks["gone"] = state.Attachment{} })
	if err := s.try(step); err == nil || !strings.Contains(err.Error(), "gone") {
		s.Fatalf("error %v does not name the network", err)
	}
	if c := s.now().Containers; len(c) != 0 {
		s.Fatalf("left behind: %+v", c)
	}
}

func (s *suite) noImage() {
	s.do(s.network("a"))
	s.refused(s.create(func(v *state.Service) { v.Image = s.f.Missing }), state.ClassNotFound)
}

func (s *suite) twice() {
	c := s.running(nil)
	start := reconcile.Start{App: s.app, Service: "web", Hash: c.Hash, Image: s.f.Image} // found by its labels
	s.do(start)
	if now := s.only(); now.Phase != state.Running {
		s.Fatalf("phase %s after start", now.Phase)
	}
	s.do(s.stop(c.ID))
	s.do(s.stop(c.ID))
	if now := s.only(); now.Phase != state.Exited || now.ExitCode != 0 {
		s.Fatalf("after stop: %s, exit code %d", now.Phase, now.ExitCode)
	}
	s.do(s.remove(c.ID))
	s.do(s.remove(c.ID))
	s.do(s.stop(c.ID))
	if left := s.now().Containers; len(left) != 0 {
		s.Fatalf("left: %+v", left)
	}
}

func (s *suite) removeRunning() {
	c := s.running(nil)
	s.refused(s.remove(c.ID), state.ClassEngine)
	if now := s.only(); now.Phase != state.Running {
		s.Fatalf("phase %s", now.Phase)
	}
}

func (s *suite) networkOnce() {
	s.do(s.network("a"))
	s.do(s.network("a"))
	nets := s.now().Networks
	if len(nets) != 1 || nets[0].Hash != s.network("a").Network.Hash {
		s.Fatalf("networks: %+v", nets)
	}
	other := s.network("a")
	other.Network.Spec.Internal = true
	other.Network.Hash = other.Network.Spec.Hash()
	s.refused(other, state.ClassEngine)
	for range 2 {
		s.do(reconcile.RemoveNetwork{App: s.app, Name: "a", ID: nets[0].ID})
	}
	if nets := s.now().Networks; len(nets) != 0 {
		s.Fatalf("networks after removal: %+v", nets)
	}
}

func (s *suite) volumeOnce() {
	v := state.Volume{Name: "data", Spec: state.VolumeSpec{Driver: "local"}}
	v.Hash = v.Spec.Hash()
	step := reconcile.CreateVolume{App: s.app, Volume: v}
	s.do(step)
	s.do(step)
	s.do(s.network("a"))
	s.do(s.create(func(v *state.Service) {
		v.Spec.Mounts = []state.Mount{{Type: "volume", Source: "data", Target: "/data"}}
	}))
	now := s.now()
	if d := cmp.Diff([]state.VolumeNow{{Name: "data", Hash: v.Hash}}, now.Volumes); d != "" {
		s.Fatal(d)
	}
	if d := cmp.Diff([]string{"data"}, now.Containers[0].Volumes); d != "" {
		s.Fatal(d)
	}
	step.Volume.Hash = "v1:other"
	s.refused(step, state.ClassEngine)
}

func (s *suite) stable() {
	c := s.running(nil)
	s.do(s.awaiting(c, state.Started))
	a, b := s.world(), s.world()
	if d := cmp.Diff(a, b); d != "" {
		s.Fatal(d)
	}
}

func (s *suite) rename() {
	c := s.running(nil)
	step := reconcile.Rename{App: s.app, Service: "web", Container: c.ID, Name: state.ContainerName("web", 10, 11, "beef")}
	s.do(step)
	s.do(step)
	now := s.only()
	if now.ID != c.ID || now.Phase != state.Running || now.Name != "web_10_11_beef" || now.ImageID != 10 || now.ReleaseID != 11 || now.Commit != "beef" {
		s.Fatalf("after rename: %+v", now)
	}
	s.do(s.stop(c.ID))
	s.do(s.remove(c.ID))
	s.do(step) // gone: nothing to rename
}

func check(command string) *state.Healthcheck {
	return &state.Healthcheck{Test: []string{"CMD", command}, Interval: state.Duration(200 * time.Millisecond),
		Timeout: state.Duration(5 * time.Second), Retries: 1}
}

func (s *suite) healthy() {
	c := s.running(func(v *state.Service) { v.Spec.Healthcheck = check("true") })
	s.do(s.awaiting(c, state.Healthy))
	s.until("healthy", func(c state.Container) bool { return c.Health == "healthy" })
}

func (s *suite) unhealthy() {
	c := s.running(func(v *state.Service) { v.Spec.Healthcheck = check("false") })
	s.refused(s.awaiting(c, state.Healthy), state.ClassTimeout)
	s.until("unhealthy", func(c state.Container) bool { return c.Health == "unhealthy" })
}

func (s *suite) completed() {
	for _, code := range []int{0, 3} {
		c := s.running(func(v *state.Service) { v.Spec.Command = []string{"sh", "-c", fmt.Sprintf("exit %d", code)} })
		if code == 0 {
			s.do(s.awaiting(c, state.Completed))
		} else {
			s.refused(s.awaiting(c, state.Completed), state.ClassTimeout)
		}
		got := s.until("exited", func(c state.Container) bool { return c.Phase == state.Exited })
		if got.ExitCode != code {
			s.Fatalf("exit code %d, want %d", got.ExitCode, code)
		}
		s.do(s.remove(c.ID))
	}
}

func (s *suite) started() {
	s.do(s.network("a"))
	step := s.create(nil)
	s.do(step)
	c := s.only()
	waited := make(chan error, 1)
	go func() { waited <- s.try(s.awaiting(c, state.Started)) }()
	s.do(reconcile.Start{App: s.app, Service: "web", Hash: step.Service.Hash, Image: s.f.Image, Container: c.ID})
	if err := <-waited; err != nil {
		s.Fatal(err)
	}
}

func (s *suite) awaitCancelled() {
	c := s.running(nil)
	ctx, cancel := context.WithCancel(s.Context())
	waited := make(chan error, 1)
	go func() { waited <- s.d.Do(ctx, s.awaiting(c, state.Completed), nil) }()
	cancel()
	if err := <-waited; state.ClassOf(err) != state.ClassCancelled {
		s.Fatalf("class of %v is %s", err, state.ClassOf(err))
	}
}

func (s *suite) imageInUse() {
	s.do(reconcile.Fetch{Image: s.f.Other})
	im, ok := s.image(s.f.Other)
	if !ok {
		s.Fatal("image is not there after fetch")
	}
	c := s.running(func(v *state.Service) { v.Image = s.f.Other })
	step := reconcile.RemoveImage{ID: im.ID, Refs: im.Refs}
	s.refused(step, state.ClassEngine)
	s.do(s.stop(c.ID))
	s.refused(step, state.ClassEngine)
	if now, ok := s.image(s.f.Other); !ok || cmp.Diff(im.Refs, now.Refs) != "" {
		s.Fatalf("a refused removal took names away: %v, was %v", now.Refs, im.Refs)
	}
	s.do(s.remove(c.ID))
	s.do(step)
	s.do(step)
	if _, ok := s.image(s.f.Other); ok {
		s.Fatal("image is still there after its removal")
	}
}

func (s *suite) nameConflict() {
	old := s.running(nil)
	step := s.create(func(v *state.Service) { v.Spec.Environment = map[string]string{"LEVEL": "debug"} })
	s.do(step)
	var names []string
	for _, c := range s.now().Containers {
		names = append(names, fmt.Sprintf("%s %s %t", c.Name, c.Phase, c.Hash == step.Service.Hash))
		if c.ReleaseID != 9 || c.Commit != "c0ffee" {
			s.Errorf("%s has lost its release", c.Name)
		}
		if c.ID == old.ID && c.Phase != state.Running {
			s.Errorf("the older container was disturbed: %s", c.Phase)
		}
	}
	if d := cmp.Diff([]string{"old_web_8_9_c0ffee running false", "web_8_9_c0ffee created true"}, sorted(names)); d != "" {
		s.Fatal(d)
	}
}

func (s *suite) removeVolume() {
	v := state.Volume{Name: "data", Spec: state.VolumeSpec{Driver: "local"}}
	v.Hash = v.Spec.Hash()
	s.do(reconcile.CreateVolume{App: s.app, Volume: v})
	s.do(s.network("a"))
	s.do(s.create(func(v *state.Service) {
		v.Spec.Mounts = []state.Mount{{Type: "volume", Source: "data", Target: "/data"}}
	}))
	step := reconcile.RemoveVolume{App: s.app, Name: "data", Intent: "i"}
	s.refused(step, state.ClassEngine)
	s.do(s.remove(s.only().ID))
	s.do(step)
	s.do(step)
	if left := s.now().Volumes; len(left) != 0 {
		s.Fatalf("left: %+v", left)
	}
}

func (s *suite) taking(c state.Container, timeout time.Duration, keepOld bool) reconcile.Handover {
	return reconcile.Handover{App: s.app, Service: "web", Hash: c.Hash, Image: s.f.Image, Timeout: timeout, KeepOld: keepOld, Container: c.ID}
}

func (s *suite) handover() {
	c := s.running(func(v *state.Service) { v.Spec.Healthcheck = check("true") })
	s.do(s.taking(c, patience, true))
}

func (s *suite) handoverTimeout() {
	c := s.running(nil)
	const timeout = 300 * time.Millisecond
	s.do(s.taking(c, timeout, false))
	s.refused(s.taking(c, timeout, true), state.ClassTimeout)
}

func (s *suite) handoverEnds() {
	c := s.running(func(v *state.Service) { v.Spec.Command = []string{"sh", "-c", "exit 3"} })
	s.until("ended", func(c state.Container) bool { return c.Phase == state.Exited })
	s.refused(s.taking(c, patience, true), state.ClassTimeout)
}

func (s *suite) apiNetwork() {
	s.do(s.network("a"))
	s.do(reconcile.CreateAPINetwork{})
	s.do(reconcile.CreateAPINetwork{})
	if !s.world().APINetwork {
		s.Fatal("not there after it was made")
	}
	s.do(s.create(func(v *state.Service) { v.Spec.Features = []string{state.FeatureAPI} }))
	if c := s.only(); !c.API || len(c.Networks) != 1 {
		s.Fatalf("joined: %+v", c)
	}
}

func (s *suite) sharedNetwork() {
	owner := s.running(nil)
	s.do(s.create(func(v *state.Service) {
		v.Name, v.Spec.Networks, v.Spec.NetworkMode = "side", nil, "service:web"
	}))
	for _, c := range s.now().Containers {
		if c.Service == "side" && c.NetworkOwner != owner.ID {
			s.Fatalf("uses the network of %q, want %q", c.NetworkOwner, owner.ID)
		}
	}
}

func (s *suite) noExternalNetwork() {
	s.do(s.network("a"))
	s.refused(s.create(func(v *state.Service) { v.Spec.Networks["far"] = state.Attachment{External: "nobody-made-this"} }), state.ClassInvalid)
	if c := s.now().Containers; len(c) != 0 {
		s.Fatalf("left behind: %+v", c)
	}
}
