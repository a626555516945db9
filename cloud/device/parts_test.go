package device_test

import (
	"strconv"
	"testing"

	"deckhand/cloud/model"
)

// A device with a variable of its own that says what its fleet says anyway has the
// same state as before, though nothing of it is shared then: it is not told.
func TestTheSameStateHasTheSameTag(t *testing.T) {
	w, _ := start(t)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	w.Release(f, "abc123", composition)
	if _, err := w.DB.AddVariable(t.Context(), model.FleetEnvironment, f.ID, "COLOUR", "red"); err != nil {
		t.Fatal(err)
	}
	shared := w.Want(200, "GET", statePath(d), key, "")
	if _, err := w.DB.AddVariable(t.Context(), model.DeviceEnvironment, d.ID, "COLOUR", "red"); err != nil {
		t.Fatal(err)
	}
	tag := shared.Header.Get("ETag")
	w.Want(304, "GET", statePath(d), key, "", "If-None-Match", tag)
	if own := w.Want(200, "GET", statePath(d), key, ""); own.Body != shared.Body || own.Header.Get("ETag") != tag {
		t.Errorf("%s %s\nis not\n%s %s", own.Header.Get("ETag"), own.Body, tag, shared.Body)
	}
	if length := shared.Header.Get("Content-Length"); length != strconv.Itoa(len(shared.Body)) {
		t.Errorf("Content-Length is %s, of %d bytes", length, len(shared.Body))
	}
}
