package compose

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
	"deckhand/strategy"
	"deckhand/test/golden"
)

// release loads a document the way a release from the cloud is loaded.
func release(t testing.TB, doc string) (Project, []Problem) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(doc))
	d.UseNumber()
	var v map[string]any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	p, problems, err := Load(t.Context(), Options{Release: true}, v)
	if err != nil {
		t.Fatal(err)
	}
	return p, problems
}

// web is the service of a document with one service.
func web(t testing.TB, body string) (state.Service, []Problem) {
	t.Helper()
	p, problems := release(t, `{"services":{"web":{"image":"img",`+body+`}},"networks":{"front":{},"back":null},"volumes":{"data":null}}`)
	return p.Services["web"], problems
}

func lines(problems []Problem) string {
	var b strings.Builder
	for _, p := range problems {
		fmt.Fprintln(&b, p)
	}
	return strings.TrimSpace(b.String())
}

func TestDefaults(t *testing.T) {
	p, problems := release(t, `{"services":{"web":{"image":"img"}}}`)
	if len(problems) > 0 {
		t.Error(problems)
	}
	spec := state.Spec{
		Networks:    map[string]state.Attachment{"default": {Aliases: []string{"web"}}},
		MainNetwork: "default",
		Restart:     state.RestartPolicy{Name: "always"},
		StopGrace:   state.Duration(10 * time.Second),
		Tty:         true,
		Ipc:         "shareable",
		ShmSize:     64 << 20,
	}
	network := state.NetworkSpec{Driver: "bridge"}
	want := Project{
		Services: map[string]state.Service{"web": {
			Name: "web", Image: "img:latest", Running: true, Strategy: "download-then-kill", Spec: spec, Hash: spec.Hash(),
		}},
		Networks: map[string]state.Network{"default": {Name: "default", Spec: network, Hash: network.Hash()}},
		Volumes:  map[string]state.Volume{},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
}

func TestSpecGolden(t *testing.T) {
	in, err := os.ReadFile("testdata/everything.json")
	if err != nil {
		t.Fatal(err)
	}
	p, problems := release(t, string(in))
	got, err := json.MarshalIndent(struct {
		Problems []Problem
		Project  Project
	}{problems, p}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden.File(t, "testdata/everything.golden", string(got)+"\n")
}

// Each pair of spellings means the same container.
func TestSpellings(t *testing.T) {
	for _, c := range [][2]string{
		{`"environment":["A=1","B=x=y"]`, `"environment":{"A":1,"B":"x=y"}`},
		{`"environment":{"A":true,"B":1.5}`, `"environment":["A=true","B=1.5"]`},
		{`"labels":["a=1","b"]`, `"labels":{"a":1,"b":null}`},
		{`"labels":{"io.resin.features.dbus":"0"}`, `"labels":{"io.balena.features.dbus":"0"}`},
		{`"labels":{"io.resin.x":"old","io.balena.x":"new"}`, `"labels":{"io.balena.x":"new"}`},
		{`"extra_hosts":["a=::1","b:10.0.0.1"]`, `"extra_hosts":{"b":"10.0.0.1","a":["::1"]}`},
		{`"extra_hosts":["a:::1"]`, `"extra_hosts":["a=[::1]"]`},
		{`"ulimits":{"nofile":1024}`, `"ulimits":{"nofile":{"soft":1024,"hard":1024}}`},
		{`"mem_limit":"1.5g"`, `"mem_limit":1610612736`},
		{`"mem_limit":"512M"`, `"mem_limit":"512mb"`},
		{`"shm_size":"64m"`, `"shm_size":null`},
		{`"restart":false`, `"restart":"no"`},
		{`"restart":" Always "`, `"restart":"always"`},
		{`"stop_grace_period":"500ms"`, `"stop_grace_period":"1s"`},
		{`"stop_grace_period":"1m30s"`, `"stop_grace_period":"90s"`},
		{`"stop_signal":"term"`, `"stop_signal":"SIGTERM"`},
		{`"stop_signal":9`, `"stop_signal":"9"`},
		{`"restart":"no"`, `"deploy":{"restart_policy":{"condition":"none"}}`},
		{`"restart":"always"`, `"deploy":{"restart_policy":{}}`},
		{`"cpus":0.5,"mem_limit":"1g","pids_limit":9`, `"deploy":{"resources":{"limits":{"cpus":"0.50","memory":"1024m","pids":"9"}}}`},
		{`"gpus":"all"`, `"gpus":[{"capabilities":["gpu"]}]`},
		{`"gpus":[{"count":-1}]`, `"deploy":{"resources":{"reservations":{"devices":[{"capabilities":["gpu"],"count":"all"}]}}}`},
		{`"logging":{"options":{"max-size":"1m"}}`, `"logging":{"driver":"json-file","options":["max-size=1m"]}`},
		{`"logging":{}`, `"logging":null`},
		{`"expose":[80,"3000-3001/UDP"]`, `"expose":["3000/udp","80/tcp","3001/udp"]`},
		{`"cpu_rt_runtime":"95ms"`, `"cpu_rt_runtime":95000`},
		{`"memswap_limit":-1`, `"memswap_limit":"-1"`},
		{`"blkio_config":{}`, `"blkio_config":null`},
		{`"volumes":[{"type":"tmpfs","target":"/t","tmpfs":{"mode":"0755"}}]`, `"volumes":[{"type":"tmpfs","target":"/t","tmpfs":{"mode":493}}]`},
		{`"storageOpt":{"size":"1g"}`, `"storage_opt":{"size":1073741824}`},
		{`"cap_add":["net_admin","CAP_SYS_TIME"]`, `"cap_add":["SYS_TIME","NET_ADMIN","NET_ADMIN"]`},
		{`"devices":["/dev/a"]`, `"devices":[{"source":"/dev/a","target":"/dev/a","permissions":"mwr"}]`},
		{`"command":"a b 'c d'"`, `"command":["a","b","c d"]`},
		{`"command":null`, `"user":""`},
		{`"dns":"1.1.1.1"`, `"dns":["1.1.1.1"]`},
		{`"tmpfs":"/run:size=1m"`, `"tmpfs":["/run/:size=1m"]`},
		{`"volumes":["data:/d:ro,nocopy"]`, `"volumes":[{"type":"volume","source":"data","target":"/d/","read_only":true,"volume":{"nocopy":true}}]`},
		{`"volumes":[" data : /d "]`, `"volumes":["data:/d"]`},
		{`"volumes":["d:/d"],"user":null`, `"volumes":[{"type":"volume","source":"d","target":"/d"}]`},
		{`"volumes":["/anon"]`, `"volumes":[{"type":"volume","target":"/anon"}]`},
		{`"networks":["front","back"]`, `"networks":{"back":null,"front":{"aliases":["web"]}}`},
		{`"networkMode":"host"`, `"network_mode":"host"`},
		{`"network_mode":"front"`, `"networks":["front"]`},
		{`"healthcheck":{"test":"true","startPeriod":"1s"}`, `"healthcheck":{"test":["CMD-SHELL","true"],"start_period":"1000ms"}`},
		{`"healthcheck":{"disable":true,"interval":"1s"}`, `"healthcheck":{"test":["NONE"]}`},
		{`"healthcheck":{}`, `"healthcheck":null`},
		{`"ports":["80"]`, `"ports":["80:80/tcp"]`},
		{`"ports":[80,"81:81","80:80"]`, `"ports":["80-81:80-81"]`},
		{`"ports":["[::1]:80:81"]`, `"ports":[{"target":81,"published":80,"host_ip":"::1","protocol":"tcp"}]`},
		{`"tty":"yes"`, `"tty":true`},
		{`"working_dir":"/a/"`, `"working_dir":"/a"`},
		{`"sysctls":["net.core.somaxconn=1024"]`, `"sysctls":{"net.core.somaxconn":1024}`},
		{`"x-anything":{"deep":[1]}`, `"user":null`},
	} {
		a, pa := web(t, c[0])
		b, pb := web(t, c[1])
		if Refusal(pa) != nil || Refusal(pb) != nil {
			t.Errorf("%s: %v %v", c[0], Refusal(pa), Refusal(pb))
		}
		if diff := cmp.Diff(a, b); diff != "" {
			t.Errorf("%s is not %s:\n%s", c[0], c[1], diff)
		}
	}
}

func TestValues(t *testing.T) {
	get := func(body string) state.Spec {
		s, problems := web(t, body)
		if len(problems) > 0 {
			t.Errorf("%s: %v", body, problems)
		}
		return s.Spec
	}
	if got, want := get(`"restart":"on-failure:3"`).Restart, (state.RestartPolicy{Name: "on-failure", MaxRetries: 3}); got != want {
		t.Error(got)
	}
	if got := get(`"cpus":0.1`).NanoCPUs; got != 100_000_000 {
		t.Error(got)
	}
	if got := get(`"cpus":"1.75"`).NanoCPUs; got != 1_750_000_000 {
		t.Error(got)
	}
	if got := get(`"command":[]`).Command; got == nil || len(got) != 0 {
		t.Errorf("an empty command must clear the image's, got %#v", got)
	}
	if got := get(`"command":""`).Command; got == nil || len(got) != 0 {
		t.Errorf("an empty command must clear the image's, got %#v", got)
	}
	if got := get(`"command":"echo $HOME"`).Command; !cmp.Equal(got, []string{"echo", "$HOME"}) {
		t.Errorf("a $ in a release is a $, got %q", got)
	}
	if got := get(`"environment":{"A":"${B:-c}$$"}`).Environment["A"]; got != "${B:-c}$$" {
		t.Errorf("a $ in a release is a $, got %q", got)
	}
	if got := get(`"ulimits":{"memlock":{"soft":8589934592,"hard":-1}}`).Ulimits["memlock"]; got != (state.Ulimit{Soft: 8 << 30, Hard: -1}) {
		t.Error(got)
	}
	if got := get(`"init":false`).Init; got == nil || *got {
		t.Error("init: false is lost")
	}
	if got := get(`"healthcheck":{"interval":"250ms"}`).Healthcheck; got == nil || got.Test != nil || got.Interval != state.Duration(250*time.Millisecond) {
		t.Errorf("timing alone must keep the image's command, got %+v", got)
	}
	if got := get(`"tty":false`).Tty; got {
		t.Error("tty: false is lost")
	}
	if got := get(`"networks":{"back":{},"front":{"priority":5}}`).MainNetwork; got != "front" {
		t.Errorf("the main network must be the one of highest priority, got %s", got)
	}
	if got := get(`"mem_limit":"2t"`).Memory; got != 2<<40 {
		t.Error(got)
	}
}

// Every problem names its path and its reason, and nothing crashes.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`"build":"."`, `services.web.build: ignored: images are built before a release is made; the image is used`},
		{`"volumes":["/etc:/host"]`, `services.web.volumes[0]: ignored: the host's path /etc is not mounted; use a label io.balena.features.* for access to the host`},
		{`"volumes":[{"type":"bind","source":"/etc","target":"/host"}]`, `services.web.volumes[0]: ignored: the host's path /etc is not mounted; use a label io.balena.features.* for access to the host`},
		{`"volumes":["other:/d"]`, `services.web.volumes[0]: warned: the volume other is not declared under volumes; it is made with default settings`},
		{`"volumes":[{"type":"volume","source":"data","target":"/d","volume":{"subpath":"x"}}]`, `services.web.volumes[0].volume.subpath: rejected: the whole volume would be mounted instead (needs engine API 1.45; the oldest supported one is 1.41)`},
		{`"volumes":["data:/d","/d"]`, `services.web.volumes[1]: rejected: /d is mounted twice`},
		{`"volumes":["a:/b:ro:c"]`, `services.web.volumes[0]: rejected: want target or source:target[:options], got "a:/b:ro:c"`},
		{`"volumes":[":/b"]`, `services.web.volumes[0]: rejected: want target or source:target[:options], got ":/b"`},
		{`"volumes":["data:/d:slow"]`, `services.web.volumes[0]: ignored: the option slow is not known`},
		{`"volumes":["data:relative"]`, `services.web.volumes[0]: rejected: want a path in the container that begins with /, got "relative"`},
		{`"volumes":[{"type":"cluster","target":"/d"}]`, `services.web.volumes[0].type: rejected: want volume or tmpfs, got cluster`},
		{`"volumes":[{"type":"image","source":"img","target":"/d"}]`, `services.web.volumes[0].type: rejected: want volume or tmpfs, got image`},
		{`"healthcheck":{"test":"x","start_interval":"1s"}`, `services.web.healthcheck.start_interval: ignored: the interval is used from the beginning (needs engine API 1.44; the oldest supported one is 1.41)`},
		{`"healthcheck":{"test":["curl"]}`, `services.web.healthcheck.test: rejected: a list begins with NONE, with CMD and the command's words, or with CMD-SHELL and one line`},
		{`"healthcheck":{"test":[1,{}]}`, `services.web.healthcheck.test[1]: rejected: want text, got a mapping`},
		{`"healthcheck":{"test":"x","interval":"1us"}`, `services.web.healthcheck.interval: rejected: the engine's shortest time is 1ms, got 1µs`},
		{`"networks":["none-such"]`, `services.web.networks.none-such: rejected: the network is not declared under networks`},
		{`"network_mode":"service:db"`, `services.web.network_mode: rejected: there is no service db`},
		{`"network_mode":"service:web"`, `services.web.network_mode: rejected: a service cannot use its own network as another's`},
		{`"network_mode":"container:"`, `services.web.network_mode: rejected: names no service or container`},
		{`"network_mode":"container:x","hostname":"h"`, `services.web.hostname: rejected: hostname cannot be set with network_mode container:x; set it where the network is`},
		{`"network_mode":"container:x","ports":["80"]`, `services.web.ports: rejected: ports cannot be set with network_mode container:x; set it where the network is`},
		{`"network_mode":"container:x","dns":"1.1.1.1"`, `services.web.dns: rejected: dns cannot be set with network_mode container:x; set it where the network is`},
		{`"network_mode":"container:x","extra_hosts":["a=1.1.1.1"]`, `services.web.extra_hosts: rejected: extra_hosts cannot be set with network_mode container:x; set it where the network is`},
		{`"network_mode":"container:x","mac_address":"02:42:ac:11:00:02"`, `services.web.mac_address: rejected: mac_address cannot be set with network_mode container:x; set it where the network is`},
		{`"network_mode":"container:x","expose":["80"]`, `services.web.expose: rejected: expose cannot be set with network_mode container:x; set it where the network is`},
		{`"network_mode":"container:x","networks":["front"]`, `services.web.network_mode: rejected: cannot be set together with networks`},
		{`"network_mode":"container:x","dns_opt":["a"]`, `services.web.dns_opt: ignored: counts where the network is`},
		{`"network_mode":"host","mac_address":"02:42:ac:11:00:02"`, `services.web.mac_address: rejected: cannot be set with network_mode host`},
		{`"network_mode":"host","sysctls":{"net.core.somaxconn":1}`, `services.web.sysctls.net.core.somaxconn: rejected: would change the host; it cannot be set with network_mode host`},
		{`"networks":{"front":{"ipv4_address":"10.0.0.1"}}`, `services.web.networks.front.ipv4_address: rejected: 10.0.0.1 is in no subnet under networks.front.ipam.config`},
		{`"pid":"service:db"`, `services.web.pid: rejected: service:db: only network_mode can be shared between services`},
		{`"pid":"mine"`, `services.web.pid: rejected: want host or container:NAME, got "mine"`},
		{`"ipc":"service:db"`, `services.web.ipc: rejected: service:db: only network_mode can be shared between services`},
		{`"uts":"private"`, `services.web.uts: rejected: want host, got "private"`},
		{`"uts":"host","hostname":"h"`, `services.web.hostname: rejected: cannot be set with uts host`},
		{`"cgroup":"mine"`, `services.web.cgroup: rejected: want host or private, got "mine"`},
		{`"userns_mode":"x"`, `services.web.userns_mode: rejected: want host, got "x"`},
		{`"logging":{"driver":"syslog"}`, `services.web.logging.driver: rejected: syslog: engines of devices have only journald, json-file, local, none`},
		{`"logging":{"driver":"local","options":{"tag":"x"}}`, `services.web.logging.options.tag: rejected: not an option of local`},
		{`"logging":{"driver":"none"}`, `services.web.logging.driver: warned: what the service writes is lost: nobody can read its logs, the cloud neither`},
		{`"storage_opt":{"size":"1g"}`, `services.web.storage_opt.size: warned: works only where the engine keeps containers on XFS with project quotas; elsewhere the service cannot be created`},
		{`"storage_opt":{"dm.x":"1g"}`, `services.web.storage_opt.dm.x: rejected: not an option; the only one is size`},
		{`"storage_opt":{"size":"big"}`, `services.web.storage_opt.size: rejected: want a size such as 512m or 1.5g, got "big"`},
		{`"isolation":"hyperv"`, `services.web.isolation: rejected: only for Windows containers`},
		{`"isolation":"default"`, ``},
		{`"credential_spec":{"file":"x"}`, `services.web.credential_spec: rejected: only for Windows containers`},
		{`"annotations":{"a":"b"}`, `services.web.annotations: rejected: they would be lost; use labels (needs engine API 1.43; the oldest supported one is 1.41)`},
		{`"env_file":["x"]`, `services.web.env_file: rejected: one self-contained document is expected; write it with: docker compose config`},
		{`"platform":"linux/arm64"`, `services.web.platform: ignored: the image of a release is already the one for the device`},
		{`"platform":"windows/amd64"`, `services.web.platform: rejected: windows/amd64: devices run Linux`},
		{`"pull_policy":"never"`, `services.web.pull_policy: ignored: the update strategy decides when images are fetched`},
		{`"scale":1,"deploy":{"replicas":1}`, ``},
		{`"scale":2`, `services.web.scale: ignored: each service is one container`},
		{`"deploy":{"mode":"global"}`, `services.web.deploy.mode: ignored: there is no swarm on a device`},
		{`"cpus":1,"deploy":{"resources":{"limits":{"cpus":"0.5"}}}`, `services.web.deploy.resources.limits.cpus: rejected: cpus is set as well, to another value`},
		{`"cpus":0.5,"deploy":{"resources":{"limits":{"cpus":"0.5"}}}`, ``},
		{`"deploy":{"resources":{"limits":{"memory":"lots"}}}`, `services.web.deploy.resources.limits.memory: rejected: want a size such as 512m or 1.5g, got "lots"`},
		{`"deploy":{"resources":{"reservations":{"cpus":"0.5"}}}`, `services.web.deploy.resources.reservations.cpus: ignored: the engine reserves no CPUs for a container; use cpu_shares`},
		{`"deploy":{"resources":{"reservations":{"devices":[{"driver":"nvidia"}]}}}`, `services.web.deploy.resources.reservations.devices[0].capabilities: rejected: name at least one, for example gpu`},
		{`"restart":"no","deploy":{"restart_policy":{"condition":"any"}}`, `services.web.deploy.restart_policy: ignored: restart is set as well`},
		{`"deploy":{"restart_policy":{"condition":"sometimes"}}`, `services.web.deploy.restart_policy.condition: rejected: want none, on-failure or any, got "sometimes"`},
		{`"deploy":{"restart_policy":{"max_attempts":3}}`, `services.web.deploy.restart_policy.max_attempts: ignored: counts with the condition on-failure only`},
		{`"gpus":"some"`, `services.web.gpus: rejected: want a list, got "some"`},
		{`"gpus":[{"count":0}]`, `services.web.gpus[0].count: rejected: want all or a number of devices, got 0`},
		{`"gpus":[{"count":1,"device_ids":["0"]}]`, `services.web.gpus[0]: rejected: want either count or device_ids`},
		{`"gpus":[{"driver":"cdi"}]`, `services.web.gpus[0].driver: rejected: cdi: the oldest supported engine does not have it`},
		{`"device_cgroup_rules":["c 1:3 mr","x"]`, `services.web.device_cgroup_rules[1]: rejected: want type, numbers and permissions such as c 13:* rwm, got "x"`},
		{`"blkio_config":{"weight":5}`, `services.web.blkio_config.weight: rejected: want a weight of 10 to 1000, got 5`},
		{`"blkio_config":{"device_read_bps":[{"path":"sda","rate":"1m"}]}`, `services.web.blkio_config.device_read_bps[0].path: rejected: want a block device such as /dev/mmcblk0`},
		{`"blkio_config":{"device_read_bps":[{"path":"/dev/a"}]}`, `services.web.blkio_config.device_read_bps[0].rate: rejected: is missing`},
		{`"blkio_config":{"weight_device":[{"path":"/dev/a","weight":10},{"path":"/dev//a","weight":20}]}`, `services.web.blkio_config.weight_device[1].path: rejected: /dev/a is named twice`},
		{`"cpu_period":10`, `services.web.cpu_period: rejected: want 1000 to 1000000 microseconds, got 10`},
		{`"cpu_quota":10`, `services.web.cpu_quota: rejected: want at least 1000 microseconds, got 10`},
		{`"cpus":1,"cpu_period":10000`, `services.web.cpu_period: rejected: cpus is set as well; the engine takes one of them`},
		{`"cpu_rt_runtime":"x"`, `services.web.cpu_rt_runtime: rejected: want microseconds or a duration such as 400ms, got "x"`},
		{`"cpu_rt_runtime":"400ms","cpu_rt_period":"100ms"`, `services.web.cpu_rt_runtime: rejected: is more than cpu_rt_period`},
		{`"memswap_limit":"1g"`, `services.web.memswap_limit: rejected: needs mem_limit as well`},
		{`"memswap_limit":"1g","mem_limit":"2g"`, `services.web.memswap_limit: rejected: is memory and swap together and cannot be less than mem_limit`},
		{`"mem_swappiness":101`, `services.web.mem_swappiness: rejected: want 0 to 100, got 101`},
		{`"expose":["80x"]`, `services.web.expose[0]: rejected: want a port such as 80 or 53/udp, got "80x"`},
		{`"volumes_from":["db"]`, `services.web.volumes_from[0]: rejected: there is no service db`},
		{`"volumes_from":["container:x"]`, `services.web.volumes_from[0]: rejected: container:x: only volumes of services of the app can be taken`},
		{`"volumes_from":["web"]`, `services.web.volumes_from[0]: rejected: the services take their volumes from each other`},
		{`"secrets":["s"]`, `services.web.secrets[0]: rejected: there is no secret "s" under secrets`},
		{`"configs":[{"source":"c","mode":"9"}]`, `services.web.configs[0].mode: rejected: want permissions such as 0440, got "9"`},
		{`"volumes":[{"type":"tmpfs","target":"/t","tmpfs":{"mode":1777}}]`, `services.web.volumes[0].tmpfs.mode: warned: taken as octal, 01777; write "01777"`},
		{`"volumes":[{"type":"tmpfs","target":"/t","tmpfs":{"mode":70000}}]`, `services.web.volumes[0].tmpfs.mode: rejected: want permissions such as 0440, got 70000`},
		{`"network_mode":"host","networks":["front"]`, `services.web.network_mode: rejected: cannot be set together with networks`},
		{`"network_mode":"host","ports":["80"]`, `services.web.ports: ignored: no port is published with network_mode host`},
		{`"networks":{"front":{"mac_address":"02:42:ac:11:00:02"}}`, `services.web.networks.front.mac_address: ignored: use mac_address of the service (needs engine API 1.44; the oldest supported one is 1.41)`},
		{`"networks":{"front":{"ipv4_address":"10.0.0"}}`, `services.web.networks.front.ipv4_address: rejected: want an IP address, got "10.0.0"`},
		{`"restart":"allways"`, `services.web.restart: rejected: want no, always, unless-stopped, on-failure or on-failure:<times>, got "allways"`},
		{`"mem_limit":"lots"`, `services.web.mem_limit: rejected: want a size such as 512m or 1.5g, got "lots"`},
		{`"mem_limit":"1m"`, `services.web.mem_limit: rejected: the engine needs at least 6m for a container`},
		{`"stop_grace_period":"soon"`, `services.web.stop_grace_period: rejected: want a duration such as 10s or 1m30s, got "soon"`},
		{`"stop_grace_period":10`, `services.web.stop_grace_period: warned: has no unit; taken as seconds`},
		{`"privileged":"maybe"`, `services.web.privileged: rejected: want true or false, got "maybe"`},
		{`"cpu_shares":-1`, `services.web.cpu_shares: rejected: want a whole number, not negative, got -1`},
		{`"cpus":"NaN"`, `services.web.cpus: rejected: want a number, not negative, got "NaN"`},
		{`"environment":"A=1"`, `services.web.environment: rejected: want a mapping or a list of key=value`},
		{`"environment":{"A":["x"]}`, `services.web.environment.A: rejected: want text, got a list`},
		{`"environment":{"A":"x\u0000y"}`, `services.web.environment.A: rejected: contains a NUL character`},
		{`"environment":["HOME"]`, `services.web.environment.HOME: ignored: has no value`},
		{`"command":"echo 'open"`, `services.web.command: rejected: cannot be split into words (invalid command line string); write it as a list`},
		{`"ports":["80:90:100:x"]`, `services.web.ports[0]: rejected: 80:90:100:x: invalid IP address: 80:90`},
		{`"ports":["1-3:1-2"]`, `services.web.ports[0]: rejected: 1-3:1-2: invalid ranges specified for container and host Ports: 1-2 and 1-3`},
		{`"ports":["1-3:1"]`, `services.web.ports[0]: rejected: 1-3:1: a range of host ports needs a range of container ports of the same length`},
		{`"ports":["1-65535:1-65535","1-2:1-2/udp"]`, `services.web.ports[1]: ok`},
		{`"ports":[{"published":80}]`, `services.web.ports[0]: rejected: target is missing`},
		{`"ulimits":{"nofile":{"soft":"x","hard":1}}`, `services.web.ulimits.nofile.soft: rejected: want a whole number, got "x"`},
		{`"ulimits":{"nofile":{"soft":2,"hard":1}}`, `services.web.ulimits.nofile: rejected: soft is more than hard`},
		{`"extra_hosts":["nohost"]`, `services.web.extra_hosts: rejected: invalid additional host, missing IP: nohost; write host=address`},
		{`"extra_hosts":["a=b"]`, `services.web.extra_hosts.a: rejected: want an IP address, got "b"`},
		{`"devices":["dev"]`, `services.web.devices[0]: rejected: want paths that begin with /, got "dev:dev"`},
		{`"image":"UP CASE"`, `services.web.image: rejected: "UP CASE" is not an image: invalid reference format: repository name (library/UP CASE) must be lowercase`},
		{`"image":""`, `services.web.image: rejected: the service has no image; build it first and name the result here`},
		{`"environments":{}`, `services.web.environments: ignored: not an attribute of the compose specification`},
		{`"depends_on":["db"]`, `services.web.depends_on.db: rejected: there is no service db`},
		{`"depends_on":{"db":{"required":false}}`, `services.web.depends_on.db: warned: there is no service db; it is not required and not waited for`},
		{`"depends_on":["web"]`, `services.web.depends_on: rejected: the services wait for each other: web → web`},
		{`"labels":{"io.balena.update.strategy":"blue-green"}`, `services.web.labels.io.balena.update.strategy: warned: want one of ` + strings.Join(slices.Sorted(maps.Keys(strategy.All)), ", ") + `, got "blue-green"; download-then-kill is used`},
		{`"labels":{"io.balena.update.handover-timeout":"-1"}`, `services.web.labels.io.balena.update.handover-timeout: warned: want milliseconds, more than 0, got "-1"; the default is used`},
		{`"labels":{"io.balena.update.handover-timeout":"99999999999999999999"}`, `services.web.labels.io.balena.update.handover-timeout: warned: want milliseconds, more than 0, got "99999999999999999999"; the default is used`},
		{`"labels":{"io.balena.update.handover-on-timeout":"panic"}`, `services.web.labels.io.balena.update.handover-on-timeout: warned: want keep-old or stop-old, got "panic"; stop-old is used`},
		{`"labels":{"io.balena.update.requires-reboot":"maybe"}`, `services.web.labels.io.balena.update.requires-reboot: warned: want 1, true or on, got "maybe"; no reboot is required`},
		{`"labels":{"io.resin.features.teleport":"1"}`, `services.web.labels.io.balena.features.teleport: warned: is not a feature; it has no effect`},
		{`"labels":{"io.balena.features.dbus":"yes"}`, `services.web.labels.io.balena.features.dbus: warned: want 1, true or on, got "yes"; it has no effect`},
		{`"labels":{"io.balena.app-id":"1"}`, `services.web.labels.io.balena.app-id: ignored: set by the supervisor`},
	} {
		s, problems := web(t, c.body)
		got := lines(problems)
		if strings.HasSuffix(c.want, ": ok") && got == "" && len(s.Spec.Ports) == 1<<16-1+2 {
			continue
		}
		if got != c.want {
			t.Errorf("%s\n got %s\nwant %s", c.body, got, c.want)
		}
	}
}

// What must be mended is listed at once, but not what is wrong only because
// something else is.
func TestAllRefusalsAtOnce(t *testing.T) {
	for doc, want := range map[string]string{
		`{"services":{"a":{"image":"i","restart":"allways","mem_limit":"lots","ports":["99999:1"],"networks":["no"]}}}`: `services.a.mem_limit services.a.networks.no services.a.ports[0] services.a.restart`,
		`{"services":{"a":{"image":"i","tty":"x"},"b":{"image":"i","depends_on":["c"]}}}`:                               `services.a.tty services.b.depends_on.c`,
		`{"services":{"a":{"image":["i"]},"b":{"image":"i","depends_on":["a"]}}}`:                                       `services.a.image`,
		`{"services":{"a":7,"b":{"image":"i","depends_on":["a"]}}}`:                                                     `services.a`,
		`{"services":{"a":{"image":"i","networks":["n"]}},"networks":[]}`:                                               `networks`,
		`{"services":{"a":{"image":"i","ports":[["80"],"99999:1"]}}}`:                                                   `services.a.ports[0]`,
		`{"services":{"a":{"image":"i","ulimits":{"nofile":{"soft":"x","hard":1}}}}}`:                                   `services.a.ulimits.nofile.soft`,
	} {
		_, problems := release(t, doc)
		var paths []string
		for _, p := range problems {
			paths = append(paths, p.Path)
		}
		if got := strings.Join(paths, " "); got != want {
			t.Errorf("%s\n got %s\nwant %s", doc, got, want)
		}
	}
}

func TestUpdateLabelsRestartNothing(t *testing.T) {
	a, _ := web(t, `"labels":{"mine":"1","io.balena.update.strategy":"download-then-kill"}`)
	b, _ := web(t, `"labels":{"mine":"1","io.resin.update.strategy":"kill-then-download"}`)
	if b.Strategy != "kill-then-download" {
		t.Error(b.Strategy)
	}
	if a.Hash != b.Hash {
		t.Error("another update strategy replaces the container")
	}
	if diff := cmp.Diff(map[string]string{"mine": "1"}, a.Spec.Labels); diff != "" {
		t.Error(diff)
	}
}

// Changes that other tools miss: each leads to another container.
func TestChangesAreSeen(t *testing.T) {
	for _, c := range [][2]string{
		{`"cpus":1`, `"cpus":2`},
		{`"cpus":0.5`, `"user":""`},
		{`"networks":{"front":{"aliases":["x"]}}`, `"networks":["front"]`},
		{`"networks":["front","back"]`, `"networks":["front"]`},
		{`"networks":["front"]`, `"network_mode":"none"`},
		{`"restart":"on-failure:3"`, `"restart":"on-failure"`},
		{`"restart":"no"`, `"restart":"always"`},
		{`"mem_limit":"1.5g"`, `"mem_limit":"1g"`},
		{`"command":[]`, `"command":null`},
		{`"init":false`, `"init":null`},
		{`"mem_swappiness":0`, `"mem_swappiness":-1`},
		{`"healthcheck":{"interval":"500ms"}`, `"healthcheck":{"interval":"600ms"}`},
		{`"labels":{"io.balena.features.dbus":"1"}`, `"labels":{"io.balena.features.dbus":"0"}`},
		{`"storage_opt":{"size":"1g"}`, `"user":""`},
	} {
		a, pa := web(t, c[0])
		b, pb := web(t, c[1])
		if Refusal(pa) != nil || Refusal(pb) != nil || a.Hash == b.Hash {
			t.Errorf("%s looks the same as %s: %v %v", c[0], c[1], pa, pb)
		}
	}
}

func TestDependencies(t *testing.T) {
	p, problems := release(t, `{"services":{
		"a":{"image":"i","depends_on":{"c":{"condition":"service_healthy"},"b":{"condition":"service_completed_successfully","restart":true}}},
		"b":{"image":"i","restart":"no"},
		"c":{"image":"i","depends_on":["b"]}}}`)
	want := []state.Dependency{{Service: "b", Condition: state.Completed, Restart: true}, {Service: "c", Condition: state.Healthy}}
	if diff := cmp.Diff(want, p.Services["a"].DependsOn); diff != "" {
		t.Error(diff)
	}
	if len(problems) > 0 {
		t.Error(problems)
	}

	_, problems = release(t, `{"services":{
		"x":{"image":"i","depends_on":["c"]},
		"a":{"image":"i","depends_on":["b"]},
		"b":{"image":"i","depends_on":["c"]},
		"c":{"image":"i","depends_on":["a"]}}}`)
	if got, want := lines(problems), "services.a.depends_on: rejected: the services wait for each other: a → b → c → a"; got != want {
		t.Error(got)
	}

	_, problems = release(t, `{"services":{
		"a":{"image":"i","depends_on":{"b":{"condition":"service_completed_successfully"},"c":{"condition":"service_healthy"}}},
		"b":{"image":"i"},
		"c":{"image":"i","healthcheck":{"disable":true}}}}`)
	want2 := "services.a.depends_on.b: warned: b is restarted whenever it ends; set restart: no or on-failure there\n" +
		"services.a.depends_on.c: rejected: c has its health check switched off and can never become healthy"
	if got := lines(problems); got != want2 {
		t.Error(got)
	}
}

func TestDefaultNetworkExactlyWhenUsed(t *testing.T) {
	for doc, want := range map[string]bool{
		`{"services":{"a":{"image":"i"}}}`:                                                 true,
		`{"services":{"a":{"image":"i","network_mode":"host"}}}`:                           false,
		`{"services":{"a":{"image":"i","network_mode":"none"}}}`:                           false,
		`{"services":{"a":{"image":"i","networks":["n"]}},"networks":{"n":{}}}`:            false,
		`{"services":{"a":{"image":"i","networks":["n","default"]}},"networks":{"n":{}}}`:  true,
		`{"services":{"a":{"image":"i","network_mode":"host"},"b":{"image":"i"}}}`:         true,
		`{"services":{"a":{"image":"i","network_mode":"host"}},"networks":{"default":{}}}`: true,
		`{"services":{}}`: false,
		`{}`:              false,
	} {
		p, problems := release(t, doc)
		if _, got := p.Networks["default"]; got != want || len(problems) > 0 {
			t.Errorf("%s: default network %v, want %v %v", doc, got, want, problems)
		}
	}
}

func TestPortClash(t *testing.T) {
	_, problems := release(t, `{"services":{"a":{"image":"i","ports":["80:1"]},"b":{"image":"i","ports":["80:2"]},"c":{"image":"i","ports":["80:2/udp"]}}}`)
	if got, want := lines(problems), "services.b.ports: warned: the host's port 80/tcp is also published by a; only one of them can start"; got != want {
		t.Error(got)
	}
}

func TestTopLevelProblems(t *testing.T) {
	for doc, want := range map[string]string{
		`{"services":[]}`:                    `services: rejected: want a mapping from names, got a list`,
		`{"services":{"a":null}}`:            `services.a.image: rejected: the service has no image; build it first and name the result here`,
		`{"services":{"a":1}}`:               `services.a: rejected: want a mapping, got 1`,
		`{"services":{"a/b":{"image":"i"}}}`: `services.a/b: rejected: a name consists of letters, digits, dots, dashes and underscores and begins with a letter or digit`,
		`{"networks":{"n":{"external":true}},"volumes":{"v":{"external":{"name":"x"}}}}`:        ``,
		`{"networks":{"n":{"external":true,"driver":"bridge"}}}`:                                `networks.n.driver: ignored: it is external: not made by the app, taken as it is`,
		`{"networks":{"n":{"external":true,"name":"a b"}}}`:                                     `networks.n.name: rejected: want the engine's name of it, got "a b"`,
		`{"networks":{"host":{"external":true}}}`:                                               `networks.host.external: rejected: use network_mode: host in the services`,
		`{"networks":{"n":{"external":true,"name":"supervisor0"}}}`:                             `networks.n.external: rejected: use the label io.balena.features.supervisor-api`,
		`{"networks":{"n":{"external":"maybe"}}}`:                                               `networks.n.external: rejected: want true or false, got "maybe"`,
		`{"networks":{"n":{"name":"mine"}}}`:                                                    `networks.n.name: ignored: names are given by the supervisor, so that apps cannot collide; with external it is the engine's name`,
		`{"networks":{"n":{"driver":"host"}}}`:                                                  `networks.n.driver: rejected: host: use network_mode in the services`,
		`{"networks":{"n":{"enable_ipv6":true}}}`:                                               `networks.n.enable_ipv6: warned: needs an IPv6 subnet under ipam.config, unless the engine was given address pools for IPv6`,
		`{"networks":{"n":{"driver":"weave"}}}`:                                                 `networks.n.driver: warned: weave: balenaEngine has the drivers bridge, macvlan and ipvlan only`,
		`{"volumes":{"v":{"driver":"nfs"}}}`:                                                    `volumes.v.driver: warned: nfs: balenaEngine has the driver local only`,
		`{"volumes":{"v":{"external":false}}}`:                                                  ``,
		`{"networks":{"n":{"driver":"overlay"}}}`:                                               `networks.n.driver: rejected: overlay: there is no swarm on a device`,
		`{"networks":{"n":{"ipam":{"config":[{"subnet":"10.0.0/8"}]}}}}`:                        `networks.n.ipam.config[0].subnet: rejected: want a subnet such as 10.1.0.0/24, got "10.0.0/8"`,
		`{"networks":{"n":{"ipam":{"config":[{"subnet":"10.0.0.0/8","gateway":"11.0.0.1"}]}}}}`: `networks.n.ipam.config[0].gateway: rejected: 11.0.0.1 is not in 10.0.0.0/8`,
		`{"configs":{"c":{"file":"x"}}}`:                                                        `configs.c.file: rejected: a release has no files beside it; use content or environment`,
		`{"secrets":{"s":{"external":true}}}`:                                                   `secrets.s.external: rejected: there is no store beside the release; use content or environment`,
		`{"secrets":{"s":{}}}`:                                                                  `secrets.s: rejected: want exactly one of content and environment, in a compose file also file`,
		`{"secrets":{"s":{"content":"hush","environment":"X"}}}`:                                `secrets.s: rejected: want exactly one of content and environment, in a compose file also file`,
		`{"secrets":{"s":{"content":["hush"]}}}`:                                                `secrets.s.content: rejected: want text, got a list`,
		`{"x-mine":1,"version":"3"}`:                                                            `version: ignored: obsolete; the current specification is always used`,
	} {
		if _, problems := release(t, doc); lines(problems) != want {
			t.Errorf("%s\n got %s\nwant %s", doc, lines(problems), want)
		}
	}
}

func TestManyPortsAreRefusedQuickly(t *testing.T) {
	body := strings.Repeat(`"1-65535:1-65535",`, 20_000)
	start := time.Now()
	_, problems := web(t, `"ports":[`+strings.TrimSuffix(body, ",")+`]`)
	if Refusal(problems) == nil || time.Since(start) > 10*time.Second {
		t.Errorf("after %v: %v", time.Since(start), Refusal(problems))
	}
}

func TestLoadDoesNotChangeTheDocument(t *testing.T) {
	const doc = `{"services":{"web":{"image":"i","ports":["80"],"ulimits":{"nofile":1},"networks":["n"],"depends_on":{"db":null},"volumes":["v:/v"]},"db":{"image":"i","restart":"no"}},"networks":{"n":null},"volumes":{"v":null}}`
	var v map[string]any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatal(err)
	}
	first, _, err := Load(t.Context(), Options{Release: true}, v)
	if err != nil {
		t.Fatal(err)
	}
	var again map[string]any
	if err := json.Unmarshal([]byte(doc), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(again, v); diff != "" {
		t.Error(diff)
	}
	second, _, _ := Load(t.Context(), Options{Release: true}, v)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Error(diff)
	}
}
