package engine

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/reconcile"
	"deckhand/state"
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
		runDir:   "/run/x", api: "1.41",
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
		"host network": {NetworkMode: "host", Restart: state.RestartPolicy{Name: "no"}},
	} {
		o := createOptions(step(spec), around())
		got, err := json.MarshalIndent(map[string]any{"name": o.name, "config": o.config, "host": o.host, "networking": o.nets, "connect": o.others}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		golden(t, strings.ReplaceAll(name, " ", "-")+".json", append(got, '\n'))
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(file, got, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), string(got)); d != "" {
		t.Errorf("%s (UPDATE_GOLDEN=1 accepts it):\n%s", name, d)
	}
}

func TestUserMayOverrideInjectedVariables(t *testing.T) {
	env := environment(step(state.Spec{Environment: map[string]string{"USER": "www", "BALENA_APP_NAME": "mine"}}), around().identity)
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
