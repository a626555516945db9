package build

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func archive(t *testing.T, headers ...tar.Header) *bytes.Buffer {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		content := []byte(h.Uname) // a free field that carries the content in these tests
		h.Uname = ""
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if h.Typeflag == tar.TypeReg {
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeReg {
			if _, err := w.Write(content); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return &out
}

func unpacked(t *testing.T, headers ...tar.Header) *Source {
	t.Helper()
	src, err := Spool(archive(t, headers...), t.TempDir(), DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// sources makes a spooled project of names and texts.
func sources(t *testing.T, files map[string]string) *Source {
	t.Helper()
	var headers []tar.Header
	for _, name := range slices.Sorted(maps.Keys(files)) {
		headers = append(headers, tar.Header{Name: name, Uname: files[name]})
	}
	return unpacked(t, headers...)
}

func TestHostileArchivesAreRefused(t *testing.T) {
	small := Limits{Compressed: 1 << 20, Uncompressed: 1000, Entries: 3}
	for what, c := range map[string]struct {
		headers []tar.Header
		want    string
	}{
		"absolute path":     {[]tar.Header{{Name: "/etc/passwd"}}, "leaves the project"},
		"way up":            {[]tar.Header{{Name: "a/../../b"}}, "leaves the project"},
		"hidden way up":     {[]tar.Header{{Name: "a/.."}}, "leaves the project"},
		"link up":           {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "../x"}}, "leaves the project"},
		"absolute link":     {[]tar.Header{{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}}, "leaves the project"},
		"hard link outside": {[]tar.Header{{Name: "l", Typeflag: tar.TypeLink, Linkname: "../../etc/passwd"}}, "leaves the project"},
		"device":            {[]tar.Header{{Name: "d", Typeflag: tar.TypeChar}}, "only files"},
		"too many":          {[]tar.Header{{Name: "1"}, {Name: "2"}, {Name: "3"}, {Name: "4"}}, "more than 3 files"},
		"too large":         {[]tar.Header{{Name: "1", Uname: strings.Repeat("x", 1001)}}, "larger than"},
		"write through a link": {[]tar.Header{
			{Name: "d", Typeflag: tar.TypeSymlink, Linkname: "e"},
			{Name: "e", Typeflag: tar.TypeSymlink, Linkname: "d"},
			{Name: "d/x", Uname: "x"},
		}, "unpack d/x"},
	} {
		src, err := Spool(archive(t, c.headers...), t.TempDir(), small)
		if err == nil {
			_ = src.Close()
			t.Errorf("%s: accepted", what)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want something with %q", what, err, c.want)
		}
	}
}

func TestBrokenAndOversizedBodies(t *testing.T) {
	whole := archive(t, tar.Header{Name: "a", Uname: strings.Repeat("x", 5000)}).Bytes()
	for what, body := range map[string][]byte{
		"empty": nil, "one byte": {1}, "no archive": []byte(strings.Repeat("hello ", 200)), "cut off": whole[:3000], "broken gzip": {0x1f, 0x8b, 1, 2, 3},
	} {
		if src, err := Spool(bytes.NewReader(body), t.TempDir(), DefaultLimits()); err == nil {
			_ = src.Close()
			t.Errorf("%s: accepted", what)
		}
	}
	lim := DefaultLimits()
	lim.Compressed = 2000
	if _, err := Spool(bytes.NewReader(whole), t.TempDir(), lim); !errors.Is(err, ErrTooLarge) {
		t.Errorf("body over the limit: %v", err)
	}
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	big := archive(t, tar.Header{Name: "zeros", Uname: strings.Repeat("\x00", 3<<20)})
	if _, err := io.Copy(z, big); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	lim = Limits{Compressed: 1 << 20, Uncompressed: 1 << 20, Entries: 10}
	if _, err := Spool(&bomb, t.TempDir(), lim); err == nil || !strings.Contains(err.Error(), "unpacked") {
		t.Errorf("compressed bomb: %v", err)
	}
}

func TestContextHoldsWhatWasPushed(t *testing.T) {
	src := unpacked(t,
		tar.Header{Name: "./web/", Typeflag: tar.TypeDir},
		tar.Header{Name: "./web/run.sh", Uname: "old", Mode: 0o644},
		tar.Header{Name: "web/run.sh", Uname: "new", Mode: 0o755},
		tar.Header{Name: "web/link", Typeflag: tar.TypeSymlink, Linkname: "run.sh"},
		tar.Header{Name: "web/twin", Typeflag: tar.TypeLink, Linkname: "web/run.sh"},
		tar.Header{Name: "other", Uname: "x"},
		tar.Header{Name: ".balena/balena.yml", Uname: "{}"},
	)
	var out bytes.Buffer
	if err := src.writeContext(&out, "web", nil, map[string][]byte{"Dockerfile": []byte("FROM scratch")}); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	in := tar.NewReader(&out)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.FileInfo().Mode().String() + " " + h.Linkname + string(text)
	}
	want := map[string]string{
		"run.sh":     "-rwxr-xr-x new",
		"link":       "Lrw-r--r-- run.sh",
		"twin":       "-rw-r--r-- new",
		"Dockerfile": "-rw-r--r-- FROM scratch",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("context (-want +got):\n%s", diff)
	}
}

func TestFlatten(t *testing.T) {
	dir := func(name string) tar.Header { return tar.Header{Name: name, Typeflag: tar.TypeDir, Mode: 0o755} }
	link := func(name, to string) tar.Header {
		return tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}
	}
	for what, c := range map[string]struct {
		headers []tar.Header
		want    []string
		problem string
	}{
		"one folder":          {headers: []tar.Header{dir("hello-1.0/"), {Name: "hello-1.0/Dockerfile"}, {Name: "hello-1.0/app/run"}}, want: []string{"Dockerfile", "app/run"}},
		"a folder not listed": {headers: []tar.Header{{Name: "x/Dockerfile"}}, want: []string{"Dockerfile"}},
		"two folders":         {headers: []tar.Header{{Name: "a/x"}, {Name: "b/x"}}, want: []string{"a/x", "b/x"}},
		"a file beside it":    {headers: []tar.Header{{Name: "a/x"}, {Name: "Dockerfile"}}, want: []string{"Dockerfile", "a/x"}},
		"one file":            {headers: []tar.Header{{Name: "Dockerfile"}}, want: []string{"Dockerfile"}},
		"links inside":        {headers: []tar.Header{{Name: "a/x"}, link("a/b/y", "../x")}, want: []string{"b/y", "x"}},
		"a link out of it":    {headers: []tar.Header{{Name: "a/x"}, link("a/y", "../a")}, problem: "leaves the project"},
	} {
		src, err := Spool(archive(t, c.headers...), t.TempDir(), DefaultLimits())
		if err != nil {
			t.Fatal(what, err)
		}
		err = src.Flatten()
		if c.problem == "" && err != nil || c.problem != "" && (err == nil || !strings.Contains(err.Error(), c.problem)) {
			t.Errorf("%s: %v", what, err)
		}
		if diff := cmp.Diff(c.want, src.names()); c.problem == "" && diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		for _, name := range c.want {
			if _, err := src.readFile(name, 10); err != nil {
				t.Errorf("%s: %s: %v", what, name, err)
			}
		}
		if err := src.Close(); err != nil {
			t.Error(err)
		}
	}
}
