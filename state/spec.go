package state

import (
	"slices"
	"strings"
)

// Spec is everything about a service that decides what its container is made
// like, in canonical form: lists that mean sets are sorted, defaults are filled
// in, units are base units. Two services whose Specs are equal are the same
// container. Identity (IDs, release, names, injected variables) is not part of
// it, so that a new release with the same content restarts nothing.
//
// The JSON names are those of the compose file; Diff prints them.
type Spec struct {
	Command    []string `json:"command,omitzero"`    // nil: the image's; empty: none
	Entrypoint []string `json:"entrypoint,omitzero"` // nil: the image's; empty: none
	User       string   `json:"user,omitempty"`
	WorkingDir string   `json:"working_dir,omitempty"`

	Environment map[string]string `json:"environment,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"` // user labels only

	Hostname    string                `json:"hostname,omitempty"`
	Domainname  string                `json:"domainname,omitempty"`
	MacAddress  string                `json:"mac_address,omitempty"`
	NetworkMode string                `json:"network_mode,omitempty"` // host, none, bridge, service:NAME, container:NAME; empty: Networks
	Networks    map[string]Attachment `json:"networks,omitempty"`     // by short name
	MainNetwork string                `json:"main_network,omitempty"` // the one given at create
	Ports       []Port                `json:"ports,omitempty"`        // sorted
	Expose      []string              `json:"expose,omitempty"`       // port/protocol, sorted; what Ports holds is exposed anyway
	ExtraHosts  []string              `json:"extra_hosts,omitempty"`  // host:ip, sorted
	DNS         []string              `json:"dns,omitempty"`          // order matters
	DNSSearch   []string              `json:"dns_search,omitempty"`   // order matters
	DNSOpt      []string              `json:"dns_opt,omitempty"`

	Features []string `json:"features,omitempty"` // of labels io.balena.features.*, sorted

	Files  []File            `json:"files,omitempty"`   // secrets and configs, sorted by Target
	Mounts []Mount           `json:"volumes,omitempty"` // sorted by Target
	Tmpfs  map[string]string `json:"tmpfs,omitempty"`   // path → mount options

	Restart     RestartPolicy `json:"restart"`
	Healthcheck *Healthcheck  `json:"healthcheck,omitempty"` // nil: the image's, if it has one
	StopSignal  string        `json:"stop_signal,omitempty"`
	StopGrace   Duration      `json:"stop_grace_period,omitempty"`

	Privileged  bool     `json:"privileged,omitempty"`
	ReadOnly    bool     `json:"read_only,omitempty"`
	Tty         bool     `json:"tty,omitempty"`
	StdinOpen   bool     `json:"stdin_open,omitempty"`
	Init        *bool    `json:"init,omitempty"` // nil: the engine's default
	CapAdd      []string `json:"cap_add,omitempty"`
	CapDrop     []string `json:"cap_drop,omitempty"`
	GroupAdd    []string `json:"group_add,omitempty"`
	SecurityOpt []string `json:"security_opt,omitempty"`
	Devices     []string `json:"devices,omitempty"` // host:container:permissions, sorted
	DeviceRules []string `json:"device_cgroup_rules,omitempty"`
	Pid         string   `json:"pid,omitempty"`
	Ipc         string   `json:"ipc,omitempty"`
	Userns      string   `json:"userns_mode,omitempty"`
	Uts         string   `json:"uts,omitempty"`
	Cgroup      string   `json:"cgroup,omitempty"` // host or private; empty: the engine's default
	Runtime     string   `json:"runtime,omitempty"`

	DeviceRequests []DeviceRequest   `json:"gpus,omitempty"`    // sorted
	Logging        *Logging          `json:"logging,omitempty"` // nil: the engine's default
	StorageOpt     map[string]string `json:"storage_opt,omitempty"`

	Sysctls map[string]string `json:"sysctls,omitempty"`
	Ulimits map[string]Ulimit `json:"ulimits,omitempty"`

	CgroupParent   string `json:"cgroup_parent,omitempty"`
	CPUShares      int64  `json:"cpu_shares,omitempty"`
	CPUQuota       int64  `json:"cpu_quota,omitempty"`
	NanoCPUs       int64  `json:"cpus,omitempty"` // 10⁻⁹ CPUs
	CpusetCpus     string `json:"cpuset,omitempty"`
	Memory         int64  `json:"mem_limit,omitempty"`       // bytes
	MemoryReserved int64  `json:"mem_reservation,omitempty"` // bytes
	ShmSize        int64  `json:"shm_size,omitempty"`        // bytes
	PidsLimit      int64  `json:"pids_limit,omitempty"`
	OomScoreAdj    int    `json:"oom_score_adj,omitempty"`
	OomKillDisable bool   `json:"oom_kill_disable,omitempty"`

	CPUPeriod        int64  `json:"cpu_period,omitempty"`     // µs
	CPURtPeriod      int64  `json:"cpu_rt_period,omitempty"`  // µs
	CPURtRuntime     int64  `json:"cpu_rt_runtime,omitempty"` // µs
	MemorySwap       int64  `json:"memswap_limit,omitempty"`  // bytes, memory and swap together; -1: unlimited
	MemorySwappiness *int64 `json:"mem_swappiness,omitempty"` // 0 to 100; nil: the kernel's default
	Blkio            *Blkio `json:"blkio_config,omitempty"`
}

// Attachment is how a service joins one network.
type Attachment struct {
	Aliases     []string `json:"aliases,omitempty"` // sorted; the service name is always among them
	IPv4        string   `json:"ipv4_address,omitempty"`
	IPv6        string   `json:"ipv6_address,omitempty"`
	LinkLocalIP []string `json:"link_local_ips,omitempty"`
	External    string   `json:"external,omitempty"` // the engine's name of a network that is not the app's

	DriverOpts map[string]string `json:"driver_opts,omitempty"`
}

// File is a secret or a config: content that the container finds in a read-only
// file. It is kept in memory-backed files and never in a label or a log.
type File struct {
	Target  string `json:"target"` // path in the container
	UID     int    `json:"uid,omitempty"`
	GID     int    `json:"gid,omitempty"`
	Mode    uint32 `json:"mode,omitempty"` // permissions; zero: 0444
	Content []byte `json:"content,omitempty"`
}

// Port is one published port. Ranges are expanded.
type Port struct {
	HostIP    string `json:"host_ip,omitempty"`
	Published int    `json:"published"`
	Target    int    `json:"target"`
	Protocol  string `json:"protocol"` // tcp, udp or sctp
}

// Mount is one volume or tmpfs inside the container.
type Mount struct {
	Type     string `json:"type"`               // volume or tmpfs
	Source   string `json:"source,omitempty"`   // short volume name; empty: anonymous
	External bool   `json:"external,omitempty"` // Source is the engine's name of a volume that is not the app's
	Target   string `json:"target"`
	ReadOnly bool   `json:"read_only,omitempty"`
	NoCopy   bool   `json:"nocopy,omitempty"`
	Size     int64  `json:"size,omitempty"` // tmpfs, bytes
	Mode     uint32 `json:"mode,omitempty"` // tmpfs, permissions
}

// RestartPolicy is the engine's restart policy.
type RestartPolicy struct {
	Name       string `json:"name"` // no, always, on-failure, unless-stopped
	MaxRetries int    `json:"max_retries,omitempty"`
}

// Healthcheck is a command the engine runs inside the container.
type Healthcheck struct {
	Test        []string `json:"test,omitempty"` // CMD or CMD-SHELL first; empty: the image's command
	Interval    Duration `json:"interval,omitempty"`
	Timeout     Duration `json:"timeout,omitempty"`
	StartPeriod Duration `json:"start_period,omitempty"`
	Retries     int      `json:"retries,omitempty"`
}

// Ulimit is one resource limit of a process.
type Ulimit struct {
	Soft int64 `json:"soft"`
	Hard int64 `json:"hard"`
}

// DeviceRequest asks a driver of the engine for devices such as GPUs.
type DeviceRequest struct {
	Driver       string            `json:"driver,omitempty"` // empty: any that has the capabilities
	Count        int               `json:"count,omitempty"`  // -1: all
	IDs          []string          `json:"device_ids,omitempty"`
	Capabilities []string          `json:"capabilities"` // sorted; all of them are needed
	Options      map[string]string `json:"options,omitempty"`
}

// Logging is where the engine keeps what a service writes.
type Logging struct {
	Driver  string            `json:"driver"`
	Options map[string]string `json:"options,omitempty"`
}

// Blkio bounds the access to block devices. Lists are sorted by path.
type Blkio struct {
	Weight       uint16     `json:"weight,omitempty"` // 10 to 1000
	WeightDevice []BlkioPer `json:"weight_device,omitempty"`
	ReadBps      []BlkioPer `json:"device_read_bps,omitempty"`
	WriteBps     []BlkioPer `json:"device_write_bps,omitempty"`
	ReadIOps     []BlkioPer `json:"device_read_iops,omitempty"`
	WriteIOps    []BlkioPer `json:"device_write_iops,omitempty"`
}

// BlkioPer is one number for one block device: a weight, or bytes or operations
// per second.
type BlkioPer struct {
	Path  string `json:"path"`
	Value uint64 `json:"value"`
}

// NetworkSpec is everything that decides how a network is made.
type NetworkSpec struct {
	Driver     string            `json:"driver"`
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	IPAM       []Subnet          `json:"ipam,omitempty"`
	IPAMDriver string            `json:"ipam_driver,omitempty"`
	EnableIPv6 bool              `json:"enable_ipv6,omitempty"`
	Internal   bool              `json:"internal,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"` // user labels only

	IPAMOptions map[string]string `json:"ipam_options,omitempty"`
	Attachable  bool              `json:"attachable,omitempty"`
}

// Subnet is one address pool of a network.
type Subnet struct {
	Subnet  string            `json:"subnet,omitempty"`
	Gateway string            `json:"gateway,omitempty"`
	IPRange string            `json:"ip_range,omitempty"`
	Aux     map[string]string `json:"aux_addresses,omitempty"`
}

// VolumeSpec is everything that decides how a volume is made.
type VolumeSpec struct {
	Driver     string            `json:"driver"`
	DriverOpts map[string]string `json:"driver_opts,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"` // user labels only
}

// FeatureAPI lets a service reach the supervisor's API over a network made for
// that, see APINetworkName.
const FeatureAPI = "supervisor-api"

// UsesAPINetwork reports whether the container joins the API network. On the
// host's network it reaches the API without.
func (s Spec) UsesAPINetwork() bool {
	return slices.Contains(s.Features, FeatureAPI) && s.NetworkMode != "host" && s.NetworkOwner() == "" &&
		!strings.HasPrefix(s.NetworkMode, "container:") && s.NetworkMode != "none"
}

// NetworkOwner is the service whose network the container uses; "": its own.
func (s Spec) NetworkOwner() string {
	name, _ := strings.CutPrefix(s.NetworkMode, "service:")
	if name == s.NetworkMode {
		return ""
	}
	return name
}

// AppNetworks lists the networks of the app that the container joins, by short
// name, sorted; external ones are left out.
func (s Spec) AppNetworks() []string {
	var out []string
	for name, a := range s.Networks {
		if a.External == "" {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// FilesHash names the content of a service's files; "" for none.
func FilesHash(files []File) string {
	if len(files) == 0 {
		return ""
	}
	return hash(files)
}
