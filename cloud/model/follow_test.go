package model_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"deckhand/cloud/model"
)

// Whoever is concerned by a write is told, and nobody else.
func TestWritesTellThoseConcerned(t *testing.T) {
	d := newDesk(t)
	kitchen, garden := d.fleet, d.Fleet(d.Admin, "garden")
	one, images := d.Release(kitchen, "a1", `{"services":{"main":{}}}`)
	a, _ := d.Device(kitchen, "a")
	b, _ := d.Device(kitchen, "b")
	d.Device(garden, "c")
	d.change("device", b.ID, model.Values{"is_pinned_on__release": one.ID})
	two, _ := d.Release(kitchen, "a2", `{"services":{"main":{}}}`)
	service := d.ids("service", "t.application = ?", kitchen.ID)[0]
	install := d.ids("service_install", "t.device = ?", a.ID)[0]
	part := d.ids("image__is_part_of__release", "t.is_part_of__release = ?", one.ID)[0]
	fleet := func(f model.Fleet) model.Topic { return model.Topic{Kind: model.FleetTarget, ID: f.ID} }
	device := func(x model.Device) model.Topic { return model.Topic{Kind: model.DeviceTarget, ID: x.ID} }
	all := map[string]model.Topic{"kitchen": fleet(kitchen), "garden": fleet(garden), "a": device(a), "b": device(b)}
	variable := func(resource, parent string, id int64) func() {
		return func() { d.create(resource, model.Values{parent: id, "name": "RESIN_X", "value": "1"}) }
	}
	plain := func(resource, parent string, id int64) func() {
		return func() { d.create(resource, model.Values{parent: id, "name": "A", "value": "1"}) }
	}
	for _, c := range []struct {
		what string
		do   func()
		want string
	}{
		{"fleet variable", plain("application_environment_variable", "application", kitchen.ID), "kitchen"},
		{"fleet configuration", variable("application_config_variable", "application", kitchen.ID), "kitchen"},
		{"build variable", plain("build_environment_variable", "application", kitchen.ID), ""},
		{"service variable", plain("service_environment_variable", "service", service), "kitchen"},
		{"service label", func() {
			d.create("service_label", model.Values{"service": service, "label_name": "a", "value": "1"})
		}, "kitchen"},
		{"device variable", plain("device_environment_variable", "device", a.ID), "a"},
		{"device configuration", variable("device_config_variable", "device", a.ID), "a"},
		{"variable of a service on a device", plain("device_service_environment_variable", "service_install", install), "a"},
		{"the same value again", func() {
			d.change("device_environment_variable", d.ids("device_environment_variable", "TRUE")[0], model.Values{"value": "1"})
		}, ""},
		{"another value", func() {
			d.change("device_environment_variable", d.ids("device_environment_variable", "TRUE")[0], model.Values{"value": "2"})
		}, "a"},
		{"label of a release that one device is pinned to", func() {
			d.create("image_label", model.Values{"release_image": part, "label_name": "x", "value": "1"})
		}, "b"},
		{"its image", func() {
			d.change("image", images[0].ID, model.Values{"content_hash": "sha256:" + strings.Repeat("d", 64)})
		}, "b"},
		{"its note", func() { d.change("release", one.ID, model.Values{"note": "x"}) }, ""},
		{"a build", func() { d.Building(kitchen, "a3", `{"services":{"main":{}}}`) }, ""},
		{"tags", func() {
			d.create("device_tag", model.Values{"device": a.ID, "tag_key": "a", "value": "1"})
			d.create("application_tag", model.Values{"application": kitchen.ID, "tag_key": "a", "value": "1"})
		}, ""},
		{"a name", func() { d.change("device", a.ID, model.Values{"device_name": "x"}) }, "a"},
		{"a note", func() { d.change("device", a.ID, model.Values{"note": "x"}) }, ""},
		{"a pin", func() { d.change("device", a.ID, model.Values{"is_pinned_on__release": two.ID}) }, "a"},
		{"a move", func() { d.change("device", a.ID, model.Values{"belongs_to__application": garden.ID}) }, "a"},
		{"a fleet's target", func() {
			d.change("application", kitchen.ID, model.Values{"should_be_running__release": one.ID, "should_track_latest_release": false})
		}, "kitchen"},
		{"a fleet's name", func() { d.change("application", garden.ID, model.Values{"app_name": "meadow"}) }, "garden"},
		{"nothing", func() { d.change("application", garden.ID, model.Values{"app_name": "meadow"}) }, ""},
		{"the end of a device", func() {
			if err := d.drop("device", b.ID); err != nil {
				t.Error(err)
			}
		}, "b"},
		{"the end of a fleet", func() {
			if err := d.drop("application", garden.ID); err != nil {
				t.Error(err)
			}
		}, "garden"},
	} {
		before := map[string]uint64{}
		for name, topic := range all {
			before[name] = d.DB.Changes().Version(topic)
		}
		c.do()
		var told []string
		for _, name := range []string{"kitchen", "garden", "a", "b"} {
			if d.DB.Changes().Version(all[name]) != before[name] {
				told = append(told, name)
			}
		}
		if got := strings.Join(told, " "); got != c.want {
			t.Errorf("%s: told %q, want %q", c.what, got, c.want)
		}
	}
}

// The audit log says who did what, and no secrets.
func TestAuditLog(t *testing.T) {
	d := newDesk(t)
	device, _ := d.Device(d.fleet, "a")
	id := d.create("device_environment_variable", model.Values{"device": device.ID, "name": "TOKEN", "value": "hunter2"})
	d.change("device_environment_variable", id, model.Values{"value": "hunter3"})
	d.change("device_environment_variable", id, model.Values{"value": "hunter3"})
	d.change("device", device.ID, model.Values{"note": strings.Repeat("n", 2000), "api_secret": "hunter4"})
	if _, err := d.DB.Update(t.Context(), person(d.Bob), "device", model.Selection{SQL: "FALSE"}, model.Values{"note": "x"}); err != nil {
		t.Fatal(err)
	}
	if err := d.try("device", device.ID, model.Values{"device_name": "a\nb"}); err == nil {
		t.Error("no error")
	}
	if err := d.drop("device_environment_variable", id); err != nil {
		t.Fatal(err)
	}
	keys := d.audit(t, "api_key")
	if len(keys) != 1 || !strings.Contains(keys[0], `"role":"device-api-key"`) || strings.Contains(keys[0], "a-device-key") {
		t.Errorf("keys: %v", keys)
	}
	var log strings.Builder
	for _, r := range d.audit(t, "device", "device_environment_variable") {
		log.WriteString(r + "\n")
	}
	got := log.String()
	for _, want := range []string{
		`admin user create device_environment_variable - {"device":1,"name":"TOKEN","value":"(hidden)"}`,
		`admin user update device_environment_variable {"value":"(hidden)"} {"value":"(hidden)"}`,
		`admin user update device {"api_secret":null,"note":null} {"api_secret":"(hidden)","note":"` + strings.Repeat("n", 500) + `…"}`,
		`admin user delete device_environment_variable {`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
	if strings.Contains(got, "hunter") {
		t.Errorf("a secret is in\n%s", got)
	}
	if n := strings.Count(got, "update"); n != 2 {
		t.Errorf("%d updates in\n%s", n, got)
	}
}

func (d *desk) audit(t *testing.T, resources ...string) []string {
	t.Helper()
	var all []string
	for _, resource := range resources {
		entries, err := d.DB.Audit(t.Context(), resource, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			all = append(all, fmt.Sprintf("%s %s %s %s %s %s", e.Name, e.Role, e.Verb, e.Resource, orDash(e.Before), orDash(e.After)))
		}
	}
	return all
}

func orDash(raw json.RawMessage) string {
	if raw == nil {
		return "-"
	}
	return string(raw)
}

// A release to 10,000 devices gives each its service installs at once.
func TestReleaseForManyDevices(t *testing.T) {
	d := newDesk(t)
	const many = 10_000
	if err := d.DB.Exec(t.Context(), `INSERT INTO actor (id, created_at) WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT 100000 + i, 0 FROM n`); err != nil {
		t.Fatal(err)
	}
	if err := d.DB.Exec(t.Context(), `INSERT INTO device (created_at, actor, uuid, device_name, is_of__device_type, belongs_to__application)
		SELECT 0, id, substr('00000000000000000000000000000000' || CAST(id AS TEXT), length(CAST(id AS TEXT)) + 1, 32), 'd', `+
		fmt.Sprint(d.deviceType("generic-amd64"))+`, `+fmt.Sprint(d.fleet.ID)+` FROM actor WHERE id > 100000`); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	d.Release(d.fleet, "abc", `{"services":{"a":{},"b":{},"c":{}}}`)
	took := time.Since(began)
	if n := len(d.ids("service_install", "TRUE")); n != 3*many {
		t.Errorf("%d service installs", n)
	}
	if took > 20*time.Second {
		t.Errorf("it took %s", took)
	}
	t.Logf("a release of three services for %d devices: %s", many, took)
}

// twin is what one release should be.
type twin struct {
	id       int64
	semver   string
	started  int64
	final    bool
	revision int64
	success  bool
	invalid  bool
}

// history is what should have become of a fleet's releases, worked out one by one.
type history struct {
	*desk
	all       []*twin
	target    int64
	begun     int64
	revisions map[string]int64
}

func (h *history) finalise(r *twin) {
	r.final, r.revision = true, h.revisions[r.semver]
	h.revisions[r.semver]++
}

// follow is the newest good release; without any the old one stays.
func (h *history) follow() {
	var best *twin
	for _, r := range h.all {
		if r.success && r.final && !r.invalid && (best == nil || r.started >= best.started) {
			best = r
		}
	}
	if best != nil {
		h.target = best.id
	}
}

func (h *history) pick(rt *rapid.T) *twin {
	if len(h.all) == 0 {
		rt.Skip("no releases")
	}
	return rapid.SampledFrom(h.all).Draw(rt, "release")
}

func (h *history) begin(rt *rapid.T) {
	h.begun++
	r := &twin{semver: rapid.SampledFrom([]string{"1.0.0", "1.0.1-a", "2.0.0"}).Draw(rt, "semver"), started: rapid.Int64Range(1, 5).Draw(rt, "started")}
	final := rapid.Bool().Draw(rt, "final")
	r.id = h.release(fmt.Sprintf("%x", h.begun), model.Values{"semver": r.semver, "is_final": final, "start_timestamp": time.UnixMilli(r.started)})
	if final {
		h.finalise(r)
	}
	h.all = append(h.all, r)
}

func (h *history) succeed(rt *rapid.T) {
	r := h.pick(rt)
	h.change("release", r.id, model.Values{"status": "success"})
	r.success = true
	h.follow()
}

func (h *history) makeFinal(rt *rapid.T) {
	r := h.pick(rt)
	h.change("release", r.id, model.Values{"is_final": true})
	if !r.final {
		h.finalise(r)
		h.follow()
	}
}

func (h *history) invalidate(rt *rapid.T) {
	r := h.pick(rt)
	r.invalid = rapid.Bool().Draw(rt, "invalid")
	h.change("release", r.id, model.Values{"is_invalidated": r.invalid})
	h.follow()
}

func (h *history) fail(rt *rapid.T) {
	r := h.pick(rt)
	err := h.try("release", r.id, model.Values{"status": "failed"})
	if refused := r.success && r.id == h.target; refused != (err != nil) {
		rt.Fatalf("release %d, target %d: %v", r.id, h.target, err)
	}
	if err == nil {
		r.success = false
		h.follow()
	}
}

func (h *history) check(rt *rapid.T) {
	revisions, seen := h.versions(), map[string]bool{}
	for _, r := range h.all {
		want := "draft"
		if r.final {
			want = fmt.Sprint(r.revision)
		}
		got := revisions[r.id]
		if got[0] != want || seen[got[1]] {
			rt.Fatalf("release %d of %s is %v, want revision %s and a version of its own", r.id, r.semver, got, want)
		}
		seen[got[1]] = true
	}
	if got, _ := h.field("application", h.fleet.ID, "should_be_running__release").(int64); got != h.target {
		rt.Fatalf("the fleet runs %d, want %d", got, h.target)
	}
}

// Whatever is done to releases in whatever order, versions stay apart, the fleet
// runs the newest good release, and what runs somewhere stays.
func TestReleasesOfAFleetHoldTogether(t *testing.T) {
	d, fleets := newDesk(t), 0
	rapid.Check(t, func(rt *rapid.T) {
		d.T = rapidTB{t, rt}
		fleets++
		d.fleet = d.Fleet(d.Admin, fmt.Sprintf("fleet-%d", fleets))
		h := &history{desk: d, revisions: map[string]int64{}}
		rt.Repeat(map[string]func(*rapid.T){
			"begin": h.begin, "succeed": h.succeed, "finalise": h.makeFinal, "invalidate": h.invalidate, "fail": h.fail, "": h.check,
		})
	})
}

// versions are revision and raw version of the fleet's releases.
func (d *desk) versions() map[int64][2]string {
	d.T.Helper()
	r, _ := model.ResourceNamed("release")
	var fields []model.Field
	for _, name := range []string{"id", "revision", "raw_version"} {
		f, _ := r.Field(name)
		fields = append(fields, f)
	}
	rows, err := d.DB.Rows(d.T.Context(), r, fields, "WHERE t.belongs_to__application = ?", d.fleet.ID)
	if err != nil {
		d.T.Fatal(err)
	}
	all := map[int64][2]string{}
	for _, row := range rows {
		id, _ := row[0].(int64)
		revision := "draft"
		if row[1] != nil {
			revision = fmt.Sprint(row[1])
		}
		all[id] = [2]string{revision, fmt.Sprint(row[2])}
	}
	return all
}

// Who finalises at the same time gets a revision of their own, and one release is
// the target in the end.
func TestReleasesAtTheSameTime(t *testing.T) {
	d := newDesk(t)
	const many = 12
	var wait sync.WaitGroup
	for i := range many {
		wait.Go(func() {
			v := d.releaseBut("commit", fmt.Sprintf("%x", 100+i))
			v["semver"], v["status"] = "1.0.0", "success"
			if _, err := d.DB.Create(t.Context(), d.admin, "release", v); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	seen := map[string]bool{}
	for _, v := range d.versions() {
		seen[v[0]] = true
	}
	for i := range many {
		if !seen[fmt.Sprint(i)] {
			t.Errorf("no release has revision %d: %v", i, seen)
		}
	}
	newest := d.ids("release", "t.start_timestamp = (SELECT max(r.start_timestamp) FROM release r)")
	if got := d.field("application", d.fleet.ID, "should_be_running__release"); len(newest) != 1 || got != newest[0] {
		t.Errorf("the fleet runs %v, newest %v", got, newest)
	}
}

// rapidTB lets the world of a test fail a single draw.
type rapidTB struct {
	testing.TB
	rt *rapid.T
}

func (r rapidTB) Helper()                           { r.rt.Helper() }
func (r rapidTB) Fatal(args ...any)                 { r.rt.Fatal(args...) }
func (r rapidTB) Fatalf(format string, args ...any) { r.rt.Fatalf(format, args...) }
func (r rapidTB) Errorf(format string, args ...any) { r.rt.Errorf(format, args...) }
