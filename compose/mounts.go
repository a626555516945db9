package compose

import (
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/compose-spec/compose-go/v2/format"
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

func shortVolume(s *screen, at, short string) (map[string]any, bool) {
	vol, err := format.ParseVolume(strings.TrimSpace(short))
	if err != nil {
		s.reject(at, err.Error())
		return nil, false
	}
	if parts := strings.Split(short, ":"); vol.Type == types.VolumeTypeVolume && len(parts) == 3 {
		for option := range strings.SplitSeq(strings.TrimSpace(parts[2]), ",") {
			if !slices.Contains([]string{"", "ro", "rw", "nocopy", "z", "Z"}, option) {
				s.ignore(at, "the option "+clip(option)+" is not known")
			}
		}
	}
	m := map[string]any{
		"type":      vol.Type,
		"source":    strings.TrimSpace(vol.Source),
		"target":    strings.TrimSpace(vol.Target),
		"read_only": vol.ReadOnly,
	}
	if vol.Volume != nil && vol.Volume.NoCopy {
		m["volume"] = map[string]any{"nocopy": true}
	}
	return m, true
}

// mounts builds the volumes and tmpfs of a service.
func (b *builder) mounts(at string, c *types.ServiceConfig, spec *state.Spec) {
	taken := map[string]bool{}
	claim := func(where, target string) (string, bool) {
		clean := path.Clean(target)
		switch {
		case !path.IsAbs(target), clean == "/":
			b.reject(where, "want a path in the container that begins with /, got "+strconv.Quote(clip(target)))
			return "", false
		case taken[clean]:
			b.reject(where, clip(clean)+" is mounted twice")
			return "", false
		}
		taken[clean] = true
		return clean, true
	}
	for i := range c.Volumes {
		where := at + ".volumes[" + strconv.Itoa(i) + "]"
		if target, ok := claim(where, c.Volumes[i].Target); ok {
			b.mount(where, target, &c.Volumes[i], spec)
		}
	}
	slices.SortFunc(spec.Mounts, func(x, y state.Mount) int { return strings.Compare(x.Target, y.Target) })
	for i, t := range c.Tmpfs {
		where := at + ".tmpfs[" + strconv.Itoa(i) + "]"
		target, options, _ := strings.Cut(t, ":")
		if target, ok := claim(where, target); ok {
			put(&spec.Tmpfs, target, options)
		}
	}
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
			m.Size = int64(v.Tmpfs.Size)
		}
	case types.VolumeTypeVolume:
		if v.Volume != nil {
			m.NoCopy = v.Volume.NoCopy
		}
		if v.Source != "" && !b.declared(at, v.Source) {
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

// volume builds a declared volume.
func (b *builder) volume(name string, c *types.VolumeConfig) {
	at := "volumes." + name
	spec := state.VolumeSpec{
		Driver:     orElse(c.Driver, "local"),
		DriverOpts: plain(c.DriverOpts),
		Labels:     b.labels(at, c.Labels),
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
