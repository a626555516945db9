package odata_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
)

func start(t *testing.T) *cloudtest.World {
	t.Helper()
	w := cloudtest.New(t, nil)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	return w
}

// at is a path with its query: pairs of option and value, percent-encoded.
func at(resource string, options ...string) string {
	var pairs []string
	for i := 0; i+1 < len(options); i += 2 {
		pairs = append(pairs, options[i]+"="+strings.ReplaceAll(url.QueryEscape(options[i+1]), "+", "%20"))
	}
	return "/v7/" + resource + "?" + strings.Join(pairs, "&")
}

const composition = `{"services":{"web":{},"db":{}}}`

func TestReading(t *testing.T) {
	w := start(t)
	kitchen, other := w.Fleet(w.Admin, "kitchen"), w.Fleet(w.Admin, "other")
	device, _ := w.Device(kitchen, "a")
	w.Device(kitchen, "b")
	w.Device(other, "c")
	_, images := w.Release(kitchen, "abc1", composition)
	w.Release(kitchen, "abc2", composition)
	for name, c := range map[string]struct{ path, want string }{
		"key":                  {at("application(1)", "$select", "id,app_name,slug,should_be_running__release"), `{"d":[{"id":1,"app_name":"kitchen","slug":"admin/kitchen","should_be_running__release":{"__id":2}}]}`},
		"key missing":          {at("application(77)", "$select", "id"), `{"d":[]}`},
		"natural key":          {at("device(uuid='"+device.UUID+"')", "$select", "id,note"), `{"d":[{"id":1,"note":null}]}`},
		"composite key":        {at("service(application=1,service_name='web')", "$select", "id,application"), `{"d":[{"id":2,"application":{"__id":1}}]}`},
		"key and filter":       {at("release(1)", "$select", "id", "$filter", "status ne 'success'"), `{"d":[]}`},
		"eq":                   {at("device", "$select", "id", "$filter", "uuid eq '"+device.UUID+"'"), `{"d":[{"id":1}]}`},
		"reference":            {at("device", "$select", "id", "$filter", "belongs_to__application eq 1"), `{"d":[{"id":1},{"id":2}]}`},
		"and":                  {at("device", "$select", "id", "$filter", "belongs_to__application eq 1 and device_name eq 'device-b'"), `{"d":[{"id":2}]}`},
		"or not":               {at("device", "$select", "id", "$filter", "not (id eq 1 or id eq 2)"), `{"d":[{"id":3}]}`},
		"startswith":           {at("device", "$select", "id", "$filter", "startswith(uuid,'cc')"), `{"d":[{"id":3}]}`},
		"startswith, all":      {at("device", "$select", "id", "$filter", "startswith(uuid,'')", "$top", "1"), `{"d":[{"id":1}]}`},
		"startswith, wildcard": {at("device", "$select", "id", "$filter", "startswith(uuid,'%')"), `{"d":[]}`},
		"contains":             {at("device", "$select", "id", "$filter", "contains(device_name,'ce-b')"), `{"d":[{"id":2}]}`},
		"in":                   {at("device", "$select", "id", "$filter", "id in (1,3)"), `{"d":[{"id":1},{"id":3}]}`},
		"null":                 {at("device", "$select", "id", "$filter", "note eq null and id lt 2"), `{"d":[{"id":1}]}`},
		"ne with nulls":        {at("device", "$select", "id", "$filter", "note ne 'x' and id ge 3"), `{"d":[{"id":3}]}`},
		"quote in text":        {at("device", "$select", "id", "$filter", "device_name eq 'it''s'"), `{"d":[]}`},
		"order":                {at("device", "$select", "id", "$orderby", "belongs_to__application desc,uuid asc"), `{"d":[{"id":3},{"id":1},{"id":2}]}`},
		"top and skip":         {at("device", "$select", "id", "$orderby", "id desc", "$top", "1", "$skip", "1"), `{"d":[{"id":2}]}`},
		"count":                {at("device/$count", "$filter", "belongs_to__application eq 1"), `{"d":2}`},
		"version":              {at("release", "$select", "commit,raw_version,is_final", "$filter", "raw_version eq '0.0.0+rev1'"), `{"d":[{"commit":"abc2","raw_version":"0.0.0+rev1","is_final":true}]}`},
		"boolean":              {at("release/$count", "$filter", "is_final eq true"), `{"d":2}`},
		"date":                 {at("release/$count", "$filter", "created_at gt datetime'2020-01-01T00:00:00Z'"), `{"d":2}`},
		"location":             {at("image", "$select", "id,image_size", "$filter", "is_stored_at__image_location eq '"+images[0].Location+"'"), `{"d":[{"id":1,"image_size":"42"}]}`},
		"device type":          {at("device_type", "$select", "slug", "$filter", "slug eq 'raspberrypi5'"), `{"d":[{"slug":"raspberrypi5"}]}`},
		"effective target":     {at("device(1)", "$select", "should_be_running__release,overall_status"), `{"d":[{"should_be_running__release":{"__id":2},"overall_status":"configuring"}]}`},
		"plus for space":       {"/v7/device?$select=id&$filter=id+eq+1", `{"d":[{"id":1}]}`},
	} {
		if a := w.Do("GET", c.path, w.AdminSession, ""); a.Status != 200 || a.Body != c.want {
			t.Errorf("%s: %s\n got %d %s\nwant %s", name, c.path, a.Status, a.Body, c.want)
		}
	}
	a := w.Want(200, "GET", at("release(1)"), w.AdminSession, "")
	var got struct {
		D []struct {
			Created     string `json:"created_at"`
			Composition map[string]any
			Version     string `json:"raw_version"`
		}
	}
	if err := json.Unmarshal([]byte(a.Body), &got); err != nil || len(got.D) != 1 || got.D[0].Composition["services"] == nil || len(got.D[0].Created) != 24 || got.D[0].Version != "0.0.0" {
		t.Errorf("%s %v", a.Body, err)
	}
	w.Want(304, "GET", at("release(1)"), w.AdminSession, "", "If-None-Match", a.Header.Get("ETag"))
}

// What cannot be answered is named. What cannot even be read is in the tests of
// the parser.
func TestMistakesAreNamed(t *testing.T) {
	w := start(t)
	for path, want := range map[string]string{
		at("device", "$select", "id,nonsense"):                               `device has no field \"nonsense\"`,
		at("device", "$select", "device_tag"):                                "device_tag of device is no field; ask for it with $expand",
		at("device", "$expand", "nonsense"):                                  `device has no navigation \"nonsense\"`,
		at("device", "$expand", "device_tag($select=nonsense)"):              `device_tag has no field \"nonsense\"`,
		at("device", "$expand", "uuid"):                                      `device has no navigation \"uuid\"`,
		at("user", "$select", "password"):                                    `user has no field \"password\"`,
		at("user", "$filter", "jwt_secret eq 'x'"):                           `user has no field \"jwt_secret\"`,
		at("user", "$orderby", "password"):                                   `user has no field \"password\"`,
		at("organization_membership", "$filter", "user/password eq 'x'"):     `user has no field \"password\"`,
		at("organization_membership", "$orderby", "user/password"):           `user has no field \"password\"`,
		at("organization_membership", "$expand", "user($select=jwt_secret)"): `user has no field \"jwt_secret\"`,
		at("api_key", "$select", "key_hash"):                                 `api_key has no field \"key_hash\"`,
		at("application", "$filter", "owns__device/any(d:d/nonsense eq 1)"):  `device has no field \"nonsense\"`,
		at("application", "$filter", "nonsense/any(d:true)"):                 `application has no navigation \"nonsense\"`,
		at("application", "$filter", "nonsense/x eq 1"):                      `application has no navigation \"nonsense\"`,
		at("application", "$filter", "app_name/any(d:true)"):                 `application has no navigation \"app_name\"`,
		at("device", "$filter", "id eq 'x'"):                                 "id is compared with 'x': got 'x', want a number",
		at("device", "$filter", "is_online eq 1"):                            "want true or false",
		at("device", "$filter", "is_online gt true"):                         "is_online cannot be ordered",
		at("device", "$filter", "created_at gt 'soon'"):                      "want a date",
		at("device", "$filter", "id eq uuid"):                                "uuid is not a number",
		at("device", "$filter", "uuid"):                                      "uuid is neither true nor false",
		at("device", "$filter", "id add 1"):                                  "id add 1 is neither true nor false",
		at("device", "$filter", "7"):                                         "7 is neither true nor false",
		at("device", "$filter", "device_tag/$count"):                         "device_tag/$count is neither true nor false",
		at("device", "$filter", "id in (1,'x')"):                             "want a number",
		at("device", "$filter", "uuid add 1 eq 2"):                           "uuid is not a number",
		at("device", "$filter", "id add 9007199254740993 eq 2"):              "too large to calculate with",
		at("device", "$filter", "id mod 1.5 eq 2"):                           "mod takes whole numbers",
		at("device", "$filter", "startswith(uuid,7)"):                        "startswith: got 7, want a text in quotes",
		at("device", "$filter", "startswith(id,'7')"):                        "startswith: id is not a text",
		at("device", "$filter", "startswith(uuid)"):                          "startswith: 1 arguments, want 2",
		at("device", "$filter", "substring(uuid,-1) eq 'x'"):                 "substring takes numbers from 0",
		at("device", "$filter", "sleep(10) eq 1"):                            "There is no function sleep",
		at("release", "$filter", "composition eq 'x'"):                       "want null",
		at("release", "$orderby", "version"):                                 "version has no order",
		at("device", "$orderby", "device_tag/value"):                         "device/device_tag does not lead to one row",
		at("toaster"):                 `no resource \"toaster\"`,
		at("device(device_name='x')"): "its keys are id, uuid, actor",
		at("device(uuid='x',id=1)"):   "its keys are",
		at("device(nonsense=1)"):      "its keys are",
		at("device", "$filter", strings.Repeat("device_tag/any(x:", 40)+"true"): "got the end, want )",
		at("device", "$filter", manySteps()):                                    "more than 200 navigations",
	} {
		if a := w.Do("GET", path, w.AdminSession, ""); a.Status != 400 || !strings.Contains(a.Body, want) || !strings.HasPrefix(a.Body, `"`) {
			t.Errorf("%.200s: %d %.200s, want %s", path, a.Status, a.Body, want)
		}
	}
	w.Want(401, "DELETE", "/v7/device(1)", "", "")
}

func manySteps() string {
	return strings.Repeat("device_tag/any(x:true) or ", 200) + "device_tag/any()"
}

func TestEveryoneSeesTheirOwnOnly(t *testing.T) {
	w := start(t)
	mine, his := w.Fleet(w.Admin, "mine"), w.Fleet(w.Bob, "hiss")
	device, key := w.Device(mine, "a")
	w.Device(mine, "b")
	foreign, _ := w.Device(his, "c")
	for _, f := range []model.Fleet{mine, his} {
		_, images := w.Release(f, "abc", composition)
		for kind, parent := range map[model.VariableKind]int64{model.FleetConfig: f.ID, model.FleetEnvironment: f.ID, model.ServiceEnvironment: images[0].ServiceID} {
			name := "A"
			if kind == model.FleetConfig {
				name = "BALENA_A"
			}
			if _, err := w.DB.AddVariable(t.Context(), kind, parent, name, "x"); err != nil {
				t.Fatal(err)
			}
		}
	}
	// Rows per user of what both have.
	for resource, want := range map[string]int{
		"application": 1, "release": 1, "service": 2, "image": 2, "image__is_part_of__release": 2, "image_label": 2, "image_environment_variable": 4,
		"user": 1, "organization": 1, "application_config_variable": 1, "application_environment_variable": 1, "service_environment_variable": 1,
	} {
		for name, session := range map[string]string{"admin": w.AdminSession, "bob": w.BobSession} {
			if a := w.Want(200, "GET", "/v7/"+resource+"/$count", session, ""); a.Body != fmt.Sprintf(`{"d":%d}`, want) {
				t.Errorf("%s sees of %s: %s, want %d", name, resource, a.Body, want)
			}
		}
	}
	aDeviceSeesItself(w, device, foreign, key)
	provisioning := w.Key(mine.Actor, model.RoleProvisioning)
	for _, resource := range []string{"user", "image_install", "api_key", "device_tag"} {
		w.Want(401, "GET", "/v7/"+resource, provisioning, "")
		w.Want(401, "GET", "/v7/"+resource, "", "")
	}
	w.Want(401, "GET", "/v7/device", provisioning, "")
	// Not even the count of a condition may tell about others.
	if a := w.Want(200, "GET", at("device/$count", "$filter", "id eq 1 or id eq 3 or id gt 0"), w.BobSession, ""); a.Body != `{"d":1}` {
		t.Error(a.Body)
	}
}

// A device sees itself, the first step of the key exchange, and nobody else.
func aDeviceSeesItself(w *cloudtest.World, device, foreign model.Device, key string) {
	t := w.T
	t.Helper()
	if a := w.Want(200, "GET", at("device", "$select", "id", "$filter", "uuid eq '"+device.UUID+"'"), key, ""); a.Body != fmt.Sprintf(`{"d":[{"id":%d}]}`, device.ID) {
		t.Error(a.Body)
	}
	if a := w.Want(200, "GET", at("device", "$select", "id", "$filter", "uuid eq '"+foreign.UUID+"'"), key, ""); a.Body != `{"d":[]}` {
		t.Error(a.Body)
	}
	if a := w.Want(200, "GET", "/v7/device/$count", key, ""); a.Body != `{"d":1}` {
		t.Error(a.Body)
	}
	for _, resource := range []string{"user", "api_key"} {
		w.Want(401, "GET", "/v7/"+resource, key, "")
	}
	w.Want(401, "POST", "/v7/application", key, `{}`)
}

func TestCreating(t *testing.T) {
	w := start(t)
	types := w.Want(200, "GET", at("device_type", "$filter", "slug eq 'generic-amd64'", "$select", "id"), w.AdminSession, "").Body
	var found struct{ D []struct{ ID int64 } }
	if err := json.Unmarshal([]byte(types), &found); err != nil || len(found.D) != 1 {
		t.Fatal(types, err)
	}
	body := fmt.Sprintf(`{"app_name":"kitchen","is_for__device_type":%d,"organization":1,"is_of__class":"fleet","something_unknown":1}`, found.D[0].ID)
	a := w.Want(201, "POST", "/v7/application", w.AdminSession, body)
	var made map[string]any
	if err := json.Unmarshal([]byte(a.Body), &made); err != nil || made["slug"] != "admin/kitchen" || made["should_track_latest_release"] != true || a.Header.Get("Location") != "/v7/application(@id)?@id=1" {
		t.Errorf("%s %v", a.Body, a.Header)
	}
	for name, c := range map[string]struct {
		path, credential, body string
		status                 int
		text                   string
	}{
		"again":                 {"application", w.AdminSession, body, 409, `"\"slug\" must be unique."`},
		"bad name":              {"application", w.AdminSession, `{"app_name":"a b c d","is_for__device_type":1}`, 400, "may only contain"},
		"no name":               {"application", w.AdminSession, `{"is_for__device_type":1}`, 400, "app_name must be given"},
		"no type":               {"application", w.AdminSession, `{"app_name":"abcd"}`, 400, "is_for__device_type must be given"},
		"unknown type":          {"application", w.AdminSession, `{"app_name":"abcd","is_for__device_type":999}`, 409, "Data is referenced by is_for__device_type."},
		"type of wrong kind":    {"application", w.AdminSession, `{"app_name":"abcd","is_for__device_type":[1]}`, 400, "want the id of a row"},
		"name of wrong kind":    {"application", w.AdminSession, `{"app_name":7}`, 400, "app_name: 7 has the wrong type, want a text."},
		"truncated":             {"application", w.AdminSession, `{"app_name":`, 400, "not valid JSON"},
		"too long":              {"application", w.AdminSession, `{"app_name":"` + strings.Repeat("x", 9<<20) + `"}`, 413, "longer than"},
		"foreign organization":  {"application", w.BobSession, body, 401, ""},
		"provisioning key":      {"application", w.Key(1, model.RoleProvisioning), body, 401, ""},
		"other resource":        {"device_type", w.AdminSession, `{"slug":"x"}`, 401, ""},
		"variable":              {"application_environment_variable", w.AdminSession, `{"application":1,"name":"A","value":"x"}`, 201, `"application":{"__id":1},"name":"A","value":"x"`},
		"variable, foreign":     {"application_environment_variable", w.BobSession, `{"application":1,"name":"B","value":"x"}`, 401, ""},
		"variable of nothing":   {"device_environment_variable", w.AdminSession, `{"device":9,"name":"B","value":"x"}`, 409, "Data is referenced by device."},
		"variable, bad name":    {"application_environment_variable", w.AdminSession, `{"application":1,"name":"1A","value":"x"}`, 400, "alphanumeric"},
		"variable, reserved":    {"application_environment_variable", w.AdminSession, `{"application":1,"name":"BALENA_X","value":"x"}`, 400, "reserved"},
		"variable, two lines":   {"application_environment_variable", w.AdminSession, `{"application":1,"name":"C","value":"x\ny"}`, 400, "line break"},
		"variable, no value":    {"application_environment_variable", w.AdminSession, `{"application":1,"name":"C"}`, 400, "value must be given"},
		"config without prefix": {"application_config_variable", w.AdminSession, `{"application":1,"name":"C","value":"x"}`, 400, "namespaces"},
	} {
		if a := w.Do("POST", "/v7/"+c.path, c.credential, c.body); a.Status != c.status || !strings.Contains(a.Body, c.text) {
			t.Errorf("%s: %d %.300s", name, a.Status, a.Body)
		}
	}
	if a := w.Do("POST", "/v7/application_environment_variable", w.AdminSession, `{"application":1,"name":"A","value":"y"}`); a.Status != 409 || a.Body != `"\"application\" and \"name\" must be unique."` {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}

func TestCancellingABuild(t *testing.T) {
	w := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	r := w.Building(f, "abc", composition)
	done, _ := w.Release(f, "abd", composition)
	path := func(id int64) string {
		return at(fmt.Sprintf("release(%d)", id), "$filter", "status ne 'success'")
	}
	const body = `{"status":"cancelled","end_timestamp":1795332828003}`
	w.Want(200, "PATCH", path(r.ID), w.BobSession, body) // filtered out, nothing happens
	status := func(id int64) string {
		t.Helper()
		got, err := w.DB.ReleaseByID(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		return got.Status
	}
	if got := status(r.ID); got != model.StatusRunning {
		t.Errorf("a stranger stopped the build: %s", got)
	}
	w.Want(200, "PATCH", path(r.ID), w.AdminSession, body)
	w.Want(200, "PATCH", path(done.ID), w.AdminSession, body)
	if got := status(r.ID); got != model.StatusCancelled {
		t.Error(got)
	}
	if got := status(done.ID); got != model.StatusSuccess {
		t.Error(got)
	}
	w.Want(400, "PATCH", "/v7/release", w.AdminSession, body) // every release
}

// FuzzFilter: no query makes the cloud fail; it answers or says what is wrong.
func FuzzFilter(f *testing.F) {
	for _, s := range []string{"id eq 1", "startswith(uuid,'a')", "not (a eq 'b''c') and x in (1,2)", "a/b eq 1", "created_at gt datetime'2020-01-01'", "'", "((", "id eq -9.5"} {
		f.Add(s)
	}
	w := cloudtest.New(f, nil)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	f.Fuzz(func(t *testing.T, filter string) {
		fresh := *w
		fresh.T = t
		if a := fresh.Do("GET", "/v7/device?$filter="+url.PathEscape(filter), w.AdminSession, ""); a.Status != 200 && a.Status != 400 {
			t.Errorf("%q: %d %s", filter, a.Status, a.Body)
		}
	})
}
