package model_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

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

// People look for what was written to something, by somebody, lately.
func TestTheAuditLogIsFiltered(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	w := cloudtest.New(t, func() time.Time { return now })
	kitchen := w.Fleet(w.Admin, "kitchen")
	now = now.Add(time.Hour)
	device, _ := w.Device(kitchen, "a")
	hall := w.Fleet(w.Bob, "hall")
	for name, c := range map[string]struct {
		filter model.AuditFilter
		want   []string
	}{
		"resource": {model.AuditFilter{Resource: "application"}, []string{fmt.Sprint("application ", kitchen.ID), fmt.Sprint("application ", hall.ID)}},
		"who":      {model.AuditFilter{Resource: "application", Name: "bob"}, []string{fmt.Sprint("application ", hall.ID)}},
		"since":    {model.AuditFilter{Resource: "application", Since: now}, []string{fmt.Sprint("application ", hall.ID)}},
		"row":      {model.AuditFilter{Resource: "device", Row: device.ID, Verb: "create"}, []string{fmt.Sprint("device ", device.ID)}},
		"verb":     {model.AuditFilter{Verb: "delete"}, nil},
	} {
		entries, err := w.DB.LastAudited(t.Context(), c.filter, 10)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, fmt.Sprint(e.Resource, " ", e.Row))
		}
		if strings.Join(got, ", ") != strings.Join(c.want, ", ") {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
	entries, err := w.DB.LastAudited(t.Context(), model.AuditFilter{Resource: "application"}, 1)
	if err != nil || len(entries) != 1 || entries[0].Row != hall.ID {
		t.Errorf("the last one is %+v, %v", entries, err)
	}
}
