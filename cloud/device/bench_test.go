package device_test

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/device"
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
