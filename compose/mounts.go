package compose

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/state"
)

// volumeForm writes source:target:options as a mapping and leaves out what
// reaches into the host.
func volumeForm(s *screen, at string, v any) (any, bool) {
	m, isMap := v.(map[string]any)
	if !isMap {
		short, ok := v.(string)
		if !ok {
			return s.want(at, "source:target or a mapping", v)
		}
		if m, ok = shortVolume(s, at, short); !ok {
			return nil, false
		}
	}
	kind, _ := m["type"].(string)
	source, _ := m["source"].(string)
	switch kind {
	case types.VolumeTypeBind:
		s.ignore(at, "the host's path "+clip(source)+" is not mounted; "+whyHost)
		return nil, false
	case types.VolumeTypeVolume, types.VolumeTypeTmpfs:
		return m, true
	}
	s.reject(at+".type", "want volume or tmpfs, got "+clip(kind))
	return nil, false
}

// shortVolume reads target or source:target[:options]. It does not go through
// compose-go, for which d:/data is a drive of Windows.
func shortVolume(s *screen, at, short string) (map[string]any, bool) {
	parts := strings.Split(short, ":")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	if len(parts) > 3 || slices.Contains(parts[:min(len(parts), 2)], "") {
		s.reject(at, "want target or source:target[:options], got "+strconv.Quote(clip(short)))
		return nil, false
	}
	m := map[string]any{"type": types.VolumeTypeVolume, "target": parts[0]}
	if len(parts) == 1 {
		return m, true
	}
	m["source"], m["target"] = parts[0], parts[1]
	if strings.ContainsAny(parts[0][:1], "./~") {
		m["type"] = types.VolumeTypeBind
		return m, true
	}
	if len(parts) == 2 {
		return m, true
	}
	for option := range strings.SplitSeq(parts[2], ",") {
		switch strings.TrimSpace(option) {
		case "ro":
			m["read_only"] = true
		case "nocopy":
			m["volume"] = map[string]any{"nocopy": true}
		case "", "rw", "z", "Z":
		default:
			s.ignore(at, "the option "+clip(option)+" is not known")
		}
	}
	return m, true
}

// targets are the paths in a container that something is mounted at.
type targets map[string]bool

// claim takes a path for one mount and writes it in one spelling.
func (b *builder) claim(taken targets, at, target string) (string, bool) {
	clean := path.Clean(target)
	switch {
	case !path.IsAbs(target), clean == "/":
		b.reject(at, "want a path in the container that begins with /, got "+strconv.Quote(clip(target)))
		return "", false
	case taken[clean]:
		b.reject(at, clip(clean)+" is mounted twice")
		return "", false
	}
	taken[clean] = true
	return clean, true
}

// mounts builds the volumes, tmpfs, secrets and configs of a service.
func (b *builder) mounts(name string, c *types.ServiceConfig, spec *state.Spec) {
	at, taken := "services."+name, targets{}
	for i := range c.Volumes {
		where := at + ".volumes[" + strconv.Itoa(i) + "]"
		if target, ok := b.claim(taken, where, c.Volumes[i].Target); ok {
			b.mount(where, target, &c.Volumes[i], spec)
		}
	}
	sortMounts(spec.Mounts)
	for i, t := range c.Tmpfs {
		where := at + ".tmpfs[" + strconv.Itoa(i) + "]"
		target, options, _ := strings.Cut(t, ":")
		if target, ok := b.claim(taken, where, target); ok {
			put(&spec.Tmpfs, target, options)
		}
	}
	b.files(name, taken, spec)
}

func sortMounts(list []state.Mount) {
	slices.SortFunc(list, func(x, y state.Mount) int { return strings.Compare(x.Target, y.Target) })
}

func (b *builder) mount(at, target string, v *types.ServiceVolumeConfig, spec *state.Spec) {
	m := state.Mount{Type: v.Type, Source: v.Source, Target: target, ReadOnly: v.ReadOnly}
	switch v.Type {
	case types.VolumeTypeTmpfs:
		if v.Source != "" {
			b.reject(at+".source", "a tmpfs has no source")
			return
		}
		if v.Tmpfs != nil {
			m.Size, m.Mode = int64(v.Tmpfs.Size), v.Tmpfs.Mode
		}
	case types.VolumeTypeVolume:
		if v.Volume != nil {
			m.NoCopy = v.Volume.NoCopy
		}
		if name, ok := b.outside.volumes[v.Source]; ok {
			m.Source, m.External = name, true
		} else if v.Source != "" && !b.declared(at, v.Source) {
			return
		}
	}
	spec.Mounts = append(spec.Mounts, m)
}

// declared makes sure that a named volume exists.
func (b *builder) declared(at, name string) bool {
	if !dockerName.MatchString(name) {
		b.reject(at+".source", strconv.Quote(clip(name))+" is not a volume's name")
		return false
	}
	if _, ok := b.project.Volumes[name]; !ok {
		b.warn(at, "the volume "+name+" is not declared under volumes; it is made with default settings")
		b.volume(name, &types.VolumeConfig{})
	}
	return true
}

// inherit gives services the named volumes of those named in volumes_from.
func (b *builder) inherit(names []string, services types.Services) {
	const walking, done = 1, 2
	seen := map[string]int{}
	var visit func(name string)
	visit = func(name string) {
		seen[name] = walking
		for i, from := range services[name].VolumesFrom {
			at := "services." + name + ".volumes_from[" + strconv.Itoa(i) + "]"
			other, mode, _ := strings.Cut(strings.TrimPrefix(from, "service:"), ":")
			_, exists := services[other]
			switch {
			case other == "container":
				b.reject(at, clip(from)+": only volumes of services of the app can be taken")
				continue
			case !exists:
				b.reject(at, "there is no service "+clip(other))
				continue
			case mode != "" && mode != "ro" && mode != "rw":
				b.reject(at, "want ro or rw after the service, got "+strconv.Quote(clip(mode)))
				continue
			case seen[other] == walking:
				b.reject(at, "the services take their volumes from each other")
				continue
			case seen[other] == 0:
				visit(other)
			}
			b.takeMounts(at, name, other, mode == "ro")
		}
		seen[name] = done
	}
	for _, name := range names {
		if seen[name] == 0 {
			visit(name)
		}
	}
}

// takeMounts copies mounts of another service; where both mount something, the
// service's own counts.
func (b *builder) takeMounts(at, name, other string, readOnly bool) {
	s := b.project.Services[name]
	taken := targets{}
	for _, m := range s.Spec.Mounts {
		taken[m.Target] = true
	}
	for target := range s.Spec.Tmpfs {
		taken[target] = true
	}
	for _, f := range s.Spec.Files {
		taken[f.Target] = true
	}
	for _, m := range b.project.Services[other].Spec.Mounts {
		switch {
		case taken[m.Target] || m.Type != types.VolumeTypeVolume:
		case m.Source == "":
			b.ignore(at, "the volume at "+m.Target+" of "+other+" has no name and cannot be shared")
		default:
			m.ReadOnly = m.ReadOnly || readOnly
			s.Spec.Mounts = append(s.Spec.Mounts, m)
		}
	}
	sortMounts(s.Spec.Mounts)
	b.project.Services[name] = s
}

// volume builds a declared volume.
func (b *builder) volume(name string, c *types.VolumeConfig) {
	at := "volumes." + name
	spec := state.VolumeSpec{
		Driver:     orElse(c.Driver, "local"),
		DriverOpts: plain(c.DriverOpts),
		Labels:     b.labels(at, c.Labels),
	}
	if spec.Driver != "local" {
		b.warn(at+".driver", clip(spec.Driver)+": balenaEngine has the driver local only")
	}
	b.project.Volumes[name] = state.Volume{Name: name, Spec: spec, Hash: spec.Hash()}
}

// deviceForm writes host:container:permissions as a mapping.
func deviceForm(s *screen, at string, v any) (any, bool) {
	if m, ok := v.(map[string]any); ok {
		return m, true
	}
	short, ok := v.(string)
	parts := strings.Split(short, ":")
	if !ok || len(parts) > 3 {
		return s.want(at, "host[:container[:permissions]]", v)
	}
	m := map[string]any{"source": parts[0]}
	if len(parts) > 1 {
		m["target"] = parts[1]
	}
	if len(parts) > 2 {
		m["permissions"] = parts[2]
	}
	return m, true
}

// devices writes devices as host:container:permissions.
func (b *builder) devices(at string, in []types.DeviceMapping) []string {
	var out []string
	for i, d := range in {
		where := at + ".devices[" + strconv.Itoa(i) + "]"
		target := orElse(d.Target, d.Source)
		if !path.IsAbs(d.Source) || !path.IsAbs(target) {
			b.reject(where, "want paths that begin with /, got "+strconv.Quote(clip(d.Source+":"+target)))
			continue
		}
		var perm string
		for _, p := range "rwm" {
			if d.Permissions == "" || strings.ContainsRune(d.Permissions, p) {
				perm += string(p)
			}
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			b.reject(where, "permissions are some of r, w and m, got "+strconv.Quote(clip(d.Permissions)))
			continue
		}
		out = append(out, path.Clean(d.Source)+":"+path.Clean(target)+":"+perm)
	}
	return set(out)
}
