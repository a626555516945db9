package backup_test

import (
	"bytes"
	"strings"
	"testing"

	"deckhand/cloud/backup"
)

// Images that are in a bucket are not copied, and the backup says where they are.
func TestImagesInABucket(t *testing.T) {
	w, from := cloud(t)
	from.RegistryStorage = "s3://images/deckhand?endpoint=https://s3.example.com"
	if err := backup.Write(t.Context(), from, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "leave --images away") {
		t.Errorf("with images: %v", err)
	}
	from.Images = false
	var b bytes.Buffer
	if err := backup.Write(t.Context(), from, &b); err != nil {
		t.Fatal(err)
	}
	to, _ := target(t, w)
	about, err := backup.Restore(t.Context(), &b, to)
	if err != nil || about.Images || about.Storage != "s3://images/deckhand" {
		t.Errorf("%+v %v", about, err)
	}
}
