package device_test

import (
	"fmt"
	"strings"
	"testing"

	"deckhand/cloud/odata"
)

func TestTagsOfADevice(t *testing.T) {
	w, _ := start(t)
	odata.New(odata.Config{DB: w.DB, Auth: w.Auth}).Routes(w.Mux)
	f := w.Fleet(w.Admin, "kitchen")
	d, key := w.Device(f, "a")
	other, otherKey := w.Device(f, "b")
	send := func(status int, key, uuid, tags string) string {
		t.Helper()
		return w.Want(status, "PATCH", "/device/v3/tags", key, fmt.Sprintf(`{%q:%s}`, uuid, tags)).Body
	}
	shown := func(key string) string {
		t.Helper()
		return w.Want(200, "GET", "/v7/device_tag?$select=tag_key,value", key, "").Body
	}
	send(200, key, d.UUID, `{"color":"blue","empty":""}`)
	send(200, key, d.UUID, `{"color":"red"}`)
	if got := shown(key); got != `{"d":[{"tag_key":"color","value":"red"},{"tag_key":"empty","value":""}]}` {
		t.Error(got)
	}
	if got := shown(otherKey); got != `{"d":[]}` {
		t.Errorf("another device sees %s", got)
	}
	if got := shown(w.AdminSession); !strings.Contains(got, "red") {
		t.Errorf("the owner sees %s", got)
	}
	if got := shown(w.BobSession); got != `{"d":[]}` {
		t.Errorf("a stranger sees %s", got)
	}
	// One bad tag refuses all of them.
	for tags, text := range map[string]string{
		`{"fine":"1","a b":"x"}`:                         "whitespace",
		`{"fine":"1","io.balena.x":"x"}`:                 "reserved",
		`{"io.resin.x":"x"}`:                             "reserved",
		`{"fine":"1","":"x"}`:                            "1 to 100",
		`{"` + strings.Repeat("a", 101) + `":"x"}`:       "1 to 100",
		`{"long":"` + strings.Repeat("x", 10_001) + `"}`: "at most",
		`{"n":1}`:    "must be a text",
		`{"n":null}`: "must be a text",
		`{}`:         "No tags were sent to be updated.",
	} {
		if got := send(400, key, d.UUID, tags); !strings.Contains(got, text) {
			t.Errorf("%.40s: %s", tags, got)
		}
	}
	if got := shown(key); strings.Contains(got, "fine") {
		t.Errorf("a refused request left %s", got)
	}
	send(401, key, other.UUID, `{"a":"b"}`)
	send(401, key, strings.Repeat("9", 32), `{"a":"b"}`)
	send(401, "", d.UUID, `{"a":"b"}`)
	send(401, w.AdminSession, d.UUID, `{"a":"b"}`)
	w.Want(400, "PATCH", "/device/v3/tags", key, `{`)
}
