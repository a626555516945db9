package target

import "strings"

// The v3 document, in the order of its levels. Unknown keys are allowed at every
// level: a newer cloud may send them.

type deviceDoc struct {
	name   string
	config map[string]string
	apps   []appDoc
}

type appDoc struct {
	uuid, name, class string
	id                int64
	host              bool
	releases          []releaseDoc // in document order
}

type releaseDoc struct {
	commit            string
	id                int64
	services          map[string]serviceDoc
	volumes, networks map[string]any
	secrets, configs  map[string]any
}

type serviceDoc struct {
	id, imageID         int64
	image               string
	running             bool
	contract            any // nil when there is none
	environment, labels map[string]string
	composition         map[string]any
}

// required notes which of an object's keys are missing.
type required struct {
	r    *reader
	path string
	seen map[string]bool
}

func (q required) check(keys ...string) {
	for _, k := range keys {
		if !q.seen[k] && q.r.err == nil {
			q.r.violation(at(q.path, k), "missing")
		}
	}
}

// fields reads an object with known keys; those not in read are skipped.
func (r *reader) fields(path string, read map[string]func(path string), needed ...string) {
	q := required{r, path, map[string]bool{}}
	if r.object(path, false, func(p, key string) {
		q.seen[key] = true
		if f := read[key]; f != nil {
			f(p)
			return
		}
		r.ignore(p)
	}) {
		q.check(needed...)
	}
}

// document reads the whole document and returns the entry of one device. The
// entries of other devices are checked as well.
func (r *reader) document(uuid string) (own *deviceDoc) {
	r.object("", false, func(p, key string) {
		r.short(p, key)
		if r.own = key == uuid; r.own {
			p = "" // paths within our own entry need no prefix
			r.unknown = nil
		}
		d := r.device(p)
		if key == uuid {
			own = &d
		}
	})
	r.end()
	return own
}

func (r *reader) device(path string) (d deviceDoc) {
	r.fields(path, map[string]func(string){
		"name": func(p string) {
			d.name = r.text(p)
			if strings.Contains(d.name, "\n") {
				r.violation(p, "contains a line break")
			}
		},
		"config": func(p string) { d.config = r.variables(p, false, "a configuration variable's name", isConfigVariable) },
		"apps": func(p string) {
			d.apps = nil
			r.object(p, false, func(p, uuid string) {
				r.short(p, uuid)
				r.count(p, &r.things, maxThings)
				a := r.app(p)
				a.uuid = uuid
				d.apps = replace(d.apps, a, func(x appDoc) bool { return x.uuid == uuid })
			})
		},
	}, "name", "config", "apps")
	return d
}

// replace appends v; as in JSON the last of two equal keys counts.
func replace[T any](list []T, v T, same func(T) bool) []T {
	for i := range list {
		if same(list[i]) {
			list[i] = v
			return list
		}
	}
	return append(list, v)
}

func (r *reader) app(path string) (a appDoc) {
	a.class = "fleet"
	r.fields(path, map[string]func(string){
		"id":         func(p string) { a.id = r.number(p) },
		"name":       func(p string) { a.name = r.text(p) },
		"class":      func(p string) { a.class = r.class(p) },
		"is_host":    func(p string) { a.host = r.boolean(p, false, false) },
		"parent_app": func(p string) { r.text(p) },
		"releases": func(p string) {
			a.releases = nil
			r.object(p, true, func(p, commit string) {
				r.short(p, commit)
				r.count(p, &r.things, maxThings)
				rel := r.release(p)
				rel.commit = commit
				a.releases = replace(a.releases, rel, func(x releaseDoc) bool { return x.commit == commit })
			})
		},
	}, "id", "name")
	return a
}

func (r *reader) class(path string) string {
	t := r.token()
	switch t {
	case nil, "fleet":
		return "fleet"
	case "app", "block":
		return t.(string)
	}
	r.wrong(path, "fleet, app or block", t)
	return "fleet"
}

func (r *reader) release(path string) (rel releaseDoc) {
	r.fields(path, map[string]func(string){
		"id": func(p string) { rel.id = r.number(p) },
		"services": func(p string) {
			rel.services = map[string]serviceDoc{}
			r.object(p, true, func(p, name string) {
				r.dockerName(p, name)
				rel.services[name] = r.service(p)
			})
		},
		"volumes":  func(p string) { rel.volumes = r.objects(p) },
		"networks": func(p string) { rel.networks = r.objects(p) },
		"secrets":  func(p string) { rel.secrets = r.contents(p) },
		"configs":  func(p string) { rel.configs = r.contents(p) },
	}, "id")
	return rel
}

func (r *reader) service(path string) (s serviceDoc) {
	s.running = true
	r.fields(path, map[string]func(string){
		"id":          func(p string) { s.id = r.number(p) },
		"image_id":    func(p string) { s.imageID = r.number(p) },
		"image":       func(p string) { s.image = r.text(p) },
		"environment": func(p string) { s.environment = r.variables(p, false, "a variable's name", isVariable) },
		"labels":      func(p string) { s.labels = r.variables(p, false, "a label's name", isLabel) },
		"running":     func(p string) { s.running = r.boolean(p, true, true) },
		"contract":    func(p string) { s.contract = r.contract(p) },
		"composition": func(p string) { s.composition = r.mapping(p) },
	}, "id", "image_id", "image", "environment", "labels")
	return s
}

// contract reads any object or list; what is wrong with its content is a matter
// of its app alone.
func (r *reader) contract(path string) any {
	switch v := r.free(path).(type) {
	case map[string]any, []any:
		return v
	default:
		if r.err == nil {
			r.violation(path, "want an object, got %s", describe(v))
		}
		return nil
	}
}

// mapping reads an object whose content the compose package judges.
func (r *reader) mapping(path string) map[string]any {
	v := r.free(path)
	m, ok := v.(map[string]any)
	if !ok && r.err == nil {
		r.violation(path, "want an object, got %s", describe(v))
	}
	return m
}

// objects reads volumes or networks, whose content the compose package judges.
func (r *reader) objects(path string) map[string]any {
	out := map[string]any{}
	r.object(path, true, func(p, name string) {
		r.dockerName(p, name)
		v := r.free(p)
		switch x := v.(type) {
		case map[string]any:
		case []any:
			if len(x) == 0 {
				v = map[string]any{} // how some clouds write an empty object
			}
		default:
			if r.err == nil {
				r.violation(p, "want an object, got %s", describe(v))
			}
		}
		out[name] = v
	})
	return out
}

// contents reads secrets or configs. What is in them appears in no message.
func (r *reader) contents(path string) map[string]any {
	out := map[string]any{}
	r.object(path, true, func(p, name string) {
		r.dockerName(p, name)
		v, ok := r.free(p).(map[string]any)
		if !ok && r.err == nil {
			r.violation(p, "want an object")
		}
		out[name] = v
	})
	return out
}

func (r *reader) dockerName(path, name string) {
	r.short(path, name)
	r.count(path, &r.things, maxThings)
	if !isDockerName(name) {
		r.violation(path, "a name consists of letters, digits, dots, dashes and underscores and begins with a letter or digit")
	}
}

// variables reads a mapping from names to text.
func (r *reader) variables(path string, nullable bool, what string, valid func(string) bool) map[string]string {
	out := map[string]string{}
	r.object(path, nullable, func(p, name string) {
		r.short(p, name)
		r.count(p, &r.values, maxValues)
		if !valid(name) {
			r.violation(p, "not %s", what)
		}
		out[name] = r.value(p)
	})
	return out
}
