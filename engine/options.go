package engine

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/docker/api/types/blkiodev"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/mount"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/versions"
	"github.com/docker/go-connections/nat"

	"deckhand/reconcile"
	"deckhand/state"
)

// options is one request to create a container. It is built anew for each
// attempt, because the client changes what it is given.
type options struct {
	name   string
	config *container.Config
	host   *container.HostConfig
	nets   *network.NetworkingConfig
	others []string // short names of the networks to connect after creation, sorted
	extra  []string // engine names of further networks to connect then

	missing []string // what was asked for and is not on the device, for people
}

// program is what the image says about its command.
type program struct {
	entrypoint, command []string
}

// surroundings are the facts that decide a container beside its step.
type surroundings struct {
	image    string // what to create it from
	program  program
	identity state.Identity
	project  string
	runDir   string
	api      string

	networkOwner string // ID of the container whose network is used; empty: none

	features Features
	gateway  string                 // the supervisor's address on the API network
	exists   func(path string) bool // whether the host has a path; nil: every one
}

// createOptions translates a step into the engine's terms.
func createOptions(s reconcile.Create, in surroundings) options {
	o := options{name: state.ContainerName(s.Service.Name, s.Service.ImageID, s.ReleaseID, s.Commit)}
	spec := s.Service.Spec
	g := grant(spec, in)
	o.missing = g.missing
	o.config = config(s, in, g.env)
	o.host = hostConfig(s, in)
	o.host.Binds = append(o.host.Binds, g.binds...)
	o.host.Mounts = append(o.host.Mounts, g.mounts...)
	o.host.DeviceRequests = append(o.host.DeviceRequests, g.requests...)
	if spec.UsesAPINetwork() {
		o.extra = []string{state.APINetworkName}
	}
	if spec.NetworkMode != "" {
		o.host.NetworkMode = container.NetworkMode(spec.NetworkMode)
		if in.networkOwner != "" {
			o.host.NetworkMode = container.NetworkMode("container:" + in.networkOwner)
		}
		o.others = slices.Sorted(maps.Keys(spec.Networks))
		return o
	}
	names := slices.Sorted(maps.Keys(spec.Networks))
	if len(names) == 0 {
		return o
	}
	first := names[0]
	if _, ok := spec.Networks[spec.MainNetwork]; ok {
		first = spec.MainNetwork
	}
	o.others = slices.DeleteFunc(names, func(n string) bool { return n == first })
	full := engineName(s, first)
	end := endpoint(spec.Networks[first])
	if versions.GreaterThanOrEqualTo(in.api, "1.44") {
		end.MacAddress = spec.MacAddress // newer engines take it here only
	}
	o.host.NetworkMode = container.NetworkMode(full)
	o.nets = &network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{full: end}}
	return o
}

func config(s reconcile.Create, in surroundings, granted map[string]string) *container.Config {
	spec := s.Service.Spec
	c := &container.Config{
		Image:        in.image,
		User:         spec.User,
		WorkingDir:   spec.WorkingDir,
		Env:          environment(s, in.identity, granted),
		Labels:       containerLabels(s, in.project),
		Hostname:     spec.Hostname,
		Domainname:   spec.Domainname,
		MacAddress:   spec.MacAddress, //nolint:staticcheck // the only way before API 1.44; the client drops it later
		ExposedPorts: exposed(spec.Ports, spec.Expose),
		Healthcheck:  healthcheck(spec.Healthcheck),
		StopSignal:   spec.StopSignal,
		StopTimeout:  seconds(spec.StopGrace),
		Tty:          spec.Tty,
		OpenStdin:    spec.StdinOpen,
	}
	c.Entrypoint, c.Cmd = command(spec, in.program)
	return c
}

// command keeps "not given" and "given, but empty" apart. The engine takes an
// empty command for none and fills in the image's, unless there is an entry
// point, and drops the image's command when only an entry point is given.
func command(spec state.Spec, im program) (entrypoint, cmd []string) {
	entrypoint, cmd = spec.Entrypoint, spec.Command
	if cmd == nil && len(entrypoint) > 0 {
		return entrypoint, im.command
	}
	if cmd == nil || len(cmd) > 0 {
		return entrypoint, cmd
	}
	if entrypoint == nil {
		entrypoint = im.entrypoint
	}
	if len(entrypoint) == 0 {
		entrypoint = []string{""} // nothing at all; the engine then says so
	}
	return entrypoint, cmd
}

func hostConfig(s reconcile.Create, in surroundings) *container.HostConfig {
	spec := s.Service.Spec
	h := &container.HostConfig{
		Binds:          lockBinds(in.runDir, s.App.ID, s.Service.Name),
		Mounts:         slices.Concat(mounts(spec.Mounts, s.App.ID), files(s, in.runDir)),
		Tmpfs:          maps.Clone(spec.Tmpfs),
		PortBindings:   bindings(spec.Ports),
		ExtraHosts:     slices.Clone(spec.ExtraHosts),
		DNS:            slices.Clone(spec.DNS),
		DNSSearch:      slices.Clone(spec.DNSSearch),
		DNSOptions:     slices.Clone(spec.DNSOpt),
		RestartPolicy:  restartPolicy(spec.Restart),
		Privileged:     spec.Privileged,
		ReadonlyRootfs: spec.ReadOnly,
		Init:           spec.Init,
		CapAdd:         slices.Clone(spec.CapAdd),
		CapDrop:        slices.Clone(spec.CapDrop),
		GroupAdd:       slices.Clone(spec.GroupAdd),
		SecurityOpt:    slices.Clone(spec.SecurityOpt),
		PidMode:        container.PidMode(spec.Pid),
		IpcMode:        container.IpcMode(spec.Ipc),
		UsernsMode:     container.UsernsMode(spec.Userns),
		UTSMode:        container.UTSMode(spec.Uts),
		CgroupnsMode:   container.CgroupnsMode(spec.Cgroup),
		StorageOpt:     maps.Clone(spec.StorageOpt),
		Runtime:        spec.Runtime,
		Sysctls:        maps.Clone(spec.Sysctls),
		ShmSize:        spec.ShmSize,
		OomScoreAdj:    spec.OomScoreAdj,
	}
	if l := spec.Logging; l != nil {
		h.LogConfig = container.LogConfig{Type: l.Driver, Config: maps.Clone(l.Options)}
	}
	h.Resources = resources(spec)
	return h
}

func resources(spec state.Spec) container.Resources {
	r := container.Resources{
		CgroupParent:      spec.CgroupParent,
		CPUShares:         spec.CPUShares,
		CPUQuota:          spec.CPUQuota,
		NanoCPUs:          spec.NanoCPUs,
		CpusetCpus:        spec.CpusetCpus,
		Memory:            spec.Memory,
		MemoryReservation: spec.MemoryReserved,
		MemorySwap:        spec.MemorySwap,
		Devices:           devices(spec.Devices),
		DeviceCgroupRules: slices.Clone(spec.DeviceRules),
		DeviceRequests:    deviceRequests(spec.DeviceRequests),

		CPUPeriod: spec.CPUPeriod, CPURealtimePeriod: spec.CPURtPeriod, CPURealtimeRuntime: spec.CPURtRuntime,
	}
	if spec.MemorySwappiness != nil {
		r.MemorySwappiness = new(*spec.MemorySwappiness)
	}
	if spec.Blkio != nil {
		blkio(&r, *spec.Blkio)
	}
	if spec.PidsLimit != 0 {
		r.PidsLimit = new(spec.PidsLimit)
	}
	if spec.OomKillDisable {
		r.OomKillDisable = new(true)
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Ulimits)) {
		u := spec.Ulimits[name]
		r.Ulimits = append(r.Ulimits, &container.Ulimit{Name: name, Soft: u.Soft, Hard: u.Hard})
	}
	return r
}

func blkio(r *container.Resources, b state.Blkio) {
	rates := func(in []state.BlkioPer) []*blkiodev.ThrottleDevice {
		var out []*blkiodev.ThrottleDevice
		for _, p := range in {
			out = append(out, &blkiodev.ThrottleDevice{Path: p.Path, Rate: p.Value})
		}
		return out
	}
	r.BlkioWeight = b.Weight
	for _, p := range b.WeightDevice {
		r.BlkioWeightDevice = append(r.BlkioWeightDevice, &blkiodev.WeightDevice{Path: p.Path, Weight: uint16(p.Value)})
	}
	r.BlkioDeviceReadBps, r.BlkioDeviceWriteBps = rates(b.ReadBps), rates(b.WriteBps)
	r.BlkioDeviceReadIOps, r.BlkioDeviceWriteIOps = rates(b.ReadIOps), rates(b.WriteIOps)
}

func deviceRequests(in []state.DeviceRequest) []container.DeviceRequest {
	var out []container.DeviceRequest
	for _, d := range in {
		out = append(out, container.DeviceRequest{
			Driver: d.Driver, Count: d.Count, DeviceIDs: slices.Clone(d.IDs),
			Capabilities: [][]string{slices.Clone(d.Capabilities)}, Options: maps.Clone(d.Options),
		})
	}
	return out
}

// environment is what the device tells the service and what its features give
// it, with the service's own variables over it, as sorted KEY=value.
func environment(s reconcile.Create, id state.Identity, granted map[string]string) []string {
	env := map[string]string{
		"USER":                                  "root",
		"RESIN_SERVICE_KILL_ME_PATH":            "/tmp/balena/handover-complete",
		"BALENA_SERVICE_HANDOVER_COMPLETE_PATH": "/tmp/balena/handover-complete",
	}
	for _, p := range []string{"BALENA", "RESIN"} {
		env[p] = "1"
		env[p+"_APP_ID"] = strconv.FormatInt(s.App.ID, 10)
		env[p+"_APP_UUID"] = s.App.UUID
		env[p+"_APP_NAME"] = s.App.Name
		env[p+"_SERVICE_NAME"] = s.Service.Name
		env[p+"_DEVICE_UUID"] = id.UUID
		env[p+"_DEVICE_TYPE"] = id.DeviceType
		env[p+"_DEVICE_ARCH"] = id.Arch
		env[p+"_DEVICE_NAME_AT_INIT"] = id.Name
		env[p+"_HOST_OS_VERSION"] = id.OSVersion
		env[p+"_APP_LOCK_PATH"] = "/tmp/balena/updates.lock"
	}
	maps.Copy(env, granted)
	maps.Copy(env, s.Service.Spec.Environment)
	out := make([]string, 0, len(env))
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out = append(out, k+"="+env[k])
	}
	return out
}

// containerLabels are the user's, with ours over them.
func containerLabels(s reconcile.Create, project string) map[string]string {
	l := objectLabels(s.Service.Spec.Labels, s.App, s.Service.Hash, project)
	l[state.LabelServiceID] = strconv.FormatInt(s.Service.ID, 10)
	l[state.LabelServiceName] = s.Service.Name
	return l
}

// objectLabels are on everything we make.
func objectLabels(user map[string]string, app reconcile.App, hash, project string) map[string]string {
	l := map[string]string{}
	maps.Copy(l, user)
	l[state.LabelSupervised] = "true"
	l[state.LabelAppID] = strconv.FormatInt(app.ID, 10)
	l[state.LabelAppUUID] = app.UUID
	l[state.LabelSpec] = hash
	delete(l, state.LabelProject)
	if project != "" {
		l[state.LabelProject] = project
	}
	return l
}

// lockDir is the folder on the host that a service shares with the supervisor.
func lockDir(runDir string, appID int64, service string) string {
	return path.Join(runDir, "services", strconv.FormatInt(appID, 10), service)
}

func lockBinds(runDir string, appID int64, service string) []string {
	if runDir == "" {
		return nil
	}
	dir := lockDir(runDir, appID, service)
	return []string{dir + ":/tmp/resin", dir + ":/tmp/balena"}
}

func mounts(list []state.Mount, appID int64) []mount.Mount {
	var out []mount.Mount
	for _, m := range list {
		x := mount.Mount{Type: mount.Type(m.Type), Target: m.Target, ReadOnly: m.ReadOnly}
		switch {
		case m.Type == "tmpfs" && (m.Size > 0 || m.Mode > 0):
			// The engine takes the bits of the mode as they are.
			x.TmpfsOptions = &mount.TmpfsOptions{SizeBytes: m.Size, Mode: os.FileMode(m.Mode)}
		case m.Type == "volume" && m.Source != "":
			x.Source = state.VolumeName(appID, m.Source)
			if m.External {
				x.Source = m.Source
			}
		}
		if m.Type == "volume" && m.NoCopy {
			x.VolumeOptions = &mount.VolumeOptions{NoCopy: true}
		}
		out = append(out, x)
	}
	return out
}

// files mounts secrets and configs, which were written before.
func files(s reconcile.Create, runDir string) []mount.Mount {
	list := s.Service.Spec.Files
	dir := path.Join(runDir, state.FilesDir(s.App.ID, s.Service.Name, state.FilesHash(list)))
	var out []mount.Mount
	for i, f := range list {
		out = append(out, mount.Mount{Type: mount.TypeBind, Source: path.Join(dir, state.FileName(i)), Target: f.Target, ReadOnly: true})
	}
	return out
}

func exposed(ports []state.Port, more []string) nat.PortSet {
	if len(ports)+len(more) == 0 {
		return nil
	}
	out := nat.PortSet{}
	for _, p := range more {
		out[nat.Port(p)] = struct{}{}
	}
	for _, p := range ports {
		out[port(p)] = struct{}{}
	}
	return out
}

func bindings(ports []state.Port) nat.PortMap {
	if len(ports) == 0 {
		return nil
	}
	out := nat.PortMap{}
	for _, p := range ports {
		b := nat.PortBinding{HostIP: p.HostIP}
		if p.Published != 0 {
			b.HostPort = strconv.Itoa(p.Published)
		}
		out[port(p)] = append(out[port(p)], b)
	}
	return out
}

func port(p state.Port) nat.Port {
	return nat.Port(fmt.Sprintf("%d/%s", p.Target, cmp.Or(p.Protocol, "tcp")))
}

// endpoint is how a service joins a network.
func endpoint(a state.Attachment) *network.EndpointSettings {
	e := &network.EndpointSettings{Aliases: slices.Clone(a.Aliases), DriverOpts: maps.Clone(a.DriverOpts)}
	if a.IPv4 != "" || a.IPv6 != "" || len(a.LinkLocalIP) > 0 {
		e.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a.IPv4, IPv6Address: a.IPv6, LinkLocalIPs: slices.Clone(a.LinkLocalIP)}
	}
	return e
}

func restartPolicy(p state.RestartPolicy) container.RestartPolicy {
	return container.RestartPolicy{Name: container.RestartPolicyMode(p.Name), MaximumRetryCount: p.MaxRetries}
}

// healthcheck is nil when the image's own is to be used.
func healthcheck(h *state.Healthcheck) *container.HealthConfig {
	if h == nil {
		return nil
	}
	return &container.HealthConfig{
		Test: slices.Clone(h.Test), Interval: time.Duration(h.Interval), Timeout: time.Duration(h.Timeout),
		StartPeriod: time.Duration(h.StartPeriod), Retries: h.Retries,
	}
}

// seconds rounds up: a service is never given less time than it asked for. Nil
// leaves it to the engine.
func seconds(d state.Duration) *int {
	if d <= 0 {
		return nil
	}
	s := min((int64(d)+int64(time.Second)-1)/int64(time.Second), math.MaxInt32)
	return new(int(s))
}

// devices reads host[:container[:permissions]].
func devices(list []string) []container.DeviceMapping {
	var out []container.DeviceMapping
	for _, d := range list {
		f := strings.SplitN(d, ":", 3)
		m := container.DeviceMapping{PathOnHost: f[0], PathInContainer: f[0], CgroupPermissions: "rwm"}
		if len(f) > 1 && f[1] != "" {
			m.PathInContainer = f[1]
		}
		if len(f) > 2 && f[2] != "" {
			m.CgroupPermissions = f[2]
		}
		out = append(out, m)
	}
	return out
}
