package engine

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/compose"
	"deckhand/reconcile"
	"deckhand/state"
)

// pair is one attribute before and after a change. Each is the body of the
// service web, of the network front or of the volume data; a whole document
// begins with a brace.
type pair struct{ was, now string }

// document is the rest of the document around a body.
func document(section, body string) string {
	if strings.HasPrefix(body, "{") {
		return body
	}
	bodies := map[string]string{"services": `"networks":["front"]`, "networks": `"internal":true`, "volumes": `"driver":"local"`}
	if section == "services" && !strings.Contains(body, `"networks"`) && !strings.Contains(body, `"network_mode"`) {
		body = strings.TrimSuffix(`"networks":["front"],`+body, ",")
	}
	bodies[section] = body
	if !strings.Contains(body, `"image"`) {
		bodies["services"] = `"image":"img",` + bodies["services"]
	}
	return `{"services":{"web":{` + bodies["services"] + `},
		"db":{"image":"db","restart":"no","volumes":["db:/var/lib"],"networks":["front"]}},
		"networks":{"front":{` + bodies["networks"] + `},"back":{"ipam":{"config":[{"subnet":"10.9.0.0/24"},{"subnet":"fd00:9::/64"}]}}},
		"volumes":{"data":{` + bodies["volumes"] + `},"db":null},
		"secrets":{"s":{"content":"one"},"t":{"content":"two"}},"configs":{"s":{"content":"one"},"t":{"content":"two"}}}`
}

func read(t *testing.T, doc string) compose.Project {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatalf("%s: %v", doc, err)
	}
	p, problems, err := compose.Load(t.Context(), compose.Options{Release: true}, v)
	if err != nil || compose.Refusal(problems) != nil {
		t.Fatalf("%s: %v %v", doc, err, problems)
	}
	return p
}

// request is what the engine is asked for, as text. Hashes in labels are left
// out: they would always differ.
func request(t *testing.T, p compose.Project) string {
	t.Helper()
	o := createOptions(step(p.Services["web"].Spec), around())
	n := p.Networks["front"]
	n.Hash = ""
	return text(t, o.config, o.host, o.nets, o.others, o.extra, endpoints(p), p.Services["web"].Image,
		networkOptions(reconcile.CreateNetwork{Network: n}, ""), p.Volumes["data"].Spec)
}

// endpoints are how the service joins its further networks.
func endpoints(p compose.Project) []any {
	var out []any
	s := p.Services["web"].Spec
	for _, n := range createOptions(step(s), around()).others {
		out = append(out, n, endpoint(s.Networks[n]))
	}
	return out
}

func text(t *testing.T, parts ...any) string {
	t.Helper()
	b, err := json.MarshalIndent(parts, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Each attribute that is said to be applied is: a change of it alone changes
// what decides about the container, and what the engine is asked for.
func TestEachAttributeIsApplied(t *testing.T) {
	all := attributePairs()
	for _, a := range compose.Attributes {
		if a.Treat != compose.Apply || a.Class == "" || hasRowsBeneath(a.Path) {
			continue
		}
		c, ok := all[a.Path]
		if !ok {
			t.Errorf("%s: no change of it is tried", a.Path)
			continue
		}
		delete(all, a.Path)
		section, _, _ := strings.Cut(a.Path, ".")
		was, now := read(t, document(section, c.was)), read(t, document(section, c.now))
		if cmp.Equal(was, now) {
			t.Errorf("%s: a change of it changes nothing", a.Path)
		}
		same := was.Services["web"].Hash == now.Services["web"].Hash && was.Services["web"].Image == now.Services["web"].Image &&
			was.Networks["front"].Hash == now.Networks["front"].Hash && was.Volumes["data"].Hash == now.Volumes["data"].Hash && was.Name == now.Name
		switch replaced := request(t, was) != request(t, now) || was.Name != now.Name; {
		case a.Class == compose.Replace && same:
			t.Errorf("%s: a change of it replaces nothing", a.Path)
		case a.Class == compose.Replace && !replaced:
			t.Errorf("%s: the engine is asked for the same before and after", a.Path)
		case a.Class == compose.Metadata && (!same || replaced):
			t.Errorf("%s: a change of it replaces something", a.Path)
		}
	}
	for path := range all {
		t.Errorf("%s: is not applied, or not a leaf", path)
	}
}

func hasRowsBeneath(path string) bool {
	return slices.ContainsFunc(compose.Attributes, func(a compose.Attribute) bool { return strings.HasPrefix(a.Path, path+".") })
}

func attributePairs() map[string]pair {
	all := map[string]pair{
		"name":                {`{"name":"a","services":{}}`, `{"name":"b","services":{}}`},
		"networks.*.external": {`{"services":{"web":{"image":"i","networks":["n"]}},"networks":{"n":{"external":true}}}`, `{"services":{"web":{"image":"i","networks":["n"]}},"networks":{"n":{"external":true,"name":"m"}}}`},
		"volumes.*.external":  {`{"services":{"web":{"image":"i","volumes":["v:/v"]}},"volumes":{"v":null}}`, `{"services":{"web":{"image":"i","volumes":["v:/v"]}},"volumes":{"v":{"external":true}}}`},
	}
	for _, s := range []string{"secrets", "configs"} {
		with := func(body, variable string) string {
			return fmt.Sprintf(`{"services":{"web":{"image":"i","environment":{"V":"1","W":%q},%q:["s"]}},%q:{"s":{%s}}}`, variable, s, s, body)
		}
		all[s+".*.content"] = pair{with(`"content":"1"`, "2"), with(`"content":"2"`, "2")}
		all[s+".*.environment"] = pair{with(`"environment":"V"`, "2"), with(`"environment":"W"`, "2")}
		long := func(more string) string { return fmt.Sprintf(`%q:[{"source":"s"%s}]`, s, more) }
		all["services.*."+s+".[].source"] = pair{long(`,"target":"/x"`), strings.Replace(long(`,"target":"/x"`), `"s",`, `"t",`, 1)}
		all["services.*."+s+".[].target"] = pair{long(""), long(`,"target":"/x"`)}
		all["services.*."+s+".[].uid"] = pair{long(""), long(`,"uid":"1000"`)}
		all["services.*."+s+".[].gid"] = pair{long(""), long(`,"gid":1000`)}
		all["services.*."+s+".[].mode"] = pair{long(""), long(`,"mode":"0400"`)}
	}
	for path, v := range servicePairs() {
		all["services.*."+path] = v
	}
	for path, v := range sharedPairs() {
		all[path] = v
	}
	return all
}

func servicePairs() map[string]pair {
	const long, mem = `"volumes":[{"type":"volume","source":"data","target":"/d"}]`, `"mem_limit":"1g",`
	tmpfs := func(s string) string {
		return `"volumes":[{"type":"tmpfs","target":"/d","tmpfs":{"size":"1m"` + s + `}}]`
	}
	port := func(s string) string { return `"ports":[{"target":80,"published":"81"` + s + `}]` }
	net := func(s string) string { return `"networks":{"back":{` + s + `},"front":null}` }
	health := func(s string) string { return `"healthcheck":{"test":"true"` + s + `}` }
	depends := func(s string) string { return `"depends_on":{"db":{"condition":"service_started"` + s + `}}` }
	gpu := func(s string) string { return `"gpus":[{"driver":"a"` + s + `}]` }
	deploy := func(s string) string { return `"deploy":{"resources":{` + s + `}}` }
	reserve := func(s string) string {
		return deploy(`"reservations":{"devices":[{"capabilities":["gpu"]` + s + `}]}`)
	}
	policy := func(s string) string { return `"deploy":{"restart_policy":{"condition":"on-failure"` + s + `}}` }
	dev := func(s string) string { return `"devices":[{"source":"/dev/a"` + s + `}]` }
	io := func(s string) string { return `"blkio_config":{` + s + `}` }
	out := map[string]pair{
		"image":   {`"image":"a"`, `"image":"b"`},
		"command": {``, `"command":"x"`}, "entrypoint": {``, `"entrypoint":["x"]`}, "user": {``, `"user":"1"`}, "working_dir": {``, `"working_dir":"/x"`},
		"environment": {``, `"environment":{"A":"1"}`}, "labels": {``, `"labels":{"a":"1"}`},
		"restart": {`"restart":"on-failure"`, `"restart":"on-failure:3"`}, "stop_signal": {``, `"stop_signal":"int"`},
		"stop_grace_period":      {``, `"stop_grace_period":"11s"`},
		"depends_on.*.condition": {depends(""), `"depends_on":{"db":{"condition":"service_healthy"}}`},
		"depends_on.*.required":  {depends(""), depends(`,"required":false`)}, "depends_on.*.restart": {depends(""), depends(`,"restart":true`)},
		"healthcheck.test": {``, health("")}, "healthcheck.disable": {health(""), health(`,"disable":true`)},
		"healthcheck.interval": {health(""), health(`,"interval":"500ms"`)}, "healthcheck.timeout": {health(""), health(`,"timeout":"500ms"`)},
		"healthcheck.start_period": {health(""), health(`,"start_period":"1s"`)}, "healthcheck.retries": {health(""), health(`,"retries":2`)},
		"hostname": {``, `"hostname":"h"`}, "domainname": {``, `"domainname":"d"`}, "mac_address": {``, `"mac_address":"02:42:ac:11:00:02"`},
		"network_mode":       {`"network_mode":"bridge"`, `"network_mode":"host"`},
		"networks.*.aliases": {net(""), net(`"aliases":["x"]`)}, "networks.*.ipv4_address": {net(""), net(`"ipv4_address":"10.9.0.5"`)},
		"networks.*.ipv6_address":   {net(""), net(`"ipv6_address":"fd00:9::5"`)},
		"networks.*.link_local_ips": {net(""), net(`"link_local_ips":["169.254.1.1"]`)},
		"networks.*.priority":       {`"networks":{"back":{},"front":{}}`, `"networks":{"back":{},"front":{"priority":5}}`},
		"networks.*.driver_opts":    {net(""), net(`"driver_opts":{"a":"b"}`)},
		"ports.[].target":           {port(""), `"ports":[{"target":82,"published":"81"}]`}, "ports.[].published": {port(""), `"ports":[{"target":80,"published":"82"}]`},
		"ports.[].host_ip": {port(""), port(`,"host_ip":"127.0.0.1"`)}, "ports.[].protocol": {port(""), port(`,"protocol":"udp"`)},
		"expose": {``, `"expose":["80"]`}, "extra_hosts": {``, `"extra_hosts":["a=10.0.0.1"]`},
		"dns": {``, `"dns":"9.9.9.9"`}, "dns_search": {``, `"dns_search":"lan"`}, "dns_opt": {``, `"dns_opt":["ndots:1"]`},
		"volumes.[].type":   {long, `"volumes":[{"type":"tmpfs","target":"/d"}]`},
		"volumes.[].source": {long, `"volumes":[{"type":"volume","source":"db","target":"/d"}]`}, "volumes.[].target": {long, `"volumes":[{"type":"volume","source":"data","target":"/e"}]`},
		"volumes.[].read_only":     {long, `"volumes":[{"type":"volume","source":"data","target":"/d","read_only":true}]`},
		"volumes.[].volume.nocopy": {long, `"volumes":[{"type":"volume","source":"data","target":"/d","volume":{"nocopy":true}}]`},
		"volumes.[].tmpfs.size":    {tmpfs(""), `"volumes":[{"type":"tmpfs","target":"/d","tmpfs":{"size":"2m"}}]`}, "volumes.[].tmpfs.mode": {tmpfs(""), tmpfs(`,"mode":"1770"`)},
		"tmpfs":        {`"tmpfs":"/run"`, `"tmpfs":"/run:size=1m"`},
		"volumes_from": {``, `"volumes_from":["db"]`}, "read_only": {``, `"read_only":true`}, "storage_opt": {``, `"storage_opt":{"size":"1g"}`},
		"privileged": {``, `"privileged":true`}, "cap_add": {``, `"cap_add":["NET_ADMIN"]`}, "cap_drop": {``, `"cap_drop":["ALL"]`},
		"group_add": {``, `"group_add":["audio"]`}, "security_opt": {``, `"security_opt":["no-new-privileges"]`},
		"devices.[].source": {dev(`,"target":"/dev/c"`), `"devices":[{"source":"/dev/b","target":"/dev/c"}]`}, "devices.[].target": {dev(""), dev(`,"target":"/dev/c"`)},
		"devices.[].permissions": {dev(""), dev(`,"permissions":"r"`)}, "device_cgroup_rules": {``, `"device_cgroup_rules":["c 1:3 r"]`},
		"gpus.[].capabilities": {gpu(""), gpu(`,"capabilities":["compute"]`)}, "gpus.[].driver": {gpu(""), `"gpus":[{"driver":"b"}]`},
		"gpus.[].count": {gpu(""), gpu(`,"count":2`)}, "gpus.[].device_ids": {gpu(""), gpu(`,"device_ids":["0"]`)}, "gpus.[].options": {gpu(""), gpu(`,"options":{"a":"b"}`)},
		"pid": {``, `"pid":"host"`}, "ipc": {``, `"ipc":"host"`}, "userns_mode": {``, `"userns_mode":"host"`}, "uts": {``, `"uts":"host"`},
		"cgroup": {``, `"cgroup":"host"`}, "cgroup_parent": {``, `"cgroup_parent":"/x"`}, "runtime": {``, `"runtime":"runc"`}, "sysctls": {``, `"sysctls":{"net.core.somaxconn":1}`},
		"ulimits.*.soft": {`"ulimits":{"nofile":{"soft":1,"hard":9}}`, `"ulimits":{"nofile":{"soft":2,"hard":9}}`},
		"ulimits.*.hard": {`"ulimits":{"nofile":{"soft":1,"hard":9}}`, `"ulimits":{"nofile":{"soft":1,"hard":8}}`},
		"init":           {``, `"init":true`}, "tty": {``, `"tty":false`}, "stdin_open": {``, `"stdin_open":true`},
		"logging.driver": {`"logging":{"driver":"json-file"}`, `"logging":{"driver":"local"}`}, "logging.options": {`"logging":{"driver":"local"}`, `"logging":{"driver":"local","options":{"max-size":"1m"}}`},
		"cpus": {``, `"cpus":"0.5"`}, "cpu_shares": {``, `"cpu_shares":2`}, "cpu_quota": {``, `"cpu_quota":2000`}, "cpuset": {``, `"cpuset":"0"`},
		"cpu_period": {``, `"cpu_period":10000`}, "cpu_rt_period": {``, `"cpu_rt_period":"1ms"`}, "cpu_rt_runtime": {``, `"cpu_rt_runtime":950`},
		"mem_limit": {``, `"mem_limit":"1.5g"`}, "mem_reservation": {``, `"mem_reservation":"1g"`}, "memswap_limit": {mem[:len(mem)-1], mem + `"memswap_limit":"2g"`},
		"mem_swappiness": {``, `"mem_swappiness":0`}, "shm_size": {``, `"shm_size":"1m"`}, "pids_limit": {``, `"pids_limit":5`},
		"oom_score_adj": {``, `"oom_score_adj":5`}, "oom_kill_disable": {``, `"oom_kill_disable":true`},
		"deploy.resources.limits.cpus": {``, deploy(`"limits":{"cpus":"0.5"}`)}, "deploy.resources.limits.memory": {``, deploy(`"limits":{"memory":"1g"}`)},
		"deploy.resources.limits.pids": {``, deploy(`"limits":{"pids":5}`)}, "deploy.resources.reservations.memory": {``, deploy(`"reservations":{"memory":"1g"}`)},
		"deploy.resources.reservations.devices.[].capabilities": {reserve(""), deploy(`"reservations":{"devices":[{"capabilities":["tpu"]}]}`)},
		"deploy.resources.reservations.devices.[].driver":       {reserve(""), reserve(`,"driver":"a"`)}, "deploy.resources.reservations.devices.[].count": {reserve(""), reserve(`,"count":1`)},
		"deploy.resources.reservations.devices.[].device_ids": {reserve(""), reserve(`,"device_ids":["0"]`)}, "deploy.resources.reservations.devices.[].options": {reserve(""), reserve(`,"options":{"a":"b"}`)},
		"deploy.restart_policy.condition": {``, policy("")}, "deploy.restart_policy.max_attempts": {policy(""), policy(`,"max_attempts":3`)},
		"blkio_config.weight":                  {``, io(`"weight":20`)},
		"blkio_config.weight_device.[].path":   {io(`"weight_device":[{"path":"/dev/a","weight":20}]`), io(`"weight_device":[{"path":"/dev/b","weight":20}]`)},
		"blkio_config.weight_device.[].weight": {io(`"weight_device":[{"path":"/dev/a","weight":20}]`), io(`"weight_device":[{"path":"/dev/a","weight":30}]`)},
	}
	for _, what := range []string{"device_read_bps", "device_write_bps", "device_read_iops", "device_write_iops"} {
		rate := func(path, rate string) string {
			return io(`"` + what + `":[{"path":"` + path + `","rate":` + rate + `}]`)
		}
		out["blkio_config."+what+".[].path"] = pair{rate("/dev/a", "10"), rate("/dev/b", "10")}
		out["blkio_config."+what+".[].rate"] = pair{rate("/dev/a", "10"), rate("/dev/a", "11")}
	}
	return out
}

func sharedPairs() map[string]pair {
	pool := func(s string) string { return `"ipam":{"config":[{"subnet":"10.8.0.0/24"` + s + `}]}` }
	return map[string]pair{
		"networks.*.driver": {``, `"driver":"macvlan"`}, "networks.*.driver_opts": {``, `"driver_opts":{"a":"b"}`}, "networks.*.enable_ipv6": {``, `"enable_ipv6":true`},
		"networks.*.internal": {``, `"internal":true`}, "networks.*.labels": {``, `"labels":{"a":"b"}`}, "networks.*.attachable": {``, `"attachable":true`},
		"networks.*.ipam.driver": {``, `"ipam":{"driver":"x"}`}, "networks.*.ipam.options": {``, `"ipam":{"options":{"a":"b"}}`},
		"networks.*.ipam.config.[].subnet":  {pool(""), `"ipam":{"config":[{"subnet":"10.7.0.0/24"}]}`},
		"networks.*.ipam.config.[].gateway": {pool(""), pool(`,"gateway":"10.8.0.9"`)}, "networks.*.ipam.config.[].ip_range": {pool(""), pool(`,"ip_range":"10.8.0.128/25"`)},
		"networks.*.ipam.config.[].aux_addresses": {pool(""), pool(`,"aux_addresses":{"a":"10.8.0.3"}`)},
		"volumes.*.driver":                        {``, `"driver":"x"`}, "volumes.*.driver_opts": {``, `"driver_opts":{"a":"b"}`}, "volumes.*.labels": {``, `"labels":{"a":"b"}`},
	}
}

// Labels that say how a service is updated change nothing on the engine; labels
// of features do, and stay on the container, where balena's supervisor reads
// them.
func TestEachLabel(t *testing.T) {
	none := read(t, document("services", ``))
	for _, l := range compose.Labels {
		if l.Treat != compose.Apply {
			continue
		}
		value := map[string]string{compose.LabelStrategy: "kill-then-download", compose.LabelHandoverTimeout: "5", compose.LabelHandoverOnTimeout: "keep-old"}[l.Name]
		if value == "" {
			value = "1"
		}
		p := read(t, document("services", fmt.Sprintf(`"labels":{%q:%q}`, l.Name, value)))
		s := p.Services["web"]
		if cmp.Equal(none, p) {
			t.Errorf("%s: has no effect", l.Name)
		}
		if replaced := s.Hash != none.Services["web"].Hash; replaced != l.Keep {
			t.Errorf("%s: a container is replaced: %v", l.Name, replaced)
		}
		o := createOptions(step(s.Spec), around())
		if got := o.config.Labels[l.Name]; l.Keep && got != value || !l.Keep && got != "" {
			t.Errorf("%s: is %q on the container", l.Name, got)
		}
		if feature, ok := strings.CutPrefix(l.Name, "io.balena.features."); ok && feature != compose.FeatureOptional {
			givesSomething(t, l.Name, s.Spec)
		}
	}
}

// givesSomething checks that a container is another one without its features.
func givesSomething(t *testing.T, label string, spec state.Spec) {
	t.Helper()
	in := around()
	o := createOptions(step(spec), in)
	spec.Features = nil
	if w := createOptions(step(spec), in); text(t, o.config, o.host, o.extra) == text(t, w.config, w.host, w.extra) {
		t.Errorf("%s: gives the container nothing", label)
	}
	if len(o.missing) > 0 {
		t.Errorf("%s: %v", label, o.missing)
	}
}

// The table of variables for users holds all that a container is given.
func TestEachVariableIsDocumented(t *testing.T) {
	docs, err := os.ReadFile("../docs/compose.md")
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, l := range compose.Labels {
		if name, ok := strings.CutPrefix(l.Name, "io.balena.features."); ok {
			all = append(all, name)
		}
	}
	o := createOptions(step(state.Spec{Features: all}), around())
	for _, v := range o.config.Env {
		name, _, _ := strings.Cut(v, "=")
		if older, ok := strings.CutPrefix(name, "RESIN"); ok && !strings.Contains(name, "KILL_ME") {
			name = "BALENA" + older
		}
		if !strings.Contains(string(docs), name) {
			t.Errorf("docs/compose.md does not tell of %s", name)
		}
	}
}
