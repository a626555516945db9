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

	"deckhand/test/dockerd"
)

// raw is the least that the engine needs: bare calls with the settings that
// deckhand gives, on an engine of its own, so that no supervisor watches.
type raw struct {
	*dockerd.Engine
	dir   string // bound into containers
	made  int    // installations and updates so far
	net   string
	ids   []string
	image string
}

// side does something for each of n services, k side by side.
func side(t *testing.T, n, k int, do func(ctx context.Context, i int) error) {
	t.Helper()
	g, ctx := errgroup.WithContext(t.Context())
	g.SetLimit(k)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
}

// install makes a network and n containers and starts them, k side by side. It
// returns how long it took until the last one started.
func (r *raw) install(t *testing.T, n, k int, image string) time.Duration {
	t.Helper()
	r.made++
	r.net, r.ids, r.image = fmt.Sprintf("raw%d", r.made), make([]string, n), image
	events := watch(t, r.Engine)
	defer events.stop()
	began := time.Now()
	if _, err := r.Client.NetworkCreate(t.Context(), r.net, network.CreateOptions{Driver: "bridge"}); err != nil {
		t.Fatal(err)
	}
	side(t, n, k, func(ctx context.Context, i int) (err error) {
		if r.ids[i], err = r.create(ctx, i); err != nil {
			return err
		}
		return r.start(ctx, r.ids[i])
	})
	return events.last(t, "start", n).Sub(began)
}

// clear removes what install made.
func (r *raw) clear(t *testing.T) {
	t.Helper()
	side(t, len(r.ids), 4, func(ctx context.Context, i int) error { return r.remove(ctx, r.ids[i]) })
	if err := r.Client.NetworkRemove(t.Context(), r.net); err != nil {
		t.Fatal(err)
	}
	r.ids = nil
}

func (r *raw) create(ctx context.Context, i int) (string, error) {
	stop := 10
	c, err := r.Client.ContainerCreate(ctx,
		&container.Config{Image: r.image, Tty: true, StopTimeout: &stop, Labels: map[string]string{"io.balena.service-name": name(i), "raw": "1"}},
		&container.HostConfig{
			NetworkMode: container.NetworkMode(r.net), RestartPolicy: container.RestartPolicy{Name: "always"},
			IpcMode: "shareable", ShmSize: 64 << 20, Binds: []string{r.dir + ":/tmp/resin", r.dir + ":/tmp/balena"},
		},
		&network.NetworkingConfig{EndpointsConfig: map[string]*network.EndpointSettings{r.net: {Aliases: []string{name(i)}}}},
		nil, fmt.Sprintf("%s_%s_%d", r.net, name(i), r.made))
	return c.ID, err
}

func (r *raw) start(ctx context.Context, id string) error {
	return r.Client.ContainerStart(ctx, id, container.StartOptions{})
}

func (r *raw) halt(ctx context.Context, id string) error {
	return r.Client.ContainerStop(ctx, id, container.StopOptions{})
}

func (r *raw) remove(ctx context.Context, id string) error {
	return r.Client.ContainerRemove(ctx, id, container.RemoveOptions{Force: true, RemoveVolumes: true})
}

// way is an order of the calls of an update.
type way struct {
	phases bool // all creates, all stops, all starts, all removes; else a chain for each service
	k      int  // side by side
}

func (w way) String() string {
	if w.phases {
		return fmt.Sprintf("phases, %d abreast", w.k)
	}
	return fmt.Sprintf("chains, %d abreast", w.k)
}

// update replaces every container that install made: create, stop, start, remove.
func (r *raw) update(t *testing.T, w way, image string) replacement {
	t.Helper()
	r.made++
	r.image = image
	n, old, fresh := len(r.ids), r.ids, make([]string, len(r.ids))
	steps := []func(ctx context.Context, i int) error{
		func(ctx context.Context, i int) (err error) { fresh[i], err = r.create(ctx, i); return err },
		func(ctx context.Context, i int) error { return r.halt(ctx, old[i]) },
		func(ctx context.Context, i int) error { return r.start(ctx, fresh[i]) },
		func(ctx context.Context, i int) error { return r.remove(ctx, old[i]) },
	}
	events := watch(t, r.Engine)
	defer events.stop()
	began := time.Now()
	if w.phases {
		for _, step := range steps {
			side(t, n, w.k, step)
		}
	} else {
		side(t, n, w.k, func(ctx context.Context, i int) error {
			for _, step := range steps {
				if err := step(ctx, i); err != nil {
					return err
				}
			}
			return nil
		})
	}
	r.ids = fresh
	return events.replaced(t, began, n)
}
