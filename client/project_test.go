package client

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		full := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// packed lists what a push of dir would send: name → content.
func packed(t *testing.T, dir string) map[string]string {
	t.Helper()
	p, err := OpenProject(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := p.Pack(&out, nil); err != nil {
		t.Fatal(err)
	}
	z, err := gzip.NewReader(&out)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	in := tar.NewReader(z)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeReg || h.Uid != 0 || h.Uname != "" {
			t.Errorf("%s: type %c, owner %d %q; want a plain file without owner", h.Name, h.Typeflag, h.Uid, h.Uname)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = string(text)
	}
}

func TestWhatAPushSends(t *testing.T) {
	base := map[string]string{
		"docker-compose.yml": "c", "docker-compose.yaml": "a", "web/Dockerfile": "d", "web/Dockerfile.template": "t", "web/app.js": "j",
		"web/node_modules/x.js": "x", "web/node_modules/pkg/Dockerfile": "n", ".git/config": "g", "web/.git/config": "g",
		".balena/balena.yml": "b", ".gitignore": "web", "secret.key": "k",
	}
	always := "docker-compose.yml web/Dockerfile web/Dockerfile.template web/node_modules/pkg/Dockerfile .balena/balena.yml"
	for what, c := range map[string]struct{ ignore, want string }{
		"nothing ignored": {"", always + " docker-compose.yaml web/app.js web/node_modules/x.js .gitignore secret.key"},
		"folders and files": {"**/node_modules\nsecret.*\n# comment\n\n.gitignore",
			always + " docker-compose.yaml web/app.js .dockerignore"},
		"everything, and what stays": {"**", always},
		"exceptions":                 {"web\n!web/app.js\n*.key\n.*", always + " docker-compose.yaml web/app.js"},
		"git wanted":                 {"!.git", always + " docker-compose.yaml web/app.js web/node_modules/x.js .gitignore secret.key .dockerignore .git/config"},
	} {
		files := map[string]string{}
		for name, text := range base {
			files[name] = text
		}
		if c.ignore != "" {
			files[".dockerignore"] = c.ignore
		}
		var got []string
		for name := range packed(t, folder(t, files)) {
			got = append(got, name)
		}
		want := strings.Fields(c.want)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
}

func TestLinksAreFollowed(t *testing.T) {
	dir := folder(t, map[string]string{"Dockerfile": "d", "real/a": "1"})
	for name, target := range map[string]string{"file": "real/a", "dir": "real", "dangling": "nowhere"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{"Dockerfile": "d", "real/a": "1", "file": "1", "dir/a": "1"}
	if diff := cmp.Diff(want, packed(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := os.Symlink("..", filepath.Join(dir, "real/up")); err != nil {
		t.Fatal(err)
	}
	p, err := OpenProject(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Pack(io.Discard, nil); err == nil || !strings.Contains(err.Error(), "/up: it is a link") {
		t.Errorf("a folder that contains itself: %v", err)
	}
}

func TestNotAProject(t *testing.T) {
	for what, dir := range map[string]string{
		"no such folder":  filepath.Join(t.TempDir(), "none"),
		"an empty folder": t.TempDir(),
		"a bad pattern":   folder(t, map[string]string{"Dockerfile": "", ".dockerignore": "[a"}),
	} {
		if _, err := OpenProject(dir); err == nil || state.ClassOf(err) != state.ClassInvalid {
			t.Errorf("%s: %v", what, err)
		}
	}
}
