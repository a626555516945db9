//go:build engine && linux

package e2e

import (
	"context"
	"fmt"
	"testing"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"

	"deckhand/client"
	"deckhand/state"
)

// installed is a scene in which the shop runs.
func installed(t *testing.T) (*scene, client.Fleet, release) {
	t.Helper()
	s := begin(t)
	fleet, r := s.installed()
	return s, fleet, r
}

// installed brings the shop up.
func (s *scene) installed() (client.Fleet, release) {
	s.Helper()
	fleet := s.fleet()
	r := s.push(fleet, shop, marks("1", "1", "1"))
	s.device(fleet)
	s.settles(r)
	s.runs("web", "db", "worker")
	return fleet, r
}

// back waits until a service runs in another container than before.
func (s *scene) back(before container.InspectResponse, service string) {
	s.Helper()
	s.within(service+" comes back", func(context.Context) error {
		list := s.all(service)
		if len(list) != 1 || list[0].ID == before.ID || list[0].State != "running" {
			return fmt.Errorf("it has %d containers", len(list))
		}
		return nil
	})
}

// A container that somebody removes by hand is made again because the engine
// says so: the cloud is not asked.
func TestRemovedContainerComesBack(t *testing.T) {
	s, _, r := installed(t)
	before := s.services()
	s.remove(before["worker"])
	s.back(before["worker"], "worker")
	s.settles(r)
	now := s.services()
	s.same(before["web"], now["web"])
	s.same(before["db"], now["db"])
}

// An image that somebody removes by hand, with its container, is fetched again.
func TestRemovedImageComesBack(t *testing.T) {
	s, _, r := installed(t)
	before := s.services()
	s.powerOff() // it would make the container again before the image is gone
	s.registry.Cut()
	s.remove(before["worker"])
	_, err := s.engine.Client.ImageRemove(t.Context(), before["worker"].Image, image.RemoveOptions{Force: true, PruneChildren: true})
	s.must(err)
	s.boot()
	s.waits("fetch", state.ClassNetwork)
	s.must(s.registry.Mend())
	s.settles(r)
	s.replaced(before["worker"], s.service("worker"))
	s.same(before["web"], s.service("web"))
	s.same(before["db"], s.service("db"))
}
