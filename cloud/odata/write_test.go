package odata_test

import (
	"fmt"
	"strings"
	"testing"

	"deckhand/cloud/model"
)

// A device tells what came with its image: which release it stays on, its name,
// its settings. Others it can neither see nor change.
func TestADeviceIntroducesItself(t *testing.T) {
	w := start(t)
	kitchen := w.Fleet(w.Admin, "kitchen")
	device, key := w.Device(kitchen, "a")
	neighbour, otherKey := w.Device(kitchen, "b")
	old, _ := w.Release(kitchen, "abc1", composition)
	w.Release(kitchen, "abc2", composition)
	building := w.Building(kitchen, "abc3", composition)
	foreign, _ := w.Release(w.Fleet(w.Bob, "hiss"), "abc4", composition)
	changes := w.DB.Changes().Watch(model.Topic{Kind: model.DeviceTarget, ID: device.ID})
	defer changes.Stop()

	find := at("release", "$select", "id", "$filter", fmt.Sprintf("belongs_to__application eq %d and commit eq 'abc1' and status eq 'success'", kitchen.ID))
	if a := w.Want(200, "GET", find, key, ""); a.Body != fmt.Sprintf(`{"d":[{"id":%d}]}`, old.ID) {
		t.Error(a.Body)
	}
	if a := w.Want(200, "GET", at("application", "$select", "uuid", "$filter", fmt.Sprintf("id eq %d", kitchen.ID)), key, ""); !strings.Contains(a.Body, kitchen.UUID) {
		t.Error(a.Body)
	}
	for resource, want := range map[string]string{"application": `{"d":1}`, "release": `{"d":3}`} { // of its own fleet
		if a := w.Want(200, "GET", at(resource+"/$count", "$filter", "id gt 0"), key, ""); a.Body != want {
			t.Errorf("a device sees of %s: %s", resource, a.Body)
		}
	}
	self := fmt.Sprintf("/v7/device(%d)", device.ID)
	pin := func(release int64) string { return fmt.Sprintf(`{"is_pinned_on__release":%d}`, release) }
	w.Want(200, "PATCH", self, otherKey, pin(old.ID)) // not visible to it: nothing happens
	if d, _ := w.DB.DeviceByID(t.Context(), device.ID); d.PinnedRelease != 0 {
		t.Error("another device pinned it")
	}
	w.Want(200, "PATCH", self, key, pin(old.ID))
	w.Want(200, "PATCH", self, key, `{"device_name":"porch"}`)
	if d, _ := w.DB.DeviceByID(t.Context(), device.ID); d.PinnedRelease != old.ID || d.Name != "porch" {
		t.Errorf("%+v", d)
	}
	select {
	case <-changes.C():
	default:
		t.Error("the device is not told that it is pinned")
	}
	for body, text := range map[string]string{
		pin(building.ID):                 "successful release",
		pin(foreign.ID):                  "successful release",
		pin(999):                         "successful release",
		pin(0):                           "wrong type",
		`{"is_pinned_on__release":"x"}`:  "wrong type",
		`{"device_name":""}`:             "one line",
		`{"device_name":"a\nb"}`:         "newline",
		`{"device_name":"x","status":1}`: "want a text",
	} {
		if a := w.Want(400, "PATCH", self, key, body); !strings.Contains(a.Body, text) {
			t.Errorf("%s: %s", body, a.Body)
		}
	}
	w.Want(200, "PATCH", self, key, `{}`)
	w.Want(200, "PATCH", self, key, `{"nobody_knows_this":1}`)
	w.Want(401, "PATCH", self, key, fmt.Sprintf(`{"belongs_to__application":%d}`, kitchen.ID)) // others move it
	w.Want(400, "PATCH", "/v7/device", key, pin(old.ID))                                       // every device
	w.Want(401, "PATCH", fmt.Sprintf("/v7/release(%d)", building.ID), key, `{"status":"cancelled"}`)
	w.Want(200, "PATCH", self, w.AdminSession, `{"is_pinned_on__release":null}`)
	if d, _ := w.DB.DeviceByID(t.Context(), device.ID); d.PinnedRelease != 0 {
		t.Error("it is still pinned")
	}
	w.Want(200, "PATCH", self, w.BobSession, pin(old.ID))
	if d, _ := w.DB.DeviceByID(t.Context(), device.ID); d.PinnedRelease != 0 {
		t.Error("a stranger pinned it")
	}

	variable := func(device int64) string {
		return fmt.Sprintf(`{"device":%d,"name":"RESIN_SUPERVISOR_LOG_CONTROL","value":"false"}`, device)
	}
	w.Want(201, "POST", "/v7/device_config_variable", key, variable(device.ID))
	w.Want(409, "POST", "/v7/device_config_variable", key, variable(device.ID))
	w.Want(401, "POST", "/v7/device_config_variable", key, variable(neighbour.ID))
	w.Want(201, "POST", "/v7/device_environment_variable", key, fmt.Sprintf(`{"device":%d,"name":"A","value":"1"}`, device.ID))
	w.Want(401, "POST", "/v7/application_environment_variable", key, fmt.Sprintf(`{"application":%d,"name":"A","value":"1"}`, kitchen.ID))
	if a := w.Want(200, "GET", at("device_config_variable", "$select", "name,value"), key, ""); a.Body != `{"d":[{"name":"RESIN_SUPERVISOR_LOG_CONTROL","value":"false"}]}` {
		t.Error(a.Body)
	}
	if a := w.Want(200, "GET", "/v7/device_config_variable/$count", otherKey, ""); a.Body != `{"d":0}` {
		t.Error(a.Body)
	}
}
