//go:build bench

package bench

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"
	"golang.org/x/sync/errgroup"
)

// rawInstall makes a network and n containers and starts them with bare engine
// calls, k side by side, and returns how long it took until the last one started.
func (b *bench) rawInstall(t *testing.T, n, k int) time.Duration {
	t.Helper()
	ctx := t.Context()
	name := b.unique("raw")
	events := b.watch(t)
	began := time.Now()
	net, err := b.engine.Client.NetworkCreate(ctx, name, network.CreateOptions{Driver: "bridge"})
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(k)
	for i := range n {
		g.Go(func() error {
			return b.rawStart(ctx, fmt.Sprintf("%s_s%d", name, i), fmt.Sprintf("s%d", i), name, "bench:1")
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	took := events.last(t, "start", n).Sub(began)
	events.stop()
	b.removeAll(t)
	if err := b.engine.Client.NetworkRemove(ctx, net.ID); err != nil {
		t.Fatal(err)
	}
	return took
}

// rawStart is the least that an installation of one service needs: one create
// with the settings that deckhand gives, one start.
func (b *bench) rawStart(ctx context.Context, name, service, net, image string) error {
	stop := 10
	c, err := b.engine.Client.ContainerCreate(ctx,
		&container.Config{Image: image, Tty: true, StopTimeout: &stop, Labels: map[string]string{"io.balena.service-name": service, "raw": "1"}},
		&container.HostConfig{
			NetworkMode: container.NetworkMode(net), RestartPolicy: container.RestartPolicy{Name: "always"},
			IpcMode: "shareable", ShmSize: 64 << 20, Binds: []string{b.dir + ":/tmp/resin", b.dir + ":/tmp/balena"},
		},
		&network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{net: {Aliases: []string{service}}}}, nil, name)
	if err != nil {
		return err
	}
	return b.engine.Client.ContainerStart(ctx, c.ID, container.StartOptions{})
}

// removeAll clears the engine between measurements.
func (b *bench) removeAll(t *testing.T) {
	t.Helper()
	list, err := b.engine.Client.ContainerList(t.Context(), container.ListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	var g errgroup.Group
	g.SetLimit(4)
	for _, c := range list {
		g.Go(func() error {
			return b.engine.Client.ContainerRemove(t.Context(), c.ID, container.RemoveOptions{Force: true, RemoveVolumes: true})
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}
