package model_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// What one request does to many devices is what it would do to each of them: each
// one that changes is noted and told, the others are not.
func TestManyDevicesAtOnce(t *testing.T) {
	d := newDesk(t)
	release, _ := d.Release(d.fleet, "a1", `{"services":{"main":{},"web":{}}}`)
	other := d.Fleet(d.Admin, "garden")
	d.Release(other, "b1", `{"services":{"pump":{}}}`)
	a, _ := d.Device(d.fleet, "a")
	b, _ := d.Device(d.fleet, "b")
	c, _ := d.Device(other, "c")
	d.change("device", a.ID, model.Values{"is_pinned_on__release": release.ID})
	devices := []model.Device{a, b, c}
	_, last := story(t, d.DB, 0)
	// does gives who was told and what was noted.
	does := func(do func() (int, error), want int) (told, noted []string) {
		t.Helper()
		told = d.told(devices, func() {
			if n, err := do(); err != nil || n != want {
				t.Errorf("%d rows, %v; want %d", n, err, want)
			}
		})
		noted, last = story(t, d.DB, last, "device")
		return told, noted
	}
	update := func(where model.Selection, v model.Values) func() (int, error) {
		return func() (int, error) { return d.DB.Update(t.Context(), d.admin, "device", where, v) }
	}
	everyone := model.Selection{SQL: "TRUE"}
	kitchen := model.Selection{SQL: "t.belongs_to__application = ?", Args: []any{d.fleet.ID}}

	if _, err := update(everyone, model.Values{"is_pinned_on__release": release.ID})(); !errors.Is(err, model.ErrInvalid) {
		t.Errorf("a device of another fleet was pinned: %v", err)
	}
	d.want("device", b.ID, model.Values{"is_pinned_on__release": nil})

	told, noted := does(update(kitchen, model.Values{"is_pinned_on__release": release.ID}), 2)
	wantStory(t, noted, fmt.Sprintf(`admin update device {"is_pinned_on__release":null} → {"is_pinned_on__release":%d}`, release.ID))
	if !slices.Equal(told, []string{"b"}) {
		t.Errorf("told %v of the pin, want b alone", told)
	}
	told, noted = does(update(everyone, model.Values{"device_name": "device-a"}), 3)
	wantStory(t, noted, `admin update device {"device_name":"device-b"} → {"device_name":"device-a"}`, `admin update device {"device_name":"device-c"} → {"device_name":"device-a"}`)
	if !slices.Equal(told, []string{"b", "c"}) {
		t.Errorf("told %v of the name, want b and c", told)
	}

	told, noted = does(update(everyone, model.Values{"belongs_to__application": other.ID}), 3)
	if len(noted) != 2 || !slices.Equal(told, []string{"a", "b"}) {
		t.Errorf("told %v of the move, noted %q", told, noted)
	}
	for _, device := range devices[:2] {
		d.want("device", device.ID, model.Values{"is_pinned_on__release": nil, "belongs_to__application": other.ID})
		if n := d.ids("service_install", "t.device = ?", device.ID); len(n) != 1 {
			t.Errorf("%d services on device %s after its move", len(n), device.UUID[:1])
		}
	}

	told, noted = does(func() (int, error) {
		return d.DB.Delete(t.Context(), d.admin, "device", model.Selection{SQL: "t.id IN (?, ?)", Args: []any{a.ID, b.ID}})
	}, 2)
	wantStory(t, noted, `admin delete device {"`, `admin delete device {"`)
	if !slices.Equal(told, []string{"a", "b"}) {
		t.Errorf("told %v of their end, want a and b", told)
	}
	if keys := d.ids("api_key", "t.is_of__actor IN (?, ?, ?)", a.Actor, b.Actor, c.Actor); len(keys) != 1 {
		t.Errorf("%d keys are left, want one", len(keys))
	}
}

// told are the first digits of those devices that are told of what is done.
func (d *desk) told(devices []model.Device, do func()) (told []string) {
	topic := func(device model.Device) model.Topic { return model.Topic{Kind: model.DeviceTarget, ID: device.ID} }
	before := make([]uint64, len(devices))
	for i, device := range devices {
		before[i] = d.DB.Changes().Version(topic(device))
	}
	do()
	for i, device := range devices {
		if d.DB.Changes().Version(topic(device)) != before[i] {
			told = append(told, device.UUID[:1])
		}
	}
	return told
}

// A rule that looks at the other rows sees what the same request did to them.
func TestRowsThatJudgeEachOther(t *testing.T) {
	d := newDesk(t)
	if _, err := d.DB.CreateUser(t.Context(), "eve", "x", "admin"); err != nil {
		t.Fatal(err)
	}
	org := d.ids("organization", "t.handle = 'admin'")[0]
	members := model.Selection{SQL: "t.is_member_of__organization = ?", Args: []any{org}}
	if n, err := d.DB.Delete(t.Context(), d.admin, "organization_membership", members); !errors.Is(err, model.ErrInvalid) {
		t.Errorf("%d members left, %v; want the last one refused", n, err)
	}
	if left := d.ids("organization_membership", members.SQL, members.Args...); len(left) != 2 {
		t.Errorf("%d members after a refusal, want 2", len(left))
	}
}

// BenchmarkManyDevices is how long one request takes that is for ten thousand
// devices, each with three services and a key.
func BenchmarkManyDevices(b *testing.B) {
	const many = 10_000
	for b.Loop() {
		w := cloudtest.New(b, nil)
		fleet := w.Fleet(w.Admin, "crowd")
		release, _ := w.Release(fleet, "a1", `{"services":{"main":{},"web":{},"db":{}}}`)
		crowd(b, w.DB, fleet.ID, many)
		all := model.Selection{SQL: "t.belongs_to__application = ?", Args: []any{fleet.ID}}
		admin := person(w.Admin)
		for _, step := range []struct {
			name string
			do   func() (int, error)
		}{
			{"pin", func() (int, error) {
				return w.DB.Update(b.Context(), admin, "device", all, model.Values{"is_pinned_on__release": release.ID})
			}},
			{"unpin", func() (int, error) {
				return w.DB.Update(b.Context(), admin, "device", all, model.Values{"is_pinned_on__release": nil})
			}},
			{"delete", func() (int, error) { return w.DB.Delete(b.Context(), admin, "device", all) }},
		} {
			began := time.Now()
			if n, err := step.do(); err != nil || n != many {
				b.Fatalf("%s: %d devices, %v", step.name, n, err)
			}
			b.ReportMetric(float64(time.Since(began).Milliseconds()), step.name+"-ms")
		}
	}
}

// crowd fills a fleet with devices that have their services, an image install and a key.
func crowd(tb testing.TB, db *model.DB, fleet int64, n int) {
	tb.Helper()
	numbers := fmt.Sprintf(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d) `, n)
	for _, rows := range []string{
		`INSERT INTO actor (id, created_at) ` + numbers + `SELECT 1000 + i, 0 FROM n`,
		`INSERT INTO api_key (created_at, key_hash, role, is_of__actor) ` + numbers + `SELECT 0, 'hash-' || i, 'device-api-key', 1000 + i FROM n`,
		`INSERT INTO device (created_at, actor, uuid, device_name, is_of__device_type, belongs_to__application) ` + numbers +
			fmt.Sprintf(`SELECT 0, 1000 + i, '00000000000000000000000' || CAST(100000000 + i AS TEXT), 'device', 1, %d FROM n`, fleet),
		`INSERT INTO service_install (created_at, device, installs__service) SELECT 0, d.id, s.id FROM device d JOIN service s ON s.application = d.belongs_to__application`,
		`INSERT INTO image_install (created_at, device, installs__image, is_provided_by__release, install_date, status)
			SELECT 0, d.id, p.image, p.is_part_of__release, 0, 'Running' FROM device d JOIN release r ON r.belongs_to__application = d.belongs_to__application
			JOIN image__is_part_of__release p ON p.is_part_of__release = r.id`,
	} {
		if err := db.Exec(tb.Context(), rows); err != nil {
			tb.Fatal(err)
		}
	}
}
