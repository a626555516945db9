//go:build engine && linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// shop is a project with what most projects have: three services, a volume, two
// networks, a health check and something that waits for it.
const shop = `
services:
  web:
    build: ./web
    environment:
      LEVEL: info
    networks: [front, back]
    depends_on:
      db:
        condition: service_healthy
  db:
    build: ./db
    networks: [back]
    volumes: ["data:/data"]
    healthcheck:
      test: ["CMD", "/bin/true"]
      interval: 1s
  worker:
    build: ./worker
    networks: [back]
networks:
  front: {}
  back: {}
volumes:
  data: {}
`

func marks(web, db, worker string) map[string]string {
	return map[string]string{"web": web, "db": db, "worker": worker}
}

// A pushed project comes up on a new device, with names, labels and variables
// as balena's devices have them, and the cloud shows it.
func TestInstall(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	first := s.push(fleet, shop, marks("1", "1", "1"))
	values, err := s.cloud.Unregistered(t.Context(), fleet)
	s.must(err)
	s.deviceWith(values) // it registers by itself
	s.boot()
	s.settles(first)
	s.runs("web", "db", "worker")

	device := s.registered(fleet.ID)
	s.uuid = device
	s.cloudShows(first, "web", "db", "worker")

	web := s.service("web")
	appID, appUUID := web.Config.Labels[state.LabelAppID], web.Config.Labels[state.LabelAppUUID]
	if appID != strconv.FormatInt(fleet.ID, 10) {
		t.Errorf("app-id %q, want %d", appID, fleet.ID)
	}
	imageID, releaseID, commit, ok := state.ParseContainerName(strings.TrimPrefix(web.Name, "/"))
	if !ok || imageID == 0 || releaseID != first.id || commit != first.commit {
		t.Errorf("container %s does not name image, release %d and commit %s", web.Name, first.id, first.commit)
	}
	for label, want := range map[string]string{
		state.LabelSupervised: "true", state.LabelServiceName: "web", state.LabelAppUUID: appUUID, state.LabelAppID: appID,
	} {
		if got := web.Config.Labels[label]; got != want {
			t.Errorf("label %s is %q, want %q", label, got, want)
		}
	}
	if _, err := strconv.Atoi(web.Config.Labels[state.LabelServiceID]); err != nil {
		t.Errorf("label %s is %q", state.LabelServiceID, web.Config.Labels[state.LabelServiceID])
	}
	for name, want := range map[string]string{
		"LEVEL": "info", "BALENA": "1", "RESIN": "1", "BALENA_SERVICE_NAME": "web", "RESIN_SERVICE_NAME": "web",
		"BALENA_APP_ID": appID, "BALENA_APP_UUID": appUUID, "BALENA_APP_NAME": fleet.Name, "BALENA_DEVICE_UUID": device,
		"BALENA_APP_LOCK_PATH": "/tmp/balena/updates.lock", "USER": "root",
	} {
		if got := env(web, name); got != want {
			t.Errorf("variable %s is %q, want %q", name, got, want)
		}
	}
	if diff := cmp.Diff([]string{"back", "front"}, s.networks()); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"data"}, s.volumes()); diff != "" {
		t.Errorf("volumes (-want +got):\n%s", diff)
	}
	if web.NetworkSettings.Networks[state.NetworkName(appUUID, "front")] == nil {
		t.Errorf("web is not on %s_front: %v", appUUID, web.NetworkSettings.Networks)
	}
	s.exec(web.ID, "nslookup", "db")
	s.startedAfterHealthy(web, s.service("db"))
}

// registered waits until the fleet has its device and gives the UUID.
func (s *scene) registered(fleet int64) (uuid string) {
	s.Helper()
	s.within("a device registers", func(ctx context.Context) error {
		all, err := s.cloud.Client.Devices(ctx, fleet)
		if err == nil && len(all) != 1 {
			err = fmt.Errorf("the fleet has %d devices", len(all))
		}
		if err == nil {
			uuid = all[0].UUID
		}
		return err
	})
	return uuid
}

// startedAfterHealthy checks depends_on: the dependent started after a health
// check of its dependency had succeeded.
func (s *scene) startedAfterHealthy(dependent, dependency container.InspectResponse) {
	s.Helper()
	started, err := time.Parse(time.RFC3339Nano, dependent.State.StartedAt)
	s.must(err)
	if dependency.State.Health == nil || len(dependency.State.Health.Log) == 0 {
		s.Fatalf("%s has no health", dependency.Name)
	}
	if healthy := dependency.State.Health.Log[0].End; len(dependency.State.Health.Log) < 5 && started.Before(healthy) {
		s.Fatalf("%s started at %v, before %s was healthy at %v", dependent.Name, started, dependency.Name, healthy)
	}
}

// A new image of one service touches that service alone.
func TestUpdateOfOneImage(t *testing.T) {
	s, fleet, _ := installed(t)
	before := s.services()
	second := s.push(fleet, shop, marks("1", "1", "2"))
	s.settles(second)
	now := s.services()
	s.same(before["web"], now["web"])
	s.same(before["db"], now["db"])
	s.replaced(before["worker"], now["worker"])
	if got := s.mark(now["worker"]); got != "2" {
		t.Errorf("worker runs image %q", got)
	}
	s.cloudShows(second, "web", "db", "worker")
	s.within("the old image is cleared up", func(context.Context) error {
		if all := s.images(); len(all) != 3 {
			return fmt.Errorf("images on the device, want 3: %q", all)
		}
		return nil
	})
}

// A variable that the owner sets touches the one service it is for.
func TestVariableChangesOneContainer(t *testing.T) {
	s, _, first := installed(t)
	before := s.services()
	id, err := strconv.ParseInt(before["web"].Config.Labels[state.LabelServiceID], 10, 64)
	s.must(err)
	s.post("service_environment_variable", map[string]any{"service": id, "name": "LEVEL", "value": "debug"})
	s.within("web gets the variable", func(context.Context) error {
		if got := s.all("web"); len(got) != 1 || got[0].ID == before["web"].ID {
			return errors.New("web was not replaced yet")
		}
		return nil
	})
	s.settles(first)
	now := s.services()
	s.replaced(before["web"], now["web"])
	s.same(before["db"], now["db"])
	s.same(before["worker"], now["worker"])
	if got := env(now["web"], "LEVEL"); got != "debug" {
		t.Errorf("LEVEL is %q, want debug", got)
	}
}

// A release with the same content touches nothing: containers get its name
// while they run, if no lock forbids it.
func TestSameContentTouchesNothing(t *testing.T) {
	s, fleet, first := installed(t)
	before := s.services()
	mark := s.unit.Log.Len()
	second := s.push(fleet, shop, marks("1", "1", "1"))
	if second.id == first.id {
		t.Fatal("the push made no release")
	}
	s.settles(second)
	now := s.services()
	for name := range before {
		s.same(before[name], now[name])
		if _, id, commit, _ := state.ParseContainerName(strings.TrimPrefix(now[name].Name, "/")); id != second.id || commit != second.commit {
			t.Errorf("container %s does not show release %d %s", now[name].Name, second.id, second.commit)
		}
	}
	for _, step := range s.steps(mark) {
		kind, _, _ := strings.Cut(step, " of ")
		if !strings.HasPrefix(step, "rename ") && !strings.HasPrefix(step, "commit ") && kind != "take locks" && kind != "release locks" {
			t.Errorf("unneeded step %q", step)
		}
	}
	s.cloudShows(second, "web", "db", "worker")
}

// A service and a network that are no longer wanted go; the volume stays.
func TestServiceAndNetworkRemoved(t *testing.T) {
	s, fleet, _ := installed(t)
	before := s.services()
	s.exec(before["db"].ID, "sh", "-c", "echo precious >/data/file")
	second := s.push(fleet, `
services:
  worker:
    build: ./worker
    networks: [back]
networks:
  back: {}
`, map[string]string{"worker": "1"})
	s.settles(second)
	s.runs("worker")
	s.same(before["worker"], s.service("worker"))
	if diff := cmp.Diff([]string{"back"}, s.networks()); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	if !slices.Contains(s.volumes(), "data") {
		t.Fatal("the volume was deleted")
	}
	third := s.push(fleet, shop, marks("1", "1", "1"))
	s.settles(third)
	if got := strings.TrimSpace(s.exec(s.service("db").ID, "cat", "/data/file")); got != "precious" {
		t.Errorf("the volume's file holds %q", got)
	}
}
