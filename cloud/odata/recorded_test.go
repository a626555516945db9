package odata_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// script replays requests as balena's CLI and SDK send them. A word in braces is
// a number that an earlier answer gave: {fleet}.
type script struct {
	*cloudtest.World
	key   string
	known map[string]string
}

var placeholder = regexp.MustCompile(`\{(\w+)\}`)

func (s *script) fill(text string) string {
	return placeholder.ReplaceAllStringFunc(text, func(m string) string {
		v, ok := s.known[strings.Trim(m, "{}")]
		if !ok {
			s.T.Fatalf("nothing is called %s", m)
		}
		return v
	})
}

// send sends a line like "PATCH release({release}) -> 200" with a body, and checks
// status and body of the answer.
func (s *script) send(line, body, want string) string {
	s.T.Helper()
	request, status, _ := strings.Cut(s.fill(line), " -> ")
	method, path, _ := strings.Cut(request, " ")
	resource, filter, filtered := strings.Cut(path, "?$filter=")
	path = "/v7/" + resource
	if filtered {
		path = at(resource, "$filter", filter)
	}
	a := s.Do(method, path, s.key, s.fill(body))
	if fmt.Sprint(a.Status) != status {
		s.T.Fatalf("%s: %d %s", s.fill(line), a.Status, a.Body)
	}
	switch {
	case want == "" && method != "GET" && a.Status == 200 && a.Body != "":
		s.T.Errorf("%s: a body where none was expected: %s", line, a.Body)
	case !strings.Contains(a.Body, s.fill(want)):
		s.T.Errorf("%s:\n got %s\nwant %s", line, a.Body, s.fill(want))
	}
	return a.Body
}

// make sends a POST and remembers the id of the new row.
func (s *script) make(name, resource, body, want string) map[string]any {
	s.T.Helper()
	var row map[string]any
	if err := json.Unmarshal([]byte(s.send("POST "+resource+" -> 201", body, want)), &row); err != nil {
		s.T.Fatal(err)
	}
	s.known[name] = fmt.Sprint(row["id"])
	return row
}

func play(t *testing.T) *script {
	s := &script{World: start(t), known: map[string]string{}}
	s.key = s.AdminSession
	s.known["user"] = fmt.Sprint(s.Admin.ID)
	s.known["type"] = "1"
	return s
}

// deploy is `balena deploy` of one service: what the client writes, in its order.
func (s *script) deploy(commit, more string) {
	s.T.Helper()
	s.known["commit"] = commit
	s.make("release", "release", `{"is_created_by__user":{user},"belongs_to__application":{fleet},"composition":{"version":"2.1","services":{"web":{"image":"x"}}},
		"commit":"{commit}","status":"running","source":"local","start_timestamp":1795332828003`+more+`}`, `"status":"running"`)
	if strings.Contains(s.send("GET service(application={fleet},service_name='web') -> 200", "", `{"d":[`), `{"d":[]}`) {
		s.make("service", "service", `{"application":{fleet},"service_name":"web"}`, `"service_name":"web"`)
	}
	image := s.make("image", "image", `{"is_a_build_of__service":{service},"status":"running","start_timestamp":1795332828004}`, `"is_stored_at__image_location":"registry.test:5000/v2/`)
	s.known["location"] = fmt.Sprint(image["is_stored_at__image_location"])
	s.make("part", "image__is_part_of__release", `{"is_part_of__release":{release},"image":{image}}`, `"image":{"__id":{image}}`)
	s.make("label", "image_label", `{"release_image":{part},"label_name":"io.balena.features.dbus","value":"1"}`, `"label_name":"io.balena.features.dbus"`)
	s.make("env", "image_environment_variable", `{"release_image":{part},"name":"A","value":"two\nlines"}`, `"value":"two\nlines"`)
	s.send("PATCH image({image}) -> 200", `{"end_timestamp":1795332828100,"project_type":"local deploy","error_message":null,"build_log":"","push_timestamp":1795332828090,
		"status":"success","content_hash":"sha256:`+strings.Repeat("a", 64)+`","image_size":"123456789012","dockerfile":"FROM x"}`, "")
	s.send("PATCH release({release}) -> 200", `{"status":"success","end_timestamp":1795332828200}`, "")
}

// The release flow of the CLI ends with a release that the fleet runs.
func TestDeploy(t *testing.T) {
	s := play(t)
	s.make("fleet", "application", `{"app_name":"myfleet","is_for__device_type":{type},"organization":1,"is_of__class":"fleet"}`, `"slug":"admin/myfleet"`)
	s.deploy(strings.Repeat("a", 32), `,"is_final":true,"semver":"1.2.3","contract":{"name":"x","type":"sw.block"}`)
	first := s.known["release"]
	s.send("GET application({fleet}) -> 200", "", `"should_be_running__release":{"__id":{release}}`)
	s.send("GET release({release}) -> 200", "", `"raw_version":"1.2.3"`)
	s.send("GET release({release}) -> 200", "", `"contract":{"name":"x","type":"sw.block"}`)
	s.send("GET release({release}) -> 200", "", `"is_created_by__user":{"__id":{user}}`)
	s.send("GET image({image}) -> 200", "", `"image_size":"123456789012"`)

	// A draft is no target until it is finalised.
	s.deploy(strings.Repeat("b", 32), `,"is_final":false,"semver":"1.2.3"`)
	s.send("GET application({fleet}) -> 200", "", `"should_be_running__release":{"__id":`+first+`}`)
	s.make("tag", "release_tag", `{"value":"v","release":{release},"tag_key":"k"}`, `"tag_key":"k"`)
	s.send("PATCH release({release}) -> 200", `{"note":"hello"}`, "")
	s.send("PATCH release({release}) -> 200", `{"is_final":true}`, "")
	s.send("GET release({release}) -> 200", "", `"raw_version":"1.2.3+rev1"`)
	s.send("GET application({fleet}) -> 200", "", `"should_be_running__release":{"__id":{release}}`)
	s.send("PATCH release({release}) -> 200", `{"is_invalidated":true}`, "")
	s.send("GET application({fleet}) -> 200", "", `"should_be_running__release":{"__id":`+first+`}`)
	s.send("PATCH release({release}) -> 200", `{"is_invalidated":false}`, "")
	s.send("GET application({fleet}) -> 200", "", `"should_be_running__release":{"__id":{release}}`)
	s.send("PATCH release({release}) -> 200", `{"known_issue_list":"x"}`, "")

	// A build that fails, and one that is stopped.
	s.known["commit"] = strings.Repeat("c", 32)
	begin := `{"belongs_to__application":{fleet},"composition":{},"commit":"{commit}","status":"running","source":"local","start_timestamp":"2026-11-22T07:37:18.243Z"}`
	s.make("failed", "release", begin, `"is_final":true`)
	s.send("PATCH release({failed}) -> 200", `{"status":"failed","end_timestamp":1795332828200}`, "")
	s.make("stopped", "release", begin, "")
	s.send("PATCH release({stopped})?$filter=status ne 'success' -> 200", `{"status":"cancelled","end_timestamp":1795332828200}`, "")
	s.send("PATCH release({release})?$filter=status ne 'success' -> 200", `{"status":"cancelled"}`, "")
	s.send("GET release({stopped}) -> 200", "", `"status":"cancelled"`)
	s.send("GET release({release}) -> 200", "", `"status":"success"`)
}

// Every other write that was recorded of the CLI and the SDK, with its answer.
func TestRecordedWrites(t *testing.T) {
	s := play(t)
	s.make("fleet", "application", `{"app_name":"myfleet","is_for__device_type":{type},"organization":1,"is_of__class":"fleet"}`, `"is_of__class":"fleet"`)
	s.send("POST application -> 409", `{"app_name":"myfleet","is_for__device_type":{type},"organization":1,"is_of__class":"fleet"}`, `"\"slug\" must be unique."`)
	s.make("block", "application", `{"app_name":"myblock","is_for__device_type":{type},"organization":1,"is_of__class":"block"}`, `"is_of__class":"block"`)
	s.make("org", "organization", `{"name":"My Org"}`, `"handle":"my_org"`)
	s.send("GET organization_membership?$filter=is_member_of__organization eq {org} -> 200", "", `"user":{"__id":{user}}`)
	s.deploy(strings.Repeat("a", 32), "")
	first := s.known["release"]
	s.deploy(strings.Repeat("b", 32), "")
	fleet, err := s.DB.FleetBySlug(t.Context(), "admin/myfleet")
	if err != nil {
		t.Fatal(err)
	}
	device, _ := s.Device(fleet, "a")
	s.known["device"], s.known["first"] = fmt.Sprint(device.ID), first

	s.send("PATCH application({fleet}) -> 200", `{"app_name":"myfleet2"}`, "")
	s.send("GET application({fleet}) -> 200", "", `"slug":"admin/myfleet2"`)
	s.send("PATCH application({fleet}) -> 200", `{"should_be_running__release":{first},"should_track_latest_release":false}`, "")
	s.send("GET application({fleet}) -> 200", "", `"should_be_running__release":{"__id":{first}}`)
	s.send("PATCH application({fleet}) -> 200", `{"should_track_latest_release":true,"should_be_running__release":{release}}`, "")

	s.send("PATCH device?$filter=id in ({device}) -> 200", `{"device_name":"newname"}`, "")
	s.send("PATCH device?$filter=id in ({device}) -> 200", `{"note":"hello"}`, "")
	s.send("PATCH device?$filter=id in ({device}) -> 200", `{"is_pinned_on__release":{first}}`, "")
	s.send("GET device({device}) -> 200", "", `"is_pinned_on__release":{"__id":{first}}`)
	s.send("PATCH device?$filter=id in ({device}) -> 200", `{"is_pinned_on__release":null}`, "")
	s.send("GET device({device}) -> 200", "", `"is_pinned_on__release":null`)
	s.send("PATCH device?$filter=belongs_to__application eq {fleet} -> 200", `{"is_web_accessible":true}`, "")
	s.send("PATCH device?$filter=id in ({device}) -> 200", `{"is_active":false}`, "")
	s.send("GET device({device}) -> 200", "", `"is_web_accessible":true`)

	for _, c := range []struct{ parent, resource, name string }{
		{"application", "application_environment_variable", "FLEETVAR"}, {"application", "application_config_variable", "BALENA_SUPERVISOR_POLL_INTERVAL"},
		{"application", "build_environment_variable", "BUILDVAR"},
		{"device", "device_environment_variable", "DEVVAR"}, {"device", "device_config_variable", "RESIN_OVERRIDE_LOCK"}, {"service", "service_environment_variable", "SVCVAR"},
	} {
		id := s.known[map[string]string{"application": "fleet", "device": "device", "service": "service"}[c.parent]]
		body := func(value string) string {
			return fmt.Sprintf(`{"value":"%s","%s":%s,"name":"%s"}`, value, c.parent, id, c.name)
		}
		s.make("variable", c.resource, body("1"), `"value":"1"`)
		s.send("POST "+c.resource+" -> 409", body("2"), fmt.Sprintf(`"\"%s\" and \"name\" must be unique."`, c.parent))
		s.send(fmt.Sprintf("PATCH %s?$filter=%s eq %s and name eq '%s' -> 200", c.resource, c.parent, id, c.name), `{"value":"2"}`, "")
		s.send("GET "+c.resource+"({variable}) -> 200", "", `"value":"2"`)
		s.send("PATCH "+c.resource+"({variable}) -> 200", `{"value":"newval"}`, "")
		s.send("DELETE "+c.resource+"({variable}) -> 200", "", "")
		s.send("GET "+c.resource+"({variable}) -> 200", "", `{"d":[]}`)
	}
	var installs struct{ D []struct{ ID int64 } }
	if err := json.Unmarshal([]byte(s.send("GET service_install?$filter=device eq {device} and installs__service eq {service} -> 200", "", "")), &installs); err != nil || len(installs.D) != 1 {
		t.Fatal(installs, err)
	}
	s.known["install"] = fmt.Sprint(installs.D[0].ID)
	s.make("dsev", "device_service_environment_variable", `{"value":"d","service_install":{install},"name":"DSV"}`, `"service_install":{"__id":{install}}`)
	s.send("DELETE device_service_environment_variable?$filter=service_install/any(si:si/device eq {device} and si/installs__service/any(is:is/service_name eq 'web')) and name eq 'DSV' -> 200", "", "")
	s.send("GET device_service_environment_variable -> 200", "", `{"d":[]}`)

	for parent, id := range map[string]string{"application": "{fleet}", "device": "{device}", "release": "{release}"} {
		s.make("tag", parent+"_tag", `{"value":"v","`+parent+`":`+id+`,"tag_key":"k"}`, `"tag_key":"k"`)
		s.send("POST "+parent+"_tag -> 409", `{"value":"v2","`+parent+`":`+id+`,"tag_key":"k"}`, `"\"`+parent+`\" and \"tag_key\" must be unique."`)
		s.send("PATCH "+parent+"_tag?$filter="+parent+" eq "+id+" and tag_key eq 'k' -> 200", `{"value":"v2"}`, "")
		s.send("GET "+parent+"_tag({tag}) -> 200", "", `"value":"v2"`)
		s.send("DELETE "+parent+"_tag?$filter="+parent+" eq "+id+" and tag_key eq 'k' -> 200", "", "")
	}

	s.make("ssh", "user__has__public_key", `{"title":"laptop","public_key":"ssh-ed25519 AAAA","user":{user}}`, `"title":"laptop"`)
	s.send("DELETE user__has__public_key({ssh}) -> 200", "", "")
	s.Key(s.Admin.Actor, model.RoleUser)
	s.send("PATCH api_key(2) -> 200", `{"name":"renamed"}`, "")
	s.send("GET api_key(2) -> 200", "", `"name":"renamed"`)
	s.send("DELETE api_key(2) -> 200", "", "")
	s.make("asset", "release_asset", `{"asset_key":"k","release":{release},"asset":null}`, `"asset":null`)
	s.send("DELETE release_asset({asset}) -> 200", "", "")

	s.send("PATCH device?$filter=id in ({device}) -> 200", `{"belongs_to__application":{block}}`, "")
	s.send("GET device({device}) -> 200", "", `"belongs_to__application":{"__id":{block}}`)
	s.send("POST device({device})/canAccess -> 200", `{"action":"update"}`, `{"d":[{"id":{device}}]}`)
	s.send("DELETE device?$filter=id in ({device}) -> 200", "", "")
	s.send("DELETE device?$filter=id in ({device}) -> 200", "", "")
	s.send("DELETE application({fleet}) -> 200", "", "")
	s.send("DELETE application({fleet}) -> 404", "", `"Application(s) not found."`)
}

// Answers of writes that are not the usual one.
func TestAnswersOfWrites(t *testing.T) {
	s := play(t)
	s.make("fleet", "application", `{"app_name":"myfleet","is_for__device_type":"{type}","is_created_by__user":7,"nonsense":{}}`, "")
	body := `{"application":{fleet},"tag_key":"a","value":"1"}`
	if a := s.Want(201, "POST", "/v7/application_tag?returnResource=false", s.key, s.fill(body)); a.Body != `{"id":1}` || a.Header.Get("Location") != "/v7/application_tag(@id)?@id=1" {
		t.Errorf("%s %v", a.Body, a.Header)
	}
	s.send("MERGE application_tag(1) -> 200", `{"value":"2"}`, "")
	s.send("PUT application_tag(application={fleet},tag_key='a') -> 200", `{"value":"3"}`, "")
	s.send("PUT application_tag(application={fleet},tag_key='b') -> 200", `{"value":"4"}`, "")
	s.send("GET application_tag?$filter=application eq {fleet} -> 200", "", `"tag_key":"b","value":"4"`)
	s.send("PUT application_tag(99) -> 400", `{"value":"5"}`, "POST")
	s.send("DELETE application_tag -> 400", "", "$filter")
	s.send("PATCH application_tag(99) -> 200", `{"value":"5"}`, "")
	s.send("PATCH application({fleet}) -> 200", `{"nonsense":1}`, "")
	s.send("PATCH application({fleet}) -> 400", `{"is_public":"yes"}`, "wrong type")
	s.send("PATCH application({fleet}) -> 400", `{"is_public":`, "not valid JSON")
	s.send("PATCH application({fleet}) -> 400", `{"is_public":null}`, "is_public")
	s.send("PATCH application({fleet}) -> 400", `{"nope":1}?`, "")
	s.send("POST actor -> 401", `{}`, "")
	s.send("POST nonsense -> 401", `{}`, "")
	s.send("DELETE organization(1) -> 409", "", "Data is referenced by application.")
	s.send("POST application({fleet})/fly -> 400", `{}`, "no action")

	// v6 says OK, names what it knew, and takes texts for device types.
	a := s.Want(201, "POST", "/v6/application", s.key, `{"app_name":"old-style","device_type":"raspberrypi3"}`)
	if !strings.Contains(a.Body, `"slug":"admin/old-style"`) || !strings.Contains(a.Body, `"depends_on__application":null`) {
		t.Error(a.Body)
	}
	if a := s.Want(200, "PATCH", s.fill("/v6/application({fleet})"), s.key, `{"is_public":true}`); a.Body != `"OK"` {
		t.Error(a.Body)
	}
	s.key = s.BobSession
	s.send("DELETE application({fleet}) -> 404", "", "not found")
	s.send("PATCH application({fleet}) -> 200", `{"app_name":"stolen"}`, "")
	s.key = s.AdminSession
	s.send("GET application({fleet}) -> 200", "", `"app_name":"myfleet"`)
	s.key = ""
	s.send("PATCH application({fleet}) -> 401", `{"app_name":"stolen"}`, "")
}
