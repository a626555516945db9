package engine

import (
	"cmp"
	"context"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/blkiodev"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/go-connections/nat"

	"deckhand/compose"
	"deckhand/reconcile"
	"deckhand/state"
)

// Differences compares a container that another supervisor made with the one
// that the step would make, and lists the settings of the composition in which
// they differ, as state.Diff does. None: the container may be taken over as it
// is. Images are not compared, nor what says which device and release it is.
func (e *Engine) Differences(ctx context.Context, id string, s reconcile.Create) ([]state.Change, error) {
	what := "compare container " + s.Service.Name
	c, err := e.connected(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d := doing{e: e, Client: c}
	in, err := d.inspect(ctx, id)
	if err != nil {
		return nil, d.fail(what, err)
	}
	im, err := d.ImageInspect(ctx, in.Image)
	if err != nil {
		return nil, d.fail(what, err)
	}
	r := reading{c: in, im: imageConfig(im), step: s, want: s.Service.Spec}
	if owner, shared := strings.CutPrefix(string(in.HostConfig.NetworkMode), "container:"); shared {
		if other, err := d.inspect(ctx, owner); err == nil {
			r.owner = other
		}
	}
	return r.differences(), nil
}

var supervisorKey = regexp.MustCompile(`^[0-9a-f]{32}$`)

// SupervisorKey is the key for the supervisor's API that another supervisor gave to a
// container, as its environment has it; empty: none. What does not look as supervisors
// make it, and what is in the image for everybody to read, is none.
func (e *Engine) SupervisorKey(ctx context.Context, id string) (string, error) {
	const what = "read the key of a container"
	c, err := e.connected(ctx)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d := doing{e: e, Client: c}
	in, err := d.inspect(ctx, id)
	if err != nil {
		return "", d.fail(what, err)
	}
	im, err := d.ImageInspect(ctx, in.Image)
	if err != nil {
		return "", d.fail(what, err)
	}
	return keyIn(variables(in.Config.Env), imageConfig(im).env), nil
}

// keyIn finds the key under its two names, which must not contradict each other.
func keyIn(env, ofImage map[string]string) (key string) {
	for _, prefix := range []string{"BALENA", "RESIN"} {
		name := prefix + "_SUPERVISOR_API_KEY"
		got, there := env[name]
		if !there {
			continue
		}
		if !supervisorKey.MatchString(got) || got == ofImage[name] || key != "" && got != key {
			return ""
		}
		key = got
	}
	return key
}

// imageSettings is what an image says about its containers, in the terms of a
// container, because that is what it is compared with.
type imageSettings struct {
	entrypoint, command []string
	user, dir, signal   string
	env, labels         map[string]string
	volumes             map[string]struct{}
	health              *container.HealthConfig
}

func imageConfig(im image.InspectResponse) imageSettings {
	c := im.Config
	if c == nil {
		return imageSettings{}
	}
	out := imageSettings{
		entrypoint: c.Entrypoint, command: c.Cmd, user: c.User, dir: c.WorkingDir, signal: c.StopSignal,
		env: variables(c.Env), labels: compose.NormaliseLabels(c.Labels), volumes: c.Volumes,
	}
	if h := c.Healthcheck; h != nil && len(h.Test) > 0 {
		out.health = &container.HealthConfig{Test: h.Test, Interval: h.Interval, Timeout: h.Timeout, StartPeriod: h.StartPeriod, Retries: h.Retries}
	}
	return out
}

// reading writes a container and the spec wanted for it in the same form.
//
// Three kinds of settings look different without being so. What a composition
// leaves to the image is filled in on both sides. What it leaves to the engine is
// taken over from the container where the engine has written its choice there.
// What the supervisor adds is left out on both sides.
type reading struct {
	c     container.InspectResponse
	owner container.InspectResponse // whose network it uses, if it is still there
	im    imageSettings
	step  reconcile.Create
	want  state.Spec
}

// differences also names a network that the container is on without a setting
// of its own, for which a spec has no field.
func (r reading) differences() []state.Change {
	found, wanted := r.found(), r.wanted()
	changes := state.Diff(found, wanted)
	for name, a := range found.Networks {
		if _, asked := wanted.Networks[name]; !asked && len(state.Diff(a, state.Attachment{})) == 0 {
			changes = append(changes, state.Change{Field: "networks." + name, Was: "joined", Now: "(none)"})
		}
	}
	slices.SortFunc(changes, func(a, b state.Change) int { return cmp.Compare(a.Field, b.Field) })
	return changes
}

// wanted is the spec with what the image decides filled in.
func (r reading) wanted() state.Spec {
	w := r.want
	entrypoint, cmd := command(w, program{entrypoint: r.im.entrypoint, command: r.im.command})
	if entrypoint == nil && cmd == nil {
		cmd = r.im.command
	}
	if entrypoint == nil {
		entrypoint = r.im.entrypoint
	}
	w.Entrypoint, w.Command = orNil(entrypoint), orNil(cmd)
	w.User = cmp.Or(w.User, r.im.user)
	w.WorkingDir = clean(cmp.Or(w.WorkingDir, r.im.dir))
	w.StopSignal = signalName(cmp.Or(w.StopSignal, r.im.signal))
	w.StopGrace = cmp.Or(w.StopGrace, state.Duration(graceDefault))
	w.ShmSize = cmp.Or(w.ShmSize, shmDefault)
	w.PidsLimit = max(w.PidsLimit, 0)
	w.Restart.Name = cmp.Or(w.Restart.Name, "no")
	w.Healthcheck = r.wantedHealth()
	w.Labels = withoutFeatures(w.Labels)
	w.Features = effective(w.Features)
	w.ExtraHosts = hostEntries(w.ExtraHosts)
	w.Ports = sortedPorts(slices.Clone(w.Ports))
	w.Expose = nil // not to be told from what the image exposes, and without effect
	w.MainNetwork = ""
	w.CapAdd, w.CapDrop = capabilities(w.CapAdd), capabilities(w.CapDrop)
	w.Devices = deviceTexts(devices(w.Devices))
	w.Networks = normalNetworks(w.Networks)
	return w
}

// shmDefault is the engine's size of /dev/shm in bytes.
const shmDefault = 64 << 20

// found is the container as a spec.
func (r reading) found() state.Spec {
	c, h := r.c.Config, r.c.HostConfig
	f := state.Spec{
		Entrypoint: orNil(c.Entrypoint), Command: orNil(c.Cmd),
		User: c.User, WorkingDir: clean(c.WorkingDir),
		StopSignal:  signalName(cmp.Or(c.StopSignal, r.im.signal)),
		StopGrace:   state.Duration(graceDefault),
		Domainname:  c.Domainname,
		Tty:         c.Tty,
		StdinOpen:   c.OpenStdin,
		Environment: r.environment(), Labels: r.labels(),
		Features:    r.features(),
		Healthcheck: health(c.Healthcheck),
		Restart:     state.RestartPolicy{Name: cmp.Or(string(h.RestartPolicy.Name), "no")},
		Privileged:  h.Privileged, ReadOnly: h.ReadonlyRootfs, Init: h.Init,
		CapAdd: capabilities(h.CapAdd), CapDrop: capabilities(h.CapDrop),
		GroupAdd: sortedSet(h.GroupAdd), SecurityOpt: r.securityOpt(),
		Devices: deviceTexts(h.Devices), DeviceRules: orNil(h.DeviceCgroupRules), DeviceRequests: r.deviceRequests(),
		Pid: string(h.PidMode), Userns: string(h.UsernsMode), Uts: string(h.UTSMode),
		Ipc:     ifAsked(r.want.Ipc, string(h.IpcMode)),
		Cgroup:  ifAsked(r.want.Cgroup, string(h.CgroupnsMode)),
		Runtime: ifAsked(r.want.Runtime, h.Runtime),
		Sysctls: orNilMap(h.Sysctls), StorageOpt: orNilMap(h.StorageOpt),
		ExtraHosts: hostEntries(h.ExtraHosts),
		DNS:        orNil(h.DNS), DNSSearch: orNil(h.DNSSearch), DNSOpt: sortedSet(h.DNSOptions),
		Tmpfs: orNilMap(h.Tmpfs), Mounts: r.mounts(), Ports: ports(h.PortBindings),
		ShmSize: cmp.Or(h.ShmSize, shmDefault), OomScoreAdj: h.OomScoreAdj,
	}
	if c.StopTimeout != nil {
		f.StopGrace = state.Duration(*c.StopTimeout) * 1e9
	}
	if f.Restart.Name == "on-failure" {
		f.Restart.MaxRetries = h.RestartPolicy.MaximumRetryCount
	}
	if r.want.Logging != nil {
		f.Logging = &state.Logging{Driver: h.LogConfig.Type, Options: orNilMap(h.LogConfig.Config)}
	}
	f.Hostname, f.MacAddress = r.hostname(), r.mac()
	f.NetworkMode, f.Networks = r.networks()
	r.resources(&f)
	return f
}

func (r reading) resources(f *state.Spec) {
	h := r.c.HostConfig
	f.CgroupParent = h.CgroupParent
	f.CPUShares, f.CPUQuota, f.CPUPeriod, f.NanoCPUs, f.CpusetCpus = h.CPUShares, h.CPUQuota, h.CPUPeriod, h.NanoCPUs, h.CpusetCpus
	f.CPURtPeriod, f.CPURtRuntime = h.CPURealtimePeriod, h.CPURealtimeRuntime
	f.Memory, f.MemoryReserved = h.Memory, h.MemoryReservation
	// With a limit of memory the engine writes twice as much for swap, or that
	// it cannot limit swap.
	if r.want.MemorySwap != 0 || h.MemorySwap != 2*h.Memory && h.MemorySwap != -1 {
		f.MemorySwap = h.MemorySwap
	}
	if s := h.MemorySwappiness; s != nil && *s >= 0 {
		f.MemorySwappiness = s
	}
	if h.PidsLimit != nil {
		f.PidsLimit = max(*h.PidsLimit, 0)
	}
	if h.OomKillDisable != nil {
		f.OomKillDisable = *h.OomKillDisable
	}
	for _, u := range h.Ulimits {
		if u != nil {
			if f.Ulimits == nil {
				f.Ulimits = map[string]state.Ulimit{}
			}
			f.Ulimits[u.Name] = state.Ulimit{Soft: u.Soft, Hard: u.Hard}
		}
	}
	b := state.Blkio{Weight: h.BlkioWeight, ReadBps: per(h.BlkioDeviceReadBps), WriteBps: per(h.BlkioDeviceWriteBps),
		ReadIOps: per(h.BlkioDeviceReadIOps), WriteIOps: per(h.BlkioDeviceWriteIOps)}
	for _, w := range h.BlkioWeightDevice {
		if w != nil {
			b.WeightDevice = append(b.WeightDevice, state.BlkioPer{Path: w.Path, Value: uint64(w.Weight)})
		}
	}
	b.WeightDevice = byPath(b.WeightDevice)
	if b.Weight != 0 || len(b.WeightDevice)+len(b.ReadBps)+len(b.WriteBps)+len(b.ReadIOps)+len(b.WriteIOps) > 0 {
		f.Blkio = &b
	}
}

func per(list []*blkiodev.ThrottleDevice) []state.BlkioPer {
	var out []state.BlkioPer
	for _, t := range list {
		if t != nil {
			out = append(out, state.BlkioPer{Path: t.Path, Value: t.Rate})
		}
	}
	return byPath(out)
}

func byPath(list []state.BlkioPer) []state.BlkioPer {
	slices.SortFunc(list, func(a, b state.BlkioPer) int { return cmp.Compare(a.Path, b.Path) })
	return list
}

// ports reads what bindings writes.
func ports(in nat.PortMap) []state.Port {
	var out []state.Port
	for p, list := range in {
		for _, b := range list {
			published, _ := strconv.Atoi(b.HostPort)
			out = append(out, state.Port{HostIP: b.HostIP, Published: published, Target: p.Int(), Protocol: p.Proto()})
		}
	}
	return sortedPorts(out)
}

func sortedPorts(list []state.Port) []state.Port {
	slices.SortFunc(list, func(a, b state.Port) int {
		return cmp.Or(cmp.Compare(a.Target, b.Target), cmp.Compare(a.Published, b.Published), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostIP, b.HostIP))
	})
	return list
}

func deviceTexts(list []container.DeviceMapping) []string {
	var out []string
	for _, d := range list {
		out = append(out, fmt.Sprintf("%s:%s:%s", d.PathOnHost, d.PathInContainer, d.CgroupPermissions))
	}
	return sortedSet(out)
}

func capabilities(list []string) []string {
	var out []string
	for _, c := range list {
		out = append(out, strings.TrimPrefix(strings.ToUpper(c), "CAP_"))
	}
	return sortedSet(out)
}

// hostEntries writes host:address; older files have host=address and brackets.
func hostEntries(list []string) []string {
	var out []string
	for _, h := range list {
		if i := strings.IndexAny(h, ":="); i >= 0 {
			h = h[:i] + ":" + ip(strings.Trim(h[i+1:], "[]"))
		}
		out = append(out, h)
	}
	return sortedSet(out)
}

// signalName writes a signal as a number or as SIG…
func signalName(s string) string {
	s = strings.ToUpper(cmp.Or(s, "SIGTERM"))
	if strings.HasPrefix(s, "SIG") || s[0] >= '0' && s[0] <= '9' {
		return s
	}
	return "SIG" + s
}

func clean(dir string) string {
	if dir == "" {
		return ""
	}
	return path.Clean(dir)
}

// ifAsked is the engine's choice only where the composition made one.
func ifAsked(asked, have string) string {
	if asked == "" {
		return ""
	}
	return have
}

func sortedSet[S ~[]string](list S) []string {
	return orNil(slices.Compact(slices.Sorted(slices.Values(list))))
}

func orNil[S ~[]string](list S) []string {
	if len(list) == 0 {
		return nil
	}
	return list
}

func orNilMap[V any](m map[string]V) map[string]V {
	if len(m) == 0 {
		return nil
	}
	return m
}
