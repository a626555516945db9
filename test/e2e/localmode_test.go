//go:build engine && linux

package e2e

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"
	"github.com/google/go-cmp/cmp"

	"deckhand/client"
	"deckhand/supervisor"
	"deckhand/test/dockerd"
	"deckhand/test/system"
)

const fleetApp = `
services:
  shop:
    build: ./shop
    volumes: ["till:/till"]
volumes:
  till: {}
`

// bench is a device that an owner works at over the network.
type bench struct {
	*scene
	fleet   client.Fleet
	release release
	before  []string // images
	image   string   // what clients call the one they build
}

// workbench is a device of a fleet, brought into local mode by the cloud.
func workbench(t *testing.T, listen string) *bench {
	t.Helper()
	b := &bench{scene: begin(t), image: "local_image_web:latest"}
	b.fleet = b.scene.fleet()
	b.release = b.push(b.fleet, fleetApp, map[string]string{"shop": "1"})
	values, err := b.cloud.Registered(t.Context(), b.fleet)
	b.must(err)
	b.deviceWith(values)
	if listen != "" {
		b.unit.Listen = listen
	}
	b.boot()
	b.settles(b.release)
	b.runs("shop")
	b.before = b.images()
	b.post("application_config_variable", map[string]any{"application": b.fleet.ID, "name": "BALENA_SUPERVISOR_LOCAL_MODE", "value": "1"})
	b.within("the fleet's app gives way", func(context.Context) error {
		if left := b.all(""); len(left) > 0 {
			return fmt.Errorf("%d services run", len(left))
		}
		return nil
	})
	return b
}

// leave ends local mode in the cloud and checks that the device is as before.
func (b *bench) leave() {
	b.Helper()
	d, err := b.cloud.Client.Device(b.Context(), b.uuid)
	b.must(err)
	b.post("device_config_variable", map[string]any{"device": d.ID, "name": "BALENA_SUPERVISOR_LOCAL_MODE", "value": "0"})
	b.settles(b.release)
	b.runs("shop")
	b.within("what came in local mode is gone", func(context.Context) error {
		if diff := cmp.Diff(b.before, b.images()); diff != "" {
			return fmt.Errorf("images (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"till"}, b.volumes()); diff != "" {
			return fmt.Errorf("volumes (-want +got):\n%s", diff)
		}
		return nil
	})
	b.cloudShows(b.release, "shop")
}

// get asks the device's API as clients in its network do: without a key.
func (b *bench) get(path string, into any) {
	b.Helper()
	b.call(http.MethodGet, path, nil, into)
}

func (b *bench) call(method, path string, body []byte, into any) {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, "http://"+b.unit.Listen+path, bytes.NewReader(body))
	b.must(err)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	b.must(err)
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	b.must(err)
	if resp.StatusCode != http.StatusOK {
		b.Fatalf("%s %s: %s %s", method, path, resp.Status, answer)
	}
	if into != nil {
		b.must(json.Unmarshal(answer, into))
	}
}

const pushedDockerfile = `FROM scratch
ADD rootfs.tar /
ENV PATH=/bin
COPY mark /mark
CMD ["/bin/sh","-c","cat /mark; %s"]
`

// source are the files of a project with one service that prints a text.
func (b *bench) source(text string) map[string][]byte {
	b.Helper()
	rootfs, err := dockerd.Rootfs(nil)
	b.must(err)
	return map[string][]byte{
		"rootfs.tar": rootfs, "mark": []byte(text + "\n"), "Dockerfile": fmt.Appendf(nil, pushedDockerfile, dockerd.Idle),
		"docker-compose.yml": []byte("version: '2.1'\nservices:\n  web:\n    build: .\n    restart: always\n    volumes: ['scratch:/scratch']\nvolumes:\n  scratch: {}\n"),
	}
}

// marked waits until a container of the service runs that has the mark, and
// gives its ID.
func (b *bench) marked(want string) string {
	b.Helper()
	var id string
	b.within("service web with mark "+want, func(context.Context) error {
		all := b.all("web")
		newest, err := b.engine.Client.ImageInspect(b.Context(), b.image)
		if err != nil || len(all) != 1 || all[0].State != container.StateRunning || all[0].ImageID != newest.ID {
			return fmt.Errorf("it has %d containers, of other images perhaps (%w)", len(all), err)
		}
		if got := b.exec(all[0].ID, "cat", "/mark"); strings.TrimSpace(got) != want {
			return fmt.Errorf("it has mark %s", got)
		}
		id = all[0].ID
		return nil
	})
	return id
}

// replay does what the official client does, request by request.
func (b *bench) replay(text string) {
	b.Helper()
	b.get("/ping", nil)
	var version struct{ Status, Version string }
	if b.get("/v2/version", &version); version.Status != "success" {
		b.Fatalf("version: %+v", version)
	}
	var info struct {
		Info struct{ Arch, DeviceType string }
	}
	if b.get("/v2/local/device-info", &info); info.Info.Arch == "" || info.Info.DeviceType == "" {
		b.Fatalf("device-info: %+v", info)
	}
	b.buildOnDevice(text)
	var doc struct {
		State struct{ Local map[string]any }
	}
	b.get("/v2/local/target-state", &doc)
	doc.State.Local["apps"] = map[string]any{"1": map[string]any{
		"name": "localapp", "commit": "10ca12e1ea5e", "releaseId": "1",
		"services": map[string]any{"1": map[string]any{
			"environment": map[string]any{}, "labels": map[string]any{"io.resin.local.image": "1", "io.resin.local.service": "web"},
			"restart": "always", "volumes": []string{"scratch:/scratch"},
			"imageId": 1, "serviceName": "web", "serviceId": 1, "image": "local_image_web:latest", "running": true,
		}},
		"volumes": map[string]any{"scratch": map[string]any{}}, "networks": map[string]any{},
	}}
	body, err := json.Marshal(map[string]any{"local": doc.State.Local})
	b.must(err)
	var done struct{ Status, Message string }
	if b.call(http.MethodPost, "/v2/local/target-state", body, &done); done.Status != "success" || done.Message != "OK" {
		b.Fatalf("push: %+v", done)
	}
}

// buildOnDevice builds on the engine, as clients do over its TCP port.
func (b *bench) buildOnDevice(text string) {
	b.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	for name, content := range b.source(text) {
		b.must(w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}))
		_, err := w.Write(content)
		b.must(err)
	}
	b.must(w.Close())
	out, err := b.engine.Client.ImageBuild(b.Context(), &archive, build.ImageBuildOptions{
		Tags: []string{"local_image_web:latest"}, ForceRemove: true, Remove: true,
		Labels: map[string]string{"io.resin.local.image": "1", "io.resin.local.service": "web"},
	})
	b.must(err)
	defer out.Body.Close()
	if said, err := io.ReadAll(out.Body); err != nil || bytes.Contains(said, []byte("errorDetail")) {
		b.Fatalf("build: %v %s", err, said)
	}
}

// An owner pushes to a device over the network, changes the source and pushes
// again; the document is the same to the letter each time. In the end the cloud
// takes the device back.
func TestLocalMode(t *testing.T) {
	b := workbench(t, "")
	lines := b.follow()
	b.replay("first")
	first := b.marked("first")
	b.line(lines, "first")
	b.replay("second")
	if second := b.marked("second"); second == first {
		t.Error("the container is the old one")
	}
	b.line(lines, "second")
	b.powerOff()
	b.boot()
	b.marked("second")
	b.status("the plan is empty", func(v supervisor.View) error {
		if v.State != supervisor.StateSettled {
			return fmt.Errorf("the device is %s", system.Describe(v))
		}
		return nil
	})
	b.leave()
}

// The owner's own tool does the same, with any address and any engine.
func TestLocalModeDeckctl(t *testing.T) {
	b := workbench(t, "")
	dir := filepath.Join(b.dir, "source")
	b.write(dir, b.source("first"))
	push := []string{"push", b.unit.Listen, dir, "--engine", b.engine.Host}
	b.tool(b.programs.Deckctl, "[web] first", push...)
	first := b.marked("first")
	b.write(dir, b.source("second"))
	b.tool(b.programs.Deckctl, "[web] second", push...)
	if second := b.marked("second"); second == first {
		t.Error("the container is the old one")
	}
	b.leave()
}

// follow reads the stream of logs.
func (b *bench) follow() <-chan string {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.unit.Listen+"/v2/local/logs", nil)
	b.must(err)
	resp, err := http.DefaultClient.Do(req) //nolint:bodyclose // the goroutine does
	b.must(err)
	out, ended := make(chan string), make(chan struct{})
	go func() {
		defer close(ended)
		defer resp.Body.Close()
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			select {
			case out <- in.Text():
			case <-ctx.Done():
				return
			}
		}
	}()
	b.Cleanup(func() { cancel(); <-ended })
	return out
}

// line waits for a line of service web.
func (b *bench) line(lines <-chan string, want string) {
	b.Helper()
	late := time.After(deadline)
	for {
		select {
		case text := <-lines:
			var l struct{ Message, ServiceName string }
			if json.Unmarshal([]byte(text), &l) == nil && l.ServiceName == "web" && strings.Contains(l.Message, want) {
				return
			}
		case <-late:
			b.Fatalf("no line %q of service web in the stream", want)
		}
	}
}

func (b *bench) write(dir string, files map[string][]byte) {
	b.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		b.must(os.MkdirAll(filepath.Dir(path), 0o755))
		b.must(os.WriteFile(path, content, 0o600))
	}
}

// tool runs a client until it shows a line of the service, and ends it as an
// owner does.
func (b *bench) tool(path, until string, args ...string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append(os.Environ(), "BALENARC_DATA_DIRECTORY="+filepath.Join(b.dir, "balena"), "HOME="+b.dir,
		"BALENARC_NO_SENTRY=1", "BALENARC_NO_ANALYTICS=1", "BALENARC_UNSUPPORTED=1")
	out, err := cmd.StdoutPipe()
	b.must(err)
	cmd.Stderr = cmd.Stdout
	b.must(cmd.Start())
	var said strings.Builder
	seen := false
	for in := bufio.NewScanner(out); in.Scan(); {
		said.WriteString(in.Text() + "\n")
		if !seen && strings.Contains(in.Text(), until) {
			seen = true
			b.must(cmd.Process.Signal(os.Interrupt))
		}
	}
	_ = cmd.Wait() // it was interrupted
	b.Logf("$ %s %s\n%s", filepath.Base(path), strings.Join(args, " "), said.String())
	if !seen {
		b.Fatalf("the client did not show the line of service web")
	}
}
