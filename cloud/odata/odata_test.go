package odata_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/cloud/odata"
	"deckhand/cloud/odata/query"
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

// Each function and operator once, on values that can be checked by eye.
func TestFunctions(t *testing.T) {
	w := start(t)
	w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	for condition, want := range map[string]bool{
		"tolower('AbÄ') eq 'abÄ'":                                                       true,
		"toupper('abä') eq 'ABä'":                                                       true,
		"trim('  a b ') eq 'a b'":                                                       true,
		"length('Ä€😀') eq 3":                                                            true,
		"concat('a',concat('b','c')) eq 'abc'":                                          true,
		"indexof('Äbc','c') eq 2 and indexof('abc','x') eq -1":                          true,
		"substring('Äbcd',1) eq 'bcd'":                                                  true,
		"substring('Äbcd',1,2) eq 'bc'":                                                 true,
		"substringof('b','abc') and not substringof('abc','b')":                         true,
		"contains('a%c','%') and not contains('abc','%')":                               true,
		"contains('abc','B')":                                                           false,
		"startswith('abc','ab') and startswith('abc','')":                               true,
		"endswith('abc','bc') and endswith('abc','')":                                   true,
		"endswith('bc','abc')":                                                          false,
		"round(2.5) eq 3 and round(-2.5) eq -3 and round(2.4) eq 2":                     true,
		"floor(-2.5) eq -3 and ceiling(-2.5) eq -2":                                     true,
		"7 div 2 eq 3 and -7 div 2 eq -3 and 7.0 div 2 eq 3.5":                          true,
		"7 mod 3 eq 1 and -7 mod 3 eq -1":                                               true,
		"1 add 2 mul 3 eq 7 and (1 add 2) mul 3 eq 9":                                   true,
		"5 sub 3 sub 1 eq 1":                                                            true,
		"1 div 0 eq null and 1 mod 0 eq null and 1.5 div 0 eq null":                     true,
		"year(datetime'2026-02-28T23:59:58.123Z') eq 2026":                              true,
		"month(datetime'2026-02-28T23:59:58.123Z') eq 2":                                true,
		"day(datetime'2026-02-28T23:59:58.123Z') eq 28":                                 true,
		"hour(datetime'2026-02-28T23:59:58.123Z') eq 23":                                true,
		"minute(datetime'2026-02-28T23:59:58.123Z') eq 59":                              true,
		"second(datetime'2026-02-28T23:59:58.123Z') eq 58":                              true,
		"date(datetime'1969-12-31T01:00:00Z') eq datetime'1969-12-31'":                  true,
		"hour(datetime'1969-12-31T01:00:00Z') eq 1":                                     true,
		"created_at le now() and now() gt datetime'2020-01-01'":                         true,
		"created_at gt '2020-01-01T00:00:00Z'":                                          true,
		"note eq null and null eq null and not (note eq 'x')":                           true,
		"note ne 'x' and (note ne note) eq false":                                       true,
		"note gt 'a' or note lt 'a' or (note ne null) eq true":                          false,
		"note in ('a',null)":                                                            true,
		"'B' lt 'a' and 'a' lt 'Ä'":                                                     true,
		"(id eq 1) eq true and is_online eq false":                                      true,
		"not is_online and not (not true)":                                              true,
		"id in (1) and 1 in (1,2) and 'x' in ('x')":                                     true,
		"true in (false,null) or null in (1) or (null in (null)) eq false":              false,
		"null in (1,null)":                                                              true,
		"'1' eq id":                                                                     true,
		"belongs_to__application/app_name eq 'kitchen'":                                 true,
		"belongs_to__application/organization/handle eq 'admin'":                        true,
		"belongs_to__application/owns__device/uuid eq uuid":                             true,
		"belongs_to__application/owns__device/$count eq 1":                              true,
		"belongs_to__application/owns__device/$count($filter=id gt 1) eq 0":             true,
		"device_tag/any()":                                                              false,
		"device_tag/all(x:false)":                                                       true,
		"belongs_to__application/any(a:a/owns__device/any(d:d/id eq id and a/id eq 1))": true,
		"is_pinned_on__release eq null and is_running__release/any() eq false":          true,
	} {
		a := w.Want(200, "GET", at("device/$count", "$filter", condition), w.AdminSession, "")
		if a.Body != map[bool]string{false: `{"d":0}`, true: `{"d":1}`}[want] {
			t.Errorf("%s is %s", condition, a.Body)
		}
	}
}

// What a release says of its version, and a device of its state.
func TestComputedFields(t *testing.T) {
	p := populate(t)
	a := p.Want(200, "GET", at("release", "$select", "version,semver", "$filter", "commit eq '00b1'"), p.AdminSession, "")
	if want := `{"d":[{"version":{"build":["rev1"],"major":0,"minor":0,"patch":0,"prerelease":[],"raw":"0.0.0+rev1","version":"0.0.0"},"semver":"0.0.0"}]}`; a.Body != want {
		t.Error(a.Body)
	}
	draft := p.add("release", model.Values{"belongs_to__application": p.fleets[0].ID, "commit": "d0", "composition": json.RawMessage(`{}`), "status": "running", "source": "local",
		"start_timestamp": p.DB.Now(), "is_final": false, "semver": "2.0.0-beta.1+b7"})
	a = p.Want(200, "GET", at(fmt.Sprintf("release(%d)", draft), "$select", "version,created_at,raw_version"), p.AdminSession, "")
	var got struct {
		D []struct {
			Version struct {
				Raw, Version string
				Prerelease   []any
				Build        []string
			}
			Raw     string    `json:"raw_version"`
			Created time.Time `json:"created_at"`
		}
	}
	if err := json.Unmarshal([]byte(a.Body), &got); err != nil || len(got.D) != 1 {
		t.Fatal(a.Body, err)
	}
	v, ms := got.D[0].Version, got.D[0].Created.UnixMilli()
	if v.Raw != fmt.Sprintf("2.0.0-beta.1.%d+b7", ms) || v.Raw != got.D[0].Raw || len(v.Prerelease) != 3 || v.Prerelease[1] != "1" || v.Prerelease[2] != float64(ms) || v.Build[0] != "b7" {
		t.Errorf("%s", a.Body)
	}
	// Device a is online and downloads: its own images have no progress but one with 0.
	a = p.Want(200, "GET", at("device", "$select", "overall_status,overall_progress,is_connected_to_vpn", "$filter", "startswith(uuid,'aa')"), p.AdminSession, "")
	if a.Body != `{"d":[{"overall_status":"updating","overall_progress":50,"is_connected_to_vpn":true}]}` {
		t.Error(a.Body)
	}
}

func TestWhoMayAsk(t *testing.T) {
	p := populate(t)
	for name, c := range map[string]struct {
		path, credential string
		status           int
		body             string
	}{
		"a guest sees public fleets":          {at("application", "$select", "app_name"), "", 200, `{"d":[{"app_name":"showroom"}]}`},
		"a guest with a wrong key":            {at("application", "$select", "app_name"), "nonsense", 200, `{"d":[{"app_name":"showroom"}]}`},
		"a guest sees no device":              {at("device"), "", 401, ""},
		"a guest sees no device of a fleet":   {at("application", "$select", "id", "$expand", "owns__device"), "", 200, `{"d":[{"id":4,"owns__device":[]}]}`},
		"public is not accessible directly":   {at("application", "$select", "id", "$filter", "is_directly_accessible_by__user/any(dau:1 eq 1)"), "", 200, `{"d":[]}`},
		"members are accessible to a member":  {at("application(1)", "$select", "id", "$expand", "is_directly_accessible_by__user($select=username;$orderby=username)"), p.AdminSession, 200, `{"d":[{"id":1,"is_directly_accessible_by__user":[{"username":"admin"},{"username":"carol"}]}]}`},
		"members of others are not":           {at("application(4)", "$select", "id", "$expand", "is_directly_accessible_by__user/$count"), p.AdminSession, 200, `{"d":[{"id":4,"is_directly_accessible_by__user":0}]}`},
		"what only a hosted product has":      {at("team", "$filter", "whatever eq 1", "$expand", "anything"), p.AdminSession, 200, `{"d":[]}`},
		"counted":                             {at("team/$count"), p.AdminSession, 200, `{"d":0}`},
		"for guests":                          {at("team"), "", 401, ""},
		"behind a navigation":                 {at("application(1)", "$select", "id", "$expand", "includes__user"), p.AdminSession, 200, `{"d":[{"id":1,"includes__user":[]}]}`},
		"the row of an expansion, not seen":   {at("device", "$select", "id", "$expand", "belongs_to__application($select=id;$expand=organization)"), p.keys["a"], 200, `{"d":[{"id":1,"belongs_to__application":[{"id":1,"organization":[]}]}]}`},
		"a version before this one":           {"/v6/device?$select=id,should_be_running__release&$filter=uuid%20eq%20'" + strings.Repeat("a", 32) + "'", p.AdminSession, 200, `{"d":[{"id":1,"should_be_running__release":{"__id":1}}]}`},
		"a field of a reference's other name": {at("image_install(1)", "$select", "image,id"), p.AdminSession, 200, `{"d":[{"image":{"__id":1},"id":1}]}`},
	} {
		if a := p.Do("GET", c.path, c.credential, ""); a.Status != c.status || a.Body != c.body {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	for name, c := range map[string]struct {
		path, credential, body string
		status                 int
		want                   string
	}{
		"own":     {"device(1)", p.AdminSession, `{"action":"update"}`, 200, `{"d":[{"id":1}]}`},
		"foreign": {"device(5)", p.AdminSession, `{"action":"update"}`, 401, ""},
		"itself":  {"device(uuid='" + strings.Repeat("a", 32) + "')", p.keys["a"], `{"action":"update"}`, 200, `{"d":[{"id":1}]}`},
		"other":   {"device(2)", p.keys["a"], `{"action":"read"}`, 401, ""},
		"unknown": {"device(1)", p.AdminSession, `{"action":"fly"}`, 401, ""},
		"tunnel":  {"device(1)", p.AdminSession, `{"action":"tunnel-22222"}`, 200, `{"d":[{"id":1}]}`},
	} {
		if a := p.Do("POST", "/v7/"+c.path+"/canAccess", c.credential, c.body); a.Status != c.status || a.Body != c.want {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}

// FuzzRead sends anything: there is an answer or a named mistake, never a
// failure of the database.
func FuzzRead(f *testing.F) {
	p := populate(f)
	for _, s := range []string{
		"device?$filter=device_tag/any(x:x/value eq 'v1') or id in (1,2)&$orderby=belongs_to__application/app_name desc", "release?$expand=release_image($expand=image;$top=1;$orderby=id)&$select=version",
		"application?$filter=owns__device/$count gt 1 and not startswith(slug,'a') and length(slug) add 1 eq 14.5", "service(application=1,service_name='web')", "device/$count?$filter=year(created_at) eq 2026 and note eq null",
		"user?$filter=organization_membership/all(m:m/user eq id)", "device?$filter=substring(uuid,1,2) eq 'aa' and round(id div 2) in (1,null)",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, raw, _ := strings.Cut(s, "?")
		r, err := query.Parse("GET", path, raw)
		if err != nil {
			return
		}
		w := *p.World
		w.T = t
		if a := w.Do("GET", "/v7/"+r.String(), p.AdminSession, ""); a.Status >= 500 {
			t.Errorf("%s: %d %s", s, a.Status, a.Body)
		}
	})
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
