package state

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// HashVersion is the version of the canonical form. It is part of every hash:
// code that changes the form must go on recognising the hashes of the last one,
// so that upgrading the supervisor restarts no container.
const HashVersion = "v1"

// Hash names the content of a spec: "v1:" and 16 hexadecimal digits.
func (s Spec) Hash() string { return hash(s) }

// Hash names the content of a network spec.
func (s NetworkSpec) Hash() string { return hash(s) }

// Hash names the content of a volume spec.
func (s VolumeSpec) Hash() string { return hash(s) }

func hash(v any) string {
	b, err := json.Marshal(v) // maps are written in key order
	if err != nil {
		panic("state: " + err.Error()) // plain data always encodes
	}
	sum := sha256.Sum256(b)
	return HashVersion + ":" + hex.EncodeToString(sum[:8])
}

// Duration is a time.Duration that reads and writes as text ("1m30s").
type Duration time.Duration

// String writes the duration the way compose files do.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText writes the duration as text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// Change is one field that differs. Was and Now are empty for environment
// variables, secrets and configs: their values never leave the process.
type Change struct {
	Field string `json:"field"` // compose path, for example environment.LOG_LEVEL
	Was   string `json:"was,omitempty"`
	Now   string `json:"now,omitempty"`
}

// String prints the change for people: "restart.name: always → no". Long values
// are cut.
func (c Change) String() string {
	if c.Was == "" && c.Now == "" {
		return c.Field
	}
	return fmt.Sprintf("%s: %s → %s", c.Field, clip(c.Was), clip(c.Now))
}

func clip(s string) string {
	const most = 40 // runes
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

// Diff lists the fields in which two specs differ, sorted by field.
func Diff(was, now any) []Change {
	a, b := flatten(was), flatten(now)
	keys := map[string]bool{}
	for k := range a {
		keys[k] = true
	}
	for k := range b {
		keys[k] = true
	}
	var out []Change
	for _, k := range slices.Sorted(maps.Keys(keys)) {
		x, inA := a[k]
		y, inB := b[k]
		if inA == inB && x == y {
			continue
		}
		out = append(out, change(k, x, inA, y, inB))
	}
	return out
}

func change(field, was string, had bool, now string, has bool) Change {
	if strings.HasPrefix(field, "environment.") || field == "files" {
		switch {
		case !had:
			return Change{Field: field + " added"}
		case !has:
			return Change{Field: field + " removed"}
		}
		return Change{Field: field + " changed"}
	}
	if !had {
		was = "(none)"
	}
	if !has {
		now = "(none)"
	}
	return Change{Field: field, Was: was, Now: now}
}

// flatten writes a value as compose paths: maps and structs are opened, lists
// are one value.
func flatten(v any) map[string]string {
	b, err := json.Marshal(v)
	if err != nil {
		panic("state: " + err.Error())
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		panic("state: " + err.Error())
	}
	out := map[string]string{}
	var walk func(path string, v any)
	walk = func(path string, v any) {
		if m, ok := v.(map[string]any); ok {
			for k, x := range m {
				if path == "" {
					walk(k, x)
				} else {
					walk(path+"."+k, x)
				}
			}
			return
		}
		if s, ok := v.(string); ok {
			out[path] = s
			return
		}
		out[path] = plain(v)
	}
	walk("", tree)
	return out
}

// plain is JSON as people write it, without escapes for web pages.
func plain(v any) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("state: " + err.Error()) // it came out of a decoder
	}
	return strings.TrimSpace(b.String())
}
