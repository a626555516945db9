package device_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
	"deckhand/test/golden"
)

// put changes a row as the admin does.
func put(t *testing.T, w *cloudtest.World, resource string, id int64, v model.Values) {
	t.Helper()
	by := access.Caller{Role: access.User, ID: w.Admin.ID, Actor: w.Admin.Actor, Name: w.Admin.Username}
	n, err := w.DB.Update(t.Context(), by, resource, model.Selection{SQL: "t.id = ?", Args: []any{id}}, v)
	if err != nil || n != 1 {
		t.Fatalf("%s %d %v: %d rows, %v", resource, id, v, n, err)
	}
}

func add(t *testing.T, w *cloudtest.World, resource string, v model.Values) int64 {
	t.Helper()
	by := access.Caller{Role: access.User, ID: w.Admin.ID, Actor: w.Admin.Actor, Name: w.Admin.Username}
	id, err := w.DB.Create(t.Context(), by, resource, v)
	if err != nil {
		t.Fatalf("%s %v: %v", resource, v, err)
	}
	return id
}

type stateDoc struct {
	Name   string
	Apps   map[string]stateApp
	Config map[string]string
}

type stateApp struct {
	ID       int64
	IsHost   bool `json:"is_host"`
	Releases map[string]struct {
		Services map[string]struct {
			Image               string
			Environment, Labels map[string]string
		}
	}
}

func read(t *testing.T, w *cloudtest.World, d model.Device, key string) stateDoc {
	t.Helper()
	var all map[string]stateDoc
	if err := json.Unmarshal([]byte(w.Want(200, "GET", statePath(d), key, "").Body), &all); err != nil {
		t.Fatal(err)
	}
	return all[d.UUID]
}

const one = `{"services":{"main":{"build":"."}}}`

// system is an app for all devices with one release, as the OS and the supervisor
// are.
func system(t *testing.T, w *cloudtest.World, name, commit string, v model.Values) (model.Fleet, model.Release, []model.Image) {
	t.Helper()
	f := w.Fleet(w.Admin, name)
	put(t, w, "application", f.ID, v)
	r, images := w.Release(f, commit, one)
	return f, r, images
}

func TestSupervisorAndHostOSComeFirst(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	w.Release(f, "abc123", one)
	host, hostRelease, _ := system(t, w, "hostos", "beef", model.Values{"is_host": true})
	super, superRelease, _ := system(t, w, "super", "cafe", model.Values{"is_public": true})
	put(t, w, "device", d.ID, model.Values{"should_be_operated_by__release": hostRelease.ID, "should_be_managed_by__release": superRelease.ID})
	set(t, w, model.FleetEnvironment, f.ID, "FLEET", "1")
	set(t, w, model.FleetEnvironment, super.ID, "SUPER", "1")
	set(t, w, model.DeviceEnvironment, d.ID, "DEVICE", "1")

	body := w.Want(200, "GET", statePath(d), key, "").Body
	at := []int{strings.Index(body, super.UUID), strings.Index(body, host.UUID), strings.Index(body, f.UUID)}
	if !slices.IsSorted(at) || at[0] < 0 {
		t.Errorf("the apps are at %v of %s", at, body)
	}
	doc := read(t, w, d, key)
	service := doc.Apps[super.UUID].Releases["cafe"].Services["main"]
	if got := slices.Sorted(maps.Keys(service.Environment)); !slices.Equal(got, []string{"A", "B", "DEVICE", "SUPER"}) {
		t.Errorf("the supervisor's environment has %v", got)
	}
	if _, said := service.Labels["io.balena.image.store"]; said {
		t.Error("the supervisor's image is kept where the OS is")
	}
	if got := doc.Apps[host.UUID].Releases["beef"].Services["main"].Labels["io.balena.image.store"]; got != "root" || !doc.Apps[host.UUID].IsHost {
		t.Errorf("the host OS is kept in %q", got)
	}

	// A profile of an image counts only when the device's fleet activates it.
	const part = 2 // the host OS was released second, and parts are numbered
	add(t, w, "image_profile", model.Values{"release_image": int64(part), "profile_name": "desktop"})
	if got := read(t, w, d, key).Apps[host.UUID].Releases["beef"].Services; len(got) != 0 {
		t.Errorf("services without their profile: %v", got)
	}
	add(t, w, "application_profile", model.Values{"application": f.ID, "on__application": host.ID, "activates__profile_name": "desktop"})
	if got := read(t, w, d, key).Apps[host.UUID].Releases["beef"].Services; len(got) != 1 {
		t.Errorf("services with their profile: %v", got)
	}

	// An app that another one updates says so to its services.
	block, _, images := system(t, w, "updater", "f00d", model.Values{})
	put(t, w, "application", f.ID, model.Values{"is_updated_by__application": block.ID})
	want := images[0].Location + "@" + images[0].ContentHash
	if got := read(t, w, d, key).Apps[f.UUID].Releases["abc123"].Services["main"].Labels["io.balena.private.updater"]; got != want {
		t.Errorf("the updater is %q, want %q", got, want)
	}
}

func TestWhatChangesATarget(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	other, otherKey := w.Device(w.Fleet(w.Admin, "other"), "b")
	first, images := w.Release(f, "aaa", composition)
	w.Release(f, "bbb", composition)
	tag := func() string { return w.Want(200, "GET", statePath(d), key, "").Header.Get("ETag") }
	last, still := tag(), w.Want(200, "GET", statePath(other), otherKey, "").Header.Get("ETag")
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"fleet environment", func() { set(t, w, model.FleetEnvironment, f.ID, "X", "1") }},
		{"fleet config", func() { set(t, w, model.FleetConfig, f.ID, "BALENA_X", "1") }},
		{"service environment", func() { set(t, w, model.ServiceEnvironment, images[1].ServiceID, "X", "2") }},
		{"device environment", func() { set(t, w, model.DeviceEnvironment, d.ID, "X", "3") }},
		{"device config", func() { set(t, w, model.DeviceConfig, d.ID, "BALENA_X", "2") }},
		{"service label", func() {
			add(t, w, "service_label", model.Values{"service": images[1].ServiceID, "label_name": "l", "value": "v"})
		}},
		{"pin", func() { put(t, w, "device", d.ID, model.Values{"is_pinned_on__release": first.ID}) }},
		{"environment of the pinned release", func() {
			add(t, w, "image_environment_variable", model.Values{"release_image": int64(2), "name": "NEW", "value": "v"})
		}},
		{"label of the pinned release", func() {
			add(t, w, "image_label", model.Values{"release_image": int64(2), "label_name": "new", "value": "v"})
		}},
		{"name", func() { put(t, w, "device", d.ID, model.Values{"device_name": "new"}) }},
		{"name of the fleet", func() { put(t, w, "application", f.ID, model.Values{"app_name": "cooking"}) }},
		{"fleet", func() { put(t, w, "device", d.ID, model.Values{"belongs_to__application": other.Fleet}) }},
	} {
		step.do()
		now := tag()
		if now == last {
			t.Errorf("%s: the target is as before", step.name)
		}
		last = now
		if a := w.Want(304, "GET", statePath(d), key, "", "If-None-Match", now); a.Header.Get("ETag") != now {
			t.Errorf("%s: 304 with tag %q", step.name, a.Header.Get("ETag"))
		}
	}
	w.Want(304, "GET", statePath(other), otherKey, "", "If-None-Match", still)
}

func TestPollIntervalAndWhatConfigurationIsSent(t *testing.T) {
	for name, c := range map[string]struct {
		fleet, device map[string]string
		want          map[string]string
	}{
		"nothing":       {nil, nil, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000"}},
		"too short":     {map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "1000"}, nil, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000"}},
		"longer":        {map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "900000"}, nil, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "900000"}},
		"new spelling":  {map[string]string{"BALENA_SUPERVISOR_POLL_INTERVAL": "900000"}, nil, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "900000", "BALENA_SUPERVISOR_POLL_INTERVAL": "900000"}},
		"no number":     {map[string]string{"BALENA_SUPERVISOR_POLL_INTERVAL": "often"}, nil, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "BALENA_SUPERVISOR_POLL_INTERVAL": "600000"}},
		"device's over": {map[string]string{"BALENA_A": "1", "BALENA_B": "1"}, map[string]string{"BALENA_B": "2", "RESIN_B": "3"}, map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "BALENA_A": "1", "BALENA_B": "2", "RESIN_B": "3"}},
		"for pages": {map[string]string{"BALENA_UI_X": "1", "RESIN_UI_X": "1", "RESIN_HOST_LOG_TO_DISPLAY": "1", "BALENA_HOST_LOG_TO_DISPLAY": "1", "RESIN_HOST_CONFIG_x": "1"}, nil,
			map[string]string{"RESIN_SUPERVISOR_POLL_INTERVAL": "600000", "RESIN_HOST_CONFIG_x": "1"}},
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := start(t)
			f := w.Fleet(w.Admin, "kitchen")
			d, key := w.Device(f, "a")
			for _, k := range slices.Sorted(maps.Keys(c.fleet)) {
				set(t, w, model.FleetConfig, f.ID, k, c.fleet[k])
			}
			for _, k := range slices.Sorted(maps.Keys(c.device)) {
				set(t, w, model.DeviceConfig, d.ID, k, c.device[k])
			}
			if diff := cmp.Diff(c.want, read(t, w, d, key).Config); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestStrategyOfServices(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	_, images := w.Release(f, "abc", composition)
	set(t, w, model.FleetConfig, f.ID, "RESIN_SUPERVISOR_UPDATE_STRATEGY", "hand-over")
	set(t, w, model.FleetConfig, f.ID, "BALENA_SUPERVISOR_HANDOVER_TIMEOUT", "1000")
	add(t, w, "service_label", model.Values{"service": images[0].ServiceID, "label_name": "io.balena.update.strategy", "value": "delete-then-download"})
	set(t, w, model.DeviceConfig, d.ID, "BALENA_SUPERVISOR_UPDATE_STRATEGY", "kill-then-download")
	services := read(t, w, d, key).Apps[f.UUID].Releases["abc"].Services
	if diff := cmp.Diff(map[string]string{"of": "web", "io.resin.update.strategy": "kill-then-download", "io.resin.update.handover-timeout": "1000"}, services["web"].Labels); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]string{"of": "db", "io.balena.update.strategy": "delete-then-download", "io.resin.update.handover-timeout": "1000"}, services["db"].Labels); diff != "" {
		t.Error(diff)
	}
}

func TestStatesForOlderDevices(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	v1, v2 := "/device/v1/"+d.UUID+"/state", "/device/v2/"+d.UUID+"/state"
	golden.File(t, "testdata/v2-no-release.json", stable(f, w.Want(200, "GET", v2, key, "").Body))
	golden.File(t, "testdata/v1-no-release.json", stable(f, w.Want(200, "GET", v1+"?&apikey="+key, "", "").Body))
	w.Release(f, "aaa", one)
	set(t, w, model.FleetEnvironment, f.ID, "B", "fleet")
	set(t, w, model.DeviceEnvironment, d.ID, "C", "device")
	set(t, w, model.FleetConfig, f.ID, "RESIN_SUPERVISOR_UPDATE_STRATEGY", "hand-over")
	golden.File(t, "testdata/v1.json", stable(f, w.Want(200, "GET", v1+"?&apikey="+key, "", "").Body))
	w.Release(f, "bbb", composition)
	golden.File(t, "testdata/v1-many.json", stable(f, w.Want(200, "GET", v1, key, "").Body))
	golden.File(t, "testdata/v2.json", stable(f, w.Want(200, "GET", v2, key, "").Body))

	tag := w.Want(200, "GET", v2, key, "").Header.Get("ETag")
	w.Want(304, "GET", v2, key, "", "If-None-Match", tag)
	w.Want(401, "GET", v2, "", "")
	w.Want(304, "GET", "/device/v2/"+strings.Repeat("f", 32)+"/state", "", "")
	w.Want(304, "GET", "/device/v1/"+strings.Repeat("f", 32)+"/state", "", "")
}

func TestStateOfAFleet(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	_, key := w.Device(f, "a")
	_, stranger := w.Device(w.Fleet(w.Bob, "cellar"), "b")
	path := "/device/v3/fleet/" + f.UUID + "/state"
	w.Want(401, "GET", path, key, "") // nothing to run
	w.Release(f, "aaa", one)
	w.Release(f, "bbb", composition)
	golden.File(t, "testdata/fleet.json", stable(f, w.Want(200, "GET", path, key, "").Body))
	for _, query := range []string{"/", "?releaseUuid=", "?releaseUuid=bbb"} {
		if a := w.Want(200, "GET", path+query, w.AdminSession, ""); !strings.Contains(a.Body, `"bbb"`) {
			t.Errorf("%s: %s", query, a.Body)
		}
	}
	if a := w.Want(200, "GET", path+"?releaseUuid=aaa", key, ""); !strings.Contains(a.Body, `"aaa"`) {
		t.Error(a.Body)
	}
	for name, c := range map[string][2]string{
		"unknown fleet": {"/device/v3/fleet/" + strings.Repeat("f", 32) + "/state", key}, "unknown release": {path + "?releaseUuid=ccc", key},
		"stranger": {path, stranger}, "nobody": {path, ""},
	} {
		if a := w.Do("GET", c[0], c[1], ""); a.Status != 401 || a.Body != "" {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	put(t, w, "application", f.ID, model.Values{"is_public": true})
	w.Want(200, "GET", path, stranger, "")
}

func TestAFrozenDeviceKeepsWhatItHas(t *testing.T) {
	w, _ := start(t)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	w.Want(200, "GET", statePath(d), key, "")
	put(t, w, "device", d.ID, model.Values{"is_frozen": true})
	w.Want(304, "GET", statePath(d), key, "")
	w.Want(304, "GET", statePath(d), "", "")
	w.Want(401, "PATCH", "/device/v3/state", key, `{"`+d.UUID+`":{"status":"x"}}`)
	w.Want(401, "PATCH", "/device/v2/"+d.UUID+"/state", key, `{"local":{"status":"x"}}`)
	w.Want(200, "PATCH", "/device/v2/"+strings.Repeat("f", 32)+"/state", key, `{"local":{"status":"x"}}`)
	put(t, w, "device", d.ID, model.Values{"is_frozen": false})
	w.Want(200, "GET", statePath(d), key, "")
}

func TestReportsOfOlderDevices(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	r, images := w.Release(f, "abc123", composition)
	path := "/device/v2/" + d.UUID + "/state"
	w.Want(200, "PATCH", path, key, fmt.Sprintf(`{"local":{"name":"new name","status":"Idle","api_port":"48484","is_on__commit":"abc123","should_be_running__release":%d,"note":"n",
		"apps":{"%d":{"services":{"%d":{"releaseId":"%d","status":"Downloading","download_progress":7},"%d":{"releaseId":%d,"status":"Running"}}}}},"dependent":{}}`,
		r.ID, f.ID, images[1].ID, r.ID, images[0].ID, r.ID))
	if diff := cmp.Diff([]string{"db Running abc123", "web Downloading abc123 7%"}, installs(t, w, d)); diff != "" {
		t.Error(diff)
	}
	got, err := w.DB.DeviceByID(t.Context(), d.ID)
	if err != nil || got.Name != "new name" || got.RunningRelease != r.ID || got.PinnedRelease != r.ID {
		t.Errorf("%+v %v", got, err)
	}
	w.Want(200, "PATCH", path, key, `{"local":{"is_on__commit":"unknown"}}`)
	if got, _ = w.DB.DeviceByID(t.Context(), d.ID); got.RunningRelease != r.ID {
		t.Error("an unknown commit changed what runs")
	}
	w.Want(200, "PATCH", path, key, `{"local":{"is_on__commit":null}}`)
	if got, _ = w.DB.DeviceByID(t.Context(), d.ID); got.RunningRelease != 0 {
		t.Error("it still runs a release")
	}
	for body, text := range map[string]string{
		`{}`: "local", `{"local":7}`: "local",
		`{"local":{"apps":{"1":{"services":{"x":{"releaseId":1}}}}}}`:   "Invalid image ID value in request",
		`{"local":{"apps":{"1":{"services":{"1":{"releaseId":"x"}}}}}}`: "Invalid release ID value in request",
	} {
		if a := w.Do("PATCH", path, key, body); a.Status != 400 || !strings.Contains(a.Body, text) {
			t.Errorf("%s: %d %s", body, a.Status, a.Body)
		}
	}
	w.Want(401, "PATCH", path, w.AdminSession, `{"local":{}}`)
}

func TestProgressIsWrittenEveryHalfMinute(t *testing.T) {
	now := time.Now()
	w := cloudtest.New(t, func() time.Time { return now })
	f := w.Fleet(w.Admin, "kitchen")
	d, _ := w.Device(f, "a")
	_, images := w.Release(f, "abc", one)
	for _, step := range []struct {
		after  time.Duration
		status string
		sent   string
		want   string
	}{
		{0, "Downloading", "1", "main Downloading abc 1%"},
		{10 * time.Second, "Downloading", "20", "main Downloading abc 1%"},
		{21 * time.Second, "Downloading", "40", "main Downloading abc 40%"},
		{time.Second, "Downloading", "100", "main Downloading abc 100%"},
		{time.Second, "Downloaded", "", "main Downloaded abc"},
		{time.Second, "Downloading", "3", "main Downloading abc 3%"},
		{time.Second, "", "", "main Downloading abc"},
		{time.Second, "Dancing", "", "main Downloading abc"},
	} {
		now = now.Add(step.after)
		var progress *int64
		if step.sent != "" {
			n, err := strconv.ParseInt(step.sent, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			progress = &n
		}
		err := w.DB.ApplyReport(t.Context(), d.ID, model.Report{HasApps: true, Apps: []model.ReportedApp{{UUID: f.UUID, Releases: []model.ReportedRelease{
			{Commit: "abc", Services: []model.ReportedService{{Name: "main", Image: images[0].Location, Status: step.status, Progress: progress}}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := installs(t, w, d); len(got) != 1 || got[0] != step.want {
			t.Errorf("after %s%% %s: %v, want %s", step.sent, step.status, got, step.want)
		}
	}
}

func TestVersionsThatADeviceReports(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	w.Want(200, "PATCH", "/device/v3/state", key, `{"`+d.UUID+`":{"os_version":"balenaOS 2.98.0 (dev)","supervisor_version":"19.0.5","status":"Idle"}}`)
	got, err := w.DB.DeviceByID(t.Context(), d.ID)
	if err != nil || got.OSVersion != "balenaOS 2.98.0 (dev)" || got.SupervisorVersion != "19.0.5" {
		t.Errorf("%+v %v", got, err)
	}
}

func TestBatchesOfLogLinesAreLimited(t *testing.T) {
	w, _ := start(t)
	d, key := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	path := "/device/v2/" + d.UUID + "/logs"
	for range 15 {
		w.Want(201, "POST", path, key, `[{"message":"x","timestamp":1}]`)
	}
	if a := w.Want(429, "POST", path, key, `[{"message":"x","timestamp":1}]`); a.Header.Get("Retry-After") == "" {
		t.Error("it is not said when to come again")
	}
}
