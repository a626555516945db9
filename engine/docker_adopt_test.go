//go:build engine && linux

package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"
	"github.com/google/go-cmp/cmp"

	"deckhand/compose"
	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/dockerd"
)

// body is a request to create a container.
type body struct {
	*container.Config
	Host *container.HostConfig
	Nets map[string]*network.EndpointSettings // by full name; the one in Host.NetworkMode is given at creation
}

// adoption is an app that balena's supervisor runs.
type adoption struct {
	*rig
	n int
}

// plain is what balena's supervisor sends for a service without any option.
func (a adoption) plain(service string) body {
	full := state.NetworkName(a.app.UUID, "default")
	dir := "/tmp/balena-supervisor/services/" + strconv.FormatInt(a.app.ID, 10) + "/" + service
	grace := 10
	b := body{
		Config: &container.Config{
			Image: a.image, Tty: true, Cmd: []string{}, Entrypoint: []string{}, StopSignal: "SIGTERM", StopTimeout: &grace,
			Healthcheck: &container.HealthConfig{Test: []string{"NONE"}},
			Volumes:     map[string]struct{}{},
			Labels: map[string]string{
				state.LabelSupervised: "true", state.LabelAppID: strconv.FormatInt(a.app.ID, 10), state.LabelAppUUID: a.app.UUID,
				state.LabelServiceID: "7", state.LabelServiceName: service,
			},
		},
		Host: &container.HostConfig{
			Binds:         []string{dir + ":/tmp/resin", dir + ":/tmp/balena"},
			IpcMode:       "shareable",
			NetworkMode:   container.NetworkMode(full),
			RestartPolicy: container.RestartPolicy{Name: "always"},
			ShmSize:       67108864,
			PortBindings:  nat.PortMap{},
		},
		Nets: map[string]*network.EndpointSettings{full: {Aliases: []string{service}}},
	}
	env := map[string]string{
		"RESIN_SERVICE_KILL_ME_PATH": "/tmp/balena/handover-complete", "BALENA_SERVICE_HANDOVER_COMPLETE_PATH": "/tmp/balena/handover-complete", "USER": "root",
	}
	for _, p := range []string{"BALENA", "RESIN"} {
		maps.Copy(env, map[string]string{
			p: "1", p + "_APP_ID": strconv.FormatInt(a.app.ID, 10), p + "_APP_UUID": a.app.UUID, p + "_APP_NAME": "an older name", p + "_SERVICE_NAME": service,
			p + "_DEVICE_UUID": "d0", p + "_DEVICE_TYPE": "raspberrypi3", p + "_DEVICE_ARCH": "armv7hf", p + "_HOST_OS_VERSION": "balenaOS 2",
			p + "_APP_LOCK_PATH": "/tmp/balena/updates.lock", p + "_DEVICE_NAME_AT_INIT": "old-moon",
		})
	}
	b.env(env)
	return b
}

// env adds variables; the later of two wins.
func (b *body) env(more map[string]string) {
	now := map[string]string{}
	for _, kv := range b.Env {
		k, v, _ := strings.Cut(kv, "=")
		now[k] = v
	}
	maps.Copy(now, more)
	b.Env = nil
	for _, k := range slices.Sorted(maps.Keys(now)) {
		b.Env = append(b.Env, k+"="+now[k])
	}
}

// make creates the container and gives its ID.
func (a *adoption) make(b body) string {
	a.Helper()
	main := map[string]*network.EndpointSettings{}
	var rest []string
	for name, end := range b.Nets {
		if string(b.Host.NetworkMode) == name {
			main[name] = end
		} else {
			rest = append(rest, name)
		}
	}
	a.n++
	made, err := docker().Client.ContainerCreate(a.Context(), b.Config, b.Host, &network.NetworkingConfig{EndpointsConfig: main}, nil,
		fmt.Sprintf("%s_%d_2_c", b.Labels[state.LabelServiceName], a.n))
	if err != nil {
		a.Fatal(err)
	}
	for _, name := range rest {
		if err := docker().Client.NetworkConnect(a.Context(), name, made.ID, b.Nets[name]); err != nil {
			a.Fatal(err)
		}
	}
	return made.ID
}

// wanted loads the composition of service web as a device does.
func (a adoption) wanted(composition string) reconcile.Create {
	a.Helper()
	var service map[string]any
	if err := json.Unmarshal([]byte(composition), &service); err != nil {
		a.Fatal(err)
	}
	service["image"] = a.image
	p, problems, err := compose.Load(a.Context(), compose.Options{Release: true}, map[string]any{
		"services": map[string]any{"web": service, "db": map[string]any{"image": a.image}},
		"networks": map[string]any{"default": nil, "back": map[string]any{"ipam": map[string]any{"config": []any{map[string]any{"subnet": a.subnet(), "gateway": a.address(1)}}}}},
		"volumes":  map[string]any{"data": nil, "more": nil},
	})
	if err == nil {
		err = compose.Refusal(problems)
	}
	if err != nil {
		a.Fatal(err)
	}
	return reconcile.Create{App: a.app, Commit: "c", ReleaseID: 2, Service: p.Services["web"]}
}

// The key of a container is what its supervisor has put into its environment, and
// nothing else that is called so.
func TestTheKeyOfAnAdoptedContainer(t *testing.T) {
	a := newAdoption(t)
	key, other, public := strings.Repeat("a1", 16), strings.Repeat("b2", 16), strings.Repeat("c3", 16)
	const ours, old = "BALENA_SUPERVISOR_API_KEY", "RESIN_SUPERVISOR_API_KEY"
	docker().Image(t, dockerd.Image{Tag: "leaky:1", Changes: []string{"ENV " + ours + "=" + public}})
	for name, c := range map[string]struct {
		image string
		env   map[string]string
		want  string
	}{
		"both names":         {a.image, map[string]string{ours: key, old: key}, key},
		"the old name only":  {a.image, map[string]string{old: key}, key},
		"none":               {a.image, nil, ""},
		"a contradiction":    {a.image, map[string]string{ours: key, old: other}, ""},
		"not a supervisor's": {a.image, map[string]string{ours: "secret"}, ""},
		"in capitals":        {a.image, map[string]string{ours: strings.ToUpper(key)}, ""},
		"the image's":        {"leaky:1", nil, ""},
		"instead of image's": {"leaky:1", map[string]string{ours: key}, key},
		"beside the image's": {"leaky:1", map[string]string{old: public}, ""},
		"empty":              {a.image, map[string]string{ours: ""}, ""},
	} {
		b := a.plain("web")
		b.Image = c.image
		b.env(c.env)
		got, err := a.e.SupervisorKey(t.Context(), a.make(b))
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
	if _, err := a.e.SupervisorKey(t.Context(), strings.Repeat("0", 64)); err == nil {
		t.Error("a container that is not there has no key")
	}
}

func (a adoption) subnet() string       { return strings.TrimSuffix(a.address(0), ".0") + ".0/24" }
func (a adoption) address(n int) string { return fmt.Sprintf("172.31.%d.%d", 1+a.app.ID%200, n) }

func (a adoption) full(short string) string { return state.NetworkName(a.app.UUID, short) }

// fields compares and gives the names of what differs.
func (a adoption) fields(id string, s reconcile.Create) []string {
	a.Helper()
	changes, err := a.e.Differences(a.Context(), id, s)
	if err != nil {
		a.Fatal(err)
	}
	out := []string{}
	for _, c := range changes {
		out = append(out, c.Field)
		if strings.Contains(fmt.Sprintf("%+v", c), "secret") {
			a.Errorf("a value of the environment leaks: %+v", c)
		}
	}
	return out
}

func newAdoption(t *testing.T) *adoption {
	t.Helper()
	a := &adoption{rig: newRig(t, nil)}
	a.image = "adopted:1"
	docker().Image(t, dockerd.Image{Tag: a.image, Changes: []string{
		`ENV OF_IMAGE=image`, `ENV BOTH=image`, `LABEL of.image=image`, `LABEL io.resin.features.optional=1`, `VOLUME /image`, `EXPOSE 9000`, `WORKDIR /www/`,
	}})
	for name, o := range map[string]network.CreateOptions{
		"default": {}, "back": {IPAM: &network.IPAM{Driver: "default", Config: []network.IPAMConfig{{Subnet: a.subnet(), Gateway: a.address(1)}}}},
	} {
		o.Labels = map[string]string{state.LabelSupervised: "true", state.LabelAppID: strconv.FormatInt(a.app.ID, 10)}
		made, err := docker().Client.NetworkCreate(t.Context(), a.full(name), o)
		if err != nil {
			t.Fatal(err)
		}
		id := made.ID
		t.Cleanup(func() { removeWith(id) })
	}
	return a
}

// adopted are compositions and what balena's supervisor makes of them, beside
// what it makes of an empty one.
type adopted struct {
	composition string
	body        func(a *adoption, b *body)
}

func adoptions() map[string]adopted {
	return map[string]adopted{
		"nothing": {`{}`, func(*adoption, *body) {}},
		"program": {`{"command":"sh -c 'echo hi'","entrypoint":["/bin/env"],"user":"1000","working_dir":"/tmp/","environment":{"MINE":"secret","BOTH":"secret","USER":"me"},
			"labels":{"mine":"1","io.resin.own":"2","io.balena.update.strategy":"hand-over"},"hostname":"box","domainname":"lan"}`,
			func(_ *adoption, b *body) {
				b.Cmd, b.Entrypoint, b.User, b.WorkingDir = []string{"sh", "-c", "echo hi"}, []string{"/bin/env"}, "1000", "/tmp"
				b.env(map[string]string{"MINE": "secret", "BOTH": "secret", "USER": "me"})
				b.Labels["mine"], b.Labels["io.balena.own"], b.Labels["io.balena.update.strategy"] = "1", "2", "hand-over"
				b.Hostname, b.Domainname = "box", "lan"
			}},
		"volumes": {`{"volumes":["data:/data","more:/more:ro","/anonymous",{"type":"tmpfs","target":"/fast","tmpfs":{"size":1000000}},{"type":"volume","source":"more","target":"/again","readOnly":true}],"tmpfs":["/run"]}`,
			func(a *adoption, b *body) {
				b.Host.Binds = append([]string{fmt.Sprintf("%d_data:/data", a.app.ID), fmt.Sprintf("%d_more:/more:ro", a.app.ID)}, b.Host.Binds...)
				b.Volumes = map[string]struct{}{"/image": {}, "/anonymous": {}}
				b.Host.Mounts = []mount.Mount{{Type: "tmpfs", Target: "/fast", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1000000}},
					{Type: "volume", Source: fmt.Sprintf("%d_more", a.app.ID), Target: "/again", ReadOnly: true}}
				b.Host.Tmpfs = map[string]string{"/run": ""}
			}},
		"networks": {`{"networks":{"default":{"aliases":["www"]},"back":{"ipv4_address":"ADDRESS"}},"extra_hosts":["a=1.2.3.4","b:::1"],"dns":"8.8.8.8","dns_search":["x","a"],"dns_opt":["use-vc"],"mac_address":"02:42:AC:11:00:02"}`,
			func(a *adoption, b *body) {
				b.Nets[a.full("default")].Aliases = []string{"www", "web"}
				b.Nets[a.full("back")] = &network.EndpointSettings{Aliases: []string{"web"}, IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: a.address(9)}}
				b.Host.NetworkMode = container.NetworkMode(a.full("default"))
				b.Host.ExtraHosts, b.Host.DNS, b.Host.DNSSearch, b.Host.DNSOptions = []string{"a:1.2.3.4", "b:::1"}, []string{"8.8.8.8"}, []string{"x", "a"}, []string{"use-vc"}
				b.MacAddress = "02:42:ac:11:00:02" //nolint:staticcheck // what an engine of that age knows
			}},
		"host": {`{"network_mode":"host","restart":"unless-stopped"}`,
			func(_ *adoption, b *body) {
				b.Host.NetworkMode, b.Nets, b.Hostname = "host", nil, "the-device"
				b.Host.RestartPolicy.Name = "unless-stopped"
			}},
		"ports": {`{"ports":["80:8080","127.0.0.1:5000-5001:6000-6001/udp","443"],"expose":["1234"]}`,
			func(_ *adoption, b *body) {
				b.ExposedPorts = nat.PortSet{"8080/tcp": {}, "6000/udp": {}, "6001/udp": {}, "443/tcp": {}}
				b.Host.PortBindings = nat.PortMap{"8080/tcp": {{HostPort: "80"}}, "443/tcp": {{HostPort: "443"}},
					"6000/udp": {{HostIP: "127.0.0.1", HostPort: "5000"}}, "6001/udp": {{HostIP: "127.0.0.1", HostPort: "5001"}}}
			}},
		"rights": {`{"cap_add":["NET_ADMIN","SYS_TIME"],"cap_drop":["MKNOD"],"devices":["/dev/null","/dev/zero:/dev/nil:r"],"security_opt":["apparmor:unconfined"],
			"group_add":["20","10"],"pid":"host","read_only":true,"privileged":true,"init":true,"tty":false,"sysctls":{"net.core.somaxconn":"1024"},"ulimits":{"nofile":{"soft":10,"hard":20},"nproc":5}}`,
			func(_ *adoption, b *body) {
				h := b.Host
				h.CapAdd, h.CapDrop, h.SecurityOpt, h.GroupAdd = []string{"SYS_TIME", "NET_ADMIN"}, []string{"MKNOD"}, []string{"apparmor:unconfined"}, []string{"20", "10"}
				h.Devices = []container.DeviceMapping{{PathOnHost: "/dev/zero", PathInContainer: "/dev/nil", CgroupPermissions: "r"}, {PathOnHost: "/dev/null", PathInContainer: "/dev/null", CgroupPermissions: "rwm"}}
				h.PidMode, h.ReadonlyRootfs, h.Privileged, h.Init = "host", true, true, new(true)
				h.Sysctls = map[string]string{"net.core.somaxconn": "1024"}
				h.Ulimits = []*container.Ulimit{{Name: "nproc", Soft: 5, Hard: 5}, {Name: "nofile", Soft: 10, Hard: 20}}
				b.Tty = false
			}},
		"limits": {`{"mem_limit":"64m","mem_reservation":"32m","cpus":"0.5","cpu_shares":512,"cpuset":"0","oom_score_adj":100,"shm_size":"32m","pids_limit":99,"cgroup_parent":"/x"}`,
			func(_ *adoption, b *body) {
				h := b.Host
				h.Memory, h.MemoryReservation, h.NanoCPUs, h.CPUShares, h.CpusetCpus = 64<<20, 32<<20, 500_000_000, 512, "0"
				h.OomScoreAdj, h.ShmSize, h.PidsLimit, h.CgroupParent = 100, 32<<20, new(int64(99)), "/x"
			}},
		"life": {`{"restart":"on-failure","stop_signal":"SIGINT","stop_grace_period":"1m","healthcheck":{"test":"true","interval":"5s","retries":2,"timeout":"1s"}}`,
			func(_ *adoption, b *body) {
				b.Host.RestartPolicy.Name, b.StopSignal, b.StopTimeout = "on-failure", "SIGINT", new(60)
				b.Healthcheck = &container.HealthConfig{Test: []string{"CMD-SHELL", "true"}, Interval: 5 * time.Second, Timeout: time.Second, Retries: 2}
			}},
		"features": {`{"labels":{"io.resin.features.dbus":"1","io.balena.features.journal-logs":"true","io.balena.features.balena-socket":"1","io.balena.features.balena-api":"1","io.balena.features.supervisor-api":"1","io.balena.features.sysfs":"0"}}`,
			func(a *adoption, b *body) {
				for _, f := range []string{"dbus", "journal-logs", "balena-socket", "balena-api", "supervisor-api"} {
					b.Labels["io.balena.features."+f] = "1"
				}
				b.Labels["io.balena.features.journal-logs"], b.Labels["io.balena.features.sysfs"] = "true", "0"
				b.Host.Binds = append(b.Host.Binds, "/run/dbus:/host/run/dbus", "/var/log/journal:/var/log/journal:ro", "/run/log/journal:/run/log/journal:ro", "/etc/machine-id:/etc/machine-id:ro")
				for _, target := range []string{"/host/run/balena-engine.sock", "/var/run/docker.sock", "/var/run/balena.sock"} {
					b.Host.Binds = append(b.Host.Binds, "/var/run/docker.sock:"+target)
				}
				b.env(map[string]string{"DOCKER_HOST": "unix:///host/run/balena-engine.sock", "BALENA_API_KEY": "secret", "RESIN_API_KEY": "secret", "BALENA_SUPERVISOR_ADDRESS": "http://10.114.104.1:48484"})
				b.Nets[state.APINetworkName] = &network.EndpointSettings{}
			}},
	}
}

// What balena's supervisor made of the same composition is not touched.
func TestAdoptedContainersDoNotDiffer(t *testing.T) {
	for _, name := range slices.Sorted(maps.Keys(adoptions())) {
		t.Run(name, func(t *testing.T) {
			a := newAdoption(t)
			a.apiNetwork()
			c := adoptions()[name]
			b := a.plain("web")
			c.body(a, &b)
			want := a.wanted(strings.ReplaceAll(c.composition, "ADDRESS", a.address(9)))
			id := a.make(b)
			if d := a.fields(id, want); len(d) != 0 {
				t.Errorf("made: %v", d)
			}
			if name == "rights" || name == "limits" || name == "features" {
				return // not every machine can run it
			}
			if err := docker().Client.ContainerStart(t.Context(), id, container.StartOptions{}); err != nil {
				t.Fatal(err)
			}
			if d := a.fields(id, want); len(d) != 0 {
				t.Errorf("running: %v", d)
			}
		})
	}
}

// A container that uses the network of another service, and one of before
// networks were named by the app's UUID; the image has a health check.
func TestAdoptedContainersOfOldAndSharedNetworks(t *testing.T) {
	a := newAdoption(t)
	a.image = "adopted:checked"
	docker().Image(t, dockerd.Image{Tag: a.image, Changes: []string{`HEALTHCHECK --interval=9s CMD ["true"]`, `ENTRYPOINT ["env"]`, `CMD ["a"]`, `USER 5`}})
	ofImage := func(b *body) {
		b.Healthcheck = &container.HealthConfig{Test: []string{"CMD", "true"}, Interval: 9 * time.Second}
		b.Entrypoint, b.Cmd, b.User = []string{"env"}, []string{"a"}, "5"
	}
	old := fmt.Sprintf("%d_default", a.app.ID)
	made, err := docker().Client.NetworkCreate(t.Context(), old, network.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { removeWith(made.ID) })
	db := a.plain("db")
	ofImage(&db)
	db.Nets = map[string]*network.EndpointSettings{old: {Aliases: []string{"db"}}}
	db.Host.NetworkMode = container.NetworkMode(old)
	owner := a.make(db)
	step := a.wanted(`{}`)
	step.Service.Name = "db"
	step.Service.Spec.Networks["default"] = state.Attachment{Aliases: []string{"db"}}
	if d := a.fields(owner, step); len(d) != 0 {
		t.Errorf("old: %v", d)
	}
	step.Service.Spec.Healthcheck = &state.Healthcheck{Test: []string{"NONE"}}
	if d := cmp.Diff([]string{"healthcheck.interval", "healthcheck.test"}, a.fields(owner, step)); d != "" {
		t.Errorf("without the image's check: %s", d)
	}

	web := a.plain("web")
	ofImage(&web)
	web.Nets, web.Host.NetworkMode = nil, container.NetworkMode("container:"+owner)
	side := a.make(web)
	step = a.wanted(`{}`)
	step.Service.Spec.Networks, step.Service.Spec.NetworkMode = nil, "service:db"
	if d := a.fields(side, step); len(d) != 0 {
		t.Errorf("shared: %v", d)
	}
	step.Service.Spec.NetworkMode = "service:cache"
	if d := cmp.Diff([]string{"network_mode"}, a.fields(side, step)); d != "" {
		t.Error(d)
	}
}

// Each setting that differs is named, and only that.
func TestAdoptedContainersThatDiffer(t *testing.T) {
	a := newAdoption(t)
	a.apiNetwork()
	for i, c := range []struct {
		of     string // the composition
		change func(a *adoption, b *body)
		want   []string
	}{
		{"program", func(_ *adoption, b *body) { b.Cmd = []string{"x"} }, []string{"command"}},
		{"program", func(_ *adoption, b *body) { b.Entrypoint = []string{"x"} }, []string{"entrypoint"}},
		{"program", func(_ *adoption, b *body) { b.User = "2" }, []string{"user"}},
		{"program", func(_ *adoption, b *body) { b.WorkingDir = "/x" }, []string{"working_dir"}},
		{"program", func(_ *adoption, b *body) { b.env(map[string]string{"MINE": "secret 2"}) }, []string{"environment.MINE changed"}},
		{"program", func(_ *adoption, b *body) { b.env(map[string]string{"BOTH": "image"}) }, []string{"environment.BOTH changed"}},
		{"program", func(_ *adoption, b *body) { b.env(map[string]string{"USER": "root"}) }, []string{"environment.USER changed"}},
		{"program", func(_ *adoption, b *body) { b.env(map[string]string{"OTHER": "secret"}) }, []string{"environment.OTHER removed"}},
		{"nothing", func(_ *adoption, b *body) { b.env(map[string]string{"OF_IMAGE": "secret"}) }, []string{"environment.OF_IMAGE removed"}},
		{"program", func(_ *adoption, b *body) {
			b.Env = slices.DeleteFunc(b.Env, func(kv string) bool { return strings.HasPrefix(kv, "MINE=") })
		}, []string{"environment.MINE added"}},
		{"program", func(_ *adoption, b *body) { b.Labels["mine"] = "2" }, []string{"labels.mine"}},
		{"program", func(_ *adoption, b *body) { b.Labels["other"] = "2" }, []string{"labels.other"}},
		{"program", func(_ *adoption, b *body) { delete(b.Labels, "mine") }, []string{"labels.mine"}},
		{"program", func(_ *adoption, b *body) { b.Labels["io.balena.update.strategy"] = "x" }, []string{}},
		{"program", func(_ *adoption, b *body) { b.Hostname = "other" }, []string{"hostname"}},
		{"program", func(_ *adoption, b *body) { b.Domainname = "other" }, []string{"domainname"}},
		{"volumes", func(_ *adoption, b *body) { b.Host.Binds = b.Host.Binds[1:] }, []string{"volumes"}},
		{"volumes", func(_ *adoption, b *body) {
			b.Host.Binds[0] = strings.Replace(b.Host.Binds[0], ":/data", ":/elsewhere", 1)
		}, []string{"volumes"}},
		{"volumes", func(_ *adoption, b *body) { b.Host.Binds[1] = strings.TrimSuffix(b.Host.Binds[1], ":ro") }, []string{"volumes"}},
		{"volumes", func(a *adoption, b *body) { b.Host.Binds[0] = "1_data:/data" }, []string{"volumes"}},
		{"volumes", func(_ *adoption, b *body) { b.Host.Binds = append(b.Host.Binds, "/etc:/etc2") }, []string{"volumes"}},
		{"volumes", func(_ *adoption, b *body) { b.Host.Mounts = b.Host.Mounts[1:] }, []string{"volumes"}},
		{"volumes", func(_ *adoption, b *body) { delete(b.Volumes, "/anonymous") }, []string{"volumes"}},
		{"volumes", func(_ *adoption, b *body) { b.Host.Tmpfs = nil }, []string{"tmpfs./run"}},
		{"networks", func(a *adoption, b *body) { delete(b.Nets, a.full("back")) }, []string{"networks.back.aliases", "networks.back.ipv4_address"}},
		{"nothing", func(a *adoption, b *body) { b.Nets[a.full("back")] = &network.EndpointSettings{} }, []string{"networks.back"}},
		{"networks", func(a *adoption, b *body) { b.Nets[a.full("default")].Aliases = []string{"web", "other"} }, []string{"networks.default.aliases"}},
		{"networks", func(a *adoption, b *body) { b.Nets[a.full("back")].IPAMConfig.IPv4Address = a.address(8) }, []string{"networks.back.ipv4_address"}},
		{"networks", func(a *adoption, b *body) { b.Host.NetworkMode = container.NetworkMode(a.full("back")) }, []string{}}, // which one is the main one is the document's order
		{"networks", func(_ *adoption, b *body) { b.Host.ExtraHosts = b.Host.ExtraHosts[:1] }, []string{"extra_hosts"}},
		{"networks", func(_ *adoption, b *body) { b.Host.DNS = nil }, []string{"dns"}},
		{"networks", func(_ *adoption, b *body) { b.Host.DNSSearch = []string{"a", "x"} }, []string{"dns_search"}},
		{"networks", func(_ *adoption, b *body) { b.Host.DNSOptions = nil }, []string{"dns_opt"}},
		{"networks", func(_ *adoption, b *body) {
			b.MacAddress = "02:42:ac:11:00:03" //nolint:staticcheck // as above
		}, []string{"mac_address"}},
		{"nothing", func(_ *adoption, b *body) { b.Host.NetworkMode, b.Nets = "host", nil }, []string{"network_mode", "networks.default.aliases"}},
		{"ports", func(_ *adoption, b *body) { b.Host.PortBindings["8080/tcp"][0].HostPort = "81" }, []string{"ports"}},
		{"rights", func(_ *adoption, b *body) { b.Host.CapAdd = b.Host.CapAdd[1:] }, []string{"cap_add"}},
		{"rights", func(_ *adoption, b *body) { b.Host.CapDrop = nil }, []string{"cap_drop"}},
		{"rights", func(_ *adoption, b *body) { b.Host.Devices = b.Host.Devices[1:] }, []string{"devices"}},
		{"rights", func(_ *adoption, b *body) { b.Host.SecurityOpt = nil }, []string{"security_opt"}},
		{"rights", func(_ *adoption, b *body) { b.Host.GroupAdd = nil }, []string{"group_add"}},
		{"rights", func(_ *adoption, b *body) { b.Host.PidMode = "" }, []string{"pid"}},
		{"rights", func(_ *adoption, b *body) { b.Host.ReadonlyRootfs = false }, []string{"read_only"}},
		{"rights", func(_ *adoption, b *body) { b.Host.Init = nil }, []string{"init"}},
		{"rights", func(_ *adoption, b *body) { b.Tty = true }, []string{"tty"}},
		{"rights", func(_ *adoption, b *body) { b.Host.Sysctls = nil }, []string{"sysctls.net.core.somaxconn"}},
		{"rights", func(_ *adoption, b *body) { b.Host.Ulimits[1].Soft = 11 }, []string{"ulimits.nofile.soft"}},
		{"rights", func(_ *adoption, b *body) { b.Host.Privileged = false }, []string{"privileged"}},
		{"nothing", func(_ *adoption, b *body) { b.Host.IpcMode = "private" }, []string{"ipc"}},
		{"nothing", func(_ *adoption, b *body) { b.Host.UsernsMode = "host" }, []string{"userns_mode"}},
		{"nothing", func(_ *adoption, b *body) { b.OpenStdin = true }, []string{"stdin_open"}},
		{"limits", func(_ *adoption, b *body) { b.Host.Memory = 0 }, []string{"mem_limit"}},
		{"limits", func(_ *adoption, b *body) { b.Host.MemoryReservation = 0 }, []string{"mem_reservation"}},
		{"limits", func(_ *adoption, b *body) { b.Host.NanoCPUs = 0 }, []string{"cpus"}},
		{"limits", func(_ *adoption, b *body) { b.Host.CPUShares = 0 }, []string{"cpu_shares"}},
		{"limits", func(_ *adoption, b *body) { b.Host.CpusetCpus = "" }, []string{"cpuset"}},
		{"limits", func(_ *adoption, b *body) { b.Host.OomScoreAdj = 0 }, []string{"oom_score_adj"}},
		{"limits", func(_ *adoption, b *body) { b.Host.ShmSize = 67108864 }, []string{"shm_size"}},
		{"limits", func(_ *adoption, b *body) { b.Host.PidsLimit = nil }, []string{"pids_limit"}},
		{"limits", func(_ *adoption, b *body) { b.Host.CgroupParent = "" }, []string{"cgroup_parent"}},
		{"life", func(_ *adoption, b *body) { b.Host.RestartPolicy.Name = "always" }, []string{"restart.name"}},
		{"life", func(_ *adoption, b *body) { b.StopSignal = "SIGTERM" }, []string{"stop_signal"}},
		{"life", func(_ *adoption, b *body) { b.StopTimeout = nil }, []string{"stop_grace_period"}},
		{"life", func(_ *adoption, b *body) { b.Healthcheck.Test[1] = "false" }, []string{"healthcheck.test"}},
		{"life", func(_ *adoption, b *body) { b.Healthcheck.Interval = time.Second }, []string{"healthcheck.interval"}},
		{"life", func(_ *adoption, b *body) { b.Healthcheck.Retries = 0 }, []string{"healthcheck.retries"}},
		{"features", func(_ *adoption, b *body) { delete(b.Labels, "io.balena.features.dbus") }, []string{"features", "volumes"}},
		{"features", func(_ *adoption, b *body) { b.Labels["io.balena.features.sysfs"] = "1" }, []string{"features"}},
	} {
		t.Run(fmt.Sprintf("%d %s %v", i, c.of, c.want), func(t *testing.T) {
			a := &adoption{rig: &rig{T: t, e: a.e, app: a.app, image: a.image}, n: 100 + i}
			was := adoptions()[c.of]
			b := a.plain("web")
			was.body(a, &b)
			c.change(a, &b)
			id := a.make(b)
			if d := cmp.Diff(c.want, a.fields(id, a.wanted(strings.ReplaceAll(was.composition, "ADDRESS", a.address(9))))); d != "" {
				t.Error(d)
			}
		})
	}
}

// apiNetwork makes the network that balena's supervisor makes for its API.
func (a *adoption) apiNetwork() {
	a.Helper()
	made, err := docker().Client.NetworkCreate(a.Context(), state.APINetworkName, network.CreateOptions{})
	if err != nil {
		a.Fatal(err)
	}
	a.Cleanup(func() { removeWith(made.ID) })
}

// removeWith removes a network with all containers.
func removeWith(id string) {
	list, _ := docker().Client.ContainerList(context.Background(), container.ListOptions{All: true})
	for _, c := range list {
		_ = docker().Client.ContainerRemove(context.Background(), c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	}
	_ = docker().Client.NetworkRemove(context.Background(), id)
}
