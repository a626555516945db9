package enginetest

import (
	"context"
	"fmt"
	"hash/fnv"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"
	"github.com/docker/go-connections/nat"
)

// Traps checks what surprises users of API 1.41, one by one: a simulated engine
// without these would let pass what fails on a device. open gives a client for
// that version.
func Traps(t *testing.T, f Fixture, open func(t *testing.T) *client.Client) {
	for _, c := range []struct {
		name string
		test func(s *traps)
	}{
		{"create takes one network", (*traps).oneNetwork},
		{"create takes a network that does not exist, and start does not", (*traps).lateNetwork},
		{"a network's name is given twice unless asked not to", (*traps).sameName},
		{"a network goes while stopped containers refer to it", (*traps).networkGoes},
		{"networks do not overlap", (*traps).overlap},
		{"aliases come back with the short ID", (*traps).aliases},
		{"an address is given once", (*traps).address},
		{"a port is given once, at start", (*traps).port},
		{"stop and start of what is so already", (*traps).again},
		{"remove of a running container, and of none", (*traps).remove},
		{"kill of what does not run", (*traps).kill},
		{"a container that never ran has ended with 0", (*traps).neverRan},
		{"names are taken, also by oneself", (*traps).names},
		{"restart policies contradict themselves", (*traps).policies},
		{"the restart policy of a running container changes", (*traps).update},
		{"the network of another container", (*traps).shared},
		{"a bind of a missing path", (*traps).bind},
		{"a volume keeps its old options", (*traps).oldOptions},
		{"a volume in use stays, and a mount makes one", (*traps).usedVolume},
		{"an image in use stays", (*traps).usedImage},
		{"a tag is not the image", (*traps).tags},
		{"what is missing is not found", (*traps).missing},
		{"an unknown filter is refused", (*traps).filter},
		{"events come in order", (*traps).events},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(newTraps(t, f, open(t))) })
	}
}

// traps is one test on a plain client.
type traps struct {
	*testing.T
	f    Fixture
	c    *client.Client
	name string // begins the names of all that the test makes
	made int
}

func newTraps(t *testing.T, f Fixture, c *client.Client) *traps {
	h := fnv.New32a()
	_, _ = h.Write([]byte(t.Name()))
	s := &traps{T: t, f: f, c: c, name: fmt.Sprintf("trap%08x", h.Sum32())}
	s.pull(f.Image)
	s.Cleanup(s.clear)
	return s
}

// clear removes what the test made.
func (s *traps) clear() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ours := filters.NewArgs(filters.Arg("name", s.name))
	list, err := s.c.ContainerList(ctx, container.ListOptions{All: true, Filters: ours})
	if err != nil {
		s.Error(err)
	}
	for _, c := range list {
		_ = s.c.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	}
	nets, _ := s.c.NetworkList(ctx, network.ListOptions{Filters: ours})
	for _, n := range nets {
		_ = s.c.NetworkRemove(ctx, n.ID)
	}
	volumes, _ := s.c.VolumeList(ctx, volume.ListOptions{Filters: ours})
	for _, v := range volumes.Volumes {
		_ = s.c.VolumeRemove(ctx, v.Name, true)
	}
}

func (s *traps) pull(ref string) {
	s.Helper()
	r, err := s.c.ImagePull(s.Context(), ref, image.PullOptions{})
	if err != nil {
		s.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if b, err := io.ReadAll(r); err != nil || strings.Contains(string(b), "errorDetail") {
		s.Fatalf("pull %s: %v %s", ref, err, b)
	}
}

// create makes a container; what it is made with may be changed.
func (s *traps) create(change func(c *container.Config, h *container.HostConfig, n *network.NetworkingConfig)) (id string, err error) {
	c, h, n := &container.Config{Image: s.f.Image}, &container.HostConfig{}, &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{}}
	if change != nil {
		change(c, h, n)
	}
	s.made++
	made, err := s.c.ContainerCreate(s.Context(), c, h, n, nil, fmt.Sprintf("%s_%d", s.name, s.made))
	return made.ID, err
}

func (s *traps) mustCreate(change func(c *container.Config, h *container.HostConfig, n *network.NetworkingConfig)) string {
	s.Helper()
	id, err := s.create(change)
	if err != nil {
		s.Fatal(err)
	}
	return id
}

func (s *traps) start(id string) error {
	return s.c.ContainerStart(s.Context(), id, container.StartOptions{})
}

func (s *traps) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// says checks the kind of an error and a piece of its text.
func (s *traps) says(err error, is func(error) bool, text string) {
	s.Helper()
	if err == nil || !is(err) || !strings.Contains(err.Error(), text) {
		s.Errorf("the engine says %v (%T), want %q", err, err, text)
	}
}

func (s *traps) inspect(id string) container.InspectResponse {
	s.Helper()
	c, err := s.c.ContainerInspect(s.Context(), id)
	s.must(err)
	return c
}

// network makes one; name is added to the test's.
func (s *traps) network(name, subnet string) (full, id string) {
	s.Helper()
	o := network.CreateOptions{Driver: "bridge"}
	if subnet != "" {
		o.IPAM = &network.IPAM{Config: []network.IPAMConfig{{Subnet: subnet}}}
	}
	n, err := s.c.NetworkCreate(s.Context(), s.name+name, o)
	s.must(err)
	return s.name + name, n.ID
}

func on(names ...string) func(*container.Config, *container.HostConfig, *network.NetworkingConfig) {
	return func(_ *container.Config, h *container.HostConfig, n *network.NetworkingConfig) {
		h.NetworkMode = container.NetworkMode(names[0])
		for _, name := range names {
			n.EndpointsConfig[name] = &network.EndpointSettings{Aliases: []string{"web"}}
		}
	}
}

func (s *traps) oneNetwork() {
	a, _ := s.network("a", "")
	b, _ := s.network("b", "")
	_, err := s.create(on(a, b))
	s.says(err, errdefs.IsInvalidArgument, "Container cannot be connected to network endpoints")
}

func (s *traps) lateNetwork() {
	id := s.mustCreate(on(s.name + "late"))
	s.says(s.start(id), errdefs.IsNotFound, "network "+s.name+"late not found")
	if c := s.inspect(id); c.State.Status != "created" || c.State.Error == "" {
		s.Errorf("after the failed start: %+v", c.State)
	}
	s.network("late", "")
	s.must(s.start(id))
}

// unchecked makes a network as clients do that do not ask for CheckDuplicate.
func (s *traps) unchecked(name string) {
	s.Helper()
	url := strings.Replace(s.c.DaemonHost(), "unix://", "http://", 1)
	if strings.HasPrefix(s.c.DaemonHost(), "unix://") {
		url = "http://docker"
	}
	url = strings.Replace(url, "tcp://", "http://", 1)
	r, err := s.c.HTTPClient().Post(url+"/v1.41/networks/create", "application/json", strings.NewReader(`{"Name":"`+name+`"}`)) //nolint:noctx // the engine is local
	s.must(err)
	defer func() { _ = r.Body.Close() }()
	if r.StatusCode != 201 {
		s.Fatalf("a second network of the name: %s", r.Status)
	}
}

func (s *traps) sameName() {
	name, id := s.network("a", "")
	_, err := s.c.NetworkCreate(s.Context(), name, network.CreateOptions{})
	s.says(err, errdefs.IsConflict, "network with name "+name+" already exists")
	s.unchecked(name)
	_, err = s.c.NetworkInspect(s.Context(), name, network.InspectOptions{})
	s.says(err, errdefs.IsInvalidArgument, "2 matches found based on name: network "+name+" is ambiguous")
	c := s.mustCreate(on(name))
	s.says(s.start(c), errdefs.IsInvalidArgument, "ambiguous")
	s.must(s.c.NetworkRemove(s.Context(), id))
	s.must(s.start(c))
}

func (s *traps) networkGoes() {
	name, id := s.network("a", "")
	c := s.mustCreate(on(name))
	s.must(s.start(c))
	s.says(s.c.NetworkRemove(s.Context(), id), errdefs.IsPermissionDenied, "has active endpoints")
	s.must(s.c.ContainerStop(s.Context(), c, container.StopOptions{}))
	s.must(s.c.NetworkRemove(s.Context(), id))
	s.says(s.start(c), errdefs.IsNotFound, "not found")
	s.says(s.c.NetworkRemove(s.Context(), id), errdefs.IsNotFound, "not found")
}

func (s *traps) overlap() {
	s.network("a", "10.211.7.0/24")
	_, err := s.c.NetworkCreate(s.Context(), s.name+"b", network.CreateOptions{IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: "10.211.0.0/16"}}}})
	s.says(err, errdefs.IsPermissionDenied, "Pool overlaps with other one on this address space")
}

func (s *traps) aliases() {
	a, _ := s.network("a", "")
	b, id := s.network("b", "")
	c := s.mustCreate(on(a))
	s.must(s.c.NetworkConnect(s.Context(), id, c, &network.EndpointSettings{Aliases: []string{"other"}}))
	s.must(s.start(c))
	for name, want := range map[string]string{a: "web", b: "other"} {
		got := fmt.Sprint(s.inspect(c).NetworkSettings.Networks[name].Aliases)
		if !strings.Contains(got, want) || !strings.Contains(got, c[:12]) {
			s.Errorf("aliases in %s: %s", name, got)
		}
	}
	err := s.c.NetworkConnect(s.Context(), id, c, nil)
	s.says(err, errdefs.IsPermissionDenied, "already exists in network")
}

func at(name, address string) func(*container.Config, *container.HostConfig, *network.NetworkingConfig) {
	return func(_ *container.Config, h *container.HostConfig, n *network.NetworkingConfig) {
		h.NetworkMode = container.NetworkMode(name)
		n.EndpointsConfig[name] = &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: address}}
	}
}

func (s *traps) address() {
	name, _ := s.network("a", "10.212.7.0/24")
	a, b := s.mustCreate(at(name, "10.212.7.9")), s.mustCreate(at(name, "10.212.7.9"))
	s.must(s.start(a))
	s.says(s.start(b), errdefs.IsPermissionDenied, "Address already in use")
	s.must(s.c.ContainerStop(s.Context(), a, container.StopOptions{}))
	s.must(s.start(b))
	plain, _ := s.network("b", "")
	s.says(s.start(s.mustCreate(at(plain, "10.212.8.9"))), errdefs.IsInvalidArgument, "only when connecting to networks with user configured subnets")
}

func (s *traps) port() {
	name, _ := s.network("a", "")
	publish := func(c *container.Config, h *container.HostConfig, n *network.NetworkingConfig) {
		on(name)(c, h, n)
		c.ExposedPorts = nat.PortSet{"80/tcp": {}}
		h.PortBindings = nat.PortMap{"80/tcp": {{HostIP: "127.0.0.1", HostPort: "48219"}}}
	}
	a, b := s.mustCreate(publish), s.mustCreate(publish)
	s.must(s.start(a))
	s.says(s.start(b), errdefs.IsInternal, "port is already allocated")
	if c := s.inspect(b); c.State.Status != "created" || c.State.ExitCode != 128 {
		s.Errorf("after the failed start: %+v", c.State)
	}
	s.must(s.c.ContainerStop(s.Context(), a, container.StopOptions{}))
	s.must(s.start(b))
}

func (s *traps) again() {
	c := s.mustCreate(nil)
	s.must(s.c.ContainerStop(s.Context(), c, container.StopOptions{}))
	for range 2 {
		s.must(s.start(c))
	}
	for range 2 {
		s.must(s.c.ContainerStop(s.Context(), c, container.StopOptions{}))
	}
}

func (s *traps) remove() {
	c := s.mustCreate(nil)
	s.must(s.start(c))
	s.says(s.c.ContainerRemove(s.Context(), c, container.RemoveOptions{}), errdefs.IsConflict, "You cannot remove a running container")
	s.must(s.c.ContainerRemove(s.Context(), c, container.RemoveOptions{Force: true}))
	s.says(s.c.ContainerRemove(s.Context(), c, container.RemoveOptions{}), errdefs.IsNotFound, "No such container")
}

func (s *traps) kill() {
	c := s.mustCreate(nil)
	s.says(s.c.ContainerKill(s.Context(), c, "KILL"), errdefs.IsConflict, "is not running")
	s.must(s.start(c))
	s.must(s.c.ContainerKill(s.Context(), c, "KILL"))
	for deadline := time.Now().Add(patience); s.inspect(c).State.Running; {
		if time.Now().After(deadline) {
			s.Fatal("it survives")
		}
	}
	if got := s.inspect(c).State.ExitCode; got != 137 {
		s.Errorf("exit code %d", got)
	}
}

func (s *traps) neverRan() {
	st := s.inspect(s.mustCreate(nil)).State
	if st.ExitCode != 0 || !strings.HasPrefix(st.StartedAt, "0001-01-01") || st.Status != "created" {
		s.Errorf("%+v", st)
	}
}

func (s *traps) names() {
	a, b := s.mustCreate(nil), s.mustCreate(nil)
	_, err := s.c.ContainerCreate(s.Context(), &container.Config{Image: s.f.Image}, nil, nil, nil, s.name+"_1")
	s.says(err, errdefs.IsConflict, "is already in use by container")
	s.says(s.c.ContainerRename(s.Context(), b, s.name+"_1"), errdefs.IsConflict, "is already in use by container")
	s.says(s.c.ContainerRename(s.Context(), a, s.name+"_1"), errdefs.IsInvalidArgument, "same name as its current name")
	s.must(s.c.ContainerRename(s.Context(), a, s.name+"_free"))
	s.must(s.c.ContainerRename(s.Context(), b, s.name+"_1"))
	if got := s.inspect(b).Name; got != "/"+s.name+"_1" {
		s.Errorf("it is called %s", got)
	}
}

func (s *traps) policies() {
	_, err := s.create(func(_ *container.Config, h *container.HostConfig, _ *network.NetworkingConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: "always", MaximumRetryCount: 3}
	})
	s.says(err, errdefs.IsInvalidArgument, "maximum retry count cannot be used")
	_, err = s.create(func(_ *container.Config, h *container.HostConfig, _ *network.NetworkingConfig) {
		h.RestartPolicy, h.AutoRemove = container.RestartPolicy{Name: "always"}, true
	})
	s.says(err, errdefs.IsInvalidArgument, "can't create 'AutoRemove' container with restart policy")
}

func (s *traps) update() {
	c := s.mustCreate(func(_ *container.Config, h *container.HostConfig, _ *network.NetworkingConfig) {
		h.RestartPolicy = container.RestartPolicy{Name: "always"}
	})
	s.must(s.start(c))
	_, err := s.c.ContainerUpdate(s.Context(), c, container.UpdateConfig{RestartPolicy: container.RestartPolicy{Name: "no"}})
	s.must(err)
	if got := s.inspect(c).HostConfig.RestartPolicy.Name; got != "no" {
		s.Errorf("policy %q", got)
	}
}

func (s *traps) shared() {
	owner := s.mustCreate(nil)
	share := func(c *container.Config, h *container.HostConfig, _ *network.NetworkingConfig) {
		h.NetworkMode = container.NetworkMode("container:" + owner)
	}
	_, err := s.create(func(c *container.Config, h *container.HostConfig, n *network.NetworkingConfig) {
		share(c, h, n)
		c.Hostname = "h"
	})
	s.says(err, errdefs.IsInvalidArgument, "conflicting options: hostname and the network mode")
	c := s.mustCreate(share)
	s.says(s.start(c), errdefs.IsConflict, "cannot join network of a non running container")
	s.must(s.start(owner))
	s.must(s.start(c))
}

func (s *traps) bind() {
	_, err := s.create(func(_ *container.Config, h *container.HostConfig, _ *network.NetworkingConfig) {
		h.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: "/nowhere/at/all", Target: "/x"}}
	})
	s.says(err, errdefs.IsInvalidArgument, "bind source path does not exist: /nowhere/at/all")
}

func (s *traps) oldOptions() {
	_, err := s.c.VolumeCreate(s.Context(), volume.CreateOptions{Name: s.name, Labels: map[string]string{"is": "first"}})
	s.must(err)
	v, err := s.c.VolumeCreate(s.Context(), volume.CreateOptions{Name: s.name, Labels: map[string]string{"is": "second"}})
	s.must(err)
	if v.Labels["is"] != "first" {
		s.Errorf("labels %v", v.Labels)
	}
}

func (s *traps) usedVolume() {
	c := s.mustCreate(func(_ *container.Config, h *container.HostConfig, _ *network.NetworkingConfig) {
		h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: s.name, Target: "/x"}}
	})
	s.says(s.c.VolumeRemove(s.Context(), s.name, false), errdefs.IsConflict, "volume is in use")
	s.says(s.c.VolumeRemove(s.Context(), s.name, true), errdefs.IsConflict, "volume is in use")
	s.must(s.c.ContainerRemove(s.Context(), c, container.RemoveOptions{RemoveVolumes: true}))
	s.must(s.c.VolumeRemove(s.Context(), s.name, false)) // named volumes stay with "v=1"
	s.says(s.c.VolumeRemove(s.Context(), s.name, false), errdefs.IsNotFound, "no such volume")
	s.must(s.c.VolumeRemove(s.Context(), s.name, true))
}

func (s *traps) usedImage() {
	s.pull(s.f.Other)
	c := s.mustCreate(func(c *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig) { c.Image = s.f.Other })
	_, err := s.c.ImageRemove(s.Context(), s.f.Other, image.RemoveOptions{})
	s.says(err, errdefs.IsConflict, "is using its referenced image")
	_, err = s.c.ImageRemove(s.Context(), s.inspect(c).Image, image.RemoveOptions{})
	s.says(err, errdefs.IsConflict, "image is being used by stopped container")
	s.must(s.c.ContainerRemove(s.Context(), c, container.RemoveOptions{}))
	_, err = s.c.ImageRemove(s.Context(), s.f.Other, image.RemoveOptions{})
	s.must(err)
	_, err = s.c.ImageInspect(s.Context(), s.f.Other)
	s.says(err, errdefs.IsNotFound, "No such image")
}

func (s *traps) tags() {
	s.pull(s.f.Other)
	im, err := s.c.ImageInspect(s.Context(), s.f.Other)
	s.must(err)
	mine := s.name + ":mine"
	s.must(s.c.ImageTag(s.Context(), im.ID, mine))
	_, err = s.c.ImageRemove(s.Context(), im.ID, image.RemoveOptions{})
	s.says(err, errdefs.IsConflict, "image is referenced in multiple repositories")
	_, err = s.c.ImageRemove(s.Context(), s.f.Other, image.RemoveOptions{})
	s.must(err)
	now, err := s.c.ImageInspect(s.Context(), mine)
	s.must(err)
	if now.ID != im.ID || len(now.RepoDigests) != 0 {
		s.Errorf("after its other tag went: %v %v", now.RepoTags, now.RepoDigests)
	}
	_, err = s.c.ImageRemove(s.Context(), mine, image.RemoveOptions{})
	s.must(err)
	_, err = s.c.ImageInspect(s.Context(), im.ID)
	s.says(err, errdefs.IsNotFound, "No such image")
}

func (s *traps) missing() {
	_, err := s.c.ImagePull(s.Context(), s.f.Missing, image.PullOptions{})
	s.says(err, errdefs.IsNotFound, "manifest unknown")
	_, err = s.create(func(c *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig) { c.Image = s.f.Missing })
	s.says(err, errdefs.IsNotFound, "No such image")
	_, err = s.c.ContainerInspect(s.Context(), s.name+"gone")
	s.says(err, errdefs.IsNotFound, "No such container")
	_, err = s.c.VolumeInspect(s.Context(), s.name+"gone")
	s.says(err, errdefs.IsNotFound, "no such volume")
}

func (s *traps) filter() {
	_, err := s.c.ContainerList(s.Context(), container.ListOptions{Filters: filters.NewArgs(filters.Arg("colour", "red"))})
	s.says(err, errdefs.IsInvalidArgument, "colour")
}

func (s *traps) events() {
	ctx, cancel := context.WithTimeout(s.Context(), patience)
	defer cancel()
	id := s.mustCreate(func(c *container.Config, _ *container.HostConfig, _ *network.NetworkingConfig) {
		c.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}, Interval: 100 * time.Millisecond}
	})
	messages, broken := s.c.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("container", id),
		filters.Arg("event", "start"), filters.Arg("event", "die"), filters.Arg("event", "health_status"), filters.Arg("event", "destroy"))})
	defer func() {
		cancel()
		for range broken { // until the client's goroutine has ended
		}
	}()
	next := func(want events.Action) {
		s.Helper()
		select {
		case m := <-messages:
			if m.Action != want || m.Actor.ID != id {
				s.Errorf("event %q, want %q", m.Action, want)
			}
		case err := <-broken:
			s.Fatalf("waiting for %s: %v", want, err)
		}
	}
	s.must(s.start(id))
	next("start")
	next("health_status: healthy")
	s.must(s.c.ContainerStop(ctx, id, container.StopOptions{}))
	next("die")
	s.must(s.c.ContainerRemove(ctx, id, container.RemoveOptions{}))
	next("destroy")
}
