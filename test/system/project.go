//go:build linux

package system

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"deckhand/test/dockerd"
)

// Project is a compose project in a folder of its own, whose images are made
// FROM scratch out of a busybox: building and pushing it takes a second.
type Project struct {
	Dir      string
	Compose  string            // docker-compose.yml without the build lines
	Services map[string]string // content of /mark in each service's image; a new one makes a new image
	Ballast  map[string]int    // bytes of noise in an image, for downloads that take a while
	Program  map[string]string // path of a program that an image has as /program
}

// Write writes the project's files. A service named in Services is built from
// the folder of its name.
func (p Project) Write() error {
	if err := p.write("docker-compose.yml", []byte(p.Compose)); err != nil {
		return err
	}
	rootfs, err := dockerd.Rootfs(nil)
	if err != nil {
		return fmt.Errorf("write project: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(p.Services)) {
		// The label comes first so that no two services share steps of a build:
		// the engine's cache would mix up which one made which.
		extra, err := p.extras(name)
		if err != nil {
			return err
		}
		dockerfile := "FROM scratch\nLABEL test.service=" + name + "\nADD rootfs.tar /\nENV PATH=/bin\n" + extra
		dockerfile += fmt.Sprintf("COPY mark /mark\nCMD [\"/bin/sh\",\"-c\",%q]\n", dockerd.Idle)
		files := map[string][]byte{"rootfs.tar": rootfs, "mark": []byte(p.Services[name] + "\n"), "Dockerfile": []byte(dockerfile)}
		for _, f := range slices.Sorted(maps.Keys(files)) {
			if err := p.write(filepath.Join(name, f), files[f]); err != nil {
				return err
			}
		}
	}
	return nil
}

// extras writes what only some images have, and gives the lines that copy it.
func (p Project) extras(name string) (lines string, err error) {
	if n := p.Ballast[name]; n > 0 {
		lines += "COPY ballast /ballast\n"
		if err := p.write(name+"/ballast", noise(n, p.Services[name])); err != nil {
			return "", err
		}
	}
	path := p.Program[name]
	if path == "" {
		return lines, nil
	}
	content, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("write project: %w", err)
	}
	if err := p.write(name+"/program", content); err != nil {
		return "", err
	}
	if err := os.Chmod(filepath.Join(p.Dir, name, "program"), 0o755); err != nil {
		return "", fmt.Errorf("write project: %w", err)
	}
	return lines + "COPY program /program\n", nil
}

// write writes a file with a fixed time, so that the builder's cache knows it again.
func (p Project) write(name string, content []byte) error {
	path := filepath.Join(p.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write project: %w", err)
	}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		return fmt.Errorf("write project: %w", err)
	}
	long := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	return os.Chtimes(path, long, long)
}

// noise cannot be compressed and is the same for the same seed.
func noise(n int, seed string) []byte {
	var x uint64 = 88172645463325252
	for _, c := range []byte(seed) {
		x = x*31 + uint64(c)
	}
	b := make([]byte, n)
	for i := range b {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		b[i] = byte(x >> 32)
	}
	return b
}

// Compose writes a compose file with one service for each name, in that order.
func Compose(services ...string) string {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, s := range services {
		fmt.Fprintf(&b, "  %s:\n    build: ./%s\n", s, s)
	}
	return b.String()
}
