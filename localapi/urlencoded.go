package localapi

import (
	"encoding/json"
	"errors"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Limits of HTML forms, those of balena's supervisor.
const (
	formFields = 1000 // values of a body
	formDepth  = 32   // brackets behind a name
	formIndex  = 100  // the highest number in brackets that is a place in a list
)

var (
	errTooManyFields = errors.New("too many parameters")
	errTooDeep       = errors.New("the parameters of the form are nested too deeply")
)

// parseQuery reads an HTML form. Brackets behind a name make objects, a[b]=c, and
// lists, a[]=b or a[0]=b; a name that comes again makes a list too.
func parseQuery(body string) (form, error) {
	if strings.Count(body, "&") >= formFields {
		return nil, errTooManyFields
	}
	values, _ := url.ParseQuery(body) // what can be read of it counts
	root := &branch{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		path := bracketed(name)
		if len(path) > formDepth+1 {
			return nil, errTooDeep
		}
		for _, v := range values[name] {
			root.put(path, v)
		}
	}
	out := form{}
	for name, b := range root.below {
		raw, err := json.Marshal(b.value())
		if err != nil {
			return nil, err
		}
		out[name] = raw
	}
	return out, nil
}

// bracketed splits a[b][c] into a, b and c. What is no bracket after all belongs
// to the name before.
func bracketed(name string) []string {
	open := strings.IndexByte(name, '[')
	if open <= 0 {
		return []string{name}
	}
	path, rest := []string{name[:open]}, name[open:]
	for strings.HasPrefix(rest, "[") {
		end := strings.IndexByte(rest, ']')
		if end < 0 {
			break
		}
		path, rest = append(path, rest[1:end]), rest[end+1:]
	}
	if len(path) == 1 {
		return []string{name}
	}
	return path // what stands behind the last bracket is nothing
}

// branch is a place in a form: values that stand there, and what is below it.
type branch struct {
	values []string
	list   bool // somebody wrote []
	below  map[string]*branch
}

func (b *branch) put(path []string, value string) {
	if len(path) == 0 {
		b.values = append(b.values, value)
		return
	}
	name := path[0]
	if name == "" {
		b.list = true
		if len(path) == 1 {
			b.values = append(b.values, value)
			return
		}
		name = strconv.Itoa(len(b.below))
	}
	if b.below == nil {
		b.below = map[string]*branch{}
	}
	if b.below[name] == nil {
		b.below[name] = &branch{}
	}
	b.below[name].put(path[1:], value)
}

// value is what a JSON document would have in this place: a text, a list or an
// object.
func (b *branch) value() any {
	if len(b.values) == 1 && !b.list && b.below == nil {
		return b.values[0]
	}
	list := make([]any, 0, len(b.values)+len(b.below))
	for _, v := range b.values {
		list = append(list, v)
	}
	if places, ok := b.places(); ok {
		for _, n := range places {
			list = append(list, b.below[strconv.Itoa(n)].value())
		}
		return list
	}
	object := map[string]any{}
	for name, x := range b.below {
		object[name] = x.value()
	}
	if len(list) == 0 {
		return object
	}
	return append(list, object)
}

// places are the numbers of a list, in order; not ok: it is an object.
func (b *branch) places() (places []int, ok bool) {
	for name := range b.below {
		n, err := strconv.Atoi(name)
		if err != nil || n < 0 || n > formIndex || strconv.Itoa(n) != name {
			return nil, false
		}
		places = append(places, n)
	}
	slices.Sort(places)
	return places, true
}
