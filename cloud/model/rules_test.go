package model_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// desk is a cloud in which admin writes rows as the API does.
type desk struct {
	*cloudtest.World
	admin access.Caller
	fleet model.Fleet
}

func newDesk(t *testing.T) *desk {
	var ticks atomic.Int64 // a second whenever the clock is read
	d := &desk{World: cloudtest.New(t, func() time.Time {
		return time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC).Add(time.Duration(ticks.Add(1)) * time.Second)
	})}
	d.admin = person(d.Admin)
	d.fleet = d.Fleet(d.Admin, "kitchen")
	return d
}

func person(u model.User) access.Caller {
	return access.Caller{Role: access.User, ID: u.ID, Actor: u.Actor, Name: u.Username}
}

func (d *desk) create(resource string, v model.Values) int64 {
	d.T.Helper()
	id, err := d.DB.Create(d.T.Context(), d.admin, resource, v)
	if err != nil {
		d.T.Fatalf("create %s: %v", resource, err)
	}
	return id
}

func (d *desk) change(resource string, id int64, v model.Values) {
	d.T.Helper()
	if err := d.try(resource, id, v); err != nil {
		d.T.Fatalf("change %s %d: %v", resource, id, err)
	}
}

func (d *desk) try(resource string, id int64, v model.Values) error {
	_, err := d.DB.Update(d.T.Context(), d.admin, resource, byID(id), v)
	return err
}

func (d *desk) drop(resource string, id int64) error {
	n, err := d.DB.Delete(d.T.Context(), d.admin, resource, byID(id))
	if err == nil && n != 1 {
		d.T.Errorf("%d rows of %s deleted", n, resource)
	}
	return err
}

func byID(id int64) model.Selection { return model.Selection{SQL: "t.id = ?", Args: []any{id}} }

// field reads one field of a row; nil when there is no such row.
func (d *desk) field(resource string, id int64, name string) any {
	d.T.Helper()
	r, ok := model.ResourceNamed(resource)
	f, has := r.Field(name)
	if !ok || !has {
		d.T.Fatalf("no field %s.%s", resource, name)
	}
	rows, err := d.DB.Rows(d.T.Context(), r, []model.Field{f}, "WHERE t.id = ?", id)
	if err != nil {
		d.T.Fatal(err)
	}
	if len(rows) == 0 {
		return nil
	}
	return rows[0][0]
}

func (d *desk) want(resource string, id int64, fields model.Values) {
	d.T.Helper()
	for name, want := range fields {
		if got := d.field(resource, id, name); got != want {
			d.T.Errorf("%s %d: %s is %v (%T), want %v", resource, id, name, got, got, want)
		}
	}
}

// ids are the rows of a resource for which a condition holds.
func (d *desk) ids(resource, condition string, args ...any) []int64 {
	d.T.Helper()
	r, _ := model.ResourceNamed(resource)
	id, _ := r.Field("id")
	rows, err := d.DB.Rows(d.T.Context(), r, []model.Field{id}, "WHERE "+condition+" ORDER BY t.id", args...)
	if err != nil {
		d.T.Fatal(err)
	}
	var out []int64
	for _, row := range rows {
		n, ok := row[0].(int64)
		if !ok {
			d.T.Fatalf("id %v", row[0])
		}
		out = append(out, n)
	}
	return out
}

// release makes a release as the CLI does; more changes its fields.
func (d *desk) release(commit string, more model.Values) int64 {
	d.T.Helper()
	v := model.Values{"belongs_to__application": d.fleet.ID, "commit": commit, "composition": json.RawMessage(`{"services":{"main":{}}}`),
		"status": "running", "source": "local", "start_timestamp": d.DB.Now()}
	for name, value := range more {
		v[name] = value
	}
	return d.create("release", v)
}

func (d *desk) deviceType(slug string) int64 {
	d.T.Helper()
	return d.ids("device_type", "t.slug = ?", slug)[0]
}

// What people may not write is refused in the API's words.
func TestRulesSayWhatIsWrong(t *testing.T) {
	d := newDesk(t)
	device, _ := d.Device(d.fleet, "a")
	release, _ := d.Release(d.fleet, "abc", `{"services":{"main":{}}}`)
	service := d.ids("service", "t.application = ?", d.fleet.ID)[0]
	install := d.ids("service_install", "t.device = ?", device.ID)[0]
	part := d.ids("image__is_part_of__release", "t.is_part_of__release = ?", release.ID)[0]
	amd64 := d.deviceType("generic-amd64")
	long := func(n int) string { return strings.Repeat("x", n) }
	const (
		envName  = "Environment variable names can only contain alphanumeric characters and underscores."
		envTaken = "Environment variables RESIN, BALENA, USER are reserved"
		envSpace = "Environment variables beginning with RESIN_, BALENA_ are reserved."
		cfgName  = "Configuration variable names can only contain alphanumeric characters, underscores or a colon"
		cfgTaken = "Configuration variables RESIN, BALENA, USER are reserved"
		cfgSpace = "Configuration variables must be part of one of the following namespaces: RESIN_, BALENA_"
		lines    = "Variable values cannot contain line break characters"
	)
	for _, c := range []struct {
		resource string
		values   model.Values
		want     string
	}{
		{"application", model.Values{"app_name": "a b c d", "is_for__device_type": amd64}, "App name may only contain [a-zA-Z0-9_-]."},
		{"application", model.Values{"app_name": "abc", "is_for__device_type": amd64}, "App name must be 4 to 100 of the characters [a-zA-Z0-9_-]."},
		{"application", model.Values{"app_name": "Kitchen", "is_for__device_type": amd64}, `"slug" must be unique.`},
		{"application", model.Values{"app_name": "other", "is_for__device_type": amd64, "uuid": long(32)}, "Application UUID must be a 32 character long lower case UUID version 4."},
		{"application", model.Values{"app_name": "other", "is_for__device_type": amd64, "uuid": d.fleet.UUID}, `"uuid" must be unique.`},
		{"application", model.Values{"app_name": "other"}, "is_for__device_type must be given."},
		{"application", model.Values{"app_name": "other", "is_for__device_type": int64(999)}, "Data is referenced by is_for__device_type."},
		{"application", model.Values{"app_name": "other", "is_for__device_type": amd64, "is_of__class": "herd"}, "is_of__class must be one of: fleet, block, app."},
		{"device", model.Values{"uuid": "xyz", "is_of__device_type": amd64, "belongs_to__application": d.fleet.ID}, "Device UUID must be a 32 or 62 character long lower case hex string."},
		{"device", model.Values{"uuid": device.UUID, "is_of__device_type": amd64, "belongs_to__application": d.fleet.ID}, `"uuid" must be unique.`},
		{"device", model.Values{"device_name": "a\nb", "is_of__device_type": amd64, "belongs_to__application": d.fleet.ID}, "Device name cannot contain any newline characters."},
		{"device", model.Values{"belongs_to__application": d.fleet.ID}, "is_of__device_type must be given."},
		{"release", d.releaseBut("semver", "v1.2"), "Invalid semver format"},
		{"release", d.releaseBut("revision", int64(7)), "The provided revision does not match the autogenerated one."},
		{"release", d.releaseBut("commit", "xyz"), "commit must be up to 40 lower-case hex characters."},
		{"release", d.releaseBut("composition", json.RawMessage(`[]`)), "composition must be a JSON object."},
		{"release", d.releaseBut("composition", nil), "composition must be given."},
		{"release", d.releaseBut("status", "fine"), "status must be one of: running, success, failed, error, cancelled, interrupted."},
		{"release", d.releaseBut("source", "moon"), "source must be one of: cloud, local."},
		{"release", d.releaseBut("variant", long(51)), "variant has at most 50 characters."},
		{"release", d.releaseBut("known_issue_list", long(1001)), "known_issue_list has at most 1000 characters."},
		{"release", d.releaseBut("invalidation_reason", "bad"), "It is necessary that each release that has an invalidation reason, is invalidated."},
		{"release", d.releaseBut("belongs_to__application", int64(999)), "Data is referenced by belongs_to__application."},
		{"image", model.Values{"is_a_build_of__service": service, "status": "success", "start_timestamp": d.DB.Now()},
			`It is necessary that each image that has a status that is equal to "success", has a push timestamp.`},
		{"image", model.Values{"is_a_build_of__service": int64(999), "status": "running", "start_timestamp": d.DB.Now()}, "Data is referenced by is_a_build_of__service."},
		{"service", model.Values{"application": d.fleet.ID, "service_name": "main"}, `"application" and "service_name" must be unique.`},
		{"service", model.Values{"application": d.fleet.ID, "service_name": long(64)}, "service_name has 1 to 63 characters."},
		{"image_label", model.Values{"release_image": part, "label_name": "a", "value": long(301)}, "value has at most 300 characters."},
		{"image_environment_variable", model.Values{"release_image": part, "name": "A", "value": "1"}, `"release_image" and "name" must be unique.`},
		{"service_install", model.Values{"device": device.ID, "installs__service": service}, `"device" and "installs__service" must be unique.`},
		{"application_environment_variable", model.Values{"application": d.fleet.ID, "name": "1A", "value": ""}, envName},
		{"application_environment_variable", model.Values{"application": d.fleet.ID, "name": "A-B", "value": ""}, envName},
		{"device_environment_variable", model.Values{"device": device.ID, "name": "USER", "value": ""}, envTaken},
		{"service_environment_variable", model.Values{"service": service, "name": "BALENA_X", "value": ""}, envSpace},
		{"device_service_environment_variable", model.Values{"service_install": install, "name": "RESIN_X", "value": ""}, envSpace},
		{"device_service_environment_variable", model.Values{"service_install": install, "name": "A", "value": "a\rb"}, lines},
		{"application_config_variable", model.Values{"application": d.fleet.ID, "name": ":A", "value": ""}, cfgName},
		{"application_config_variable", model.Values{"application": d.fleet.ID, "name": "RESIN", "value": ""}, cfgTaken},
		{"device_config_variable", model.Values{"device": device.ID, "name": "OTHER", "value": ""}, cfgSpace},
		{"device_config_variable", model.Values{"device": device.ID, "name": "RESIN_X", "value": "a\nb"}, lines},
		{"device_config_variable", model.Values{"device": device.ID, "name": "RESIN_" + long(250), "value": ""}, "name has at most 255 characters."},
		{"device_config_variable", model.Values{"device": device.ID, "name": "RESIN_X"}, "value must be given."},
		{"application_tag", model.Values{"application": d.fleet.ID, "tag_key": "a b", "value": ""}, "Tag keys cannot contain whitespace."},
		{"device_tag", model.Values{"device": device.ID, "tag_key": "io.resin.x", "value": ""}, "Tag keys beginning with io.resin. are reserved."},
		{"release_tag", model.Values{"release": release.ID, "tag_key": "io.balena.x", "value": ""}, "Tag keys beginning with io.balena. are reserved."},
		{"release_tag", model.Values{"release": release.ID, "tag_key": long(165), "value": ""}, "tag_key has 1 to 164 characters."},
		{"release_tag", model.Values{"release": release.ID, "tag_key": "a", "value": long(1001)}, "value has at most 1000 characters."},
		{"organization", model.Values{"name": "x", "handle": "a-b"}, "Handles can only contain alphanumeric characters and underscores"},
		{"organization", model.Values{"name": "x", "handle": "Abc"}, "Handles must be lowercase"},
		{"organization", model.Values{"name": "x", "handle": "admin"}, `"handle" must be unique.`},
		{"user__has__public_key", model.Values{"user": d.Admin.ID, "title": long(121), "public_key": "k"}, "title has 1 to 120 characters."},
	} {
		if _, err := d.DB.Create(t.Context(), d.admin, c.resource, c.values); err == nil || err.Error() != c.want {
			t.Errorf("%s %v:\n got %v\nwant %s", c.resource, c.values, err, c.want)
		}
	}
}

func (d *desk) releaseBut(field string, value any) model.Values {
	return model.Values{"belongs_to__application": d.fleet.ID, "commit": "abc", "composition": json.RawMessage(`{}`),
		"status": "running", "source": "local", "start_timestamp": d.DB.Now(), field: value}
}

func TestNewFleetHasAllThatFollows(t *testing.T) {
	d := newDesk(t)
	release, _ := d.Release(d.fleet, "abc", `{"services":{"main":{}}}`)
	id := d.create("application", model.Values{"app_name": "Garden", "is_for__device_type": d.deviceType("raspberrypi3"),
		"should_track_latest_release": false, "should_be_running__release": release.ID, "slug": "evil/slug"})
	d.want("application", id, model.Values{"slug": "admin/garden", "should_track_latest_release": true, "should_be_running__release": nil,
		"is_of__class": "fleet", "application_type": d.ids("application_type", "t.slug = 'default'")[0]})

	d.change("application", id, model.Values{"app_name": "Garden-2", "slug": "evil/slug"})
	d.want("application", id, model.Values{"app_name": "Garden-2", "slug": "admin/garden-2"})
	err := d.try("application", id, model.Values{"is_for__device_type": d.deviceType("generic-amd64")})
	if err == nil || err.Error() != "The new default device type should be of the same cpu architecture as the previous one." {
		t.Error(err)
	}
	d.change("application", id, model.Values{"is_for__device_type": d.deviceType("raspberry-pi2")})
	// The release of another fleet is no target.
	if err := d.try("application", id, model.Values{"should_be_running__release": release.ID}); !errors.Is(err, model.ErrInvalid) {
		t.Error(err)
	}

	org := d.create("organization", model.Values{"name": "My Org"})
	d.want("organization", org, model.Values{"handle": "my_org"})
	d.want("organization", d.create("organization", model.Values{"name": "My Org"}), model.Values{"handle": "my_org_2"})
	d.change("application", id, model.Values{"organization": org})
	d.want("application", id, model.Values{"slug": "my_org/garden-2"})
	d.change("organization", org, model.Values{"handle": "ours"})
	d.want("application", id, model.Values{"slug": "ours/garden-2"})
	if err := d.drop("organization", org); !errors.Is(err, model.ErrReferenced) {
		t.Error(err)
	}
}

func TestReleaseVersionsAndRevisions(t *testing.T) {
	d := newDesk(t)
	first := d.release("a1", model.Values{"semver": "1.2.3", "is_created_by__user": int64(99)})
	d.want("release", first, model.Values{"raw_version": "1.2.3", "revision": int64(0), "is_final": true, "is_created_by__user": d.Admin.ID})
	draft := d.release("a2", model.Values{"semver": "1.2.3", "is_final": false})
	d.want("release", draft, model.Values{"revision": nil, "is_final": false, "is_finalized_at__date": nil})
	created, ok := d.field("release", draft, "created_at").(time.Time)
	if !ok {
		t.Fatal("no time")
	}
	d.want("release", draft, model.Values{"raw_version": fmt.Sprintf("1.2.3-%d", created.UnixMilli())})

	d.change("release", draft, model.Values{"is_final": true})
	d.want("release", draft, model.Values{"raw_version": "1.2.3+rev1", "revision": int64(1)})
	if d.field("release", draft, "is_finalized_at__date") == nil {
		t.Error("nobody knows when it became final")
	}
	err := d.try("release", draft, model.Values{"is_final": false})
	if err == nil || err.Error() != "Finalized releases cannot be converted to draft." {
		t.Error(err)
	}
	d.change("release", draft, model.Values{"semver": "2.0.0-beta.1+b7", "variant": "dev"})
	d.want("release", draft, model.Values{"raw_version": "2.0.0-beta.1+b7.dev", "revision": int64(0), "semver_prerelease": "beta.1"})
	d.want("release", d.release("a3", model.Values{"semver": "2.0.0-beta.1+b8", "variant": "dev"}), model.Values{"raw_version": "2.0.0-beta.1+b8.rev1.dev"})
	// Nothing of the version changes with the rest.
	d.change("release", draft, model.Values{"note": "x", "revision": int64(0)})
	d.want("release", draft, model.Values{"revision": int64(0), "note": "x"})

	d.change("release", first, model.Values{"is_invalidated": true, "invalidation_reason": "smells"})
	d.change("release", first, model.Values{"is_invalidated": false})
	d.want("release", first, model.Values{"invalidation_reason": nil})
}

func TestFleetFollowsItsReleases(t *testing.T) {
	d := newDesk(t)
	target := func() any { return d.field("application", d.fleet.ID, "should_be_running__release") }
	one := d.release("a1", nil)
	if target() != nil {
		t.Error("a release that is being built is the target")
	}
	d.change("release", one, model.Values{"status": "success"})
	if target() != one {
		t.Errorf("target %v", target())
	}
	// One that began before is not newer, whenever it ends.
	d.release("a0", model.Values{"status": "success", "start_timestamp": d.DB.Now().Add(-time.Hour)})
	draft := d.release("a2", model.Values{"status": "success", "is_final": false})
	if target() != one {
		t.Errorf("target %v", target())
	}
	d.change("release", draft, model.Values{"is_final": true})
	if target() != draft {
		t.Errorf("finalised, target %v", target())
	}
	d.change("release", draft, model.Values{"is_invalidated": true})
	if target() != one {
		t.Errorf("invalidated, target %v", target())
	}
	d.change("release", draft, model.Values{"is_invalidated": false})
	d.change("release", draft, model.Values{"is_passing_tests": false})
	if target() != one {
		t.Errorf("failing tests, target %v", target())
	}
	d.change("application", d.fleet.ID, model.Values{"should_be_running__release": one, "should_track_latest_release": false})
	newest := d.release("a4", model.Values{"status": "success"})
	if target() != one {
		t.Errorf("pinned, target %v", target())
	}
	// The client looked for the latest before the newest ended.
	d.change("application", d.fleet.ID, model.Values{"should_be_running__release": one, "should_track_latest_release": true})
	if target() != newest {
		t.Errorf("tracking again, target %v", target())
	}

	err := d.drop("release", newest)
	if err == nil || !strings.HasSuffix(err.Error(), "because it is the fleet's target release.") || !strings.HasPrefix(err.Error(), "Unable to delete release 0.0.0+rev") {
		t.Error(err)
	}
	if err := d.try("release", newest, model.Values{"status": "failed"}); !errors.Is(err, model.ErrInvalid) {
		t.Error(err)
	}
	_, err = d.DB.Create(t.Context(), d.admin, "release", d.releaseBut("commit", "a4"))
	if err != nil {
		t.Error(err) // the same commit may be built again
	}
	again := d.release("a4", nil)
	if err := d.try("release", again, model.Values{"status": "success"}); err == nil || err.Error() != `"belongs_to__application" and "commit" must be unique.` {
		t.Error(err)
	}
	device, _ := d.Device(d.fleet, "b")
	d.change("device", device.ID, model.Values{"is_pinned_on__release": one})
	if err := d.drop("release", one); err == nil || err.Error() != "Unable to delete a release because device(s) are pinned to it." {
		t.Error(err)
	}
	if err := d.drop("release", draft); err != nil {
		t.Error(err)
	}
}

func TestCancelledReleaseTakesItsImages(t *testing.T) {
	d := newDesk(t)
	release := d.release("a1", nil)
	service := d.create("service", model.Values{"application": d.fleet.ID, "service_name": "main"})
	image := d.create("image", model.Values{"is_a_build_of__service": service, "status": "running", "start_timestamp": d.DB.Now(), "is_stored_at__image_location": "evil"})
	location, _ := d.field("image", image, "is_stored_at__image_location").(string)
	if !strings.HasPrefix(location, "registry.test:5000/v2/") {
		t.Errorf("location %q", location)
	}
	d.create("image__is_part_of__release", model.Values{"image": image, "is_part_of__release": release})
	d.change("release", release, model.Values{"status": "cancelled", "end_timestamp": d.DB.Now()})
	d.want("image", image, model.Values{"status": "cancelled"})
}

func TestMovedDeviceLeavesItsFleetBehind(t *testing.T) {
	d := newDesk(t)
	release, images := d.Release(d.fleet, "abc", `{"services":{"main":{},"web":{}}}`)
	device, _ := d.Device(d.fleet, "a")
	install := d.create("image_install", model.Values{"device": device.ID, "installs__image": images[0].ID, "is_provided_by__release": release.ID, "status": "Running"})
	d.change("device", device.ID, model.Values{"is_pinned_on__release": release.ID, "os_version": "balenaOS 2.0.0+rev1 (prod)"})
	d.want("device", device.ID, model.Values{"os_variant": "prod"})
	// The same fleet again is no move.
	d.change("device", device.ID, model.Values{"belongs_to__application": d.fleet.ID})
	d.want("device", device.ID, model.Values{"is_pinned_on__release": release.ID})
	d.want("image_install", install, model.Values{"status": "Running"})

	other := d.Fleet(d.Admin, "garden")
	d.Release(other, "def", `{"services":{"pump":{}}}`)
	var refused *model.RefusedError
	if err := d.try("device", device.ID, model.Values{"belongs_to__application": other.ID}); !errors.As(err, &refused) {
		t.Errorf("an old system moves: %v", err)
	}
	d.change("device", device.ID, model.Values{"os_version": "balenaOS 2.99.0"})
	foreign := d.Fleet(d.Bob, "secret")
	var missing *model.MissingError
	for _, id := range []int64{foreign.ID, 999} {
		err := d.try("device", device.ID, model.Values{"belongs_to__application": id})
		if !errors.As(err, &missing) || err.Error() != "Application doesn't exist or you have no access to it." {
			t.Errorf("fleet %d: %v", id, err)
		}
	}
	d.change("device", device.ID, model.Values{"belongs_to__application": other.ID})
	d.want("device", device.ID, model.Values{"is_pinned_on__release": nil})
	d.want("image_install", install, model.Values{"status": "deleted"})
	if n := d.ids("service_install", "t.device = ?", device.ID); len(n) != 1 {
		t.Errorf("%d services of the device after the move", len(n))
	}
	if err := d.try("device", device.ID, model.Values{"is_pinned_on__release": release.ID}); !errors.Is(err, model.ErrInvalid) {
		t.Error(err)
	}
	if err := d.try("device", device.ID, model.Values{"uuid": strings.Repeat("f", 32)}); err == nil || err.Error() != "uuid cannot be changed." {
		t.Error(err)
	}
}

func TestSystemReleasesFollowWhatIsReported(t *testing.T) {
	d := newDesk(t)
	host := d.create("application", model.Values{"app_name": "generic-amd64", "is_for__device_type": d.deviceType("generic-amd64"), "is_host": true, "is_public": true})
	osRelease := func(commit, semver string) int64 {
		return d.release(commit, model.Values{"belongs_to__application": host, "semver": semver, "status": "success"})
	}
	old, now, next := osRelease("1a", "2.99.0"), osRelease("1b", "3.0.0"), osRelease("1c", "3.1.0")
	org := d.create("organization", model.Values{"name": "balena_os"})
	super := d.create("application", model.Values{"app_name": "amd64-supervisor", "organization": org, "is_for__device_type": d.deviceType("intel-nuc"), "is_public": true, "is_of__class": "app"})
	s1 := d.release("2a", model.Values{"belongs_to__application": super, "semver": "16.0.0", "status": "success"})
	s2 := d.release("2b", model.Values{"belongs_to__application": super, "semver": "17.0.0", "status": "success"})

	device, _ := d.Device(d.fleet, "a")
	d.change("device", device.ID, model.Values{"os_version": "balenaOS 3.0.0 (prod)", "supervisor_version": "17.0.0"})
	d.want("device", device.ID, model.Values{"should_be_operated_by__release": now, "should_be_managed_by__release": s2, "os_variant": "prod"})
	for text, v := range map[string]model.Values{
		"Attempt to downgrade hostapp, which is not allowed":                {"should_be_operated_by__release": old},
		"Attempt to downgrade supervisor, which is not allowed":             {"should_be_managed_by__release": s1},
		fmt.Sprintf("Could not find a hostapp release with this ID %d", s1): {"should_be_operated_by__release": s1},
	} {
		if err := d.try("device", device.ID, v); err == nil || err.Error() != text {
			t.Errorf("%v: %v", v, err)
		}
	}
	d.change("device", device.ID, model.Values{"should_be_operated_by__release": next})
	// What is asked for is newer than what runs, and stays.
	d.change("device", device.ID, model.Values{"os_version": "balenaOS 3.0.0+rev1"})
	d.want("device", device.ID, model.Values{"should_be_operated_by__release": next})
	// A newer system than the cloud knows.
	d.change("device", device.ID, model.Values{"os_version": "balenaOS 9.0.0"})
	d.want("device", device.ID, model.Values{"should_be_operated_by__release": nil})
	d.change("device", device.ID, model.Values{"is_of__device_type": d.deviceType("intel-nuc"), "should_be_managed_by__release": nil})
	d.want("device", device.ID, model.Values{"should_be_operated_by__release": nil})
}

// Deleting takes what hangs on a row, and nothing else.
func TestDeletesTakeWhatHangsOnThem(t *testing.T) {
	d := newDesk(t)
	kept := d.Fleet(d.Admin, "garden")
	d.Device(kept, "b")
	release, images := d.Release(d.fleet, "abc", `{"services":{"main":{}}}`)
	device, key := d.Device(d.fleet, "a")
	install := d.ids("service_install", "t.device = ?", device.ID)[0]
	d.create("image_install", model.Values{"device": device.ID, "installs__image": images[0].ID, "is_provided_by__release": release.ID, "status": "Running"})
	d.create("device_service_environment_variable", model.Values{"service_install": install, "name": "A", "value": "1"})
	d.create("device_tag", model.Values{"device": device.ID, "tag_key": "a", "value": "1"})
	d.create("release_tag", model.Values{"release": release.ID, "tag_key": "a", "value": "1"})
	extra := d.release("def", nil)
	if err := d.drop("release", extra); err != nil {
		t.Fatal(err)
	}
	if err := d.drop("application", d.fleet.ID); err != nil {
		t.Fatal(err)
	}
	for _, resource := range []string{"release", "image", "image__is_part_of__release", "image_label", "image_environment_variable",
		"image_install", "device_service_environment_variable", "device_tag", "release_tag", "service"} {
		if left := d.ids(resource, "TRUE"); len(left) != 0 {
			t.Errorf("%s: %v are left", resource, left)
		}
	}
	if left := d.ids("device", "TRUE"); len(left) != 1 {
		t.Errorf("devices %v", left)
	}
	if _, err := d.DB.OwnerOfKey(t.Context(), key); !errors.Is(err, model.ErrNotFound) {
		t.Errorf("the key of a device that is gone: %v", err)
	}
}

// Whoever may not write a row cannot, in whichever way.
func TestWritesOfStrangers(t *testing.T) {
	d := newDesk(t)
	device, _ := d.Device(d.fleet, "a")
	_, images := d.Release(d.fleet, "abc", `{"services":{"main":{}}}`)
	bob := person(d.Bob)
	his := d.Fleet(d.Bob, "garden")
	hisRelease, err := d.DB.Create(t.Context(), bob, "release", model.Values{"belongs_to__application": his.ID, "commit": "b0b", "composition": json.RawMessage(`{}`),
		"status": "running", "source": "local", "start_timestamp": d.DB.Now()})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		by       access.Caller
		resource string
		v        model.Values
	}{
		{bob, "device_tag", model.Values{"device": device.ID, "tag_key": "a", "value": ""}},
		{bob, "application_environment_variable", model.Values{"application": d.fleet.ID, "name": "A", "value": ""}},
		{bob, "release", d.releaseBut("commit", "b1")},
		{bob, "image__is_part_of__release", model.Values{"image": images[0].ID, "is_part_of__release": hisRelease}},
		{bob, "organization_membership", model.Values{"user": d.Bob.ID, "is_member_of__organization": int64(1)}},
		{bob, "user__has__public_key", model.Values{"user": d.Admin.ID, "title": "x", "public_key": "x"}},
		{bob, "device_type", model.Values{"slug": "x", "name": "x"}},
		{bob, "nonsense", model.Values{}},
		{access.Caller{Role: access.Guest}, "device_tag", model.Values{"device": device.ID, "tag_key": "a", "value": ""}},
		{access.Caller{Role: access.Device, ID: device.ID}, "application_tag", model.Values{"application": d.fleet.ID, "tag_key": "a", "value": ""}},
	} {
		if _, err := d.DB.Create(t.Context(), c.by, c.resource, c.v); !errors.Is(err, model.ErrForbidden) {
			t.Errorf("%s makes %s %v: %v", c.by.Role, c.resource, c.v, err)
		}
	}
	itself := access.Caller{Role: access.Device, ID: device.ID, Name: device.UUID}
	if _, err := d.DB.Update(t.Context(), itself, "device", byID(device.ID), model.Values{"belongs_to__application": his.ID}); !errors.Is(err, model.ErrForbidden) {
		t.Errorf("a device moves itself: %v", err)
	}
	for _, table := range []string{"device_tag", "application_environment_variable", "user__has__public_key"} {
		if left := d.ids(table, "TRUE"); len(left) != 0 {
			t.Errorf("%s: a refused write left %v", table, left)
		}
	}
}
