package compose

import (
	"maps"
	"slices"
	"strings"

	"deckhand/state"
)

// outside are the networks and volumes that are not the app's own: short name →
// the engine's name.
type outside struct{ networks, volumes map[string]string }

// ownOrExternal is the declaration of a network or volume. Of one that is not
// the app's own nothing is left but external with the engine's name, which is
// empty where it is the short name.
func ownOrExternal(s *screen, path string, v any) (any, bool) {
	v, ok := object(s, path, v)
	m, _ := v.(map[string]any)
	if !ok || m["external"] == nil {
		return v, ok
	}
	name := m["name"]
	isExternal := true
	if old, isMap := m["external"].(map[string]any); isMap {
		name = orElse(old["name"], name)
	} else if v, ok = boolean(s, join(path, "external"), m["external"]); !ok {
		return nil, false
	} else {
		isExternal = v == true
	}
	if !isExternal {
		own := maps.Clone(m)
		delete(own, "external")
		return own, true
	}
	for _, attribute := range slices.Sorted(maps.Keys(m)) {
		if attribute != "external" && attribute != "name" && !strings.HasPrefix(attribute, "x-") {
			s.ignore(join(path, attribute), "it is external: not made by the app, taken as it is")
		}
	}
	t, _ := scalar(name)
	if name != nil && !dockerName.MatchString(t) {
		s.reject(join(path, "name"), "want the engine's name of it, got "+kind(name))
		return nil, false
	}
	return map[string]any{"external": t}, true
}

// takeExternal removes from a screened section what is external.
func takeExternal(section any) map[string]string {
	m, _ := section.(map[string]any)
	out := map[string]string{}
	for name, v := range m {
		declared, _ := v.(map[string]any)
		if engine, ok := declared["external"].(string); ok {
			out[name] = orElse(engine, name)
			delete(m, name)
		}
	}
	return out
}

// reserved refuses external networks that cannot be joined by name.
func (b *builder) reserved() {
	for _, name := range slices.Sorted(maps.Keys(b.outside.networks)) {
		switch engine := b.outside.networks[name]; engine {
		case "host", "none", "bridge":
			b.reject("networks."+name+".external", "use network_mode: "+engine+" in the services")
		case state.APINetworkName:
			b.reject("networks."+name+".external", "use the label io.balena.features."+state.FeatureAPI)
		}
	}
}
