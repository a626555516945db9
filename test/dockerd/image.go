//go:build linux

package dockerd

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/docker/docker/api/types/image"
)

// Idle is the command of the images made here: it waits, and ends at once when
// it is asked to.
const Idle = `trap 'exit 0' TERM INT; while :; do sleep 3600 & wait $!; done`

// Image describes a small image with busybox in it.
type Image struct {
	Tag     string
	Changes []string          // Dockerfile instructions: CMD, ENV, EXPOSE, HEALTHCHECK, LABEL, USER, VOLUME, …
	Files   map[string]string // content by path; makes images differ
}

// Busybox makes an image whose command is Idle and returns its ID. Images with
// different extra texts have different content.
func (e *Engine) Busybox(t testing.TB, tag string, extra ...string) string {
	t.Helper()
	return e.Image(t, Image{Tag: tag, Files: map[string]string{"etc/extra": strings.Join(extra, "\n")}})
}

// Image makes an image with busybox and its applets in /bin. Its command is
// Idle unless Changes hold another one. It returns the image's ID. (Do not use
// wget -T: Debian's static busybox crashes.)
func (e *Engine) Image(t testing.TB, im Image) string {
	t.Helper()
	layer, err := Rootfs(im.Files)
	if err != nil {
		t.Fatalf("make image %s: %v", im.Tag, err)
	}
	changes := append([]string{fmt.Sprintf(`CMD ["/bin/sh","-c",%q]`, Idle), `ENV PATH=/bin`}, im.Changes...)
	out, err := e.Client.ImageImport(t.Context(), image.ImportSource{Source: bytes.NewReader(layer), SourceName: "-"}, im.Tag,
		image.ImportOptions{Changes: changes})
	if err != nil {
		t.Fatalf("make image %s: %v", im.Tag, err)
	}
	defer out.Close()
	answer, err := io.ReadAll(out)
	if err != nil || bytes.Contains(answer, []byte("errorDetail")) {
		t.Fatalf("make image %s: %v %s", im.Tag, err, answer)
	}
	made, err := e.Client.ImageInspect(t.Context(), im.Tag)
	if err != nil {
		t.Fatalf("make image %s: %v", im.Tag, err)
	}
	return made.ID
}

// applets are the programs that the images have in /bin.
func applets() []string {
	return []string{
		"cat", "date", "echo", "env", "false", "head", "hostname", "httpd", "id", "ip", "kill", "ln", "ls", "mkdir", "mount", "mv",
		"nc", "nslookup", "ping", "ps", "rm", "sh", "sleep", "stat", "tail", "test", "touch", "true", "wc", "wget",
	}
}

// Rootfs is the file system of the images made here: a tar archive with busybox,
// its applets and the files.
func Rootfs(files map[string]string) ([]byte, error) {
	busybox, err := findBusybox()
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	var failed error
	add := func(h tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(&h); err != nil && failed == nil {
			failed = err
		}
		if _, err := w.Write(content); err != nil && failed == nil {
			failed = err
		}
	}
	for _, dir := range []string{"bin/", "dev/", "etc/", "proc/", "sys/", "www/"} {
		add(tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}, nil)
	}
	add(tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "bin/busybox", Mode: 0o755}, busybox)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\n"))
	for _, a := range applets() {
		add(tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + a, Linkname: "busybox", Mode: 0o777}, nil)
	}
	names := make([]string, 0, len(files))
	for n := range files {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		add(tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(n, "/"), Mode: 0o755}, []byte(files[n]))
	}
	if failed == nil {
		failed = w.Close()
	}
	return buf.Bytes(), failed
}

// findBusybox reads a busybox that runs without libraries.
func findBusybox() ([]byte, error) {
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"} {
		f, err := elf.Open(p)
		if err != nil {
			continue
		}
		static := !slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		f.Close()
		if static {
			return os.ReadFile(p)
		}
	}
	return nil, errors.New("no static busybox found; install the package busybox-static")
}
