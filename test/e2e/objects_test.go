//go:build engine && linux

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/network"
	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

// A network with other settings is made anew under the services that use it, in
// order; a service that does not use it runs on.
func TestNetworkIsMadeAnew(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	services := map[string]any{
		"one": runsWith("hello:1", map[string]any{"networks": []string{"front"}}),
		"two": runsWith("hello:1", map[string]any{"networks": []string{"front", "back"}}),
		"far": runsWith("hello:1", map[string]any{"networks": []string{"back"}}),
	}
	nets := func(front map[string]any) map[string]any {
		return map[string]any{"front": front, "back": map[string]any{}}
	}
	a := app("1", "a", services).beside("networks", nets(map[string]any{}))
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	before := s.services()
	tape := s.record()
	b := app("1", "b", services).beside("networks", nets(map[string]any{"internal": true}))
	p.offer(b)
	s.settlesAt(b.commit)
	s.runs("far", "one", "two")
	now := s.services()
	s.same(before["far"], now["far"])
	for _, name := range []string{"one", "two"} {
		tape.order("die "+name+" 1", "destroy "+name+" 1", "destroy network front", "create network front", "create "+name+" 2", "start "+name+" 2")
		t.Logf("%s down for %v", name, tape.downtime(name, 1, 2))
	}
	if diff := cmp.Diff([]string{"back", "front"}, s.networks()); diff != "" {
		t.Errorf("networks (-want +got):\n%s", diff)
	}
	s.exec(now["one"].ID, "nslookup", "two")
}

// A service in the network of another one is replaced with it, and then shares
// the new one's network.
func TestNetworkOfAnotherServiceIsReplaced(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	release := func(v string) map[string]any {
		return map[string]any{
			"gate":  version(runsWith("hello:1", map[string]any{"networks": []string{"front"}}), v),
			"guest": runsWith("hello:1", map[string]any{"network_mode": "service:gate"}),
		}
	}
	front := map[string]any{"front": map[string]any{}}
	a := app("1", "a", release("1")).beside("networks", front)
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	tape := s.record()
	b := app("1", "b", release("2")).beside("networks", front)
	p.offer(b)
	s.settlesAt(b.commit)
	s.runs("gate", "guest")
	tape.order("create gate 2", "die gate 1", "start gate 2", "start guest 2")
	tape.order("die guest 1", "start guest 2", "destroy guest 1")
	gate, guest := s.service("gate"), s.service("guest")
	if mode := string(guest.HostConfig.NetworkMode); mode != "container:"+gate.ID {
		t.Errorf("guest uses the network of %s, want %s", mode, gate.ID)
	}
	address := gate.NetworkSettings.Networks[state.NetworkName(b.uuid, "front")].IPAddress
	if out := s.exec(guest.ID, "ip", "address"); address == "" || !strings.Contains(out, address) {
		t.Errorf("guest does not have the address %q of gate:\n%s", address, out)
	}
	t.Logf("down: gate %v, guest %v", tape.downtime("gate", 1, 2), tape.downtime("guest", 1, 2))
}

// A network that is not the app's is joined and never made, changed or removed.
// Until it is there, only the service that needs it waits.
func TestExternalNetwork(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{
		"main": runsWith("hello:1", map[string]any{"networks": []string{"plant"}}), "side": runsImage("hello:1"),
	}).beside("networks", map[string]any{"plant": map[string]any{"external": true, "name": "plant-floor"}, "default": map[string]any{}})
	p.offer(a)
	p.device()
	w := s.waits("create app1/main")
	if !strings.Contains(w.Text, "plant-floor") {
		t.Errorf("the status does not name the network: %+v", w)
	}
	s.within("the other service runs", func(context.Context) error {
		if list := s.all("side"); len(list) != 1 || list[0].State != "running" {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	made, err := s.engine.Client.NetworkCreate(t.Context(), "plant-floor", network.CreateOptions{Driver: "bridge"})
	s.must(err)
	s.told([]string{"retry"}, "tried again")
	s.settlesAt(a.commit)
	if s.service("main").NetworkSettings.Networks["plant-floor"] == nil {
		t.Error("main is not on the external network")
	}
	tape := s.record()
	p.offer() // the app goes, the network is not its
	s.within("the app is gone", func(context.Context) error {
		if list := s.all(""); len(list) > 0 {
			return fmt.Errorf("%d containers are left", len(list))
		}
		return nil
	})
	tape.order("die main 1", "destroy main 1")
	if _, err := s.engine.Client.NetworkInspect(t.Context(), made.ID, network.InspectOptions{}); err != nil {
		t.Errorf("the external network: %v", err)
	}
}

// The owner has the volumes of an app deleted: what mounts them is replaced, the
// data is gone, the rest runs on. Nothing else ever deletes a volume.
func TestPurge(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	a := app("1", "a", map[string]any{
		"db": runsWith("hello:1", map[string]any{"volumes": []string{"data:/data"}}), "web": runsImage("hello:1"),
	}).beside("volumes", map[string]any{"data": map[string]any{}})
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	s.exec(s.service("db").ID, "sh", "-c", "echo precious >/data/file")
	before := s.services()
	if _, err := s.deckhand("purge", "app1", "--data-dir", s.unit.DataDir); err == nil {
		t.Error("nobody was asked whether the data may be deleted")
	}
	tape := s.record()
	s.told([]string{"purge", "app1", "--yes"}, "data")
	tape.waitsFor("start db 2")
	s.settlesAt(a.commit)
	s.runs("db", "web")
	s.same(before["web"], s.service("web"))
	tape.order("die db 1", "destroy db 1", "destroy volume data", "create volume data", "create db 2", "start db 2")
	if out := s.exec(s.service("db").ID, "ls", "/data"); strings.TrimSpace(out) != "" {
		t.Errorf("the new volume holds %q", out)
	}
	mark := tape.mark()
	p.offer()
	s.within("the app is gone", func(context.Context) error {
		if list := s.all(""); len(list) > 0 {
			return fmt.Errorf("%d containers are left", len(list))
		}
		return nil
	})
	if !slices.Contains(s.volumes(), "data") {
		t.Errorf("the volume went with its app: %v", tape.since(mark))
	}
}

// Secrets of a release are read-only files with the content, owner and mode that
// were asked for, and their content is nowhere else.
func TestSecrets(t *testing.T) {
	s := beside(t)
	s.engine.Busybox(t, "hello:1")
	p := s.paperCloud()
	release := func(commit, password string) paperApp {
		main := runsWith("hello:1", map[string]any{
			"user": "1000", "secrets": []any{map[string]any{"source": "password", "mode": 0o400, "uid": "1000"}},
			"configs": []any{map[string]any{"source": "settings", "target": "/etc/settings"}},
		})
		return app("1", commit, map[string]any{"main": main, "side": runsImage("hello:1")}).
			beside("secrets", map[string]any{"password": map[string]any{"content": password}}).
			beside("configs", map[string]any{"settings": map[string]any{"content": "level=info\n"}})
	}
	a := release("a", "correct-horse")
	p.offer(a)
	p.device()
	s.settlesAt(a.commit)
	side := s.service("side")
	s.holdsSecret("correct-horse")

	tape := s.record()
	b := release("b", "battery-staple")
	p.offer(b)
	s.settlesAt(b.commit)
	s.holdsSecret("battery-staple")
	tape.order("create main 2", "kill main 1", "start main 2")
	s.same(side, s.service("side"))
	s.within("the old secret is deleted", func(context.Context) error {
		return filepath.WalkDir(s.unit.RunDir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			if content, err := os.ReadFile(path); err == nil && strings.Contains(string(content), "correct-horse") {
				return fmt.Errorf("%s holds it", path)
			}
			return nil
		})
	})
	s.told([]string{"explain", "main"}, "files")

	p.offer(app("1", "c", map[string]any{"side": runsImage("hello:1")}))
	s.within("nothing of the secrets is left", func(context.Context) error {
		left, err := filepath.Glob(filepath.Join(s.unit.RunDir, "files", "*", "main", "*", "*"))
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("there is %v", left)
		}
		return err
	})
}

// holdsSecret checks the files of main, and that their content is nowhere else.
func (s *scene) holdsSecret(password string) {
	s.Helper()
	main := s.service("main")
	if got := s.exec(main.ID, "cat", "/run/secrets/password"); got != password {
		s.Errorf("the secret in the container is %q", got)
	}
	if got := strings.TrimSpace(s.exec(main.ID, "stat", "-c", "%a %u", "/run/secrets/password")); got != "400 1000" {
		s.Errorf("mode and owner are %q", got)
	}
	if got := strings.TrimSpace(s.exec(main.ID, "cat", "/etc/settings")); got != "level=info" {
		s.Errorf("the config in the container is %q", got)
	}
	if out := s.exec(main.ID, "sh", "-c", "echo x 2>&1 >/run/secrets/password || true"); !strings.Contains(out, "Read-only") && !strings.Contains(out, "Permission") {
		s.Errorf("the secret can be written: %q", out)
	}
	inspected, err := json.Marshal(main)
	s.must(err)
	shot, err := s.deckhand("snapshot", "--data-dir", s.unit.DataDir)
	s.must(err)
	explained, err := s.deckhand("explain", "main", "--data-dir", s.unit.DataDir)
	s.must(err)
	for where, text := range map[string]string{
		"docker inspect": string(inspected), "the log": s.unit.Log.String(), "the snapshot": shot, "the explanation": explained,
	} {
		for _, secret := range []string{"correct-horse", "battery-staple"} {
			if strings.Contains(text, secret) {
				s.Errorf("%s shows a secret", where)
			}
		}
	}
}
