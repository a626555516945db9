//go:build engine && linux

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/build"
	"github.com/docker/docker/api/types/container"

	"deckhand/test/system"
)

// stranger is a container that is no business of ours.
func (s *scene) stranger() (id string) {
	s.Helper()
	made, err := s.engine.Client.ContainerCreate(s.Context(), &container.Config{Image: "hello:1"}, &container.HostConfig{NetworkMode: "none"}, nil, nil, "stranger")
	s.must(err)
	s.must(s.engine.Client.ContainerStart(s.Context(), made.ID, container.StartOptions{}))
	return made.ID
}

// The supervisor runs as a container of its own image on the engine it rules
// over, is healthy, brings a release up, and leaves itself alone.
func TestSupervisorImage(t *testing.T) {
	s := begin(t)
	fleet := s.fleet()
	values, err := s.cloud.Registered(t.Context(), fleet)
	s.must(err)
	s.deviceWith(values) // its folders and its config.json; no process
	s.buildImage("deckhand:test")
	id := s.contain("deckhand:test")
	defer func() {
		if t.Failed() {
			s.showLog(id)
		}
	}()

	s.within("the supervisor answers", func(ctx context.Context) error { return s.unit.Answer(ctx) })
	s.within("it is healthy", func(ctx context.Context) error { return s.unit.Ask().Healthy(ctx) })
	if out := s.exec(id, "/deckhand", "health"); !strings.Contains(out, "healthy") {
		t.Errorf("the image's health check says %q", out)
	}
	r := s.push(fleet, shop, marks("1", "1", "1"))
	s.settles(r)
	s.runs("db", "web", "worker")
	next := s.push(fleet, shop, marks("1", "1", "2"))
	s.settles(next)
	if got := s.mark(s.service("worker")); got != "2" {
		t.Errorf("worker runs image %q", got)
	}
	if c, err := s.engine.Client.ContainerInspect(t.Context(), id); err != nil || !c.State.Running || c.RestartCount != 0 {
		t.Errorf("the supervisor's own container: %v", err)
	}
	if _, err := s.engine.Client.ImageInspect(t.Context(), "deckhand:test"); err != nil {
		t.Errorf("the supervisor's own image: %v", err)
	}
}

// contain runs the supervisor's image as balena's OS does: privileged, on the
// host's network, with the engine's socket. A machine that is itself a container
// may be unable to give all rights away; then it runs without.
func (s *scene) contain(image string) string {
	s.Helper()
	socket := filepath.Dir(strings.TrimPrefix(s.engine.Host, "unix://"))
	for _, privileged := range []bool{true, false} {
		made, err := s.engine.Client.ContainerCreate(s.Context(), &container.Config{
			Image: image,
			Cmd: []string{"run", "--config", "/mnt/boot/config.json", "--engine", s.engine.Host, "--run-dir", s.unit.RunDir,
				"--host-root", "/mnt/root", "--listen", s.unit.Listen},
		}, &container.HostConfig{
			Privileged: privileged, NetworkMode: "host",
			Binds: []string{
				s.unit.ConfigFile + ":/mnt/boot/config.json", s.unit.DataDir + ":/var/lib/deckhand", s.unit.RunDir + ":" + s.unit.RunDir,
				socket + ":" + socket, "/:/mnt/root:ro",
			},
		}, nil, nil, "")
		s.must(err)
		s.Cleanup(func() { // before anything else, or it would mend what is cleared away
			_ = s.engine.Client.ContainerRemove(context.Background(), made.ID, container.RemoveOptions{Force: true})
		})
		if err = s.engine.Client.ContainerStart(s.Context(), made.ID, container.StartOptions{}); err == nil {
			return made.ID
		}
		if !privileged || !strings.Contains(err.Error(), "unable to apply caps") {
			s.Fatal(err)
		}
		s.Logf("without privileges: %v", err)
	}
	return ""
}

// showLog shows what a container wrote.
func (s *scene) showLog(id string) {
	s.Helper()
	ctx, cancel := s.ctx()
	defer cancel()
	if out, err := s.engine.Client.ContainerLogs(ctx, id, container.LogsOptions{ShowStdout: true, ShowStderr: true, Tail: "40"}); err == nil {
		b, _ := io.ReadAll(out)
		s.Logf("log of container %.12s:\n%s", id, b)
	}
}

// buildImage builds Dockerfile.amd64 on the device's engine, without a network.
func (s *scene) buildImage(tag string) {
	s.Helper()
	root, err := system.Root(s.Context())
	s.must(err)
	files := map[string]string{
		"Dockerfile": filepath.Join(root, "Dockerfile.amd64"), "dist/deckhand-linux-amd64": s.programs.Deckhand,
		"dist/ca-certificates.crt": "", "dist/zoneinfo.zip": "", // their content is no matter here
	}
	var context bytes.Buffer
	w := tar.NewWriter(&context)
	for name, from := range files {
		content := []byte("\n")
		if from != "" {
			content, err = os.ReadFile(from)
			s.must(err)
		}
		s.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o755, Size: int64(len(content))}))
		_, err = w.Write(content)
		s.must(err)
	}
	s.must(w.Close())
	ctx, cancel := s.ctx()
	defer cancel()
	answer, err := s.engine.Client.ImageBuild(ctx, &context, build.ImageBuildOptions{Version: build.BuilderV1, Tags: []string{tag}, NetworkMode: "none", Remove: true})
	s.must(err)
	defer answer.Body.Close()
	out, err := io.ReadAll(answer.Body)
	s.must(err)
	if bytes.Contains(out, []byte("errorDetail")) {
		s.Fatal(fmt.Errorf("build Dockerfile.amd64: %s", out))
	}
}
