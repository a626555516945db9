package target

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/Masterminds/semver/v3"

	"deckhand/compose"
)

// SupervisorVersion is the version that a contract's sw.supervisor is compared
// with. Contracts count in versions of balena's supervisor; this is the one
// whose behaviour is carried over.
const SupervisorVersion = "19.0.5"

// composeVersion is the version of the compose specification that is carried
// out: builders require it of releases that use more than old supervisors know.
const composeVersion = "2.0.0"

// Provided is what a device offers to the contracts of services. An empty field
// is not known, and no requirement of it is met.
type Provided struct {
	Supervisor    string // version, see SupervisorVersion
	DeviceType    string // slug
	Arch          string // slug
	L4T           string // version of the board's Linux for Tegra
	OS            string // slug: ID of os-release
	OSVersion     string // VERSION of os-release
	Kernel        string // slug, for example linux
	KernelVersion string // x.y.z
}

// offer is one thing that a device provides.
type offer struct{ slug, version string }

func (p Provided) offers(kind string) (offer, bool) {
	var o offer
	switch kind {
	case "sw.supervisor":
		o.version = p.Supervisor
	case "sw.l4t":
		o.version = p.L4T
	case "sw.os":
		o = offer{p.OS, p.OSVersion}
	case "sw.kernel":
		o = offer{p.Kernel, p.KernelVersion}
	case "hw.device-type":
		o.slug = p.DeviceType
	case "arch.sw":
		o.slug = p.Arch
	case "sw.spec":
		o = offer{"compose", composeVersion}
	default:
		return o, false
	}
	return o, true
}

func (o offer) String() string {
	if o == (offer{}) {
		return "nothing of that kind"
	}
	return strings.TrimSpace(o.slug + " " + o.version)
}

// kinds are the types of requirements that have a meaning.
const kinds = "sw.supervisor, sw.l4t, sw.os, sw.kernel, sw.spec, hw.device-type, arch.sw"

// requirement is one entry of a contract's requires.
type requirement struct {
	kind, slug, version string
	versioned           bool // there is a version, which may be empty
	data                bool
	either              []requirement // of these one is enough; kind is empty then
}

// contractReader collects the requirements of one contract and what is wrong
// with it.
type contractReader struct {
	notes
	broken bool
}

// readContract reads a contract as the document has it. When it is broken its
// app cannot be run.
func readContract(path string, v any) (needs []requirement, c contractReader) {
	if list, ok := v.([]any); ok && len(list) == 0 {
		return nil, c // how some clouds write an empty object
	}
	m, ok := v.(map[string]any)
	if !ok {
		c.reject(path, "want an object, got "+describe(v))
		return nil, c
	}
	c.text(path+".type", m["type"])
	c.text(path+".slug", m["slug"])
	switch list := m["requires"].(type) {
	case nil:
	case []any:
		needs = c.list(path+".requires", list)
	default:
		c.reject(path+".requires", "want a list, got "+describe(list))
	}
	return needs, c
}

func (c *contractReader) reject(path, text string) {
	c.broken = true
	c.note(path, text, compose.Rejected)
}

// text reads a text that may be missing.
func (c *contractReader) text(path string, v any) string {
	s, ok := v.(string)
	switch {
	case v == nil:
	case !ok:
		c.reject(path, "want text, got "+describe(v))
	case len(s) > 255:
		c.reject(path, "longer than 255 characters")
		return ""
	}
	return s
}

func (c *contractReader) list(path string, list []any) []requirement {
	out := make([]requirement, 0, min(len(list), maxLines))
	for i, v := range list {
		out = append(out, c.requirement(fmt.Sprintf("%s[%d]", path, i), v))
	}
	return out
}

func (c *contractReader) requirement(path string, v any) (q requirement) {
	m, ok := v.(map[string]any)
	if !ok {
		c.reject(path, "want an object, got "+describe(v))
		return q
	}
	if or, ok := m["or"]; ok {
		return c.alternatives(path, or, m)
	}
	if q.kind = c.text(path+".type", m["type"]); q.kind == "" {
		c.reject(path+".type", "missing; use one of "+kinds)
	} else if _, known := (Provided{}).offers(q.kind); !known {
		c.reject(path+".type", fmt.Sprintf("%q is not known; use one of %s", clip(q.kind), kinds))
	}
	q.slug = c.text(path+".slug", m["slug"])
	q.version, q.versioned = c.text(path+".version", m["version"]), m["version"] != nil
	if data, ok := m["data"].(map[string]any); ok {
		q.data = len(data) > 0
	} else if m["data"] != nil {
		c.reject(path+".data", "want an object, got "+describe(m["data"]))
	}
	c.unread(path, m, "type", "slug", "version", "data")
	return q
}

func (c *contractReader) alternatives(path string, or any, m map[string]any) requirement {
	list, ok := or.([]any)
	switch {
	case !ok:
		c.reject(path+".or", "want a list, got "+describe(or))
	case m["type"] != nil:
		c.reject(path, "has both type and or; write two requirements")
	case len(list) == 0:
		c.note(path+".or", "empty, so it requires nothing", compose.Warned)
	}
	c.unread(path, m, "or", "type")
	return requirement{either: c.list(path+".or", list)}
}

// unread names keys that look as if they narrowed the requirement.
func (c *contractReader) unread(path string, m map[string]any, read ...string) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(read, k) {
			c.note(at(path, k), "is not compared with anything; slug and version are", compose.Warned)
		}
	}
}

// metBy reports whether the device fulfils the requirement.
func (q requirement) metBy(p Provided) bool {
	if q.kind == "" {
		return len(q.either) == 0 || slices.ContainsFunc(q.either, func(x requirement) bool { return x.metBy(p) })
	}
	o, _ := p.offers(q.kind)
	if o == (offer{}) || q.data || q.slug != "" && q.slug != o.slug {
		return false
	}
	return !q.versioned || within(o.version, q.version)
}

// within reports whether a version is in a range. Build metadata do not count; a
// range or version that cannot be read never fits.
func within(version, versions string) bool {
	if strings.TrimSpace(versions) == "" {
		versions = "*"
	}
	v, err := semver.NewVersion(version)
	if err != nil {
		return false
	}
	c, err := semver.NewConstraint(versions)
	return err == nil && c.Check(v)
}

func (q requirement) String() string {
	if q.kind == "" {
		each := make([]string, 0, min(len(q.either), maxLines))
		for _, x := range q.either[:min(len(q.either), maxLines)] {
			each = append(each, x.String())
		}
		return strings.Join(each, " or ")
	}
	s := q.kind
	if q.slug != "" {
		s += " " + q.slug
	}
	if q.version != "" {
		s += " " + q.version
	}
	switch _, err := semver.NewConstraint(q.version); {
	case q.data:
		s += " with data, which no device offers"
	case q.version != "" && err != nil:
		s += " (not a range of versions)"
	}
	return s
}

// offered says what the device has of what is required.
func (q requirement) offered(p Provided) string {
	all := q.either
	if q.kind != "" {
		all = []requirement{q}
	}
	var out []string
	for _, x := range all[:min(len(all), maxLines)] {
		o, _ := p.offers(x.kind)
		text := o.String()
		if x.kind == "" {
			text = x.offered(p)
		}
		if _, err := semver.NewVersion(o.version); err != nil && x.versioned && o.version != "" {
			text += " (not a version)"
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return strings.Join(out, ", ")
}
