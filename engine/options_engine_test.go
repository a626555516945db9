//go:build engine && linux

package engine_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/pkg/stdcopy"
	"github.com/google/go-cmp/cmp"

	"deckhand/compose"
	"deckhand/engine"
	"deckhand/reconcile"
	"deckhand/state"
)

// composed makes what a document asks for, except files and external things, and
// gives the inspection of each container by service.
func (r *rig) composed(doc string) map[string]container.InspectResponse {
	r.Helper()
	p := r.loaded(doc)
	for _, name := range sorted(p.Networks) {
		r.do(reconcile.CreateNetwork{App: r.app, Network: p.Networks[name]})
	}
	for _, name := range sorted(p.Volumes) {
		r.do(reconcile.CreateVolume{App: r.app, Volume: p.Volumes[name]})
	}
	out := map[string]container.InspectResponse{}
	for _, name := range sorted(p.Services) {
		r.do(r.step(p.Services[name]))
		c := r.one(name)
		if c.Hash != p.Services[name].Hash {
			r.Errorf("%s is found with the hash %s, made with %s", name, c.Hash, p.Services[name].Hash)
		}
		i, err := docker().Client.ContainerInspect(r.Context(), c.ID)
		if err != nil {
			r.Fatal(err)
		}
		out[name] = i
	}
	return out
}

func (r *rig) loaded(doc string) compose.Project {
	r.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(strings.ReplaceAll(doc, "IMAGE", r.image)), &v); err != nil {
		r.Fatal(err)
	}
	p, problems, err := compose.Load(r.Context(), compose.Options{Release: true}, v)
	if err != nil || compose.Refusal(problems) != nil {
		r.Fatal(err, problems)
	}
	return p
}

func (r *rig) step(s state.Service) reconcile.Create {
	s.ID, s.ImageID = 1, r.app.ID
	return reconcile.Create{App: r.app, Commit: "c", ReleaseID: 3, Service: s}
}

func (r *rig) one(service string) state.Container {
	r.Helper()
	for _, c := range r.now().Containers {
		if c.Service == service {
			return c
		}
	}
	r.Fatalf("there is no container of %s", service)
	return state.Container{}
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// shows checks values in an inspection, by path; want is JSON.
func shows(t *testing.T, what string, inspection any, want map[string]string) {
	t.Helper()
	b, err := json.Marshal(inspection)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range sorted(want) {
		var v, w any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(path, "/") {
			switch x := v.(type) {
			case map[string]any:
				v = x[part]
			case []any:
				var i int
				if _, err := fmt.Sscan(part, &i); err != nil || i >= len(x) {
					t.Fatalf("%s: %s: %v", what, path, x)
				}
				v = x[i]
			default:
				v = nil
			}
		}
		if err := json.Unmarshal([]byte(want[path]), &w); err != nil {
			t.Fatalf("%s: %v", want[path], err)
		}
		if d := cmp.Diff(w, v); d != "" {
			t.Errorf("%s: the engine shows another %s:\n%s", what, path, d)
		}
	}
}

// kernel gives has where the kernel has a file of cgroups, else what the engine
// then does with the setting.
func kernel(file, has, otherwise string) string {
	for _, dir := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/blkio", "/sys/fs/cgroup/memory"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			return has
		}
	}
	return otherwise
}

// blockDevice is a block device of this machine.
func blockDevice(t *testing.T) string {
	t.Helper()
	list, err := os.ReadDir("/sys/block")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		if !strings.HasPrefix(d.Name(), "loop") {
			if _, err := os.Stat("/dev/" + d.Name()); err == nil {
				return "/dev/" + d.Name()
			}
		}
	}
	return "/dev/loop0"
}

// A service that uses all it can at once is made and runs, and the engine shows
// each value as it was asked for.
func TestEngineShowsEachAttribute(t *testing.T) {
	r := newRig(t, nil)
	disk := blockDevice(t)
	made := r.composed(strings.ReplaceAll(`{
		"services": {
			"db": {"image":"IMAGE","restart":"no","volumes":["shared:/shared"],"networks":["back"]},
			"web": {"image":"IMAGE",
				"command":["sleep","1000"],"entrypoint":["/bin/busybox"],"user":"0:0","working_dir":"/srv/",
				"environment":{"A":"1","EMPTY":""},"labels":{"mine":"1","io.balena.features.dbus":"0"},
				"hostname":"h1","domainname":"example.org","mac_address":"02:42:ac:11:00:02",
				"networks":{"back":{"aliases":["www"],"ipv4_address":"10.213.7.5","ipv6_address":"fd00:213::5","driver_opts":{"k":"v"}},"front":{"priority":5,"link_local_ips":["169.254.20.1"]}},
				"ports":["127.0.0.1:0:7000","0:7001/udp"],"expose":["9000","9001/udp"],
				"extra_hosts":["gw=10.0.0.1","six=[::1]"],"dns":["9.9.9.9","1.1.1.1"],"dns_search":["lan"],"dns_opt":["ndots:2"],
				"volumes":["data:/data:ro","/anon",{"type":"volume","source":"data","target":"/nocopy","volume":{"nocopy":true}},
					{"type":"tmpfs","target":"/scratch","tmpfs":{"size":"2m","mode":"1770"}}],
				"volumes_from":["db:ro"],"tmpfs":["/run/x:mode=755,size=1m"],"read_only":true,
				"restart":"on-failure:3","stop_signal":"int","stop_grace_period":"1500ms",
				"healthcheck":{"test":"true","interval":"1m30s","timeout":"500ms","start_period":"5s","retries":4},
				"stdin_open":true,"tty":true,"init":true,
				"cap_add":["NET_ADMIN"],"cap_drop":["MKNOD"],"group_add":["44"],"security_opt":["no-new-privileges"],
				"devices":["/dev/null:/dev/nothing:rw"],"device_cgroup_rules":["c 1:5 r"],
				"ipc":"private","cgroup":"private","sysctls":{"net.core.somaxconn":1024},"ulimits":{"nofile":{"soft":1000,"hard":2000},"nproc":4096},
				"logging":{"driver":"json-file","options":{"max-size":"1m","max-file":"2"}},
				"cpus":"0.75","cpu_shares":512,"cpuset":"0","mem_limit":"64m","mem_reservation":"32m","memswap_limit":"128m","mem_swappiness":10,
				"shm_size":"4m","pids_limit":50,"oom_score_adj":100,"oom_kill_disable":true,
				"blkio_config":{"weight":300,"weight_device":[{"path":"DISK","weight":400}],
					"device_read_bps":[{"path":"DISK","rate":"12mb"}],"device_write_bps":[{"path":"DISK","rate":1048576}],
					"device_read_iops":[{"path":"DISK","rate":120}],"device_write_iops":[{"path":"DISK","rate":130}]}}
		},
		"networks": {"front":{"attachable":true,"labels":{"a":"b"}},
			"back":{"internal":true,"enable_ipv6":true,"driver_opts":{"com.docker.network.bridge.enable_icc":"true"},
				"ipam":{"options":{"x":"y"},"config":[{"subnet":"10.213.7.0/24","gateway":"10.213.7.1","ip_range":"10.213.7.128/25","aux_addresses":{"printer":"10.213.7.9"}},{"subnet":"fd00:213::/64"}]}}},
		"volumes": {"data":{"driver_opts":{"type":"tmpfs","device":"tmpfs"},"labels":{"k":"v"}},"shared":null}
	}`, "DISK", disk))
	web := made["web"]
	front, back := r.app.UUID+"_front", r.app.UUID+"_back"
	volumeName := func(s string) string { return state.VolumeName(r.app.ID, s) }
	shows(t, "web", web, map[string]string{
		"Config/Cmd": `["sleep","1000"]`, "Config/Entrypoint": `["/bin/busybox"]`, "Config/User": `"0:0"`, "Config/WorkingDir": `"/srv"`,
		"Config/Labels/mine": `"1"`, "Config/Hostname": `"h1"`, "Config/Domainname": `"example.org"`,
		"Config/ExposedPorts": `{"7000/tcp":{},"7001/udp":{},"9000/tcp":{},"9001/udp":{}}`,
		"Config/Healthcheck":  `{"Test":["CMD-SHELL","true"],"Interval":90000000000,"Timeout":500000000,"StartPeriod":5000000000,"Retries":4}`,
		"Config/StopSignal":   `"SIGINT"`, "Config/StopTimeout": `2`, "Config/Tty": `true`, "Config/OpenStdin": `true`,
		"HostConfig/NetworkMode": fmt.Sprintf("%q", front), "HostConfig/PortBindings": `{"7000/tcp":[{"HostIp":"127.0.0.1","HostPort":""}],"7001/udp":[{"HostIp":"","HostPort":""}]}`,
		"HostConfig/ExtraHosts": `["gw:10.0.0.1","six:::1"]`, "HostConfig/Dns": `["9.9.9.9","1.1.1.1"]`, "HostConfig/DnsSearch": `["lan"]`, "HostConfig/DnsOptions": `["ndots:2"]`,
		"HostConfig/Mounts": fmt.Sprintf(`[{"Type":"volume","Target":"/anon"},{"Type":"volume","Source":%q,"Target":"/data","ReadOnly":true},
			{"Type":"volume","Source":%q,"Target":"/nocopy","VolumeOptions":{"NoCopy":true}},{"Type":"tmpfs","Target":"/scratch","TmpfsOptions":{"SizeBytes":2097152,"Mode":1016}},
			{"Type":"volume","Source":%q,"Target":"/shared","ReadOnly":true}]`, volumeName("data"), volumeName("data"), volumeName("shared")),
		"HostConfig/Tmpfs": `{"/run/x":"mode=755,size=1m"}`, "HostConfig/ReadonlyRootfs": `true`,
		"HostConfig/RestartPolicy": `{"Name":"on-failure","MaximumRetryCount":3}`, "HostConfig/Init": `true`,
		"HostConfig/CapAdd": `["CAP_NET_ADMIN"]`, "HostConfig/CapDrop": `["CAP_MKNOD"]`, "HostConfig/GroupAdd": `["44"]`, "HostConfig/SecurityOpt": `["no-new-privileges"]`,
		"HostConfig/Devices":           `[{"PathOnHost":"/dev/null","PathInContainer":"/dev/nothing","CgroupPermissions":"rw"}]`,
		"HostConfig/DeviceCgroupRules": `["c 1:5 r"]`, "HostConfig/IpcMode": `"private"`, "HostConfig/CgroupnsMode": `"private"`,
		"HostConfig/Sysctls": `{"net.core.somaxconn":"1024"}`, "HostConfig/Ulimits": `[{"Name":"nofile","Soft":1000,"Hard":2000},{"Name":"nproc","Soft":4096,"Hard":4096}]`,
		"HostConfig/LogConfig": `{"Type":"json-file","Config":{"max-size":"1m","max-file":"2"}}`,
		"HostConfig/NanoCpus":  `750000000`, "HostConfig/CpuShares": `512`, "HostConfig/CpusetCpus": `"0"`,
		"HostConfig/Memory": `67108864`, "HostConfig/MemoryReservation": `33554432`,
		"HostConfig/MemorySwap":       kernel("memory.memsw.limit_in_bytes", `134217728`, `-1`),
		"HostConfig/MemorySwappiness": kernel("memory.swappiness", `10`, `null`), "HostConfig/OomKillDisable": kernel("memory.oom_control", `true`, `null`),
		"HostConfig/ShmSize": `4194304`, "HostConfig/PidsLimit": `50`, "HostConfig/OomScoreAdj": `100`,
		"HostConfig/BlkioWeight":                            kernel("blkio.weight", `300`, `0`),
		"HostConfig/BlkioWeightDevice":                      kernel("blkio.weight_device", fmt.Sprintf(`[{"Path":%q,"Weight":400}]`, disk), `[]`),
		"HostConfig/BlkioDeviceReadBps":                     fmt.Sprintf(`[{"Path":%q,"Rate":12582912}]`, disk),
		"HostConfig/BlkioDeviceWriteBps":                    fmt.Sprintf(`[{"Path":%q,"Rate":1048576}]`, disk),
		"HostConfig/BlkioDeviceReadIOps":                    fmt.Sprintf(`[{"Path":%q,"Rate":120}]`, disk),
		"HostConfig/BlkioDeviceWriteIOps":                   fmt.Sprintf(`[{"Path":%q,"Rate":130}]`, disk),
		"NetworkSettings/Networks/" + back + "/IPAMConfig":  `{"IPv4Address":"10.213.7.5","IPv6Address":"fd00:213::5"}`,
		"NetworkSettings/Networks/" + back + "/DriverOpts":  `{"k":"v"}`,
		"NetworkSettings/Networks/" + front + "/IPAMConfig": `{"LinkLocalIPs":["169.254.20.1"]}`,
	})
	for _, v := range []string{"A=1", "EMPTY=", "BALENA_SERVICE_NAME=web"} {
		if !slices.Contains(web.Config.Env, v) {
			t.Errorf("%s is missing in %v", v, web.Config.Env)
		}
	}
	if got := web.NetworkSettings.Networks[back].Aliases; !slices.Contains(got, "www") || !slices.Contains(got, "web") {
		t.Errorf("aliases are %v", got)
	}
	if err := r.start(r.one("web")); err != nil {
		t.Fatal(err)
	}
	running, err := docker().Client.ContainerInspect(t.Context(), web.ID)
	if err != nil || !running.State.Running {
		t.Errorf("%+v, %v", running.State, err)
	}
	if got := running.NetworkSettings.Networks[front].MacAddress; got != "02:42:ac:11:00:02" {
		t.Errorf("the MAC address is %s", got)
	}
	if b := running.NetworkSettings.Ports["7000/tcp"]; len(b) != 1 || b[0].HostIP != "127.0.0.1" || b[0].HostPort == "" {
		t.Errorf("port 7000 is published as %v", b)
	}
	sharedObjects(t, front, back, volumeName("data"))
}

func sharedObjects(t *testing.T, front, back, data string) {
	t.Helper()
	n, err := docker().Client.NetworkInspect(t.Context(), back, network.InspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	shows(t, "back", n, map[string]string{
		"Driver": `"bridge"`, "Internal": `true`, "EnableIPv6": `true`, "Attachable": `false`,
		"Options":      `{"com.docker.network.bridge.enable_icc":"true"}`,
		"IPAM/Options": `{"x":"y"}`,
		"IPAM/Config":  `[{"Subnet":"10.213.7.0/24","IPRange":"10.213.7.128/25","Gateway":"10.213.7.1","AuxiliaryAddresses":{"printer":"10.213.7.9"}},{"Subnet":"fd00:213::/64"}]`,
	})
	if n, err = docker().Client.NetworkInspect(t.Context(), front, network.InspectOptions{}); err != nil {
		t.Fatal(err)
	}
	shows(t, "front", n, map[string]string{"Attachable": `true`, "Labels/a": `"b"`})
	v, err := docker().Client.VolumeInspect(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	shows(t, "data", v, map[string]string{"Driver": `"local"`, "Options": `{"type":"tmpfs","device":"tmpfs"}`, "Labels/k": `"v"`})
}

// What excludes other attributes is shown in containers of its own.
func TestEngineShowsTheRest(t *testing.T) {
	r := newRig(t, nil)
	made := r.composed(`{"services": {
		"host": {"image":"IMAGE","network_mode":"host","pid":"host","ipc":"host","uts":"host","cgroup":"host","userns_mode":"host","privileged":true,"runtime":"runc","cgroup_parent":"/deckhand"},
		"quota": {"image":"IMAGE","cpu_quota":20000,"cpu_period":50000,"logging":{"driver":"local","options":{"compress":"false"}},"restart":"no","tty":false},
		"real": {"image":"IMAGE","cpu_rt_period":"1s","cpu_rt_runtime":"95ms","logging":{"driver":"none"},"network_mode":"none","ipc":"shareable"},
		"limits": {"image":"IMAGE","deploy":{"resources":{"limits":{"cpus":"0.5","memory":"1.5g","pids":7},"reservations":{"memory":"10m"}},"restart_policy":{"condition":"on-failure","max_attempts":2}}},
		"gpu": {"image":"IMAGE","gpus":[{"driver":"nvidia","count":2,"options":{"a":"b"}}],
			"deploy":{"resources":{"reservations":{"devices":[{"capabilities":["tpu"],"device_ids":["1"]}]}}}},
		"bridge": {"image":"IMAGE","network_mode":"none","restart":"unless-stopped","command":[],"entrypoint":["x"]}
	}}`)
	shows(t, "host", made["host"], map[string]string{
		"HostConfig/NetworkMode": `"host"`, "HostConfig/PidMode": `"host"`, "HostConfig/IpcMode": `"host"`, "HostConfig/UTSMode": `"host"`,
		"HostConfig/CgroupnsMode": `"host"`, "HostConfig/UsernsMode": `"host"`, "HostConfig/Privileged": `true`, "HostConfig/Runtime": `"runc"`, "HostConfig/CgroupParent": `"/deckhand"`,
	})
	shows(t, "quota", made["quota"], map[string]string{
		"HostConfig/CpuQuota": `20000`, "HostConfig/CpuPeriod": `50000`, "HostConfig/LogConfig": `{"Type":"local","Config":{"compress":"false"}}`,
		"HostConfig/RestartPolicy/Name": `"no"`, "Config/Tty": `false`,
	})
	shows(t, "real", made["real"], map[string]string{
		"HostConfig/CpuRealtimePeriod": `1000000`, "HostConfig/CpuRealtimeRuntime": `95000`, "HostConfig/LogConfig/Type": `"none"`,
		"HostConfig/NetworkMode": `"none"`, "HostConfig/IpcMode": `"shareable"`,
	})
	shows(t, "limits", made["limits"], map[string]string{
		"HostConfig/NanoCpus": `500000000`, "HostConfig/Memory": `1610612736`, "HostConfig/PidsLimit": `7`, "HostConfig/MemoryReservation": `10485760`,
		"HostConfig/RestartPolicy": `{"Name":"on-failure","MaximumRetryCount":2}`,
	})
	shows(t, "gpu", made["gpu"], map[string]string{
		"HostConfig/DeviceRequests": `[{"Driver":"","Count":0,"DeviceIDs":["1"],"Capabilities":[["tpu"]],"Options":null},
			{"Driver":"nvidia","Count":2,"DeviceIDs":null,"Capabilities":[["gpu"]],"Options":{"a":"b"}}]`,
	})
	shows(t, "bridge", made["bridge"], map[string]string{"HostConfig/RestartPolicy/Name": `"unless-stopped"`, "Config/Cmd": `[]`})
	// A storage driver without quotas refuses the option by its name; nothing is lost in silence.
	s := r.loaded(`{"services":{"web":{"image":"IMAGE","storage_opt":{"size":"1g"}}}}`).Services["web"]
	if err := r.e.Do(t.Context(), r.step(s), nil); err == nil {
		i, err := docker().Client.ContainerInspect(t.Context(), r.one("web").ID)
		if err != nil || i.HostConfig.StorageOpt["size"] != "1073741824" {
			t.Errorf("the option is lost: %v, %v", i.HostConfig.StorageOpt, err)
		}
	} else if !strings.Contains(err.Error(), "storage-opt") {
		t.Error(err)
	}
}

func TestEngineSharesNetworks(t *testing.T) {
	r := newRig(t, nil)
	made := r.composed(`{"services":{
		"a": {"image":"IMAGE","hostname":"owner"},
		"b": {"image":"IMAGE","network_mode":"service:a"}}}`)
	if got, want := string(made["b"].HostConfig.NetworkMode), "container:"+made["a"].ID; got != want {
		t.Errorf("network mode %s, want %s", got, want)
	}
	for _, s := range []string{"a", "b"} {
		if err := r.start(r.one(s)); err != nil {
			t.Errorf("start %s: %v", s, err)
		}
	}
}

func TestEngineJoinsExternal(t *testing.T) {
	r := newRig(t, nil)
	name := "office-" + r.app.UUID[20:]
	made, err := docker().Client.NetworkCreate(t.Context(), name, network.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docker().Client.VolumeCreate(t.Context(), volume.CreateOptions{Name: name}); err != nil {
		t.Fatal(err)
	}
	c := r.composed(fmt.Sprintf(`{"services":{"web":{"image":"IMAGE","networks":{"lan":{"aliases":["x"]},"own":null},"volumes":["old:/old"]}},
		"networks":{"lan":{"external":true,"name":%q},"own":null},"volumes":{"old":{"external":true,"name":%q}}}`, name, name))["web"]
	if n := c.NetworkSettings.Networks[name]; n == nil || !slices.Contains(n.Aliases, "x") {
		t.Errorf("%v", c.NetworkSettings.Networks)
	}
	if len(c.Mounts) != 3 || !slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool { return m.Name == name && m.Destination == "/old" }) {
		t.Errorf("%+v", c.Mounts)
	}
	if err := docker().Client.ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true}); err != nil {
		t.Fatal(err)
	}
	removeNetwork(t, made.ID)
}

// Secrets are files that a service can read and not change.
func TestEngineMountsFiles(t *testing.T) {
	var runDir string
	r := newRig(t, func(c *engine.Config) { runDir = c.RunDir })
	const doc = `{"services":{"web":{"image":"IMAGE","tty":false,"restart":"no","secrets":["key"],"configs":[{"source":"app","target":"/etc/deep/app.conf"}],
		"command":["sh","-c","cat /run/secrets/key /etc/deep/app.conf; echo x >/run/secrets/key || echo refused"]}},
		"secrets":{"key":{"content":"s3cret\n"}},"configs":{"app":{"content":"a=b\n"}}}`
	s := r.loaded(doc).Services["web"]
	dir := filepath.Join(runDir, state.FilesDir(r.app.ID, "web", state.FilesHash(s.Spec.Files)))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, f := range s.Spec.Files {
		if err := os.WriteFile(filepath.Join(dir, state.FileName(i)), f.Content, 0o444); err != nil {
			t.Fatal(err)
		}
	}
	c := r.composed(doc)["web"]
	if strings.Contains(fmt.Sprint(c.Config.Labels, c.Config.Env), "s3cret") {
		t.Error("the secret is in the container's settings")
	}
	if err := r.start(r.one("web")); err != nil {
		t.Fatal(err)
	}
	until(t, "the service has ended", func() bool { return r.one("web").Phase == state.Exited })
	logs, err := docker().Client.ContainerLogs(t.Context(), c.ID, container.LogsOptions{ShowStdout: true})
	if err != nil {
		t.Fatal(err)
	}
	defer logs.Close()
	var out bytes.Buffer
	if _, err := stdcopy.StdCopy(&out, &out, logs); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "s3cret\na=b\nrefused\n" {
		t.Errorf("the service reads %q", got)
	}
}

// What features stand for is really there.
func TestEngineGivesFeatures(t *testing.T) {
	r := apiRig(t)
	socket := strings.TrimPrefix(docker().Host, "unix://")
	api := apiNetwork(t)
	r.e = open(t, func(c *engine.Config) {
		c.API = api
		c.Features = func(app reconcile.App, service string) engine.Features {
			return engine.Features{EngineSocket: socket, APIKey: "k1", APIURL: "https://api.example", SupervisorKey: app.UUID + service, SupervisorPort: 48484, BoardRev: "r7"}
		}
	})
	r.do(reconcile.CreateAPINetwork{})
	c := r.composed(`{"services":{"web":{"image":"IMAGE","labels":{"io.balena.features.supervisor-api":"1","io.balena.features.balena-api":"1","io.balena.features.balena-socket":"1",
		"io.balena.features.sysfs":"1","io.balena.features.procfs":"1","io.balena.features.host-os.board-rev":"1","io.balena.features.extra-firmware":"1"}}}}`)["web"]
	if c.NetworkSettings.Networks[state.APINetworkName] == nil {
		t.Errorf("the API network is not joined: %v", c.NetworkSettings.Networks)
	}
	for _, v := range []string{
		"BALENA_SUPERVISOR_ADDRESS=http://" + api.Gateway + ":48484", "RESIN_SUPERVISOR_API_KEY=" + r.app.UUID + "web", "BALENA_API_KEY=k1", "BALENA_API_URL=https://api.example",
		"DOCKER_HOST=unix:///host/run/balena-engine.sock", "BALENA_HOST_OS_BOARD_REV=r7",
	} {
		if !slices.Contains(c.Config.Env, v) {
			t.Errorf("%s is missing in %v", v, c.Config.Env)
		}
	}
	for _, path := range []string{"/host/run/balena-engine.sock", "/var/run/balena.sock", socket, "/sys", "/proc", "/extra-firmware"} {
		if !slices.ContainsFunc(c.Mounts, func(m container.MountPoint) bool { return m.Destination == path }) {
			t.Errorf("nothing is mounted at %s: %+v", path, c.Mounts)
		}
	}
	if err := r.start(r.one("web")); err != nil {
		t.Errorf("start: %v", err)
	}
}
