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
		Command:     words(c.Command),
		Entrypoint:  words(c.Entrypoint),
		User:        c.User,
		Environment: environ(c.Environment),
		Labels:      b.labels(at, c.Labels),
		Restart:     b.restart(at, c),
		Healthcheck: b.health(at+".healthcheck", c.HealthCheck),
		StopSignal:  signal(c.StopSignal),
		StopGrace:   grace(c.StopGracePeriod),
		Privileged:  c.Privileged,
		ReadOnly:    c.ReadOnly,
		Tty:         c.Tty,
		StdinOpen:   c.StdinOpen,
		Init:        c.Init,
		CapAdd:      capabilities(c.CapAdd),
		CapDrop:     capabilities(c.CapDrop),
		GroupAdd:    set(c.GroupAdd),
		SecurityOpt: set(c.SecurityOpt),
		Devices:     b.devices(at, c.Devices),
		Pid:         b.space(at+".pid", c.Pid, "host", "container:NAME"),
		Ipc:         b.space(at+".ipc", orElse(c.Ipc, defaultIpc), "none", "private", "shareable", "host", "container:NAME"),
		Uts:         b.space(at+".uts", c.Uts, "host"),
		Cgroup:      b.space(at+".cgroup", c.Cgroup, "host", "private"),
		Userns:      b.space(at+".userns_mode", c.UserNSMode, "host"),
		Runtime:     c.Runtime,
		Sysctls:     plain(c.Sysctls),
		Ulimits:     b.ulimits(at+".ulimits", b.around[name].ulimits),
		Logging:     b.logging(at+".logging", c.Logging),
		StorageOpt:  b.storage(at+".storage_opt", c.StorageOpt),
		Features:    features(c.Labels),
	}
	if n, ok := b.around[name].swappiness.(int64); ok {
		spec.MemorySwappiness = &n
	}
	if c.WorkingDir != "" {
		spec.WorkingDir = path.Clean(c.WorkingDir)
	}
	b.resources(at, c, &spec)
	b.attach(name, c, &spec)
	b.mounts(name, c, &spec)
	s := state.Service{Name: name, Image: b.image(at+".image", c.Image), Running: true, Spec: spec}
	b.update(at+".labels", c.Labels, &s)
	b.project.Services[name] = s
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

// space checks which namespace a service shares. One of another service is
// refused: the service would have to be made anew whenever that one is.
func (b *builder) space(at, mode string, allowed ...string) string {
	kind, name, _ := strings.Cut(mode, ":")
	switch {
	case mode == "", slices.Contains(allowed, mode):
	case kind == "container" && name != "" && slices.Contains(allowed, "container:NAME"):
	case kind == "service":
		b.reject(at, clip(mode)+": only network_mode can be shared between services")
	default:
		b.reject(at, "want "+strings.Join(allowed, " or ")+", got "+strconv.Quote(clip(mode)))
	}
	return mode
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

// restart reads what the restart form has written, or else the policy below
// deploy, as compose does.
func (b *builder) restart(at string, c *types.ServiceConfig) state.RestartPolicy {
	at += ".deploy.restart_policy"
	if c.Deploy == nil || c.Deploy.RestartPolicy == nil {
		name, count, _ := strings.Cut(orElse(c.Restart, defaultRestart), ":")
		n, _ := strconv.Atoi(count)
		return state.RestartPolicy{Name: name, MaxRetries: n}
	}
	d := c.Deploy.RestartPolicy
	if c.Restart != "" {
		b.ignore(at, "restart is set as well")
		c.Deploy.RestartPolicy = nil
		return b.restart(at, c)
	}
	policy := state.RestartPolicy{Name: "always"}
	switch d.Condition {
	case "", "any":
	case "none":
		policy.Name = "no"
	case "on-failure":
		policy.Name = d.Condition
	default:
		b.reject(at+".condition", "want none, on-failure or any, got "+strconv.Quote(clip(d.Condition)))
	}
	if n := d.MaxAttempts; n != nil && policy.Name == "on-failure" {
		policy.MaxRetries = int(*n)
	} else if n != nil {
		b.ignore(at+".max_attempts", "counts with the condition on-failure only")
	}
	return policy
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
