package compose

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/state"
)

// resources builds what a service may use of the device, from its own
// attributes and from deploy.
func (b *builder) resources(at string, c *types.ServiceConfig, spec *state.Spec) {
	spec.CgroupParent = c.CgroupParent
	spec.CPUShares, spec.CPUQuota, spec.CPUPeriod = c.CPUShares, c.CPUQuota, c.CPUPeriod
	spec.CPURtPeriod, spec.CPURtRuntime = c.CPURTPeriod, c.CPURTRuntime
	spec.NanoCPUs, spec.CpusetCpus = nanoCPUs(c.CPUS), c.CPUSet
	spec.Memory, spec.MemoryReserved = int64(c.MemLimit), int64(c.MemReservation)
	spec.MemorySwap = int64(c.MemSwapLimit)
	spec.ShmSize = orElse(int64(c.ShmSize), defaultShm)
	spec.PidsLimit = c.PidsLimit
	spec.OomScoreAdj, spec.OomKillDisable = int(c.OomScoreAdj), c.OomKillDisable
	spec.Blkio = b.blkio(at+".blkio_config", c.BlkioConfig)
	spec.DeviceRules = b.deviceRules(at+".device_cgroup_rules", c.DeviceCgroupRules)
	spec.DeviceRequests = b.requests(at+".gpus", c.Gpus, "gpu")
	if c.Deploy != nil {
		b.deploy(at, c.Deploy, spec)
	}
	slices.SortFunc(spec.DeviceRequests, func(x, y state.DeviceRequest) int {
		return cmp.Or(strings.Compare(x.Driver, y.Driver), x.Count-y.Count,
			slices.Compare(x.Capabilities, y.Capabilities), slices.Compare(x.IDs, y.IDs))
	})
	b.memory(at, spec)
	b.cpu(at, spec)
	if spec.OomScoreAdj < -1000 || spec.OomScoreAdj > 1000 {
		b.reject(at+".oom_score_adj", "want -1000 to 1000, got "+strconv.Itoa(spec.OomScoreAdj))
	}
}

// deploy takes over the limits and reservations that newer compose files write
// there.
func (b *builder) deploy(at string, d *types.DeployConfig, spec *state.Spec) {
	at += ".deploy.resources."
	if l := d.Resources.Limits; l != nil {
		b.also(at+"limits.cpus", "cpus", &spec.NanoCPUs, nanoCPUs(l.NanoCPUs.Value()))
		b.also(at+"limits.memory", "mem_limit", &spec.Memory, int64(l.MemoryBytes))
		b.also(at+"limits.pids", "pids_limit", &spec.PidsLimit, l.Pids)
	}
	if r := d.Resources.Reservations; r != nil {
		b.also(at+"reservations.memory", "mem_reservation", &spec.MemoryReserved, int64(r.MemoryBytes))
		spec.DeviceRequests = append(spec.DeviceRequests, b.requests(at+"reservations.devices", r.Devices, "")...)
	}
}

// also sets a limit that another attribute may have set to the same.
func (b *builder) also(at, other string, limit *int64, v int64) {
	switch {
	case v == 0:
	case *limit != 0 && *limit != v:
		b.reject(at, other+" is set as well, to another value")
	default:
		*limit = v
	}
}

// memory checks numbers that the engine would refuse at the worst moment.
func (b *builder) memory(at string, spec *state.Spec) {
	const least = 6 << 20 // the engine's own minimum
	if spec.Memory > 0 && spec.Memory < least {
		b.reject(at+".mem_limit", "the engine needs at least 6m for a container")
	}
	if spec.Memory > 0 && spec.MemoryReserved > spec.Memory {
		b.reject(at+".mem_reservation", "is more than mem_limit")
	}
	switch {
	case spec.MemorySwap <= 0:
	case spec.Memory == 0:
		b.reject(at+".memswap_limit", "needs mem_limit as well")
	case spec.MemorySwap < spec.Memory:
		b.reject(at+".memswap_limit", "is memory and swap together and cannot be less than mem_limit")
	}
}

func (b *builder) cpu(at string, spec *state.Spec) {
	const least, most = 1000, 1_000_000 // µs, the kernel's limits for a period
	switch {
	case spec.NanoCPUs > 0 && spec.CPUQuota > 0:
		b.reject(at+".cpu_quota", "cpus is set as well; the engine takes one of them")
	case spec.NanoCPUs > 0 && spec.CPUPeriod > 0:
		b.reject(at+".cpu_period", "cpus is set as well; the engine takes one of them")
	}
	if p := spec.CPUPeriod; p != 0 && (p < least || p > most) {
		b.reject(at+".cpu_period", fmt.Sprintf("want %d to %d microseconds, got %d", least, most, p))
	}
	if q := spec.CPUQuota; q > 0 && q < least {
		b.reject(at+".cpu_quota", fmt.Sprintf("want at least %d microseconds, got %d", least, q))
	}
	if spec.CPURtPeriod != 0 && spec.CPURtRuntime > spec.CPURtPeriod {
		b.reject(at+".cpu_rt_runtime", "is more than cpu_rt_period")
	}
}

func (b *builder) blkio(at string, c *types.BlkioConfig) *state.Blkio {
	if c == nil {
		return nil
	}
	out := state.Blkio{
		Weight:    c.Weight,
		ReadBps:   b.rates(at+".device_read_bps", c.DeviceReadBps),
		WriteBps:  b.rates(at+".device_write_bps", c.DeviceWriteBps),
		ReadIOps:  b.rates(at+".device_read_iops", c.DeviceReadIOps),
		WriteIOps: b.rates(at+".device_write_iops", c.DeviceWriteIOps),
	}
	for i, w := range c.WeightDevice {
		where := at + ".weight_device[" + strconv.Itoa(i) + "]"
		out.WeightDevice = b.per(where, "weight", out.WeightDevice, w.Path, uint64(w.Weight))
	}
	if out.Weight == 0 && out.WeightDevice == nil && out.ReadBps == nil && out.WriteBps == nil && out.ReadIOps == nil && out.WriteIOps == nil {
		return nil
	}
	return &out
}

func (b *builder) rates(at string, in []types.ThrottleDevice) []state.BlkioPer {
	var out []state.BlkioPer
	for i, r := range in {
		out = b.per(at+"["+strconv.Itoa(i)+"]", "rate", out, r.Path, uint64(max(r.Rate, 0)))
	}
	return out
}

// per adds one device to a sorted list.
func (b *builder) per(at, what string, list []state.BlkioPer, device string, value uint64) []state.BlkioPer {
	device = path.Clean(device)
	i, found := slices.BinarySearchFunc(list, device, func(p state.BlkioPer, d string) int { return strings.Compare(p.Path, d) })
	switch {
	case !path.IsAbs(device):
		b.reject(at+".path", "want a block device such as /dev/mmcblk0")
	case value == 0:
		b.reject(at+"."+what, "is missing")
	case found:
		b.reject(at+".path", clip(device)+" is named twice")
	default:
		return slices.Insert(list, i, state.BlkioPer{Path: device, Value: value})
	}
	return list
}

var deviceRule = regexp.MustCompile(`^[acb] (\d{1,10}|\*):(\d{1,10}|\*) [rwm]{1,3}$`)

func (b *builder) deviceRules(at string, in []string) []string {
	for i, rule := range in {
		if !deviceRule.MatchString(rule) {
			b.reject(at+"["+strconv.Itoa(i)+"]", "want type, numbers and permissions such as c 13:* rwm, got "+strconv.Quote(clip(rule)))
		}
	}
	return set(in)
}

// requests builds requests for devices; each has the capability as well.
func (b *builder) requests(at string, in []types.DeviceRequest, capability string) []state.DeviceRequest {
	var out []state.DeviceRequest
	for i, d := range in {
		where := at + "[" + strconv.Itoa(i) + "]"
		caps := d.Capabilities
		if capability != "" {
			caps = append(slices.Clone(caps), capability)
		}
		r := state.DeviceRequest{Driver: d.Driver, Count: int(d.Count), IDs: set(d.IDs), Capabilities: set(caps), Options: plain(d.Options)}
		switch {
		case r.Capabilities == nil:
			b.reject(where+".capabilities", "name at least one, for example gpu")
		case r.Driver == "cdi":
			b.reject(where+".driver", "cdi: the oldest supported engine does not have it")
		case r.Count != 0 && r.IDs != nil:
			b.reject(where, "want either count or device_ids")
		case r.Count == 0 && r.IDs == nil:
			r.Count = -1 // all, as compose has it
		}
		out = append(out, r)
	}
	return out
}

// storage builds options of the storage driver. There is one that every engine
// knows.
func (b *builder) storage(at string, in map[string]string) map[string]string {
	var out map[string]string
	for name, v := range in {
		var n types.UnitBytes
		switch where := join(at, name); {
		case name != "size":
			b.reject(where, "not an option; the only one is size")
		case n.DecodeMapstructure(strings.TrimSpace(v)) != nil || n <= 0:
			b.reject(where, "want a size such as 512m or 1.5g, got "+strconv.Quote(clip(v)))
		default:
			b.warn(where, "works only where the engine keeps containers on XFS with project quotas; elsewhere the service cannot be created")
			put(&out, name, strconv.FormatInt(int64(n), 10))
		}
	}
	return out
}
