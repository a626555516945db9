//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/go-connections/nat"

	"deckhand/locks"
	"deckhand/state"
	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// balena makes objects on the engine as balena's supervisor v19 makes them.
type balena struct {
	*scene
	app   paperApp
	image string // engine's ID
}

// network makes a network of the app.
func (b balena) network(name string) {
	b.Helper()
	off := false
	_, err := b.engine.Client.NetworkCreate(b.Context(), state.NetworkName(b.app.uuid, name), network.CreateOptions{
		Driver: "bridge", EnableIPv6: &off, Options: map[string]string{},
		IPAM:   &network.IPAM{Driver: "default", Options: map[string]string{}, Config: []network.IPAMConfig{}},
		Labels: map[string]string{state.LabelSupervised: "true", state.LabelAppID: fmt.Sprint(b.app.id)},
	})
	b.must(err)
}

// volume makes a volume of the app.
func (b balena) volume(name string) {
	b.Helper()
	_, err := b.engine.Client.VolumeCreate(b.Context(), volume.CreateOptions{
		Name: state.VolumeName(b.app.id, name), Driver: "local", DriverOpts: map[string]string{},
		Labels: map[string]string{state.LabelSupervised: "true", state.LabelAppUUID: b.app.uuid},
	})
	b.must(err)
}

// service makes and starts a service of the app. What the composition asks for
// is set by change; networks are joined in the order given, the first one at
// creation.
func (b balena) service(name string, id, imageID int64, env, labels map[string]string, networks []string, change func(*container.Config, *container.HostConfig)) string {
	b.Helper()
	vars := map[string]string{
		"PATH": "/bin", "USER": "root", "RESIN_SERVICE_KILL_ME_PATH": "/tmp/balena/handover-complete",
		"BALENA_SERVICE_HANDOVER_COMPLETE_PATH": "/tmp/balena/handover-complete",
	}
	for _, p := range []string{"BALENA", "RESIN"} {
		maps.Copy(vars, map[string]string{
			p: "1", p + "_APP_ID": fmt.Sprint(b.app.id), p + "_APP_UUID": b.app.uuid, p + "_APP_NAME": "app" + b.app.uuid[:1],
			p + "_SERVICE_NAME": name, p + "_DEVICE_UUID": paperUUID, p + "_DEVICE_TYPE": "generic-amd64", p + "_DEVICE_ARCH": "amd64",
			p + "_HOST_OS_VERSION": "balenaOS 6.1.2", p + "_APP_LOCK_PATH": "/tmp/balena/updates.lock", p + "_DEVICE_NAME_AT_INIT": "paper",
		})
	}
	maps.Copy(vars, env)
	all := map[string]string{
		state.LabelSupervised: "true", state.LabelAppID: fmt.Sprint(b.app.id), state.LabelAppUUID: b.app.uuid,
		state.LabelServiceID: fmt.Sprint(id), state.LabelServiceName: name,
	}
	maps.Copy(all, labels)
	grace, dir := 10, filepath.Join(b.unit.RunDir, "services", fmt.Sprint(b.app.id), name)
	c := &container.Config{
		Image: b.image, Cmd: []string{"/bin/sh", "-c", dockerd.Idle}, Entrypoint: []string{}, Tty: true, StopSignal: "SIGTERM", StopTimeout: &grace,
		Labels: all, Healthcheck: &container.HealthConfig{Test: []string{"NONE"}}, ExposedPorts: nat.PortSet{}, Volumes: map[string]struct{}{},
	}
	for k, v := range vars {
		c.Env = append(c.Env, k+"="+v)
	}
	slices.Sort(c.Env)
	h := &container.HostConfig{
		Binds: []string{dir + ":/tmp/resin", dir + ":/tmp/balena"}, IpcMode: "shareable", ShmSize: 64 << 20, Tmpfs: map[string]string{},
		RestartPolicy: container.RestartPolicy{Name: "always"}, PortBindings: nat.PortMap{}, NetworkMode: "host",
		CapAdd: []string{}, CapDrop: []string{}, DNS: []string{}, DNSOptions: []string{}, DNSSearch: []string{}, ExtraHosts: []string{},
		GroupAdd: []string{}, SecurityOpt: []string{}, Sysctls: map[string]string{},
	}
	var ends *network.NetworkingConfig
	if len(networks) > 0 {
		first := state.NetworkName(b.app.uuid, networks[0])
		h.NetworkMode = container.NetworkMode(first)
		ends = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{
			first: {Aliases: []string{name}, IPAMConfig: &network.EndpointIPAMConfig{}}}}
	}
	if change != nil {
		change(c, h)
	}
	made, err := b.engine.Client.ContainerCreate(b.Context(), c, h, ends, nil, state.ContainerName(name, imageID, b.app.release, b.app.commit))
	b.must(err)
	for i, n := range networks {
		if i > 0 {
			b.must(b.engine.Client.NetworkConnect(b.Context(), state.NetworkName(b.app.uuid, n), made.ID, &network.EndpointSettings{Aliases: []string{name}}))
		}
	}
	b.must(b.engine.Client.ContainerStart(b.Context(), made.ID, container.StartOptions{}))
	return made.ID
}

// A device that ran balena's supervisor is taken over while its services run:
// nothing is made, stopped, renamed or removed. Lock files of the old supervisor
// block nothing. Then it is updated like any other.
func TestTakenOverFromBalena(t *testing.T) {
	s := beside(t)
	image := s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	port, err := system.FreeAddr()
	s.must(err)
	service := func(id, imageID int64, env, labels map[string]string, composition map[string]any) map[string]any {
		x := with(with(runsWith("hello:1", composition), "id", id), "image_id", imageID)
		return with(with(x, "environment", env), "labels", labels)
	}
	webEnv, webLabels := map[string]string{"LEVEL": "info", "QUOTED": `a "b" $c`}, map[string]string{"owner": "me", "io.balena.update.strategy": "kill-then-download"}
	callsSupervisor := map[string]string{"io.balena.features.supervisor-api": "1"}
	a := app("1", "a", map[string]any{
		"web": service(11, 101, webEnv, webLabels, map[string]any{
			"volumes": []string{"data:/data"}, "ports": []string{port + ":80"}, "cap_add": []string{"NET_ADMIN"}, "depends_on": []string{"worker"},
		}),
		"worker": service(12, 102, map[string]string{}, map[string]string{}, map[string]any{
			"networks": []string{"front", "back"}, "command": "sleep 100000", "stop_grace_period": "1s", "tty": false,
			"volumes": []any{map[string]any{"type": "volume", "source": "data", "target": "/shared"}}, "mem_limit": "64m",
		}),
		"hosty": service(13, 103, map[string]string{}, callsSupervisor, map[string]any{"network_mode": "host", "restart": "unless-stopped"}),
		"once":  service(14, 104, map[string]string{}, map[string]string{}, map[string]any{"command": []string{"true"}, "restart": "no"}),
	}).beside("networks", map[string]any{"front": map[string]any{}, "back": map[string]any{}}).beside("volumes", map[string]any{"data": map[string]any{}})
	a.release = 77
	s.deviceWith(p.values()) // its folders, before anything runs
	old := balena{s, a, image}
	for _, n := range []string{"default", "front", "back"} {
		old.network(n)
	}
	old.volume("data")
	old.service("web", 11, 101, webEnv, webLabels, []string{"default"}, func(c *container.Config, h *container.HostConfig) {
		h.Binds = append([]string{"1_data:/data"}, h.Binds...)
		h.CapAdd = []string{"NET_ADMIN"}
		c.ExposedPorts = nat.PortSet{"80/tcp": {}}
		h.PortBindings = nat.PortMap{"80/tcp": {{HostIP: "127.0.0.1", HostPort: fmt.Sprint(system.Port(port))}}}
	})
	old.service("worker", 12, 102, nil, nil, []string{"front", "back"}, func(c *container.Config, h *container.HostConfig) {
		second := 1
		c.Cmd, c.StopTimeout, c.Tty = []string{"sleep", "100000"}, &second, false
		h.Mounts = []mount.Mount{{Type: mount.TypeVolume, Source: "1_data", Target: "/shared"}}
		h.Memory = 64 << 20
	})
	hostname, err := os.Hostname()
	s.must(err)
	key := strings.Repeat("0a", 16) // of nobody's database
	old.service("hosty", 13, 103, map[string]string{"BALENA_SUPERVISOR_API_KEY": key, "RESIN_SUPERVISOR_API_KEY": key}, callsSupervisor, nil, func(c *container.Config, h *container.HostConfig) {
		c.Hostname, h.RestartPolicy = hostname, container.RestartPolicy{Name: "unless-stopped"}
	})
	once := old.service("once", 14, 104, nil, nil, []string{"default"}, func(c *container.Config, h *container.HostConfig) {
		c.Cmd, h.RestartPolicy = []string{"true"}, container.RestartPolicy{Name: "no"}
	})
	s.within("the one-shot service has ended", func(ctx context.Context) error {
		c, err := s.engine.Client.ContainerInspect(ctx, once)
		if err == nil && c.State.Status != container.StateExited {
			err = fmt.Errorf("it is %s", c.State.Status)
		}
		return err
	})
	s.exec(s.service("web").ID, "sh", "-c", "echo precious >/data/file")
	for _, name := range []string{"updates.lock", "resin-updates.lock"} { // as an interrupted update leaves them
		file := filepath.Join(s.unit.RunDir, "services/1/web", name)
		s.must(os.WriteFile(file, nil, 0o644))
		s.must(os.Chown(file, locks.LockUID, locks.LockUID))
	}
	before := s.services()

	tape := s.record()
	mark := tape.mark()
	p.offer(a)
	s.boot()
	s.settlesAt(a.commit)
	if said := tape.since(mark); len(said) > 0 {
		t.Errorf("containers were touched: %v", said)
		s.explainAll(before)
	}
	tape.never("create network default", "destroy network default", "create network front", "create volume data", "destroy volume data")
	s.untouched(before)
	s.noLocks()
	if code := s.callsAPI(before["hosty"], "GET", "/v2/applications/1/state", nil, nil); code != 200 {
		t.Errorf("a container that was taken over calls the supervisor: %d", code)
	}
	if code := s.callsAPI(before["web"], "GET", "/v2/applications/1/state", nil, nil); code != 401 {
		t.Errorf("a container without a key calls the supervisor: %d", code)
	}

	webEnv = map[string]string{"LEVEL": "debug", "QUOTED": `a "b" $c`}
	b := a
	b.commit, b.release, b.services = strings.Repeat("b", 32), 78, maps.Clone(a.services)
	b.services["web"] = with(a.services["web"].(map[string]any), "environment", webEnv)
	p.offer(b)
	s.settlesAt(b.commit)
	for _, name := range []string{"worker", "hosty", "once"} {
		s.same(before[name], s.service(name))
	}
	web := s.service("web")
	if env(web, "LEVEL") != "debug" || strings.TrimSpace(s.exec(web.ID, "cat", "/data/file")) != "precious" {
		t.Errorf("web after the update: %v", web.Config.Env)
	}
	tape.order("kill web 1", "die web 1", "start web 2")
	tape.never("kill worker 1", "kill hosty 1", "start once 1", "create network default", "destroy network default", "destroy volume data")
	s.told([]string{"explain", "web"}, "environment.LEVEL changed")
}

// explainAll shows why services are touched that should not be.
func (s *scene) explainAll(services map[string]container.InspectResponse) {
	s.Helper()
	for _, name := range slices.Sorted(maps.Keys(services)) {
		out, err := s.deckhand("explain", "app1/"+name, "--data-dir", s.unit.DataDir)
		s.Logf("%s %v", out, err)
	}
}
