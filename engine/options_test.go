package engine

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/state"
	"deckhand/test/golden"
)

func step(spec state.Spec) reconcile.Create {
	return reconcile.Create{
		App: reconcile.App{UUID: "a1", ID: 5, Name: "fleet"}, Commit: "c0ffee", ReleaseID: 9,
		Service: state.Service{Name: "web", ID: 7, ImageID: 8, Image: "r.example/web:1", Spec: spec, Hash: "v1:00"},
	}
}

func around() surroundings {
	return surroundings{
		image: "r.example/web:1", program: program{entrypoint: []string{"/init"}, command: []string{"serve"}},
		identity: state.Identity{UUID: "d0", Name: "bright-sun", DeviceType: "raspberrypi4-64", Arch: "aarch64", OSVersion: "balenaOS 6.0"},
		runDir:   "/run/x", api: "1.41", gateway: "10.114.104.1",
		features: Features{EngineSocket: "/run/engine.sock", APIKey: "k1", APIURL: "https://api.example", SupervisorKey: "k2", SupervisorPort: 48484, BoardRev: "r7"},
	}
}

// A change here changes every container of every device at its next update:
// read the golden file's difference with care.
func TestCreateRequest(t *testing.T) {
	yes := true
	for name, spec := range map[string]state.Spec{
		"least": {Networks: map[string]state.Attachment{"default": {Aliases: []string{"web"}}}, MainNetwork: "default",
			Restart: state.RestartPolicy{Name: "always"}, Tty: true, Ipc: "shareable", ShmSize: 64 << 20},
		"most": {
			Command: []string{"run"}, Entrypoint: []string{"/sbin/tini", "--"}, User: "1000", WorkingDir: "/srv",
			Environment: map[string]string{"LEVEL": "debug", "USER": "www", "RESIN": "0"},
			Labels:      map[string]string{"team": "x", "io.balena.app-id": "666", "io.deckhand.project": "forged"},
			Hostname:    "h", Domainname: "d", MacAddress: "02:42:ac:11:65:43",
			Networks: map[string]state.Attachment{
				"front": {Aliases: []string{"web"}}, "back": {Aliases: []string{"db", "web"}, IPv4: "10.1.0.9", LinkLocalIP: []string{"169.254.1.2"}}, "aux": {},
			}, MainNetwork: "front",
			Ports: []state.Port{{Published: 8080, Target: 80, Protocol: "tcp"}, {HostIP: "127.0.0.1", Published: 8081, Target: 80, Protocol: "tcp"},
				{Target: 53, Protocol: "udp"}},
			ExtraHosts: []string{"a:10.0.0.1"}, DNS: []string{"9.9.9.9"}, DNSSearch: []string{"lan"}, DNSOpt: []string{"ndots:1"},
			Mounts: []state.Mount{{Type: "volume", Source: "data", Target: "/data", ReadOnly: true, NoCopy: true}, {Type: "volume", Target: "/anon"},
				{Type: "tmpfs", Target: "/cache", Size: 1 << 20}},
			Tmpfs: map[string]string{"/run": "size=1m"}, Restart: state.RestartPolicy{Name: "on-failure", MaxRetries: 3},
			Healthcheck: &state.Healthcheck{Test: []string{"CMD-SHELL", "true"}, Interval: state.Duration(time.Second), Retries: 2},
			StopSignal:  "SIGINT", StopGrace: state.Duration(1500 * time.Millisecond),
			Privileged: true, ReadOnly: true, StdinOpen: true, Init: &yes, CapAdd: []string{"NET_ADMIN"}, CapDrop: []string{"MKNOD"}, GroupAdd: []string{"audio"},
			SecurityOpt: []string{"no-new-privileges"}, Devices: []string{"/dev/ttyUSB0", "/dev/a:/dev/b", "/dev/c:/dev/d:r"}, Pid: "host", Ipc: "host", Userns: "host",
			Runtime: "runc", Sysctls: map[string]string{"net.core.somaxconn": "1024"}, Ulimits: map[string]state.Ulimit{"nproc": {Soft: 1, Hard: 2}, "core": {}},
			CgroupParent: "/x", CPUShares: 2, CPUQuota: 3, NanoCPUs: 5e8, CpusetCpus: "0", Memory: 1 << 28, MemoryReserved: 1 << 27, ShmSize: 1 << 20,
			PidsLimit: 50, OomScoreAdj: 10, OomKillDisable: true,
		},
		"rest": {
			Expose: []string{"53/udp"}, DeviceRules: []string{"c 13:* rwm"}, Uts: "host", Cgroup: "private",
			DeviceRequests: []state.DeviceRequest{{Driver: "nvidia", Count: -1, IDs: []string{"0"}, Capabilities: []string{"compute", "gpu"}, Options: map[string]string{"a": "b"}}},
			Logging:        &state.Logging{Driver: "json-file", Options: map[string]string{"max-size": "1m"}}, StorageOpt: map[string]string{"size": "1073741824"},
			CPUPeriod: 10000, CPURtPeriod: 1000, CPURtRuntime: 950, MemorySwap: -1, MemorySwappiness: new(int64(0)),
			Blkio: &state.Blkio{Weight: 10, WeightDevice: []state.BlkioPer{{Path: "/dev/a", Value: 20}}, ReadBps: []state.BlkioPer{{Path: "/dev/a", Value: 1}},
				WriteBps: []state.BlkioPer{{Path: "/dev/a", Value: 2}}, ReadIOps: []state.BlkioPer{{Path: "/dev/a", Value: 3}}, WriteIOps: []state.BlkioPer{{Path: "/dev/a", Value: 4}}},
			Networks:    map[string]state.Attachment{"lan": {Aliases: []string{"web"}, External: "office", DriverOpts: map[string]string{"k": "v"}}, "default": {}},
			MainNetwork: "lan",
			Mounts:      []state.Mount{{Type: "volume", Source: "old", External: true, Target: "/old"}, {Type: "tmpfs", Target: "/t", Mode: 0o1777}},
			Files:       []state.File{{Target: "/etc/app.conf", Content: []byte("never shown")}, {Target: "/run/secrets/key", UID: 1, Mode: 0o400, Content: []byte("never shown")}},
		},
		"features": {
			Features: []string{"balena-api", "balena-socket", "dbus", "extra-firmware", "firmware", "gpu", "host-os.board-rev", "journal-logs", "kernel-modules", "procfs", "supervisor-api", "sysfs"},
			Networks: map[string]state.Attachment{"default": {}}, MainNetwork: "default",
		},
		"another's network": {NetworkMode: "service:db", Features: []string{"supervisor-api"}},
		"host network":      {NetworkMode: "host", Restart: state.RestartPolicy{Name: "no"}},
	} {
		in := around()
		if spec.NetworkOwner() != "" {
			in.networkOwner = "0123abcd"
		}
		o := createOptions(step(spec), in)
		got, err := json.MarshalIndent(map[string]any{"name": o.name, "config": o.config, "host": o.host, "networking": o.nets, "connect": append(o.others, o.extra...)}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden.File(t, "testdata/"+strings.NewReplacer(" ", "-", "'", "").Replace(name)+".json", string(got)+"\n")
	}
}

func TestUserMayOverrideInjectedVariables(t *testing.T) {
	env := environment(step(state.Spec{Environment: map[string]string{"USER": "www", "BALENA_APP_NAME": "mine"}}), around().identity, nil)
	for _, want := range []string{"USER=www", "BALENA_APP_NAME=mine", "RESIN_APP_NAME=fleet", "BALENA=1", "BALENA_DEVICE_NAME_AT_INIT=bright-sun"} {
		if !slices.Contains(env, want) {
			t.Errorf("%s is missing in %v", want, env)
		}
	}
}

func TestUserMayNotForgeLabels(t *testing.T) {
	l := containerLabels(step(state.Spec{Labels: map[string]string{
		state.LabelProject: "x", state.LabelSpec: "v1:ff", state.LabelAppUUID: "other", "mine": "1",
	}}), "")
	if l[state.LabelSpec] != "v1:00" || l[state.LabelAppUUID] != "a1" || l["mine"] != "1" {
		t.Errorf("labels: %v", l)
	}
	if _, there := l[state.LabelProject]; there {
		t.Error("the user's project label hides the container from us")
	}
}

func TestCommand(t *testing.T) {
	im := program{entrypoint: []string{"/init"}, command: []string{"serve"}}
	none := []string{}
	for _, c := range []struct {
		what             string
		entrypoint, cmd  []string
		wantEntry, wants []string
	}{
		{"both the image's", nil, nil, nil, nil},
		{"own command", nil, []string{"x"}, nil, []string{"x"}},
		{"own entry point keeps the image's command", []string{"e"}, nil, []string{"e"}, []string{"serve"}},
		{"no command keeps the image's entry point alone", nil, none, []string{"/init"}, none},
		{"no entry point", none, []string{"x"}, none, []string{"x"}},
		{"nothing at all is not the image's", none, none, []string{""}, none},
	} {
		e, cmd := command(state.Spec{Entrypoint: c.entrypoint, Command: c.cmd}, im)
		if d := cmp.Diff(c.wantEntry, e) + cmp.Diff(c.wants, cmd); d != "" {
			t.Errorf("%s: %s", c.what, d)
		}
	}
}

func TestMacAddressFollowsTheEngine(t *testing.T) {
	spec := state.Spec{MacAddress: "02:42:ac:11:65:43", Networks: map[string]state.Attachment{"default": {}}}
	old, in := createOptions(step(spec), around()), around()
	in.api = "1.44"
	now := createOptions(step(spec), in)
	if got := old.nets.EndpointsConfig["a1_default"].MacAddress; got != "" {
		t.Errorf("an old engine's client refuses an address per network: %q", got)
	}
	if got := now.nets.EndpointsConfig["a1_default"].MacAddress; got != spec.MacAddress {
		t.Errorf("a newer engine takes it per network only: %q", got)
	}
}

func TestContentOfFilesIsNotInTheRequest(t *testing.T) {
	o := createOptions(step(state.Spec{Files: []state.File{{Target: "/run/secrets/a", Content: []byte("hush-hush")}}}), around())
	b, err := json.Marshal([]any{o.name, o.config, o.host, o.nets})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "hush") || strings.Contains(string(b), "aHVzaC1odXNo") {
		t.Errorf("the engine is told the secret: %s", b)
	}
	m := o.host.Mounts[0]
	if m.Target != "/run/secrets/a" || !m.ReadOnly || !strings.HasPrefix(m.Source, "/run/x/files/5/web/v1-") || !strings.HasSuffix(m.Source, "/0") {
		t.Errorf("the file is mounted as %+v", m)
	}
}

// What the device lacks is left out by name, and what the service says itself
// counts more.
func TestFeaturesOfAPoorDevice(t *testing.T) {
	in := around()
	in.features = Features{}
	in.exists = func(path string) bool { return path == "/lib/firmware" }
	o := createOptions(step(state.Spec{
		Features: []string{"balena-api", "balena-socket", "firmware", "host-os.board-rev", "journal-logs", "kernel-modules", "supervisor-api"},
	}), in)
	want := []string{
		"balena-api: the device has no value for BALENA_API_KEY",
		"balena-api: the device has no value for BALENA_API_URL",
		"balena-socket: the path of the engine's socket is not known",
		"host-os.board-rev: the device has no value for BALENA_HOST_OS_BOARD_REV",
		"host-os.board-rev: the device has no value for BALENA_HOST_OS_BUILD",
		"journal-logs: the host has no /var/log/journal",
		"journal-logs: the host has no /run/log/journal",
		"journal-logs: the host has no /etc/machine-id",
		"kernel-modules: the host has no /lib/modules",
		"supervisor-api: the supervisor's API is switched off",
	}
	if d := cmp.Diff(want, o.missing); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"/run/x/services/5/web:/tmp/resin", "/run/x/services/5/web:/tmp/balena", "/lib/firmware:/lib/firmware"}, o.host.Binds); d != "" {
		t.Error(d)
	}
}

func TestServiceCountsMoreThanFeatures(t *testing.T) {
	o := createOptions(step(state.Spec{
		Features:    []string{"balena-socket", "dbus", "supervisor-api"},
		Mounts:      []state.Mount{{Type: "volume", Source: "d", Target: "/host/run/dbus"}},
		Environment: map[string]string{"DOCKER_HOST": "tcp://mine", "BALENA_SUPERVISOR_PORT": "1"},
	}), around())
	for _, b := range o.host.Binds {
		if strings.Contains(b, "dbus") {
			t.Errorf("two mounts at one path: %s", b)
		}
	}
	for _, want := range []string{"DOCKER_HOST=tcp://mine", "BALENA_SUPERVISOR_PORT=1", "RESIN_SUPERVISOR_PORT=48484", "BALENA_SUPERVISOR_ADDRESS=http://10.114.104.1:48484"} {
		if !slices.Contains(o.config.Env, want) {
			t.Errorf("%s is missing in %v", want, o.config.Env)
		}
	}
}

func TestSupervisorAPIByNetwork(t *testing.T) {
	for mode, c := range map[string]struct {
		address string
		joins   []string
	}{
		"":            {"http://10.114.104.1:48484", []string{"supervisor0"}},
		"bridge":      {"http://10.114.104.1:48484", []string{"supervisor0"}},
		"host":        {"http://127.0.0.1:48484", nil},
		"service:db":  {"http://10.114.104.1:48484", nil},
		"container:x": {"http://10.114.104.1:48484", nil},
	} {
		o := createOptions(step(state.Spec{Features: []string{"supervisor-api"}, NetworkMode: mode}), around())
		if !slices.Contains(o.config.Env, "RESIN_SUPERVISOR_ADDRESS="+c.address) {
			t.Errorf("%s: %v", mode, o.config.Env)
		}
		if d := cmp.Diff(c.joins, o.extra); d != "" {
			t.Errorf("%s: %s", mode, d)
		}
	}
}

func TestSocketIsMountedOnceAtEachPath(t *testing.T) {
	for host, want := range map[string][]string{
		"/run/engine.sock":             {"/host/run/balena-engine.sock", "/run/engine.sock", "/var/run/balena.sock"},
		"/var/run/balena.sock":         {"/host/run/balena-engine.sock", "/var/run/balena.sock"},
		"/host/run/balena-engine.sock": {"/host/run/balena-engine.sock", "/var/run/balena.sock"},
	} {
		in := around()
		in.features.EngineSocket = host
		var got []string
		for _, m := range createOptions(step(state.Spec{Features: []string{"balena-socket"}}), in).host.Mounts {
			got = append(got, m.Target)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: %s", host, d)
		}
	}
}
