//go:build linux

package dockerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"
)

const (
	startTimeout = 60 * time.Second // until the API answers; generous for a loaded machine
	stopTimeout  = 30 * time.Second // until dockerd has ended after SIGTERM
)

// Engine is a running Docker Engine that belongs to one test or one package.
type Engine struct {
	Host   string         // unix:///…, for DOCKER_HOST
	Client *client.Client // stays valid over Restart
	PID    int            // of dockerd; another one after Restart

	slot *slot
	done chan struct{} // closed when dockerd has ended
}

// Start runs an engine for one test and ends it with the test.
func Start(t testing.TB) *Engine {
	t.Helper()
	e, err := launch("")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of dockerd's log:\n%s", e.Log())
		}
		if err := e.Stop(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// StartMain runs an engine for a whole package; call the function it returns
// before os.Exit. It ends the process with a message if no engine starts.
func StartMain() (*Engine, func()) {
	e, err := launch("")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return e, func() {
		if err := e.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

// StartIn runs an engine that keeps its files below dir, which must be short
// enough for a socket's path, and outlives no process. The function it returns
// ends the engine and removes its files.
func StartIn(dir string) (*Engine, func(), error) {
	e, err := launch(dir)
	if err != nil {
		return nil, nil, err
	}
	return e, func() { _ = e.Stop() }, nil
}

func launch(dir string) (*Engine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start dockerd: needs root; run the engine tests with sudo")
	}
	if _, err := exec.LookPath("dockerd"); err != nil {
		return nil, fmt.Errorf("start dockerd: %w; install Docker Engine (package docker.io)", err)
	}
	s, err := claim(dir)
	if err != nil {
		return nil, fmt.Errorf("start dockerd: %w", err)
	}
	e := &Engine{Host: "unix://" + s.path("sock"), slot: s}
	e.Client, err = client.NewClientWithOpts(client.WithHost(e.Host), client.WithAPIVersionNegotiation())
	if err == nil {
		err = e.run()
	}
	if err != nil {
		_ = e.end() // what went wrong before matters more
		return nil, errors.Join(fmt.Errorf("start dockerd: %w", err), s.release())
	}
	return e, nil
}

// run starts dockerd and waits until its API answers.
func (e *Engine) run() error {
	log, err := os.OpenFile(e.slot.path("log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command("dockerd",
		"--data-root", e.slot.path("data"), "--exec-root", e.slot.path("exec"), "--pidfile", e.slot.path("pid"),
		"--config-file", e.slot.path("daemon.json"), "-H", e.Host,
		"--storage-driver", "overlay2", "--bridge", "none",
		"--default-address-pool", "base="+e.slot.pool()+",size=24",
		"--iptables=false", "--ip6tables=false", "--ip-masq=false",
		"--shutdown-timeout", "5")
	cmd.Stdout, cmd.Stderr = log, log
	// The engine goes down with the test binary, however that ends.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := os.WriteFile(e.slot.path("daemon.json"), []byte("{}"), 0o600); err != nil {
		return err
	}

	started := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		runtime.LockOSThread() // the death signal belongs to the thread
		defer close(done)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	e.done, e.PID = done, cmd.Process.Pid
	return e.ready()
}

func (e *Engine) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := e.Client.Ping(ctx)
		if err == nil {
			e.Client.NegotiateAPIVersion(ctx)
			return nil
		}
		select {
		case <-tick.C:
		case <-e.done:
			return fmt.Errorf("it ended at once; the end of its log:\n%s", e.Log())
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v (%w); the end of its log:\n%s", startTimeout, err, e.Log())
		}
	}
}

// Log is the end of dockerd's log.
func (e *Engine) Log() string {
	b, err := os.ReadFile(e.slot.path("log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-40):], "\n")
}

// Dir is a folder of the engine's own that lives as long as it does; containers
// may bind what is below it.
func (e *Engine) Dir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(e.slot.dir, "dir-")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Kill ends dockerd without a chance to clean up, as a crash would; Restart
// brings it back. Its containerd goes with it; containers run on until then.
func (e *Engine) Kill() {
	_ = syscall.Kill(e.PID, syscall.SIGKILL)
	<-e.done
	// The next dockerd would wait for the containerd named in this file, for
	// ever if nobody collected the dead process.
	file := e.slot.path("exec/containerd/containerd.pid")
	b, err := os.ReadFile(file)
	if err != nil {
		return
	}
	if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil && pid > 1 {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	_ = os.Remove(file)
}

// Restart stops dockerd with SIGTERM, if it still runs, and starts it again on
// the same data.
func (e *Engine) Restart(t testing.TB) {
	t.Helper()
	if err := e.term(); err != nil {
		t.Fatal(err)
	}
	if err := e.run(); err != nil {
		t.Fatalf("restart dockerd: %v", err)
	}
}

// Down stops dockerd with SIGTERM and keeps its data; Restart brings it back.
func (e *Engine) Down(t testing.TB) {
	t.Helper()
	if err := e.term(); err != nil {
		t.Fatal(err)
	}
}

// Stop ends the engine and removes everything it made.
func (e *Engine) Stop() error {
	e.clear()
	err := e.end()
	return errors.Join(err, e.slot.release())
}

// clear removes all containers so that dockerd need not wait for them.
func (e *Engine) clear() {
	select {
	case <-e.done:
		return
	default:
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	list, err := e.Client.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return
	}
	for _, c := range list {
		_ = e.Client.ContainerRemove(ctx, c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
	}
}

func (e *Engine) end() error {
	if e.Client != nil {
		defer e.Client.Close()
	}
	if e.done == nil {
		return nil
	}
	return e.term()
}

func (e *Engine) term() error {
	select {
	case <-e.done:
		return nil
	default:
	}
	_ = syscall.Kill(e.PID, syscall.SIGTERM)
	select {
	case <-e.done:
		return nil
	case <-time.After(stopTimeout):
		e.Kill()
		return fmt.Errorf("stop dockerd: still there after %v, killed; the end of its log:\n%s", stopTimeout, e.Log())
	}
}

func (s *slot) path(name string) string { return filepath.Join(s.dir, name) }
