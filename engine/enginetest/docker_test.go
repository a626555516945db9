//go:build engine && linux

package enginetest_test

import (
	"testing"

	"github.com/docker/docker/client"

	"deckhand/engine/enginetest"
	"deckhand/test/dockerd"
)

// The oldest supported API has its traps on a real engine too.
func TestTrapsOfARealEngine(t *testing.T) {
	docker := dockerd.Start(t)
	f := enginetest.NewRegistry(t).Fixture(t, dockerd.Rootfs, dockerd.Idle)
	enginetest.Traps(t, f, func(t *testing.T) *client.Client {
		c, err := client.NewClientWithOpts(client.WithHost(docker.Host), client.WithVersion("1.41"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	})
}
