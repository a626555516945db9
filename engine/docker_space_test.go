//go:build engine && linux

package engine_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"archive/tar"

	"github.com/docker/docker/api/types/image"

	"deckhand/engine"
	"deckhand/engine/enginetest"
	"deckhand/reconcile"
	"deckhand/state"
)

// noise is a layer that does not compress.
func noise(t *testing.T, name string, size int) []byte {
	t.Helper()
	content := make([]byte, size)
	if _, err := rand.Read(content); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(size)}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// smallDisk is a host on whose disk the engine's folder has little room.
func smallDisk(t *testing.T, bytes int) (hostRoot, dockerRoot string) {
	t.Helper()
	info, err := docker().Client.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	hostRoot = t.TempDir()
	dir := filepath.Join(hostRoot, info.DockerRootDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", dir, "tmpfs", 0, fmt.Sprintf("size=%d", bytes)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, 0) })
	return hostRoot, info.DockerRootDir
}

// watched is a registry that counts what is asked for.
func watched(t *testing.T, host string) (door string, manifests, blobs *atomic.Int64) {
	t.Helper()
	manifests, blobs = new(atomic.Int64), new(atomic.Int64)
	return guard(t, host, func(_ http.ResponseWriter, q *http.Request) bool {
		switch {
		case strings.Contains(q.URL.Path, "/manifests/"):
			manifests.Add(1)
		case strings.Contains(q.URL.Path, "/blobs/"):
			blobs.Add(1)
		}
		return true
	}), manifests, blobs
}

func TestFetchThatCannotFit(t *testing.T) {
	reg := enginetest.NewRegistry(t)
	base, more := noise(t, "base", 1_000_000), noise(t, "more", 100_000)
	host, root := smallDisk(t, 1_500_000)
	e := open(t, func(c *engine.Config) { c.HostRoot = host })
	_, big := reg.PushLayers(t, "space/big", "1", [][]byte{base}, "true")
	_, next := reg.PushLayers(t, "space/next", "1", [][]byte{base, more}, "true")
	_, small := reg.PushLayers(t, "space/small", "1", [][]byte{more}, "true")
	door, _, blobs := watched(t, reg.Host)
	fetch := func(e *engine.Engine, ref string) error {
		return e.Do(t.Context(), reconcile.Fetch{Image: strings.Replace(ref, reg.Host, door, 1)}, nil)
	}
	err := fetch(e, big)
	if state.ClassOf(err) != state.ClassSpace || err == nil || !strings.Contains(err.Error(), "it needs 2.0 MB, 1.5 MB are free on "+root) {
		t.Errorf("%v", err)
	}
	if n := blobs.Load(); n > 1 {
		t.Errorf("%d blobs were asked for; only the image's configuration may be", n)
	}
	if err := fetch(e, small); err != nil {
		t.Errorf("one that fits: %v", err)
	}
	// On another device the base is there already.
	roomy := open(t, nil)
	if err := fetch(roomy, big); err != nil {
		t.Fatal(err)
	}
	if err := fetch(e, next); err != nil {
		t.Errorf("one whose base is there: %v", err)
	}
	if err := fetch(e, big); err != nil {
		t.Errorf("one that is there: %v", err)
	}
}

// A check that is not possible refuses nothing.
func TestFetchWithoutASize(t *testing.T) {
	reg := enginetest.NewRegistry(t)
	host, _ := smallDisk(t, 100_000)
	for name, c := range map[string]struct {
		root string
		pass func(q *http.Request) bool
	}{
		"the registry does not tell": {host, func(q *http.Request) bool { return strings.Contains(q.UserAgent(), "docker/") }},
		"the disk is not to be seen": {t.TempDir(), func(*http.Request) bool { return true }},
	} {
		t.Run(name, func(t *testing.T) {
			ref, _ := reg.PushLayers(t, "unknown/web", "1", [][]byte{noise(t, "x", 200_000)}, "true")
			door := guard(t, reg.Host, func(w http.ResponseWriter, q *http.Request) bool {
				if c.pass(q) {
					return true
				}
				w.WriteHeader(http.StatusForbidden)
				return false
			})
			e := open(t, func(x *engine.Config) { x.HostRoot = c.root })
			if err := e.Do(t.Context(), reconcile.Fetch{Image: strings.Replace(ref, reg.Host, door, 1)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestFetchAsksOnceMore(t *testing.T) {
	reg := enginetest.NewRegistry(t)
	_, ref := reg.PushLayers(t, "once/web", "1", [][]byte{noise(t, "x", 1000)}, "true")
	door, manifests, _ := watched(t, reg.Host)
	ref = strings.Replace(ref, reg.Host, door, 1)
	pull, err := docker().Client.ImagePull(t.Context(), ref, image.PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = new(bytes.Buffer).ReadFrom(pull)
	pull.Close()
	engines := manifests.Swap(0)
	if _, err := docker().Client.ImageRemove(t.Context(), ref, image.RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := open(t, nil).Do(t.Context(), reconcile.Fetch{Image: ref}, nil); err != nil {
		t.Fatal(err)
	}
	if n := manifests.Load() - engines; n > 1 {
		t.Errorf("%d requests more than the engine's %d", n, engines)
	}
}

// A download that nobody wants any more ends within a second, whatever it is
// waiting for, and the registry's connection with it.
func TestFetchIsCancelledWithinASecond(t *testing.T) {
	for _, what := range []string{"/manifests/", "/blobs/"} {
		t.Run(what, func(t *testing.T) {
			reg := enginetest.NewRegistry(t)
			ref, _ := reg.PushLayers(t, "cancelled/web", "1", [][]byte{noise(t, "x", 100_000)}, "true")
			reached, closed := make(chan struct{}, 10), make(chan struct{}, 10)
			door := guard(t, reg.Host, func(w http.ResponseWriter, q *http.Request) bool {
				if !strings.Contains(q.URL.Path, what) || what == "/blobs/" && !isLayer(reg.Host+q.URL.Path) {
					return true
				}
				drip(w, q, reached)
				closed <- struct{}{}
				return false
			})
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			e := open(t, nil)
			go func() { ended <- e.Do(ctx, reconcile.Fetch{Image: strings.Replace(ref, reg.Host, door, 1)}, nil) }()
			<-reached
			begin := time.Now()
			cancel()
			if err := <-ended; state.ClassOf(err) != state.ClassCancelled {
				t.Errorf("%v", err)
			}
			select {
			case <-closed:
			case <-time.After(patience):
				t.Fatal("the registry is still asked")
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// isLayer tells a layer from the image's configuration, which is short and which
// an engine reads to its end in any case.
func isLayer(url string) bool {
	r, err := http.Head("http://" + url)
	if err != nil {
		return false
	}
	r.Body.Close()
	return r.ContentLength > 50_000
}

// drip answers without an end, until the other side goes away. An engine notices
// at the next byte that its download was cancelled.
func drip(w http.ResponseWriter, q *http.Request, reached chan<- struct{}) {
	w.Header().Set("Content-Length", "1000000")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for q.Context().Err() == nil {
		_, _ = w.Write([]byte("x"))
		_ = http.NewResponseController(w).Flush()
		select {
		case reached <- struct{}{}:
		default:
		}
		<-tick.C
	}
}
