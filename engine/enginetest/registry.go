package enginetest

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Registry is a registry on loopback that ends with the test.
type Registry struct {
	Host string // host:port
}

// NewRegistry starts an empty registry.
func NewRegistry(t testing.TB) *Registry {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	return &Registry{Host: strings.TrimPrefix(srv.URL, "http://")}
}

// Push makes an image from a tar archive and stores it. command is its CMD. It
// returns the references by tag and by digest.
func (r *Registry) Push(t testing.TB, repository, tag string, rootfs []byte, command ...string) (byTag, byDigest string) {
	t.Helper()
	return r.store(t, repository, tag, Build(t, [][]byte{rootfs}, command...))
}

// PushLayers is Push for an image of several layers, the lowest first.
func (r *Registry) PushLayers(t testing.TB, repository, tag string, layers [][]byte, command ...string) (byTag, byDigest string) {
	t.Helper()
	return r.store(t, repository, tag, Build(t, layers, command...))
}

// Build makes an image for this machine from tar archives, the lowest first.
func Build(t testing.TB, layers [][]byte, command ...string) v1.Image {
	t.Helper()
	im := empty.Image
	for _, content := range layers {
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil })
		if err != nil {
			t.Fatal(err)
		}
		if im, err = mutate.AppendLayers(im, layer); err != nil {
			t.Fatal(err)
		}
	}
	config, err := im.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{Cmd: command, Env: []string{"PATH=/bin"}}
	if im, err = mutate.ConfigFile(im, config); err != nil {
		t.Fatal(err)
	}
	return im
}

func (r *Registry) store(t testing.TB, repository, tag string, im v1.Image) (byTag, byDigest string) {
	t.Helper()
	ref, err := name.ParseReference(r.Host + "/" + repository + ":" + tag)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, im, remote.WithContext(t.Context())); err != nil {
		t.Fatalf("push %s: %v", ref, err)
	}
	digest, err := im.Digest()
	if err != nil {
		t.Fatal(err)
	}
	return ref.String(), r.Host + "/" + repository + "@" + digest.String()
}

// Fixture pushes the images of the suite. rootfs makes a file system with a
// shell and the given extra files.
func (r *Registry) Fixture(t testing.TB, rootfs func(files map[string]string) ([]byte, error), idle string) Fixture {
	t.Helper()
	push := func(repository string) (string, string) {
		tree, err := rootfs(map[string]string{"etc/image": repository})
		if err != nil {
			t.Fatal(err)
		}
		return r.Push(t, repository, "1", tree, "/bin/sh", "-c", idle)
	}
	var f Fixture
	f.Image, f.Digest = push("suite/image")
	f.Other, _ = push("suite/other")
	f.Missing = r.Host + "/suite/image:missing"
	return f
}

func sorted(list []string) []string {
	slices.Sort(list)
	return list
}
