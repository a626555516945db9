package compose

import (
	"testing"

	"deckhand/state"
)

// The hashes of documents that earlier versions read. A container carries the
// hash it was made with, so another one here restarts that service on every
// device that updates its supervisor.
func TestHashesStay(t *testing.T) {
	for doc, want := range map[string]map[string]string{
		`{"services":{"web":{"image":"img"}}}`: {
			"services.web": "v1:3501b4da6259ebac", "networks.default": "v1:071ec506d38b016e",
		},
		`{"services":{"web":{"image":"img","labels":{"mine":"1","io.balena.update.strategy":"kill-then-download","io.balena.features.dbus":"0"},
			"depends_on":{"db":{"condition":"service_healthy"}},"network_mode":"host","restart":"on-failure:3"},
			"db":{"image":"pg","volumes":["data:/var/lib"],"environment":{"A":"1"},"tty":false}},"volumes":{"data":null}}`: {
			"services.web": "v1:13a54e94cbea5bfe", "services.db": "v1:0eded7d68c68eff8", "networks.default": "v1:071ec506d38b016e", "volumes.data": "v1:776546409bd6be09",
		},
		full: {
			"services.web": "v1:2dcf5726852edc3f", "networks.front": "v1:071ec506d38b016e", "networks.back": "v1:8b0130407e688110", "volumes.data": "v1:7e09c643e1db4a6b",
		},
	} {
		p, problems := release(t, doc)
		if err := Refusal(problems); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for name, s := range p.Services {
			got["services."+name] = s.Hash
		}
		for name, n := range p.Networks {
			got["networks."+name] = n.Hash
		}
		for name, v := range p.Volumes {
			got["volumes."+name] = v.Hash
		}
		for what := range got {
			if got[what] != want[what] {
				t.Errorf("%s has the hash %s, it had %s", what, got[what], want[what])
			}
		}
		if len(got) != len(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	if got, want := (state.Spec{}).Hash(), "v1:783386a3ba614b37"; got != want {
		t.Errorf("an empty spec has the hash %s, it had %s", got, want)
	}
}

// full uses every attribute that the first version applied.
const full = `{
  "services": {"web": {
    "image": "registry.example:5000/v2/abc@sha256:1111111111111111111111111111111111111111111111111111111111111111",
    "command": "serve --port 80", "entrypoint": ["/bin/app"], "user": 1000, "working_dir": "/srv/",
    "environment": ["LEVEL=info", "EMPTY="], "labels": {"mine": 1},
    "hostname": "web1", "domainname": "example.org", "mac_address": "02:42:AC:11:00:02",
    "networks": {"back": {"aliases": ["www", "api"], "ipv4_address": "10.9.0.5", "ipv6_address": "fd00:0::5", "link_local_ips": ["169.254.1.1"]}, "front": {"priority": 10}},
    "ports": ["8080:80", "127.0.0.1:9000-9001:90-91/udp", {"target": 443, "published": "8443"}],
    "extra_hosts": {"gw": "host-gateway", "six": "[::1]"},
    "dns": ["9.9.9.9", "1.1.1.1"], "dns_search": "example.org", "dns_opt": ["use-vc", "ndots:2"],
    "volumes": ["data:/data:ro,nocopy", "/anon", {"type": "tmpfs", "target": "/scratch", "tmpfs": {"size": "10m"}}],
    "tmpfs": ["/run:mode=755,size=1m"],
    "restart": "on-failure:5",
    "healthcheck": {"test": "curl -f localhost", "interval": "1m30s", "timeout": "500ms", "start_period": "5s", "retries": "4"},
    "stop_signal": "int", "stop_grace_period": "1500ms",
    "privileged": true, "read_only": "on", "tty": false, "stdin_open": true, "init": true,
    "cap_add": ["sys_time", "CAP_NET_ADMIN"], "cap_drop": ["ALL"], "group_add": [44, "audio"],
    "security_opt": ["seccomp=unconfined", "apparmor=unconfined"],
    "devices": ["/dev/i2c-1:/dev/i2c:rw", "/dev/gpiomem"],
    "pid": "host", "ipc": "private", "userns_mode": "host", "runtime": "runc",
    "sysctls": {"net.core.somaxconn": 1024}, "ulimits": {"nofile": {"soft": 1000, "hard": 2000}, "nproc": 65535},
    "cgroup_parent": "/apps", "cpu_shares": 512, "cpus": "0.75", "cpuset": "0,1",
    "mem_limit": "1.5g", "mem_reservation": "256m", "shm_size": "128m", "pids_limit": 100, "oom_score_adj": -500, "oom_kill_disable": true
  }},
  "networks": {
    "front": null,
    "back": {"driver_opts": {"com.docker.network.bridge.name": "br-back"}, "internal": true, "enable_ipv6": true, "labels": ["a=b"],
      "ipam": {"driver": "default", "config": [{"subnet": "10.9.0.1/24", "gateway": "10.9.0.1", "ip_range": "10.9.0.128/25", "aux_addresses": {"printer": "10.9.0.9"}}, {"subnet": "fd00::/64"}]}}
  },
  "volumes": {"data": {"driver_opts": {"type": "tmpfs"}, "labels": {"k": "v"}}}
}`
