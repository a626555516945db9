package engine

import (
	"cmp"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"deckhand/compose"
	"deckhand/state"
)

// environment leaves out what the supervisor adds and what the image sets,
// unless the composition sets it too.
func (r reading) environment() map[string]string {
	out := map[string]string{}
	for k, v := range variables(r.c.Config.Env) {
		_, asked := r.want.Environment[k]
		inherited, ofImage := r.im.env[k]
		if asked || !added(k, v) && !(ofImage && inherited == v) {
			out[k] = v
		}
	}
	return orNilMap(out)
}

// added reports whether a supervisor sets the variable. Owners cannot: the names
// with these prefixes are reserved in the cloud.
func added(name, value string) bool {
	switch {
	case name == "BALENA", name == "RESIN", strings.HasPrefix(name, "BALENA_"), strings.HasPrefix(name, "RESIN_"):
		return true
	case name == "USER":
		return value == "root"
	case name == "DOCKER_HOST": // of the feature balena-socket
		return value == "unix:///host/run/balena-engine.sock"
	}
	return false
}

func variables(list []string) map[string]string {
	out := map[string]string{}
	for _, kv := range list {
		k, v, _ := strings.Cut(kv, "=")
		out[k] = v
	}
	return out
}

const labelFeature = "io.balena.features."

// labels leaves out those of the supervisor and of the image. Features are
// compared by their effect, and how a service is updated is no setting.
func (r reading) labels() map[string]string {
	out := map[string]string{}
	for k, v := range compose.NormaliseLabels(r.c.Config.Labels) {
		switch k {
		case state.LabelSupervised, state.LabelAppID, state.LabelAppUUID, state.LabelServiceID, state.LabelServiceName:
			continue
		}
		_, asked := r.want.Labels[k]
		inherited, ofImage := r.im.labels[k]
		if asked || !ours(k) && !(ofImage && inherited == v) {
			out[k] = v
		}
	}
	return withoutFeatures(out)
}

func ours(label string) bool {
	return strings.HasPrefix(label, "io.balena.update.") || strings.HasPrefix(label, "io.deckhand.") || label == "io.balena.legacy-container"
}

func withoutFeatures(labels map[string]string) map[string]string {
	out := maps.Clone(labels)
	maps.DeleteFunc(out, func(k, _ string) bool { return strings.HasPrefix(k, labelFeature) })
	return orNilMap(out)
}

// features are those whose effect the container has: balena also honours the
// labels of the image.
func (r reading) features() []string {
	var out []string
	for k, v := range compose.NormaliseLabels(r.c.Config.Labels) {
		name, ok := strings.CutPrefix(k, labelFeature)
		switch strings.ToLower(v) {
		case "1", "true", "on":
			if ok {
				out = append(out, name)
			}
		}
	}
	return effective(out)
}

// effective keeps the features that change a container.
func effective(list []string) []string {
	var out []string
	for _, f := range list {
		switch f {
		case "journal-logs", "dbus", "kernel-modules", "firmware", "balena-socket", "balena-api", state.FeatureAPI,
			"sysfs", "procfs", "gpu", "host-os.board-rev", "extra-firmware":
			out = append(out, f)
		}
	}
	return sortedSet(out)
}

// byFeature reports whether a mount belongs to a feature that the container has.
func byFeature(features []string, source, target string) bool {
	has := func(f string) bool { return slices.Contains(features, f) }
	switch target {
	case "/var/log/journal", "/run/log/journal", "/etc/machine-id":
		return has("journal-logs")
	case "/host/run/dbus":
		return has("dbus")
	case "/lib/modules":
		return has("kernel-modules")
	case "/lib/firmware":
		return has("firmware")
	case "/sys":
		return has("sysfs")
	case "/proc":
		return has("procfs")
	case "/extra-firmware":
		return has("extra-firmware")
	}
	return strings.HasSuffix(source, ".sock") && has("balena-socket")
}

// wantedHealth merges the check with the image's, as engines do.
func (r reading) wantedHealth() *state.Healthcheck {
	h := healthcheck(r.want.Healthcheck)
	im := r.im.health
	switch {
	case h == nil:
		h = im
	case im != nil:
		if len(h.Test) == 0 {
			h.Test = im.Test
		}
		h.Interval = cmp.Or(h.Interval, im.Interval)
		h.Timeout = cmp.Or(h.Timeout, im.Timeout)
		h.StartPeriod = cmp.Or(h.StartPeriod, im.StartPeriod)
		h.Retries = cmp.Or(h.Retries, im.Retries)
	}
	return health(h)
}

// health is nil where nothing is checked, however that is said.
func health(h *container.HealthConfig) *state.Healthcheck {
	if h == nil || len(h.Test) == 0 || h.Test[0] == "NONE" {
		return nil
	}
	return &state.Healthcheck{Test: h.Test, Interval: state.Duration(h.Interval), Timeout: state.Duration(h.Timeout),
		StartPeriod: state.Duration(h.StartPeriod), Retries: h.Retries}
}

// securityOpt leaves out the labels that an engine adds by itself.
func (r reading) securityOpt() []string {
	var out []string
	for _, o := range r.c.HostConfig.SecurityOpt {
		if !strings.Contains(o, "label=") || slices.Contains(r.want.SecurityOpt, o) {
			out = append(out, o)
		}
	}
	return sortedSet(out)
}

// deviceRequests leaves out the one of the feature gpu.
func (r reading) deviceRequests() []state.DeviceRequest {
	var out []state.DeviceRequest
	left := slices.Contains(r.features(), "gpu")
	for _, q := range r.c.HostConfig.DeviceRequests {
		x := state.DeviceRequest{Driver: q.Driver, Count: q.Count, IDs: orNil(q.DeviceIDs), Options: orNilMap(q.Options)}
		for _, set := range q.Capabilities {
			x.Capabilities = append(x.Capabilities, set...)
		}
		x.Capabilities = sortedSet(x.Capabilities)
		if left && x.Count == 1 && len(x.IDs) == 0 && slices.Equal(x.Capabilities, []string{"gpu"}) {
			left = false
			continue
		}
		out = append(out, x)
	}
	return out
}

// hostname is empty where the engine or the host chose it.
func (r reading) hostname() string {
	have := r.c.Config.Hostname
	chosen := strings.HasPrefix(r.c.ID, have) || !r.c.HostConfig.NetworkMode.IsPrivate()
	if r.want.Hostname == "" && chosen {
		return ""
	}
	return have
}

// mac is the address that was asked for; newer engines tell it in one place with
// those that they chose.
func (r reading) mac() string {
	have := r.c.Config.MacAddress //nolint:staticcheck // the only place before API 1.44
	if have == "" && r.want.MacAddress != "" && r.c.NetworkSettings != nil {
		for _, end := range r.c.NetworkSettings.Networks {
			if end != nil && end.MacAddress == r.want.MacAddress {
				return r.want.MacAddress
			}
		}
	}
	return have
}

// networks are the mode and the networks. Which of them is the main one is not
// compared: balena takes the first of the document, whose order is lost.
func (r reading) networks() (mode string, joined map[string]state.Attachment) {
	switch m := r.c.HostConfig.NetworkMode; {
	case m.IsContainer():
		mode = r.sharing(string(m))
	case m.IsHost(), m.IsNone():
		mode = string(m)
	case m.IsBridge(), m.IsDefault():
		mode = "bridge"
	}
	if r.c.NetworkSettings == nil {
		return mode, nil
	}
	external := map[string]string{}
	for short, a := range r.want.Networks {
		if a.External != "" {
			external[a.External] = short
		}
	}
	joined = map[string]state.Attachment{}
	for name, end := range r.c.NetworkSettings.Networks {
		short, isExternal := external[name]
		switch {
		case isExternal:
		case name == mode, name == state.APINetworkName: // the latter is a feature's
			continue
		default:
			short = r.short(name)
		}
		a := state.Attachment{Aliases: r.aliases(end)}
		if isExternal {
			a.External = name
		}
		if end != nil {
			a.DriverOpts = end.DriverOpts
			if end.IPAMConfig != nil {
				a.IPv4, a.IPv6, a.LinkLocalIP = end.IPAMConfig.IPv4Address, end.IPAMConfig.IPv6Address, end.IPAMConfig.LinkLocalIPs
			}
		}
		joined[short] = a
	}
	return mode, normalNetworks(joined)
}

// sharing names the service whose network a container uses, if it is of the app.
func (r reading) sharing(mode string) string {
	if r.owner.Config == nil || r.owner.ContainerJSONBase == nil {
		return mode
	}
	service := label(r.owner.Config.Labels, state.LabelServiceName)
	mine := label(r.owner.Config.Labels, state.LabelAppID) == strconv.FormatInt(r.step.App.ID, 10)
	if mine && r.want.NetworkMode == "service:"+service {
		return r.want.NetworkMode
	}
	if asked := strings.TrimPrefix(r.want.NetworkMode, "container:"); asked != r.want.NetworkMode &&
		(asked == strings.TrimPrefix(r.owner.Name, "/") || strings.HasPrefix(r.owner.ID, asked)) {
		return r.want.NetworkMode
	}
	return mode
}

// short is the composition's name of a network; older supervisors prefixed the
// app's ID instead of its UUID.
func (r reading) short(name string) string {
	for _, prefix := range []string{state.NetworkName(r.step.App.UUID, ""), strconv.FormatInt(r.step.App.ID, 10) + "_"} {
		if s, ok := strings.CutPrefix(name, prefix); ok {
			return s
		}
	}
	return name
}

// aliases leaves out those that engines add: the short ID, the name and the
// host's name.
func (r reading) aliases(end *network.EndpointSettings) []string {
	if end == nil {
		return nil
	}
	asked := map[string]bool{}
	for _, a := range r.want.Networks {
		for _, x := range a.Aliases {
			asked[x] = true
		}
	}
	var out []string
	for _, a := range end.Aliases {
		engines := len(a) >= 12 && strings.HasPrefix(r.c.ID, a) || "/"+a == r.c.Name || a == r.c.Config.Hostname
		if asked[a] || !engines {
			out = append(out, a)
		}
	}
	return sortedSet(out)
}

func normalNetworks(in map[string]state.Attachment) map[string]state.Attachment {
	out := map[string]state.Attachment{}
	for name, a := range in {
		a.IPv4, a.IPv6 = ip(a.IPv4), ip(a.IPv6)
		var local []string
		for _, x := range a.LinkLocalIP {
			local = append(local, ip(x))
		}
		a.LinkLocalIP = sortedSet(local)
		a.Aliases = sortedSet(a.Aliases)
		a.DriverOpts = orNilMap(a.DriverOpts)
		out[name] = a
	}
	return orNilMap(out)
}

func ip(text string) string {
	if a, err := netip.ParseAddr(text); err == nil {
		return a.String()
	}
	return text
}

// mounts are the volumes and tmpfs of the composition, whichever of the engine's
// three ways to ask for them was used.
func (r reading) mounts() []state.Mount {
	features := r.features()
	var out []state.Mount
	taken := map[string]bool{}
	add := func(m state.Mount) {
		m.Target = path.Clean(m.Target)
		if own := m.Type == "bind" && (m.Target == "/tmp/resin" || m.Target == "/tmp/balena"); own || byFeature(features, m.Source, m.Target) {
			return
		}
		if m.Type == "volume" && m.Source != "" {
			short, of := strings.CutPrefix(m.Source, state.VolumeName(r.step.App.ID, ""))
			m.Source, m.External = short, !of
		}
		taken[m.Target] = true
		out = append(out, m)
	}
	for _, b := range r.c.HostConfig.Binds {
		add(bind(b))
	}
	for _, x := range r.c.HostConfig.Mounts {
		m := state.Mount{Type: string(x.Type), Source: x.Source, Target: x.Target, ReadOnly: x.ReadOnly}
		if x.VolumeOptions != nil {
			m.NoCopy = x.VolumeOptions.NoCopy
		}
		if x.TmpfsOptions != nil {
			m.Size, m.Mode = x.TmpfsOptions.SizeBytes, uint32(x.TmpfsOptions.Mode)
		}
		add(m)
	}
	for target := range r.c.Config.Volumes {
		_, ofImage := r.im.volumes[target]
		asked := slices.ContainsFunc(r.want.Mounts, func(m state.Mount) bool { return m.Source == "" && m.Target == path.Clean(target) })
		if !taken[path.Clean(target)] && (asked || !ofImage) {
			add(state.Mount{Type: "volume", Target: target})
		}
	}
	slices.SortFunc(out, func(a, b state.Mount) int { return cmp.Compare(a.Target, b.Target) })
	return out
}

// bind reads source:target[:options].
func bind(text string) state.Mount {
	f := strings.SplitN(text, ":", 3)
	m := state.Mount{Type: "volume", Source: f[0]}
	if strings.HasPrefix(f[0], "/") {
		m.Type = "bind"
	}
	if len(f) > 1 {
		m.Target = f[1]
	}
	if len(f) > 2 {
		for o := range strings.SplitSeq(f[2], ",") {
			m.ReadOnly = m.ReadOnly || o == "ro"
			m.NoCopy = m.NoCopy || o == "nocopy"
		}
	}
	return m
}
