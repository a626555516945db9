package compose

import (
	"strconv"
	"strings"
)

// node is one attribute in the table, with the attributes beneath it.
type node struct {
	row    *Attribute
	fields map[string]*node // by attribute name
	each   *node            // beneath * or []
}

// table is Attributes as a tree.
var table = grow(Attributes)

func grow(rows []Attribute) *node {
	root := &node{row: &Attribute{Treat: Apply, form: object}}
	for i := range rows {
		n := root
		for part := range strings.SplitSeq(rows[i].Path, ".") {
			n = n.child(part)
		}
		n.row = &rows[i]
	}
	return root
}

func (n *node) child(part string) *node {
	if part == "*" || part == "[]" {
		if n.each == nil {
			n.each = &node{}
		}
		return n.each
	}
	if n.fields == nil {
		n.fields = map[string]*node{}
	}
	if n.fields[part] == nil {
		n.fields[part] = &node{}
	}
	return n.fields[part]
}

// screen walks a document by the table.
type screen struct {
	notes
	file   bool // a compose file; else a release from the cloud
	lookup func(string) (string, bool)
}

// form checks a value, notes what is wrong with it and returns the one spelling
// of it that the later stages know; keep is false when nothing is left of it.
type form func(s *screen, path string, v any) (out any, keep bool)

// value screens one value and everything beneath it. What it returns shares
// nothing with the document.
func (s *screen) value(n *node, path string, v any) (any, bool) {
	if n.row.form != nil {
		var keep bool
		if v, keep = n.row.form(s, path, v); !keep {
			return nil, false
		}
	} else if v == nil {
		return nil, false
	}
	switch n.row.treat(s.file) {
	case Ignore:
		s.ignore(path, n.row.why())
		return nil, false
	case Refuse:
		s.reject(path, n.row.why())
		return nil, false
	case Apply:
	}
	switch x := v.(type) {
	case map[string]any:
		return s.members(n, path, x), true
	case []any:
		return s.items(n, path, x), true
	}
	return v, true
}

func (s *screen) members(n *node, path string, in map[string]any) map[string]any {
	if n.fields == nil && n.each == nil {
		return in // made by the form
	}
	out := make(map[string]any, len(in))
	for name, v := range in {
		at := join(path, name)
		next := n.fields[name]
		if next == nil && n.each == nil && !s.file {
			if snake := snakeCase(name); in[snake] == nil && n.fields[snake] != nil {
				name, next = snake, n.fields[snake]
			}
		}
		switch {
		case n.each != nil:
			next = n.each
		case strings.HasPrefix(name, "x-"):
			continue // extensions are for other tools
		case next == nil:
			s.ignore(at, "not an attribute of the compose specification")
			continue
		}
		if v, keep := s.value(next, at, v); keep {
			out[name] = v
		}
	}
	return out
}

func (s *screen) items(n *node, path string, in []any) []any {
	if n.each == nil {
		return in // made by the form
	}
	out := make([]any, 0, len(in))
	for i, v := range in {
		if v, keep := s.value(n.each, path+"["+strconv.Itoa(i)+"]", v); keep {
			out = append(out, v)
		}
	}
	return out
}

func join(path, name string) string {
	if path == "" {
		return clip(name)
	}
	return path + "." + clip(name)
}

// snakeCase writes networkMode as network_mode.
func snakeCase(name string) string {
	var b strings.Builder
	for i, r := range name {
		if r >= 'A' && r <= 'Z' {
			if i > 0 {
				b.WriteByte('_')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}
