//go:build bench

package bench

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/image"
	ref "github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"deckhand/engine/enginetest"
	"deckhand/test/dockerd"
	"deckhand/test/system"
)

// layerSize is what each service downloads of its own. All images share a lower
// layer, which is on the device.
const layerSize = 128 << 10

// shop makes images and keeps them in a registry on loopback.
type shop struct {
	registry *enginetest.Registry
	base     v1.Image
	noise    *rand.Rand
}

// openShop pulls the lower layer onto the engine.
func (b *bench) openShop(t *testing.T) *shop {
	t.Helper()
	path := filepath.Join(b.dir, "caller")
	if err := system.BuildOne(t.Context(), "./test/e2e/caller", path); err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rootfs, err := dockerd.Rootfs(map[string]string{"program": string(program)})
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{registry: enginetest.NewRegistry(t), noise: rand.New(rand.NewPCG(1, 2))}
	s.base = enginetest.Build(t, [][]byte{rootfs}, "/bin/sh", "-c", dockerd.Idle)
	out, err := b.engine.Client.ImagePull(t.Context(), s.store(t, "base", s.base), image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(io.Discard, out); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *shop) store(t *testing.T, repository string, im v1.Image) string {
	t.Helper()
	at := s.registry.Host + "/" + repository
	r, err := ref.ParseReference(at + ":1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(r, im, remote.WithContext(t.Context())); err != nil {
		t.Fatal(err)
	}
	digest, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return at + "@" + digest.String()
}

// image makes an image that nobody has yet and gives its reference.
func (s *shop) image(t *testing.T, repository string) string {
	t.Helper()
	content := make([]byte, layerSize)
	for i := range content {
		content[i] = byte(s.noise.Uint32())
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "noise", Mode: 0o644, Size: layerSize}); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write(content)
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	im, err := mutate.AppendLayers(s.base, layer)
	if err != nil {
		t.Fatal(err)
	}
	return s.store(t, repository, im)
}

// release is one of n services, each with a new image.
func (s *shop) release(t *testing.T, n int, commit, strategy string) release {
	t.Helper()
	r := alike(n, commit, "")
	for key, x := range r.services {
		x.image, x.labels = s.image(t, key), map[string]string{"io.balena.update.strategy": strategy}
		if strategy == handOver {
			x.composition = map[string]any{"command": []string{"/program", "serve"}}
		}
		r.services[key] = x
	}
	return r
}

const handOver = "hand-over"

// strategies: how long each service is down in an update of all images, which
// are downloaded, by each strategy. By hand-over a client asks s0 through its
// name on the app's network all the time.
func strategies(t *testing.T, b *bench) {
	s := b.openShop(t)
	d := b.start(t, b.engine.Host)
	client := s.image(t, "client")
	out := b.table("Update of every service to an image that is downloaded, seconds",
		"services", "strategy", "downtime median", "downtime most", "target", "last start", "last remove", "asked", "lost", "longest wait")
	for _, n := range b.sizes(1, 5, 20, 50) {
		d.reach(t, s.release(t, n, b.unique("first"), "download-then-kill"))
		for _, strategy := range []string{"download-then-kill", "kill-then-download", "delete-then-download"} {
			x := b.strategyUpdate(t, d, s.release(t, n, b.unique("next"), strategy), n)
			out.row(n, strategy, median(x.down), slices.Max(x.down), "", x.running, x.whole, "", "", "")
		}
		caller := service{image: client, level: "info", composition: map[string]any{"command": []string{"/program", "call", "http://s0/"}}}
		r := s.release(t, n, b.unique("next"), handOver)
		r.services["client"] = caller
		d.reach(t, r)
		before := b.asked(t, 20)
		r = s.release(t, n, b.unique("next"), handOver)
		r.services["client"] = caller
		x := b.strategyUpdate(t, d, r, n)
		after := b.asked(t, before.asked+20)
		longest := fmt.Sprintf("%.2f", float64(after.gap)/1000)
		if after.gap == before.gap { // it counts from its start
			longest = "≤ " + longest
		}
		out.row(n, handOver, median(x.down), slices.Max(x.down), "0", x.running, x.whole, after.asked-before.asked, after.lost-before.lost, longest)
		d.clear(t)
	}
	d.stop(t)
}

func (b *bench) strategyUpdate(t *testing.T, d *device, r release, n int) replacement {
	t.Helper()
	d.listening(t)
	events := watch(t, b.engine)
	defer events.stop()
	x := events.replaced(t, d.offer(t, r), n)
	d.settled(t, r.commit)
	return x
}

// asking is what the client counted; its longest wait for an answer is in
// milliseconds.
type asking struct{ asked, lost, gap int }

// asked waits until the client has asked more than a number of questions.
func (b *bench) asked(t *testing.T, more int) asking {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); <-time.After(50 * time.Millisecond) {
		var a asking
		text, err := b.calls(t)
		if err == nil {
			_, err = fmt.Sscan(text, &a.asked, &a.lost, &a.gap)
		}
		if err == nil && a.asked > more {
			return a
		}
	}
	t.Fatal("the client does not ask")
	return asking{}
}

// calls reads the file in which the client counts.
func (b *bench) calls(t *testing.T) (string, error) {
	t.Helper()
	list, err := b.engine.Client.ContainerList(t.Context(), container.ListOptions{})
	if err != nil {
		return "", err
	}
	for _, c := range list {
		if c.Labels["io.balena.service-name"] != "client" {
			continue
		}
		file, _, err := b.engine.Client.CopyFromContainer(t.Context(), c.ID, "/tmp/calls")
		if err != nil {
			return "", err
		}
		defer file.Close()
		r := tar.NewReader(file)
		if _, err := r.Next(); err != nil {
			return "", err
		}
		text, err := io.ReadAll(r)
		return string(text), err
	}
	return "", fmt.Errorf("no client runs")
}
