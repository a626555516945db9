//go:build engine

package builder_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"deckhand/build/event"
	"deckhand/cloud/model"
)

// bulky is a project with one service whose image takes so many bytes; nothing is smaller
// packed.
func bulky(t *testing.T, size int) string {
	t.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	return project(t, map[string]string{"Dockerfile": "FROM scratch\nCOPY data /data\nCMD [\"/data\"]\n", "data": string(content)})
}

// Who pushes more than there is room for is told so, in the words of the registry: it is
// for them to make room. Nothing is tried again in vain.
func TestAPushOverTheQuota(t *testing.T) {
	c := startCloudWith(t, 200_000)
	first, events, _ := c.push(t, bulky(t, 120_000))
	if first.Status != event.StatusSuccess {
		t.Fatalf("within the quota: %s", dump(events))
	}
	result, events, services := c.push(t, bulky(t, 120_000))
	if result.Status != event.StatusFailed {
		t.Errorf("the push ended as %s: %s", result.Status, dump(events))
	}
	const want = "push the image: the registry does not take it: the images of organization admin would take 23"
	if said := services["main"].Error; !strings.HasPrefix(said, want) || !strings.Contains(said, "and it may have 195.3 KiB; delete releases") {
		t.Errorf("the service says %q", said)
	}
	if n := c.denials.Load(); n != 1 {
		t.Errorf("the registry was asked %d times", n)
	}
	release, err := c.db.ReleaseByID(t.Context(), result.ReleaseID)
	must(t, err)
	images, err := c.db.Images(t.Context(), result.ReleaseID)
	must(t, err)
	if release.Status != model.StatusFailed || images[0].Status != model.StatusFailed || !strings.Contains(images[0].ErrorMessage, want) {
		t.Errorf("release %s, image %s: %s", release.Status, images[0].Status, images[0].ErrorMessage)
	}
	fleet, err := c.db.FleetByID(t.Context(), c.fleet.ID)
	must(t, err)
	if fleet.TargetRelease != first.ReleaseID {
		t.Errorf("the fleet's target is release %d, want %d", fleet.TargetRelease, first.ReleaseID)
	}
	t.Run("official framing", func(t *testing.T) {
		text := string(c.official(t, bulky(t, 120_000)))
		if !strings.Contains(text, want) || !strings.Contains(text, `"isError":true`) {
			t.Errorf("said %s", text)
		}
	})
}
