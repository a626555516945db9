package versions

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

func version(t *testing.T, name string) Version {
	t.Helper()
	for _, v := range All() {
		if v.Name == name {
			return v
		}
	}
	t.Fatalf("there is no version %s", name)
	return Version{}
}

// Every way leads from a field that is there to a resource that is there, keys name
// fields, and no name is used twice.
func TestEveryVersionIsWhole(t *testing.T) {
	for _, v := range All() {
		for name, r := range v.Resources {
			for _, problem := range problems(v, r) {
				t.Errorf("%s: %s: %s", v.Name, name, problem)
			}
		}
	}
}

func problems(v Version, r model.Resource) (all []string) {
	seen := map[string]bool{}
	for _, f := range r.Fields {
		if seen[f.Name] {
			all = append(all, "two fields "+f.Name)
		}
		seen[f.Name] = true
	}
	for _, n := range r.Navs {
		if _, ok := v.Resources[n.To]; !ok {
			all = append(all, n.Name+" leads to "+n.To+", which is not there")
		}
		if !seen[n.Local] {
			all = append(all, n.Name+" begins at "+n.Local+", which is no field")
		}
	}
	for _, field := range slices.Concat(r.Keys...) {
		if !seen[field] {
			all = append(all, "a key names "+field+", which is no field")
		}
	}
	return all
}

// One version's changes do not reach into another.
func TestVersionsShareNothing(t *testing.T) {
	before := version(t, "v7").Resources["device"]
	All()
	if diff := cmp.Diff(before, version(t, "v7").Resources["device"]); diff != "" {
		t.Error(diff)
	}
	if _, ok := before.Field("is_pinned_on__release"); !ok {
		t.Error("the current version has lost a field to an older one")
	}
}

// What clients of each time read.
func TestFieldsOfEachTime(t *testing.T) {
	for _, c := range []struct{ version, resource, has, lacks string }{
		{"v6", "device", `created_at modified_at id actor api_heartbeat_state uuid local_id device_name note is_of__device_type belongs_to__application
			is_online last_connectivity_event is_connected_to_vpn last_vpn_event is_locked_until__date logs_channel public_address vpn_address
			ip_address mac_address is_web_accessible memory_usage memory_total storage_block_device storage_usage storage_total cpu_usage cpu_temp
			is_undervolted cpu_id is_running__release download_progress status os_version os_variant overall_status overall_progress
			supervisor_version provisioning_progress provisioning_state api_port api_secret is_managed_by__service_instance
			should_be_running__release should_be_operated_by__release is_managed_by__device update_status last_update_status_event`,
			"is_pinned_on__release should_be_managed_by__release changed_api_heartbeat_state_on__date"},
		{"v6", "release", "release_type is_final contract", ""},
		{"v6", "application", "depends_on__application should_be_running__release", ""},
		{"v5", "application", "commit device_type organization", "should_be_running__release is_for__device_type"},
		{"v5", "device", "is_on__commit device_type should_be_running__release", "is_running__release is_of__device_type"},
		{"v5", "application_environment_variable", "env_var_name value", "name"},
		{"v5", "device_service_environment_variable", "env_var_name service_install", "name"},
		{"v4", "application", "user commit", "organization"},
		{"v2", "device", "id uuid name application device_type commit status", "device_name belongs_to__application is_pinned_on__release"},
		{"v2", "application", "app_name device_type commit user", "organization should_track_latest_release"},
		{"v2", "build", "application commit is_successful", "composition"},
		{"v2", "environment_variable", "application env_var_name value", "name"},
	} {
		r := version(t, c.version).Resources[c.resource]
		for name := range strings.FieldsSeq(c.has) {
			if _, ok := r.Field(name); !ok {
				t.Errorf("%s: %s lacks %s", c.version, c.resource, name)
			}
		}
		for name := range strings.FieldsSeq(c.lacks) {
			if _, ok := r.Field(name); ok {
				t.Errorf("%s: %s has %s", c.version, c.resource, name)
			}
		}
	}
	for _, name := range []string{"release_asset"} {
		if _, ok := version(t, "v6").Resources[name]; ok {
			t.Errorf("v6 has %s", name)
		}
	}
	for _, name := range []string{"service", "image", "organization"} {
		if _, ok := version(t, "v2").Resources[name]; ok {
			t.Errorf("v2 has %s", name)
		}
	}
}

// data is a cloud with one device type and one release.
type data struct{}

func (data) DeviceType(_ context.Context, slug string) (int64, error) {
	if slug == "raspberrypi3" {
		return 7, nil
	}
	return 0, nil
}

func (data) Release(_ context.Context, _ string, id int64, commit string) (int64, error) {
	if id == 3 && commit == "abc" {
		return 12, nil
	}
	return 0, nil
}

// What clients of each time write.
func TestBodiesOfEachTime(t *testing.T) {
	one := []query.KeyPart{{Value: query.Literal{Value: int64(3)}}}
	for _, c := range []struct{ version, resource, body, want string }{
		{"v7", "device", `{"is_pinned_on__release":5}`, `{"is_pinned_on__release":5}`},
		{"v6", "device", `{"should_be_running__release":5,"logs_channel":null}`, `{"is_pinned_on__release":5}`},
		{"v6", "device", `{"vpn_address":"10.0.0.1"}`, `vpn_address cannot be set: it has no meaning any more.`},
		{"v6", "application", `{"app_name":"a","device_type":"raspberrypi3"}`, `{"app_name":"a","is_for__device_type":7}`},
		{"v6", "application", `{"device_type":"toaster"}`, `Unknown device type toaster`},
		{"v6", "release", `{"release_type":"draft","contract":"{\"a\":1}"}`, `{"contract":{"a":1},"is_final":false}`},
		{"v6", "release", `{"release_type":"rough"}`, `release_type must be final or draft.`},
		{"v6", "release", `{"contract":"{"}`, `contract must be a JSON document.`},
		{"v5", "device_environment_variable", `{"device":3,"env_var_name":"A","value":"1"}`, `{"device":3,"name":"A","value":"1"}`},
		{"v5", "application", `{"commit":"abc"}`, `{"should_be_running__release":12}`},
		{"v5", "application", `{"commit":"unknown"}`, `{"should_be_running__release":null}`},
		{"v5", "device", `{"is_on__commit":null}`, `{"is_running__release":null}`},
		{"v4", "application", `{"app_name":"a","user":1}`, `{"app_name":"a"}`},
		{"v2", "device", `{"name":"n","commit":"abc","status":"Idle","logs_channel":"x"}`, `{"device_name":"n","is_running__release":12,"status":"Idle"}`},
		{"v2", "environment_variable", `{"application":1,"env_var_name":"A","value":"1"}`, `{"application":1,"name":"A","value":"1"}`},
		{"v2", "build", `{}`, `Builds are made by the builder: push a project.`},
	} {
		var f Fields
		if err := json.Unmarshal([]byte(c.body), &f); err != nil {
			t.Fatal(err)
		}
		err := version(t, c.version).Body(t.Context(), data{}, query.Request{Resource: c.resource, Key: one}, f)
		got, _ := json.Marshal(f)
		if bad, ok := errors.AsType[*query.Error](err); ok {
			got = []byte(bad.Reason)
		} else if err != nil {
			t.Fatal(err)
		}
		if string(got) != c.want {
			t.Errorf("%s %s %s: %s, want %s", c.version, c.resource, c.body, got, c.want)
		}
	}
	err := version(t, "v5").Body(t.Context(), data{}, query.Request{Resource: "application"}, Fields{"commit": json.RawMessage(`"abc"`)})
	if _, ok := errors.AsType[*query.Error](err); !ok {
		t.Errorf("a commit for many applications at once: %v", err)
	}
}

// The words for the state of a device were others.
func TestWordsForTheState(t *testing.T) {
	status, _ := version(t, "v6").Resources["device"].Field("overall_status")
	for _, word := range []string{"'offline'", "'idle'"} {
		if !strings.Contains(status.Expression, word) {
			t.Errorf("v6 does not say %s", word)
		}
	}
	if status.Kind != model.Text {
		t.Error("it is no text")
	}
}
