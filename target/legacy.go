package target

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Documents of older forms, read into the v3 form. They are only brought into
// shape here; DecodeV3 checks the result.

// member is an app as the v3 form has it, under its UUID.
type member struct {
	uuid  string
	value any
}

// raw reads a value of any type as it stands.
func (r *reader) raw() json.RawMessage {
	if r.err != nil {
		return nil
	}
	var v json.RawMessage
	if err := r.dec.Decode(&v); err != nil {
		r.broken(err)
	}
	return v
}

// content is a raw value, or nothing when it is null.
func content(v json.RawMessage, nothing string) json.RawMessage {
	if len(v) == 0 || string(v) == "null" {
		return json.RawMessage(nothing)
	}
	return v
}

// appV2 reads an app of the v2 form; its key is the app's ID.
func (r *reader) appV2(path, id, uuid string) member {
	empty := json.RawMessage(`{}`)
	app := map[string]any{"id": id, "class": "fleet", "releases": map[string]any{}}
	release := map[string]any{"services": map[string]any{}, "networks": empty, "volumes": empty}
	commit := ""
	r.fields(path, map[string]func(string){
		"name":      func(string) { app["name"] = r.raw() },
		"commit":    func(p string) { commit = r.optional(p) },
		"releaseId": func(string) { release["id"] = r.raw() },
		"networks":  func(string) { release["networks"] = content(r.raw(), `{}`) },
		"volumes":   func(string) { release["volumes"] = content(r.raw(), `{}`) },
		"services": func(p string) {
			services := map[string]any{}
			r.object(p, true, func(p, id string) {
				r.count(p, &r.things, maxThings)
				name, s := r.serviceV2(p, id)
				if services[name] != nil {
					r.violation(p+".serviceName", "%s is also the name of another service", clip(name))
				}
				services[name] = s
			})
			release["services"] = services
		},
	})
	if commit != "" {
		app["releases"] = map[string]any{commit: release}
	}
	return member{uuid, app}
}

// optional reads a text that may be null.
func (r *reader) optional(path string) string {
	t := r.token()
	s, ok := t.(string)
	if !ok && t != nil {
		r.wrong(path, "text", t)
	}
	r.short(path, s)
	return s
}

// serviceV2 reads a service of the v2 form, where the attributes of its
// composition stand beside the rest.
func (r *reader) serviceV2(path, id string) (name string, s map[string]any) {
	s = map[string]any{"id": id, "environment": json.RawMessage(`{}`), "labels": json.RawMessage(`{}`)}
	composition := map[string]json.RawMessage{}
	r.object(path, false, func(p, key string) {
		r.count(p, &r.values, maxValues)
		switch key {
		case "serviceName":
			name = r.text(p)
		case "imageId":
			s["image_id"] = r.raw()
		case "serviceId":
			r.raw() // the key says it
		case "image":
			s["image"] = r.raw()
		case "environment", "labels":
			s[key] = content(r.raw(), `{}`)
		case "running", "contract":
			if v := content(r.raw(), ""); len(v) > 0 {
				s[key] = v
			}
		default:
			composition[key] = r.raw()
		}
	})
	if name == "" {
		r.violation(path+".serviceName", "missing")
	}
	s["composition"] = composition
	return name, s
}

// A device with a single container had no composition; this was its fixed form.
const (
	soleApp     = "user-app"
	soleService = "main"
	soleVolume  = "resin-data"
)

// appV1 reads an app of the form before compositions, with the configuration
// of the device that it brings.
func (r *reader) appV1(path string) (member, map[string]string) {
	var id int64
	var commit, image string
	var name any = soleApp
	config, environment := map[string]string{}, map[string]string{}
	r.fields(path, map[string]func(string){
		"appId":   func(p string) { id = r.number(p) },
		"name":    func(p string) { name = r.text(p) },
		"commit":  func(p string) { commit = r.text(p) },
		"imageId": func(p string) { image = r.text(p) },
		"env":     func(p string) { environment = r.scalars(p) },
		"config":  func(p string) { config = r.scalars(p) },
	}, "appId", "commit", "imageId")
	for k := range environment {
		if strings.HasPrefix(k, "RESIN_") {
			delete(environment, k) // the supervisor sets these itself
		}
	}
	labels := map[string]string{"io.resin.legacy-container": "1"}
	for _, feature := range []string{"kernel-modules", "firmware", "dbus", "supervisor-api", "resin-api"} {
		labels["io.resin.features."+feature] = "1"
	}
	label := func(name, variable, otherwise string) {
		if v := effective(config, variable); v != "" {
			otherwise = v
		}
		if otherwise != "" {
			labels[name] = otherwise
		}
	}
	label("io.resin.update.strategy", "SUPERVISOR_UPDATE_STRATEGY", "download-then-kill")
	label("io.resin.update.handover-timeout", "SUPERVISOR_HANDOVER_TIMEOUT", "")
	return member{soleApp, map[string]any{
		"id": id, "name": name, "class": "fleet",
		"releases": map[string]any{commit: map[string]any{
			"id":      1,
			"volumes": map[string]any{soleVolume: map[string]any{}},
			"services": map[string]any{soleService: map[string]any{
				"id": 1, "image_id": 1, "image": image, "environment": environment, "labels": labels,
				"composition": map[string]any{
					"restart": restartV1(config), "privileged": true, "network_mode": "host", "volumes": []string{soleVolume + ":/data"},
				},
			}},
		}},
	}}, config
}

// restartV1 is the restart policy, which was a matter of the configuration.
func restartV1(config map[string]string) string {
	policy := effective(config, "APP_RESTART_POLICY")
	if policy == "" {
		return "always"
	}
	if times := effective(config, "APP_RESTART_RETRIES"); policy == "on-failure" && times != "" {
		return policy + ":" + times
	}
	return policy
}

// scalars reads a mapping to text, numbers and booleans.
func (r *reader) scalars(path string) map[string]string {
	out := map[string]string{}
	r.object(path, true, func(p, name string) {
		r.count(p, &r.values, maxValues)
		switch t := r.token().(type) {
		case nil:
		case string:
			out[name] = t
		case bool:
			out[name] = strconv.FormatBool(t)
		case json.Number:
			out[name] = t.String()
		default:
			r.wrong(p, "text", t)
		}
	})
	return out
}

// prefixes of configuration variables; an earlier one counts before a later.
var prefixes = [...]string{"BALENA_", "RESIN_", ""}

// effective is the value of a configuration variable that is in force.
func effective(config map[string]string, name string) string {
	for _, prefix := range prefixes {
		if v, ok := config[prefix+name]; ok {
			return v
		}
	}
	return ""
}

// bare is the name of a configuration variable without its prefix.
func bare(name string) string {
	for _, prefix := range prefixes {
		if rest, ok := strings.CutPrefix(name, prefix); ok {
			return rest
		}
	}
	return name
}
