package server_test

import (
	"testing"

	"deckhand/cloud/model"
	"deckhand/cloud/server"
)

// The log of what was written is read while the cloud runs.
func TestTheAuditLogBesideARunningCloud(t *testing.T) {
	dir := t.TempDir()
	if _, err := server.Audit(t.Context(), dir, "", model.AuditFilter{}, 10); err == nil {
		t.Error("a folder without a cloud has an audit log")
	}
	_, stop := run(t, config(dir, &buffer{}))
	defer stop()
	entries, err := server.Audit(t.Context(), dir, "", model.AuditFilter{Resource: "user", Verb: "create"}, 10)
	if err != nil || len(entries) != 1 || entries[0].Name != "cloud" {
		t.Errorf("%+v, %v; want the first user", entries, err)
	}
}
