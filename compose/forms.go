package compose

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/mattn/go-shellwords"
)

// dockerName is what services, networks and volumes may be called.
var dockerName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$`)

// scalar writes a text, number or truth value as text.
func scalar(v any) (string, bool) {
	switch x := v.(type) {
	case string:
		return x, true
	case bool:
		return strconv.FormatBool(x), true
	case json.Number:
		return x.String(), true
	case int:
		return strconv.Itoa(x), true
	case int64:
		return strconv.FormatInt(x, 10), true
	case uint64:
		return strconv.FormatUint(x, 10), true
	case float32:
		return strconv.FormatFloat(float64(x), 'f', -1, 32), true
	case float64:
		return strconv.FormatFloat(x, 'f', -1, 64), true
	}
	return "", false
}

// kind names what a value is, for people.
func kind(v any) string {
	switch x := v.(type) {
	case nil:
		return "nothing"
	case map[string]any:
		return "a mapping"
	case []any:
		return "a list"
	case bool:
		return strconv.FormatBool(x)
	case string:
		return strconv.Quote(clip(x))
	}
	if s, ok := scalar(v); ok {
		return clip(s)
	}
	return fmt.Sprintf("a %T", v)
}

// want notes a value of the wrong form.
func (s *screen) want(path, what string, got any) (any, bool) {
	s.reject(path, "want "+what+", got "+kind(got))
	return nil, false
}

// clean notes text that cannot be part of a container's settings.
func (s *screen) clean(path, text string) (string, bool) {
	if strings.ContainsRune(text, 0) {
		s.reject(path, "contains a NUL character")
		return "", false
	}
	return text, true
}

func text(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	t, ok := scalar(v)
	if !ok {
		return s.want(path, "text", v)
	}
	return s.clean(path, t)
}

func boolean(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	t, _ := scalar(v)
	switch strings.ToLower(strings.TrimSpace(t)) {
	case "true", "yes", "y", "on", "1":
		return true, true
	case "false", "no", "n", "off", "0":
		return false, true
	}
	return s.want(path, "true or false", v)
}

// whole reads a whole number, also when it is written 1e3 or 5.0.
func whole(v any) (int64, bool) {
	t, ok := scalar(v)
	if _, isBool := v.(bool); !ok || isBool {
		return 0, false
	}
	t = strings.TrimSpace(t)
	if n, err := strconv.ParseInt(t, 10, 64); err == nil {
		return n, true
	}
	f, err := strconv.ParseFloat(t, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	return int64(f), true
}

func integer(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	n, ok := whole(v)
	if !ok {
		return s.want(path, "a whole number", v)
	}
	return n, true
}

func natural(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	n, ok := whole(v)
	if !ok || n < 0 || n > math.MaxInt32 {
		return s.want(path, "a whole number, not negative", v)
	}
	return n, true
}

func decimal(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	t, _ := scalar(v)
	f, err := strconv.ParseFloat(strings.TrimSpace(t), 64)
	if err != nil || !(f >= 0 && f <= 1<<20) {
		return s.want(path, "a number, not negative", v)
	}
	return float32(f), true
}

// size is a number of bytes, with a unit or without.
func size(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	const what = "a size such as 512m or 1.5g"
	var b types.UnitBytes
	if n, ok := whole(v); ok {
		b = types.UnitBytes(n)
	} else {
		t, ok := v.(string)
		if !ok || b.DecodeMapstructure(strings.TrimSpace(t)) != nil {
			return s.want(path, what, v)
		}
	}
	if b < 0 || b > 1<<60 {
		return s.want(path, what, v)
	}
	return strconv.FormatInt(int64(b), 10), true // text: an int may have 32 bits
}

func duration(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	const what = "a duration such as 10s or 1m30s"
	t, ok := scalar(v)
	if !ok {
		return s.want(path, what, v)
	}
	t = strings.TrimSpace(t)
	if n, err := strconv.ParseFloat(t, 64); err == nil && n != 0 {
		s.warn(path, "has no unit; taken as seconds")
		t += "s"
	}
	var d types.Duration
	if d.DecodeMapstructure(t) != nil || d < 0 {
		return s.want(path, what, v)
	}
	return time.Duration(d).String(), true
}

// restart checks a restart policy and spells it the way the engine does.
func restart(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	t, ok := scalar(v)
	if !ok {
		return s.want(path, "a restart policy", v)
	}
	t = strings.ToLower(strings.TrimSpace(t))
	name, count, counted := strings.Cut(t, ":")
	switch {
	case t == "", t == "false", t == "no":
		return "no", true
	case t == "always", t == "unless-stopped", t == "on-failure":
		return t, true
	case counted && name == "on-failure":
		if n, err := strconv.ParseUint(count, 10, 31); err == nil {
			return "on-failure:" + strconv.FormatUint(n, 10), true
		}
	}
	return s.want(path, "no, always, unless-stopped, on-failure or on-failure:<times>", v)
}

func textList(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	in, ok := v.([]any)
	if !ok {
		if _, ok := scalar(v); !ok {
			return s.want(path, "a list of text", v)
		}
		in = []any{v}
	}
	out := make([]any, 0, len(in))
	for i, e := range in {
		at := path + "[" + strconv.Itoa(i) + "]"
		if e == nil {
			return s.want(at, "text", e)
		}
		t, ok := text(s, at, e)
		if !ok {
			return nil, false
		}
		out = append(out, t)
	}
	return out, true
}

// command is text that is split like a shell does, or a list of words. Nothing
// means the image's; an empty list means none.
func command(s *screen, path string, v any) (any, bool) {
	line, ok := v.(string)
	if !ok {
		return textList(s, path, v)
	}
	if line, ok = s.clean(path, line); !ok {
		return nil, false
	}
	words, err := shellwords.Parse(line)
	if err != nil {
		s.reject(path, "cannot be split into words ("+err.Error()+"); write it as a list")
		return nil, false
	}
	out := make([]any, 0, len(words))
	for _, w := range words {
		out = append(out, w)
	}
	return out, true
}

// pairs reads a mapping, or a list of key=value. A key without value is nil.
func (s *screen) pairs(path string, v any) (map[string]any, bool) {
	out := map[string]any{}
	switch x := v.(type) {
	case map[string]any:
		for k, e := range x {
			if !s.pair(out, path, k, e) {
				return nil, false
			}
		}
	case []any:
		for i, e := range x {
			t, ok := scalar(e)
			if !ok {
				s.want(path+"["+strconv.Itoa(i)+"]", "key=value", e)
				return nil, false
			}
			k, val, has := strings.Cut(t, "=")
			e = nil
			if has {
				e = val
			}
			if !s.pair(out, path, k, e) {
				return nil, false
			}
		}
	default:
		const what = "want a mapping or a list of key=value"
		if _, isText := v.(string); isText { // perhaps a secret: it is not repeated
			s.reject(path, what)
		} else {
			s.reject(path, what+", got "+kind(v))
		}
		return nil, false
	}
	return out, true
}

func (s *screen) pair(out map[string]any, path, k string, v any) bool {
	at := join(path, k)
	if k == "" {
		s.reject(path, "contains an entry without a name")
		return false
	}
	if _, ok := s.clean(path, k); !ok {
		return false
	}
	if v == nil {
		out[k] = nil
		return true
	}
	t, ok := text(s, at, v)
	out[k] = t
	return ok
}

func mapping(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	m, ok := s.pairs(path, v)
	for k, e := range m {
		if e == nil {
			m[k] = ""
		}
	}
	return m, ok
}

// environment is a mapping in which a key without a value is taken from the
// environment of the person who loads the file; a device has none.
func environment(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	m, ok := s.pairs(path, v)
	for k, e := range m {
		if strings.ContainsRune(k, '=') {
			s.reject(join(path, k), "a variable's name cannot contain =")
			return nil, false
		}
		if e != nil {
			continue
		}
		delete(m, k)
		if val, found := s.lookup(k); found {
			m[k] = val
			continue
		}
		s.ignore(join(path, k), "has no value")
	}
	return m, ok
}

func object(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return map[string]any{}, true
	}
	if m, ok := v.(map[string]any); ok {
		return m, true
	}
	return s.want(path, "a mapping", v)
}

func list(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	if l, ok := v.([]any); ok {
		return l, true
	}
	return s.want(path, "a list", v)
}

// named is a mapping whose keys are names of things.
func named(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	m, ok := v.(map[string]any)
	if !ok {
		return s.want(path, "a mapping from names", v)
	}
	return s.names(path, m)
}

// namesToMap is named, or just a list of names.
func namesToMap(s *screen, path string, v any) (any, bool) {
	l, ok := v.([]any)
	if !ok {
		return named(s, path, v)
	}
	m := make(map[string]any, len(l))
	for i, e := range l {
		name, ok := e.(string)
		if !ok {
			return s.want(path+"["+strconv.Itoa(i)+"]", "a name", e)
		}
		m[name] = nil
	}
	return s.names(path, m)
}

func (s *screen) names(path string, m map[string]any) (any, bool) {
	for name := range m {
		if !dockerName.MatchString(name) {
			s.reject(join(path, name), "a name consists of letters, digits, dots, dashes and underscores and begins with a letter or digit")
			return nil, false
		}
	}
	return m, true
}

// dependency fills in what a short form leaves out.
func dependency(s *screen, path string, v any) (any, bool) {
	m := map[string]any{"condition": "service_started", "required": true}
	if v == nil {
		return m, true
	}
	in, ok := v.(map[string]any)
	if !ok {
		return s.want(path, "a mapping", v)
	}
	for k, e := range in {
		if e != nil {
			m[k] = e
		}
	}
	return m, true
}

func healthTest(s *screen, path string, v any) (any, bool) {
	if line, ok := v.(string); ok {
		if line, ok = s.clean(path, line); !ok || line == "" {
			return nil, false
		}
		return []any{"CMD-SHELL", line}, true
	}
	v, ok := textList(s, path, v)
	l, _ := v.([]any)
	if !ok || len(l) == 0 {
		return nil, false
	}
	switch first := l[0]; {
	case first == "NONE" && len(l) == 1,
		first == "CMD" && len(l) > 1,
		first == "CMD-SHELL" && len(l) == 2:
		return l, true
	}
	s.reject(path, "a list begins with NONE, with CMD and the command's words, or with CMD-SHELL and one line")
	return nil, false
}

// falseOrRefused keeps what is set to anything but false, for its row to refuse.
func falseOrRefused(_ *screen, _ string, v any) (any, bool) {
	return v, v != nil && v != false && v != "false"
}

// notOne keeps a number of containers that is not one, for its row to name.
func notOne(_ *screen, _ string, v any) (any, bool) {
	n, ok := whole(v)
	return v, v != nil && !(ok && n == 1)
}

// notDefault keeps what is set to anything but default, for its row to refuse.
func notDefault(_ *screen, _ string, v any) (any, bool) {
	return v, v != nil && v != "" && v != "default"
}

// platform refuses what no device runs.
func platform(s *screen, path string, v any) (any, bool) {
	v, ok := text(s, path, v)
	if !ok || v == "" {
		return nil, false
	}
	t, _ := v.(string)
	if os, _, _ := strings.Cut(t, "/"); strings.EqualFold(os, "windows") || strings.EqualFold(os, "darwin") {
		s.reject(path, clip(t)+": devices run Linux")
		return nil, false
	}
	return v, true
}

// ulimitForm is one number for both limits, or a mapping.
func ulimitForm(s *screen, path string, v any) (any, bool) {
	if m, ok := v.(map[string]any); ok {
		return m, true
	}
	n, ok := whole(v)
	if !ok {
		return s.want(path, "a whole number or soft and hard", v)
	}
	return map[string]any{"soft": n, "hard": n}, true
}

// hosts is a mapping from host name to addresses, or a list of host=address or
// host:address.
func hosts(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	if m, ok := v.(map[string]any); ok {
		flat := make(map[string]any, len(m))
		for name, e := range m {
			l, ok := textList(s, join(path, name), e)
			if !ok {
				return nil, false
			}
			flat[name] = l
		}
		v = flat
	} else if l, ok := textList(s, path, v); !ok {
		return nil, false
	} else {
		v = l
	}
	var h types.HostsList
	if err := h.DecodeMapstructure(v); err != nil {
		s.reject(path, err.Error()+"; write host=address")
		return nil, false
	}
	out := make(map[string]any, len(h))
	for name, addresses := range h {
		each := make([]any, 0, len(addresses))
		for _, a := range addresses {
			if _, err := netip.ParseAddr(a); err != nil && a != "host-gateway" {
				return s.want(join(path, name), "an IP address", a)
			}
			each = append(each, a)
		}
		out[name] = each
	}
	return out, true
}
