package model_test

import (
	"fmt"
	"strings"
	"testing"

	"deckhand/cloud/cloudtest"
	"deckhand/cloud/model"
)

// story is the audit log after an entry: who, verb, resource, before → after.
func story(t *testing.T, db *model.DB, after int64, resources ...string) (lines []string, last int64) {
	t.Helper()
	entries, err := db.Audit(t.Context(), "", after)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		last = e.ID
		for _, resource := range resources {
			if e.Resource == resource {
				lines = append(lines, fmt.Sprintf("%s %s %s %s → %s", e.Name, e.Verb, e.Resource, e.Before, e.After))
			}
		}
	}
	return lines, last
}

func wantStory(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("the log says\n%s\nwant %d entries", strings.Join(got, "\n"), len(want))
	}
	for i := range want {
		if !strings.HasPrefix(got[i], want[i]) {
			t.Errorf("entry %d is %q, want %q", i, got[i], want[i])
		}
	}
}

// What is done to users is in the log, without their passwords.
func TestUsersAreAudited(t *testing.T) {
	w := cloudtest.New(t, nil)
	_, last := story(t, w.DB, 0)
	eve, err := w.DB.CreateUser(t.Context(), "eve", "$the-hash", "bob")
	if err != nil {
		t.Fatal(err)
	}
	resources := []string{"user", "organization", "organization_membership"}
	lines, last := story(t, w.DB, last, resources...)
	wantStory(t, lines,
		fmt.Sprintf(`cloud create user  → {"actor":%d,"password":"(hidden)","username":"eve"}`, eve.Actor),
		`cloud create organization  → {"handle":"eve","name":"eve"}`,
		`cloud create organization_membership  → `, `cloud create organization_membership  → `)
	if err := w.DB.SetPassword(t.Context(), eve.ID, "$another-hash"); err != nil {
		t.Fatal(err)
	}
	lines, last = story(t, w.DB, last, resources...)
	wantStory(t, lines, `cloud update user {"password":null} → {"password":"(hidden)"}`)
	if u, err := w.DB.UserByID(t.Context(), eve.ID); err != nil || u.PasswordHash != "$another-hash" || u.JWTSecret == eve.JWTSecret {
		t.Errorf("the user is %+v, %v; want another password and another secret of sessions", u, err)
	}
	if err := w.DB.DeleteUser(t.Context(), eve.ID); err != nil {
		t.Fatal(err)
	}
	lines, _ = story(t, w.DB, last, resources...)
	wantStory(t, lines, `cloud delete organization {"`, `cloud delete user {"`)
	for _, line := range lines {
		if strings.Contains(line, "hash") {
			t.Errorf("the log has a hash: %s", line)
		}
	}
}

// What follows from a device's report is the device's doing.
func TestReportedVersionsAreTheDevices(t *testing.T) {
	w := cloudtest.New(t, nil)
	device, _ := w.Device(w.Fleet(w.Admin, "kitchen"), "a")
	_, last := story(t, w.DB, 0)
	report := model.Report{Values: []model.Value{{Column: "os_version", Value: "balenaOS 6.0.0"}, {Column: "ip_address", Value: "10.0.0.1"}}}
	for range 2 { // the second time there is nothing new
		if err := w.DB.ApplyReport(t.Context(), device.ID, report); err != nil {
			t.Fatal(err)
		}
	}
	lines, _ := story(t, w.DB, last, "device")
	wantStory(t, lines, device.UUID+` update device {"os_version":null} → {"os_version":"balenaOS 6.0.0"}`)
}
