package files

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func secret(content string) ([]state.File, string) {
	list := []state.File{
		{Target: "/run/secrets/token", Content: []byte(content), UID: os.Getuid(), GID: os.Getgid(), Mode: 0o440},
		{Target: "/etc/app.conf", Content: []byte("level=1")},
	}
	return list, state.FilesHash(list)
}

// A container finds each file complete, with its owner and permissions.
func TestFilesAreWritten(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "run")
	f := Open(Config{RunDir: dir})
	if got, err := f.List(); err != nil || got != nil {
		t.Errorf("before anything was written: %v %v", got, err)
	}
	list, hash := secret("hunter2")
	for range 2 { // twice is no error
		must(t, f.Write(7, "web", hash, list))
	}
	place := filepath.Join(dir, state.FilesDir(7, "web", hash))
	for i, want := range []struct {
		content string
		mode    os.FileMode
	}{{"hunter2", 0o440}, {"level=1", 0o444}} {
		path := filepath.Join(place, state.FileName(i))
		b, err := os.ReadFile(path)
		must(t, err)
		info, err := os.Stat(path)
		must(t, err)
		if string(b) != want.content || info.Mode().Perm() != want.mode {
			t.Errorf("file %d: %q %v", i, b, info.Mode())
		}
	}
	info, err := os.Stat(filepath.Join(dir, "files", "7"))
	must(t, err)
	if info.Mode().Perm() != 0o700 {
		t.Errorf("others may walk the folders: %v", info.Mode())
	}
}

// What a crash left half written does not count as there, and is replaced.
func TestHalfWrittenFilesDoNotCount(t *testing.T) {
	dir := t.TempDir()
	f := Open(Config{RunDir: dir})
	list, hash := secret("a")
	final := filepath.Join(dir, state.FilesDir(7, "web", hash))
	half := filepath.Join(filepath.Dir(final), unfinished+filepath.Base(final))
	must(t, os.MkdirAll(half, 0o700))
	must(t, os.WriteFile(filepath.Join(half, "0"), nil, 0o600))
	if got, err := f.List(); err != nil || len(got) != 0 {
		t.Errorf("%v %v", got, err)
	}
	must(t, f.Write(7, "web", hash, list))
	got, err := f.List()
	must(t, err)
	if diff := cmp.Diff([]Entry{{7, "web", hash}}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := os.Stat(half); err == nil {
		t.Error("the half written folder is still there")
	}
}

func TestRemoveLeavesTheOthers(t *testing.T) {
	dir := t.TempDir()
	f := Open(Config{RunDir: dir})
	one, h1 := secret("one")
	two, h2 := secret("two")
	must(t, f.Write(7, "web", h1, one))
	must(t, f.Write(7, "web", h2, two))
	must(t, f.Write(8, "db", h1, one))
	must(t, f.Remove(7, "web", h1))
	must(t, f.Remove(7, "web", h1)) // twice is no error
	got, err := f.List()
	must(t, err)
	if diff := cmp.Diff([]Entry{{7, "web", h2}, {8, "db", h1}}, got); diff != "" {
		t.Error(diff)
	}
	must(t, f.Remove(7, "web", h2))
	must(t, f.Remove(8, "db", h1))
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
	must(t, Open(Config{RunDir: filepath.Join(dir, "none")}).Remove(1, "x", h1))
}

func TestBadRequestsAreRefused(t *testing.T) {
	dir := t.TempDir()
	f := Open(Config{RunDir: filepath.Join(dir, "run")})
	list, hash := secret("a")
	if err := f.Write(7, "web", "v1:0000", list); state.ClassOf(err) != state.ClassInvalid {
		t.Errorf("content of another hash: %v", err)
	}
	for _, service := range []string{"../../../out", "/etc", "a/../../../../b"} {
		if err := f.Write(7, service, hash, list); err == nil {
			if _, e := os.Stat(filepath.Join(dir, "run", "files")); e != nil {
				t.Errorf("service %q was written outside of the folder", service)
			}
		}
	}
	out, err := os.ReadDir(dir)
	must(t, err)
	if len(out) != 1 {
		t.Errorf("something was written beside the run folder: %v", out)
	}
	must(t, os.WriteFile(filepath.Join(dir, "plain"), nil, 0o600))
	if err := Open(Config{RunDir: filepath.Join(dir, "plain")}).Write(7, "web", hash, list); err == nil {
		t.Error("a file served as the run folder")
	}
}
