package device_test

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"deckhand/cloud/access"
	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
	"deckhand/cloud/model"
)

// BenchmarkPoll is a device that asks and finds nothing new: what a cloud
// with many devices does nearly all the time.
func BenchmarkPoll(b *testing.B) {
	w := cloudtest.New(b, nil)
	device.New(device.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	w.Release(f, "abc123", composition)
	tag := w.Want(200, "GET", statePath(d), key, "").Header.Get("ETag")
	for b.Loop() {
		r := httptest.NewRequest("GET", statePath(d), nil)
		r.Header.Set("Authorization", "Bearer "+key)
		r.Header.Set("If-None-Match", tag)
		recorder := httptest.NewRecorder()
		w.Mux.ServeHTTP(recorder, r)
		if recorder.Code != http.StatusNotModified {
			b.Fatal(recorder.Code)
		}
	}
}

// BenchmarkChangedTarget is a device that asks after something of its fleet changed.
func BenchmarkChangedTarget(b *testing.B) {
	w := cloudtest.New(b, nil)
	device.New(device.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	w.Release(f, "abc123", composition)
	id, err := w.DB.AddVariable(b.Context(), model.FleetEnvironment, f.ID, "X", "0")
	if err != nil {
		b.Fatal(err)
	}
	by := access.Caller{Role: access.User, ID: w.Admin.ID, Actor: w.Admin.Actor}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		if _, err := w.DB.Update(b.Context(), by, "application_environment_variable", model.Selection{SQL: "t.id = ?", Args: []any{id}}, model.Values{"value": strconv.Itoa(i)}); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		w.Want(200, "GET", statePath(d), key, "")
	}
}

// BenchmarkReport is a device whose status changes.
func BenchmarkReport(b *testing.B) {
	w := cloudtest.New(b, nil)
	f := w.Fleet(w.Admin, "kitchen")
	d, _ := w.Device(f, "a")
	_, images := w.Release(f, "abc123", composition)
	reports := model.NewReports(w.DB)
	for i := 0; b.Loop(); i++ {
		var services []model.ReportedService
		for _, image := range images {
			services = append(services, model.ReportedService{Name: image.Service, Image: image.Location, Status: "Running"})
		}
		err := reports.Apply(b.Context(), d.ID, model.Report{
			Values: []model.Value{{Column: "status", Value: strconv.Itoa(i)}}, HasApps: true,
			Apps: []model.ReportedApp{{UUID: f.UUID, Running: "abc123", Releases: []model.ReportedRelease{{Commit: "abc123", Services: services}}}},
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
