package takeover

import (
	"encoding/json"
	"fmt"
	"strings"
)

// document is the last target in the form in which the cloud sends it; why says
// what is missing for that.
func (r *reader) document() (doc []byte, why string, err error) {
	apps, found, err := r.db.read("app")
	switch {
	case err != nil:
		return nil, "", err
	case !found || !apps.has("uuid", "appId", "commit", "services", "source"):
		return nil, "this version of the supervisor keeps it in another form", nil
	case len(apps.rows) == 0:
		return nil, "the supervisor has none", nil
	}
	variables, err := r.variables()
	if err != nil {
		return nil, "", err
	}
	entries := map[string]any{}
	err = apps.each(func(f *field) error {
		if class := f.text("class"); f.text("source") != r.device.APIEndpoint && (class == "" || class == "fleet") {
			r.left("app %d: it is of %q, and the cloud is %q", f.number("appId"), f.text("source"), r.device.APIEndpoint)
			return nil
		}
		uuid := f.text("uuid")
		entry, missing := app(f)
		if uuid == "" {
			missing = "its uuid is missing"
		}
		if missing != "" {
			why = fmt.Sprintf("app %d: %s", f.number("appId"), missing)
		}
		entries[uuid] = entry
		return nil
	})
	if err != nil || why != "" {
		return nil, why, err
	}
	if len(entries) == 0 {
		return nil, "the supervisor has none of this cloud", nil
	}
	doc, err = json.Marshal(map[string]any{r.device.UUID: map[string]any{
		"name": r.settings["name"], "config": variables, "apps": entries,
	}})
	return doc, "", err
}

// variables are those of the configuration, as they were wanted.
func (r *reader) variables() (map[string]string, error) {
	out := map[string]string{}
	t, found, err := r.db.read("deviceConfig")
	if err != nil || !found {
		return out, err
	}
	err = t.each(func(f *field) error {
		stored := map[string]string{}
		f.json("targetValues", &stored)
		for name, value := range stored {
			out[prefixed(name)] = value
		}
		return nil
	})
	return out, err
}

// prefixed is a variable's name as the cloud sends it: some versions of the
// supervisor stored names without their prefix.
func prefixed(name string) string {
	if strings.HasPrefix(name, "BALENA_") || strings.HasPrefix(name, "RESIN_") {
		return name
	}
	return "BALENA_" + name
}

// app is a row of the table as an app of the document.
func app(f *field) (entry map[string]any, missing string) {
	entry = map[string]any{"id": f.number("appId"), "name": f.text("name")}
	if class := f.text("class"); class != "" {
		entry["class"] = class
	}
	if f.number("isHost") != 0 {
		entry["is_host"] = true
	}
	commit := f.text("commit")
	if commit == "" {
		return entry, ""
	}
	var services []map[string]any
	volumes, networks := map[string]any{}, map[string]any{}
	f.json("services", &services)
	f.json("volumes", &volumes)
	f.json("networks", &networks)
	all := map[string]any{}
	for i, s := range services {
		name, _ := s["serviceName"].(string)
		if name == "" || s["serviceId"] == nil || s["imageId"] == nil || s["image"] == nil {
			return entry, fmt.Sprintf("service %d has no name, number or image", i+1)
		}
		all[name] = service(s)
	}
	entry["releases"] = map[string]any{commit: map[string]any{
		"id": f.number("releaseId"), "services": all, "volumes": volumes, "networks": networks,
	}}
	return entry, ""
}

// service is a stored service as one of the document. The attributes of old
// compositions stand beside the rest.
func service(stored map[string]any) map[string]any {
	s := map[string]any{
		"id": stored["serviceId"], "image_id": stored["imageId"], "image": stored["image"],
		"environment": map[string]any{}, "labels": map[string]any{},
	}
	loose := map[string]any{}
	for key, value := range stored {
		switch key {
		case "appId", "appUuid", "releaseId", "commit", "imageId", "serviceId", "serviceName", "image", "id", "image_id":
		case "environment", "labels", "running", "contract", "composition":
			if value != nil {
				s[key] = value
			}
		default:
			loose[key] = value
		}
	}
	if s["composition"] == nil && len(loose) > 0 {
		s["composition"] = loose
	}
	return s
}
