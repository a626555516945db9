package compose

import (
	"maps"
	"math"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/distribution/reference"

	"deckhand/state"
)

// Defaults where compose leaves the choice to the runtime.
const (
	defaultRestart = "always"
	defaultIpc     = "shareable"
	defaultGrace   = 10 * time.Second
	defaultShm     = 64 << 20 // bytes
)

func (b *builder) service(name string, c *types.ServiceConfig) {
	at := "services." + name
	spec := state.Spec{
		Command:        words(c.Command),
		Entrypoint:     words(c.Entrypoint),
		User:           c.User,
		Environment:    environ(c.Environment),
		Labels:         b.labels(at, c.Labels),
		Restart:        policy(c.Restart),
		Healthcheck:    b.health(at+".healthcheck", c.HealthCheck),
		StopSignal:     signal(c.StopSignal),
		StopGrace:      grace(c.StopGracePeriod),
		Privileged:     c.Privileged,
		ReadOnly:       c.ReadOnly,
		Tty:            c.Tty,
		StdinOpen:      c.StdinOpen,
		Init:           c.Init,
		CapAdd:         capabilities(c.CapAdd),
		CapDrop:        capabilities(c.CapDrop),
		GroupAdd:       set(c.GroupAdd),
		SecurityOpt:    set(c.SecurityOpt),
		Devices:        b.devices(at, c.Devices),
		Pid:            b.own(at+".pid", c.Pid),
		Ipc:            b.own(at+".ipc", orElse(c.Ipc, defaultIpc)),
		Userns:         c.UserNSMode,
		Runtime:        c.Runtime,
		Sysctls:        plain(c.Sysctls),
		Ulimits:        b.ulimits(at+".ulimits", b.around[name].ulimits),
		CgroupParent:   c.CgroupParent,
		CPUShares:      c.CPUShares,
		CPUQuota:       c.CPUQuota,
		NanoCPUs:       nanoCPUs(c.CPUS),
		CpusetCpus:     c.CPUSet,
		Memory:         int64(c.MemLimit),
		MemoryReserved: int64(c.MemReservation),
		ShmSize:        orElse(int64(c.ShmSize), defaultShm),
		PidsLimit:      c.PidsLimit,
		OomScoreAdj:    int(c.OomScoreAdj),
		OomKillDisable: c.OomKillDisable,
	}
	if c.WorkingDir != "" {
		spec.WorkingDir = path.Clean(c.WorkingDir)
	}
	b.limits(at, &spec)
	b.attach(name, c, &spec)
	b.mounts(at, c, &spec)
	b.project.Services[name] = state.Service{
		Name:     name,
		Image:    b.image(at+".image", c.Image),
		Running:  true,
		Strategy: b.strategy(at, c.Labels),
		Spec:     spec,
	}
}

// image checks a reference and writes it in canonical form.
func (b *builder) image(at, image string) string {
	if image == "" {
		b.reject(at, "the service has no image; build it first and name the result here")
		return ""
	}
	if _, err := reference.ParseNormalizedNamed(image); err != nil {
		b.reject(at, strconv.Quote(clip(image))+" is not an image: "+err.Error())
		return ""
	}
	return state.Reference(image)
}

// own refuses a namespace that belongs to another container.
func (b *builder) own(at, mode string) string {
	if owner, _, _ := strings.Cut(mode, ":"); owner == "service" || owner == "container" {
		b.reject(at, clip(mode)+": sharing with another container is not supported yet")
	}
	return mode
}

// limits checks numbers that the engine would refuse at the worst moment.
func (b *builder) limits(at string, spec *state.Spec) {
	const least = 6 << 20 // the engine's own minimum
	if spec.Memory > 0 && spec.Memory < least {
		b.reject(at+".mem_limit", "the engine needs at least 6m for a container")
	}
	if spec.Memory > 0 && spec.MemoryReserved > spec.Memory {
		b.reject(at+".mem_reservation", "is more than mem_limit")
	}
	if spec.OomScoreAdj < -1000 || spec.OomScoreAdj > 1000 {
		b.reject(at+".oom_score_adj", "want -1000 to 1000, got "+strconv.Itoa(spec.OomScoreAdj))
	}
	if spec.NanoCPUs > 0 && spec.CPUQuota > 0 {
		b.reject(at+".cpu_quota", "cpus is set as well; the engine takes one of them")
	}
}

// health builds the health check. Nil leaves the image's in force.
func (b *builder) health(at string, c *types.HealthCheckConfig) *state.Healthcheck {
	if c == nil {
		return nil
	}
	if c.Disable || len(c.Test) > 0 && c.Test[0] == "NONE" {
		return &state.Healthcheck{Test: []string{"NONE"}}
	}
	h := state.Healthcheck{
		Test:        slices.Clone([]string(c.Test)),
		Interval:    b.probe(at+".interval", c.Interval),
		Timeout:     b.probe(at+".timeout", c.Timeout),
		StartPeriod: b.probe(at+".start_period", c.StartPeriod),
	}
	if c.Retries != nil {
		h.Retries = int(*c.Retries)
	}
	if h.Test == nil && h.Interval == 0 && h.Timeout == 0 && h.StartPeriod == 0 && h.Retries == 0 {
		return nil
	}
	return &h
}

func (b *builder) probe(at string, d *types.Duration) state.Duration {
	if d == nil {
		return 0
	}
	if *d > 0 && *d < types.Duration(time.Millisecond) {
		b.reject(at, "the engine's shortest time is 1ms, got "+d.String())
	}
	return state.Duration(*d)
}

func (b *builder) ulimits(at string, in any) map[string]state.Ulimit {
	m, _ := in.(map[string]any)
	var out map[string]state.Ulimit
	for name, v := range m {
		l, _ := v.(map[string]any)
		soft, hasSoft := l["soft"].(int64)
		hard, hasHard := l["hard"].(int64)
		switch where := join(at, name); {
		case !hasSoft || !hasHard:
			b.reject(where, "want both soft and hard")
		case hard >= 0 && (soft > hard || soft < 0):
			b.reject(where, "soft is more than hard")
		default:
			put(&out, name, state.Ulimit{Soft: soft, Hard: hard})
		}
	}
	return out
}

// policy reads what the restart form has written.
func policy(text string) state.RestartPolicy {
	name, count, _ := strings.Cut(orElse(text, defaultRestart), ":")
	n, _ := strconv.Atoi(count)
	return state.RestartPolicy{Name: name, MaxRetries: n}
}

// grace is in whole seconds, as the engine counts; a part of one is one.
func grace(d *types.Duration) state.Duration {
	if d == nil {
		return state.Duration(defaultGrace)
	}
	seconds := math.Ceil(time.Duration(*d).Seconds())
	return state.Duration(time.Duration(seconds) * time.Second)
}

// signal is a number, or a name that begins with SIG.
func signal(s string) string {
	s = strings.ToUpper(strings.TrimSpace(s))
	if s == "" || strings.HasPrefix(s, "SIG") || s[0] >= '0' && s[0] <= '9' {
		return s
	}
	return "SIG" + s
}

// nanoCPUs goes through the shortest decimal: 0.1 is 100000000, not 100000001.
func nanoCPUs(cpus float32) int64 {
	f, _ := strconv.ParseFloat(strconv.FormatFloat(float64(cpus), 'g', -1, 32), 64)
	return int64(math.Round(f * 1e9))
}

func capabilities(in []string) []string {
	out := make([]string, 0, len(in))
	for _, c := range in {
		out = append(out, strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(c)), "CAP_"))
	}
	return set(out)
}

// words keeps the difference between nothing and an empty list.
func words(c types.ShellCommand) []string {
	if c == nil {
		return nil
	}
	return append([]string{}, c...)
}

func environ(m types.MappingWithEquals) map[string]string {
	var out map[string]string
	for k, v := range m {
		if v != nil {
			put(&out, k, *v)
		}
	}
	return out
}

// set is a sorted list without repetitions; nil when empty.
func set(in []string) []string {
	if len(in) == 0 {
		return nil
	}
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

// plain copies a mapping; nil when empty.
func plain[M ~map[string]string](m M) map[string]string {
	if len(m) == 0 {
		return nil
	}
	return maps.Clone(map[string]string(m))
}

func put[V any](m *map[string]V, k string, v V) {
	if *m == nil {
		*m = map[string]V{}
	}
	(*m)[k] = v
}

func orElse[V comparable](v, otherwise V) V {
	var zero V
	if v == zero {
		return otherwise
	}
	return v
}

// address notes what is not an IP address and writes the rest in one spelling.
func (b *builder) address(at, text string) string {
	if text == "" {
		return ""
	}
	a, err := netip.ParseAddr(strings.TrimSpace(text))
	if err != nil {
		b.reject(at, "want an IP address, got "+strconv.Quote(clip(text)))
		return ""
	}
	return a.String()
}

func (b *builder) mac(at, text string) string {
	if text == "" {
		return ""
	}
	m, err := net.ParseMAC(strings.TrimSpace(text))
	if err != nil || len(m) != 6 {
		b.reject(at, "want a MAC address such as 02:42:ac:11:00:02, got "+strconv.Quote(clip(text)))
		return ""
	}
	return m.String()
}
