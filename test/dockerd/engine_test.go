//go:build engine && linux

package dockerd_test

import (
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/go-connections/nat"

	"deckhand/test/dockerd"
)

func TestEnginesSideBySide(t *testing.T) {
	for _, name := range []string{"one", "two"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := dockerd.Start(t)
			e.Busybox(t, "hello:"+name, name)
			list, err := e.Client.ImageList(t.Context(), image.ListOptions{})
			if err != nil || len(list) != 1 || list[0].RepoTags[0] != "hello:"+name {
				t.Fatalf("images %+v, %v: engines share data", list, err)
			}
			port := serve(t, e, "hello:"+name)
			get(t, port)
			fetch(t, e, "hello:"+name)
		})
	}
}

func TestRestartKeepsContainers(t *testing.T) {
	t.Parallel()
	e := dockerd.Start(t)
	e.Busybox(t, "hello:1")
	run(t, e, "idle", &container.Config{Image: "hello:1"}, &container.HostConfig{RestartPolicy: container.RestartPolicy{Name: "always"}})
	pid := e.PID
	e.Restart(t)
	if e.PID == pid {
		t.Fatal("same process")
	}
	waitRunning(t, e, "idle")
	e.Kill()
	e.Restart(t)
	waitRunning(t, e, "idle")
}

func run(t *testing.T, e *dockerd.Engine, name string, c *container.Config, h *container.HostConfig) string {
	t.Helper()
	_, err := e.Client.NetworkCreate(t.Context(), "net-"+name, network.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	h.NetworkMode = container.NetworkMode("net-" + name)
	made, err := e.Client.ContainerCreate(t.Context(), c, h, nil, nil, name)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Client.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	return made.ID
}

func serve(t *testing.T, e *dockerd.Engine, im string) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	run(t, e, "web", &container.Config{Image: im, Cmd: []string{"sh", "-c", "echo hi >/www/index.html; exec httpd -f -p 80 -h /www"},
		ExposedPorts: nat.PortSet{"80/tcp": {}}},
		&container.HostConfig{PortBindings: nat.PortMap{"80/tcp": {{HostIP: "127.0.0.1", HostPort: strconv.Itoa(port)}}}})
	return port
}

// get asks through the published port.
func get(t *testing.T, port int) {
	t.Helper()
	c := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for deadline := time.Now().Add(20 * time.Second); ; {
		r, err := c.Get("http://127.0.0.1:" + strconv.Itoa(port) + "/")
		if err == nil {
			b, _ := io.ReadAll(r.Body)
			r.Body.Close()
			if string(b) == "hi\n" {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("published port does not answer: %v", err)
		}
	}
}

// fetch asks from a second container, by name.
func fetch(t *testing.T, e *dockerd.Engine, im string) {
	t.Helper()
	made, err := e.Client.ContainerCreate(t.Context(), &container.Config{Image: im, Cmd: []string{"wget", "-qO-", "http://web/"}},
		&container.HostConfig{NetworkMode: "net-web"}, nil, nil, "ask")
	if err != nil {
		t.Fatal(err)
	}
	ended, fail := e.Client.ContainerWait(t.Context(), made.ID, container.WaitConditionNextExit)
	if err := e.Client.ContainerStart(t.Context(), made.ID, container.StartOptions{}); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-ended:
		if r.StatusCode != 0 {
			t.Fatalf("wget between containers ended with %d", r.StatusCode)
		}
	case err := <-fail:
		t.Fatal(err)
	}
}

func waitRunning(t *testing.T, e *dockerd.Engine, name string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		c, err := e.Client.ContainerInspect(t.Context(), name)
		if err == nil && c.State.Running {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not run: %v", name, err)
		}
	}
}
