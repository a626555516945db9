package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/system"

	"deckhand/state"
)

// spaceFactor is how much disk an image needs for each compressed byte of it: an
// engine keeps the compressed layer until it is unpacked, and unpacked it is at
// least as big. Programs and libraries grow to two or three times their
// compressed size. A higher factor would refuse images that fit.
const spaceFactor = 2

// space knows where the engine keeps images and how much room is there.
type space struct {
	registries registries

	mu  sync.Mutex
	at  place
	set bool
}

// place is what the engine says about itself and its registries.
type place struct {
	root     string // folder of the engine's data, as the engine sees it
	arch     string // of the images it runs
	insecure func(host string) bool
}

func (s *space) forget() {
	s.mu.Lock()
	s.set = false
	s.mu.Unlock()
}

// place asks the engine once for each connection.
func (d doing) place(ctx context.Context) (place, error) {
	s := &d.e.space
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set {
		return s.at, nil
	}
	info, err := d.Info(ctx)
	if err != nil {
		return place{}, err
	}
	s.at = place{root: info.DockerRootDir, arch: goArch(info.Architecture), insecure: insecure(info)}
	s.set = true
	return s.at, nil
}

// goArch translates the kernel's word for a processor into that of images.
func goArch(machine string) string {
	switch {
	case machine == "x86_64":
		return "amd64"
	case machine == "aarch64":
		return "arm64"
	case strings.HasPrefix(machine, "arm"):
		return "arm"
	case machine == "i386", machine == "i686":
		return "386"
	}
	return runtime.GOARCH
}

// insecure reports to which registries the engine talks without encryption:
// those on this machine and those that its configuration lists.
func insecure(info system.Info) func(host string) bool {
	return func(host string) bool {
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		if info.RegistryConfig != nil {
			if x := info.RegistryConfig.IndexConfigs[host]; x != nil {
				return !x.Secure
			}
			for _, cidr := range info.RegistryConfig.InsecureRegistryCIDRs {
				if ip := net.ParseIP(name); cidr != nil && ip != nil && (*net.IPNet)(cidr).Contains(ip) {
					return true
				}
			}
		}
		return name == "localhost"
	}
}

// room refuses a download that cannot fit, before it begins. What is not known,
// like the size of an image whose registry does not tell, refuses nothing.
func (d doing) room(ctx context.Context, ref string) error {
	// Docker Hub counts questions for manifests as downloads and allows few. An
	// engine on another machine has a disk of its own.
	if state.Registry(ref) == "" || !d.e.local() {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, d.e.limits.ask)
	defer cancel()
	at, err := d.place(asking)
	if err != nil {
		return ctx.Err()
	}
	free, err := freeBytes(filepath.Join("/", d.e.cfg.HostRoot, at.root))
	if err != nil || at.root == "" {
		return nil // in a container without the host's folders
	}
	plain := at.insecure(state.Registry(ref))
	im, err := d.e.space.registries.image(asking, ref, at.arch, plain)
	if err != nil {
		if ctx.Err() == nil && d.e.once("size "+state.Registry(ref)) {
			d.e.cfg.Log.Info().Err(err).Str("image", ref).Msg("the registry does not tell the size of the image; downloading without a check of the disk")
		}
		return ctx.Err()
	}
	if fits(im.size(), free) {
		return nil
	}
	here, err := d.here(asking, im, plain)
	if err != nil {
		return ctx.Err()
	}
	missing := im.size() - here
	if fits(missing, free) {
		return nil
	}
	return state.Classify(state.ClassSpace, fmt.Errorf("it needs %s, %s are free on %s",
		megabytes(uint64(missing)*spaceFactor), megabytes(free), at.root))
}

func fits(compressed int64, free uint64) bool { return uint64(compressed)*spaceFactor <= free }

// here is the size of the image's layers that the device has already. A layer
// counts if all layers below it are the same too.
func (d doing) here(ctx context.Context, im remote, plain bool) (int64, error) {
	want, err := d.e.space.registries.contents(ctx, im, plain)
	if err != nil {
		return 0, err
	}
	if len(want) != len(im.layers) {
		return 0, errors.New("the image's configuration does not list its layers")
	}
	list, err := d.ImageList(ctx, image.ListOptions{})
	if err != nil {
		return 0, err
	}
	most := 0
	for _, x := range list {
		have, err := d.ImageInspect(ctx, x.ID)
		if err != nil {
			continue // gone meanwhile, or broken: then none of its layers help
		}
		n := 0
		for n < len(want) && n < len(have.RootFS.Layers) && want[n] == have.RootFS.Layers[n] {
			n++
		}
		most = max(most, n)
	}
	return remote{layers: im.layers[:most]}.size(), nil
}

// freeBytes is the room that a program without privileges has in a folder.
func freeBytes(dir string) (uint64, error) {
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	if st.Bsize <= 0 || st.Blocks == 0 {
		return 0, errors.New("the file system does not tell its size")
	}
	return st.Bavail * uint64(st.Bsize), nil
}

// megabytes prints a size for people, with as many digits as they care for.
func megabytes(n uint64) string {
	const mega = 1_000_000
	switch {
	case n < 10*mega:
		return fmt.Sprintf("%.1f MB", float64(n)/mega)
	case n < 10_000*mega:
		return fmt.Sprintf("%d MB", n/mega)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/mega/1000)
}
