package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/volume"
	"github.com/docker/docker/client"

	"deckhand/locks"
	"deckhand/test/dockerd"
)

// stage is what the demo plays on, and what must be gone when it ends.
type stage struct {
	dir        string // .run/demo
	lock       *locks.Lock
	engineHost string
	engine     *client.Client
	private    func()     // ends our own engine; nil: somebody else's is used
	before     *inventory // nil: nothing was done to the engine yet

	processes      []*exec.Cmd
	api, registry  string // addresses
	user, password string
	supervisor     *follower
}

// inventory is what an engine holds; the difference between two is ours.
type inventory struct {
	Engine     string   `json:"engine"`
	Containers []string `json:"containers"`
	Networks   []string `json:"networks"`
	Volumes    []string `json:"volumes"`
	Images     []string `json:"images"`
}

func openStage(ctx context.Context) (*stage, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("deckhand runs as root; run make demo as root, or as somebody who may use sudo")
	}
	dir, err := filepath.Abs(filepath.Join(".run", "demo"))
	if err != nil {
		return nil, err
	}
	lock, err := locks.Instance(dir + ".lock")
	if err != nil {
		return nil, fmt.Errorf("another demo runs here: %w", err)
	}
	title("An engine to run containers on")
	if err := clearLeftovers(ctx, dir); err != nil {
		return nil, errors.Join(err, lock.Release())
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	s := &stage{dir: dir, lock: lock}
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// prepare finds an engine and notes what it holds.
func (s *stage) prepare(ctx context.Context) error {
	if err := s.findEngine(ctx); err != nil {
		return err
	}
	if err := portIsFree(); err != nil {
		return err
	}
	before, err := takeInventory(ctx, s.engine)
	if err != nil {
		return err
	}
	before.Engine = s.engineHost
	b, err := json.Marshal(before)
	if err == nil {
		err = os.WriteFile(s.path("before.json"), b, 0o600)
	}
	if err == nil {
		s.before = &before
	}
	return err
}

func (s *stage) path(name string) string { return filepath.Join(s.dir, name) }

// findEngine takes the first engine that answers, else starts a private one.
func (s *stage) findEngine(ctx context.Context) error {
	hosts := []string{os.Getenv("DOCKER_HOST"), "unix:///var/run/balena-engine.sock", "unix:///var/run/docker.sock"}
	for _, h := range hosts {
		if h == "" {
			continue
		}
		c, v, err := dial(ctx, h)
		if err == nil {
			s.engine, s.engineHost = c, h
			say("using the engine that is here: %s, API %s (%s)", v.Version, v.APIVersion, h)
			return nil
		}
		if h == os.Getenv("DOCKER_HOST") {
			return fmt.Errorf("DOCKER_HOST=%s does not answer: %w", h, err)
		}
	}
	own, end, err := dockerd.StartIn(filepath.Join(filepath.Dir(s.dir), "engine"))
	if err != nil {
		return err
	}
	c, v, err := dial(ctx, own.Host)
	if err != nil {
		end()
		return err
	}
	s.engine, s.engineHost, s.private = c, own.Host, end
	say("none here; started a private one: Docker %s, API %s, under .run/", v.Version, v.APIVersion)
	return nil
}

type engineVersion struct{ Version, APIVersion string }

func dial(ctx context.Context, host string) (*client.Client, engineVersion, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := client.NewClientWithOpts(client.WithHost(host), client.WithAPIVersionNegotiation())
	if err != nil {
		return nil, engineVersion{}, err
	}
	v, err := c.ServerVersion(ctx)
	return c, engineVersion{v.Version, v.APIVersion}, err
}

// clearLeftovers removes what a demo that crashed left on an engine.
func clearLeftovers(ctx context.Context, dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "before.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return os.RemoveAll(dir)
	}
	var before inventory
	if err == nil {
		err = json.Unmarshal(b, &before)
	}
	if err == nil {
		if c, _, gone := dial(ctx, before.Engine); gone == nil {
			say("clearing up after a demo that did not end properly")
			err = restore(ctx, c, before)
		}
	}
	return errors.Join(err, os.RemoveAll(dir))
}

// spawn starts a program that ends with the demo, however that ends. Ctrl-C on a
// terminal is for the demo alone, which ends what it started in good order.
func (s *stage) spawn(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w; build it with make build", cmd.Path, err)
	}
	s.processes = append(s.processes, cmd)
	return nil
}

// end asks a program to end and waits.
func end(cmd *exec.Cmd) {
	_ = cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		_ = cmd.Process.Kill()
		<-done
	}
}

// close ends the programs, the last started first, and puts the engine back.
func (s *stage) close() error {
	for _, p := range slices.Backward(s.processes) {
		end(p)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	var err error
	if s.private != nil {
		s.private()
	} else if s.before != nil {
		err = restore(ctx, s.engine, *s.before)
	}
	return errors.Join(err, os.RemoveAll(s.dir), s.lock.Release())
}

func takeInventory(ctx context.Context, c *client.Client) (inventory, error) {
	var v inventory
	containers, err := c.ContainerList(ctx, container.ListOptions{All: true})
	if err != nil {
		return v, err
	}
	for _, x := range containers {
		v.Containers = append(v.Containers, x.ID)
	}
	networks, err := c.NetworkList(ctx, network.ListOptions{})
	if err != nil {
		return v, err
	}
	for _, x := range networks {
		v.Networks = append(v.Networks, x.ID)
	}
	volumes, err := c.VolumeList(ctx, volume.ListOptions{})
	if err != nil {
		return v, err
	}
	for _, x := range volumes.Volumes {
		v.Volumes = append(v.Volumes, x.Name)
	}
	images, err := c.ImageList(ctx, image.ListOptions{All: true})
	if err != nil {
		return v, err
	}
	for _, x := range images {
		v.Images = append(v.Images, x.ID)
	}
	return v, nil
}

// restore removes from an engine what was not there before.
func restore(ctx context.Context, c *client.Client, before inventory) error {
	now, err := takeInventory(ctx, c)
	if err != nil {
		return err
	}
	var problems []error
	for _, id := range added(before.Containers, now.Containers) {
		problems = append(problems, c.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true}))
	}
	for _, id := range added(before.Networks, now.Networks) {
		problems = append(problems, c.NetworkRemove(ctx, id))
	}
	for _, name := range added(before.Volumes, now.Volumes) {
		problems = append(problems, c.VolumeRemove(ctx, name, true))
	}
	return errors.Join(append(problems, removeImages(ctx, c, added(before.Images, now.Images)))...)
}

// removeImages goes over the list until nothing more can be removed: a parent
// goes after the last image made from it.
func removeImages(ctx context.Context, c *client.Client, ids []string) error {
	for {
		var left []string
		var problems []error
		for _, id := range ids {
			_, err := c.ImageRemove(ctx, id, image.RemoveOptions{Force: true, PruneChildren: true})
			if err != nil && !errdefs.IsNotFound(err) {
				left, problems = append(left, id), append(problems, err)
			}
		}
		if len(left) == 0 || len(left) == len(ids) {
			return errors.Join(problems...)
		}
		ids = left
	}
}

func added(before, now []string) []string {
	return slices.DeleteFunc(slices.Clone(now), func(x string) bool { return slices.Contains(before, x) })
}

// freeAddress is a loopback address that nobody listens on.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// portIsFree looks whether the example can be published.
func portIsFree() error {
	l, err := net.Listen("tcp", ":8090")
	if err != nil {
		return fmt.Errorf("the example publishes port 8090: %w; free it and try again", err)
	}
	return l.Close()
}
