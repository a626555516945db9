package versions

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// Version is one version of the API.
type Version struct {
	Name string // "v6": the first part of its addresses
	// Resources are those of the version by the names of that time; the name in each
	// is the current one.
	Resources map[string]model.Resource
	// Written is the body of the answer to a write that returns no row; "" is none.
	Written string

	writes []write // how fields are written, the newest version's first
}

// Fields are those of a body that is written, by name.
type Fields map[string]json.RawMessage

// Lookup answers what a translation must know of the data.
type Lookup interface {
	// DeviceType is the id of a type by its slug; 0: there is none.
	DeviceType(ctx context.Context, slug string) (int64, error)
	// Release is the id of the successful release of an application, or of a
	// device's application, with a commit; 0: there is none.
	Release(ctx context.Context, resource string, id int64, commit string) (int64, error)
}

// write translates the fields of one resource from a version to the next newer one.
// The request is as it came.
type write struct {
	resource string // "*": every one
	do       func(ctx context.Context, l Lookup, r query.Request, f Fields) error
}

// Body translates what is written to a resource into current fields, in place.
// Its errors are *query.Error: the client's fault.
func (v Version) Body(ctx context.Context, l Lookup, r query.Request, f Fields) error {
	for _, w := range slices.Backward(v.writes) {
		if w.resource != "*" && w.resource != r.Resource {
			continue
		}
		if err := w.do(ctx, l, r, f); err != nil {
			return err
		}
	}
	return nil
}

// All are all versions, the current one first.
func All() []Version {
	seven := Version{Name: "v7", Resources: model.ByName()}
	six := v6(seven)
	five := v5(six)
	four := v4(five)
	return []Version{seven, six, five, four, v2(four)}
}

// next begins the version before v: the same, to be changed.
func (v Version) next(name string) Version {
	old := Version{Name: name, Written: v.Written, writes: slices.Clone(v.writes), Resources: map[string]model.Resource{}}
	for name, r := range v.Resources {
		r.Fields, r.Navs, r.Keys = slices.Clone(r.Fields), slices.Clone(r.Navs), slices.Clone(r.Keys)
		old.Resources[name] = r
	}
	return old
}

// of changes one resource.
func (v *Version) of(resource string, change func(*model.Resource)) {
	r, ok := v.Resources[resource]
	if !ok {
		panic("versions: there is no resource " + resource) // a typing error, found by any test
	}
	change(&r)
	v.Resources[resource] = r
}

// drop removes resources and the ways to them.
func (v *Version) drop(names ...string) {
	maps.DeleteFunc(v.Resources, func(name string, _ model.Resource) bool { return slices.Contains(names, name) })
	for name, r := range v.Resources {
		r.Navs = slices.DeleteFunc(r.Navs, func(n model.Nav) bool { return slices.Contains(names, n.To) })
		v.Resources[name] = r
	}
}

// only keeps these resources and the ways between them.
func (v *Version) only(names ...string) {
	var others []string
	for name := range v.Resources {
		if !slices.Contains(names, name) {
			others = append(others, name)
		}
	}
	v.drop(others...)
}

// rename gives a resource another name, and the ways to it.
func (v *Version) rename(from, to string) {
	v.Resources[to] = v.Resources[from]
	delete(v.Resources, from)
	for _, r := range v.Resources {
		for j, n := range r.Navs {
			if n.To == from {
				r.Navs[j].To = to
			}
			if n.Name == from {
				r.Navs[j].Name = to
			}
		}
	}
}

// writing adds how a resource is written.
func (v *Version) writing(resource string, do func(context.Context, Lookup, query.Request, Fields) error) {
	v.writes = append(v.writes, write{resource, do})
}

// has puts a field in the place of the one with its name, or adds it.
func has(r *model.Resource, f model.Field) {
	if i := slices.IndexFunc(r.Fields, func(x model.Field) bool { return x.Name == f.Name }); i >= 0 {
		r.Fields[i] = f
		return
	}
	r.Fields = append(r.Fields, f)
}

// lacks removes fields, and the ways and keys that need them.
func lacks(r *model.Resource, names ...string) {
	gone := func(name string) bool { return slices.Contains(names, name) }
	r.Fields = slices.DeleteFunc(r.Fields, func(f model.Field) bool { return gone(f.Name) })
	r.Navs = slices.DeleteFunc(r.Navs, func(n model.Nav) bool { return gone(n.Name) || gone(n.Local) })
	r.Keys = slices.DeleteFunc(r.Keys, func(key []string) bool { return slices.ContainsFunc(key, gone) })
}

// onlyFields removes all fields but these.
func onlyFields(r *model.Resource, names ...string) {
	var others []string
	for _, f := range r.Fields {
		if !slices.Contains(names, f.Name) {
			others = append(others, f.Name)
		}
	}
	lacks(r, others...)
}

// renamed gives a field another name; what it reads stays.
func renamed(r *model.Resource, from, to string) {
	for i, f := range r.Fields {
		if f.Name == from {
			r.Fields[i] = model.Field{Name: to, Kind: f.Kind, Expression: expression(f)}
		}
	}
	for i, n := range r.Navs {
		if n.Name == from {
			r.Navs[i].Name = to
		}
		if n.Local == from {
			r.Navs[i].Local = to
		}
	}
	for i, key := range r.Keys {
		r.Keys[i] = slices.Clone(key)
		for j, name := range key {
			if name == from {
				r.Keys[i][j] = to
			}
		}
	}
}

// as shows a field in another form.
func as(r *model.Resource, name string, kind model.FieldKind) {
	for i, f := range r.Fields {
		if f.Name == name {
			r.Fields[i].Kind = kind
		}
	}
}

// expression is the SQL that reads a field, also under another name.
func expression(f model.Field) string {
	if f.Expression != "" {
		return f.Expression
	}
	return `t."` + f.Name + `"`
}

// null is a field that is there and has no value.
func null(name string) model.Field {
	return model.Field{Name: name, Kind: model.Text, Expression: "CAST(NULL AS TEXT)"}
}

// move gives a written field its newer name.
func move(f Fields, from, to string) {
	if v, ok := f[from]; ok {
		delete(f, from)
		f[to] = v
	}
}

// refuse is an error that the client is told.
func refuse(reason string) error { return &query.Error{Reason: reason} }

// onlyNull refuses a value for a field that has none in the current model.
func onlyNull(f Fields, names ...string) error {
	for _, name := range names {
		if v, ok := f[name]; ok {
			if string(v) != "null" {
				return refuse(name + " cannot be set: it has no meaning any more.")
			}
			delete(f, name)
		}
	}
	return nil
}

// text reads a written field as a text; false: it is not there or null.
func text(f Fields, name string) (string, bool, error) {
	raw, ok := f[name]
	if !ok || string(raw) == "null" {
		return "", false, nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", false, refuse(name + " must be a text.")
	}
	return s, true, nil
}
