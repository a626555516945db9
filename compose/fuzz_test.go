package compose

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

func silent() *screen { return &screen{lookup: func(string) (string, bool) { return "", false }} }

// FuzzPort reads anything as a port. What is accepted can be written out and
// read again as the same.
func FuzzPort(f *testing.F) {
	for _, s := range []string{"80", "8080:80/udp", "127.0.0.1:1-3:4-6", "[::1]:80:81", "1-65535", ":80", "::80", "0:0", "80/", "a:b"} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, text string, isFile bool) {
		read := func(list ...any) ([]state.Port, error) {
			b := builder{file: isFile, portsLeft: maxPorts}
			out := b.ports("services.a", list)
			return out, Refusal(b.list)
		}
		ports, err := read(text)
		if err != nil || len(ports) > 100 {
			return
		}
		var again []any
		for _, p := range ports {
			if p.Target < 1 || p.Target > 65535 || p.Published < 0 || p.Published > 65535 || p.Protocol == "" {
				t.Fatalf("%q is %+v", text, p)
			}
			long := map[string]any{"target": fmt.Sprint(p.Target), "published": fmt.Sprint(p.Published), "protocol": p.Protocol, "host_ip": p.HostIP}
			again = append(again, long)
		}
		if second, err := read(again...); err != nil || !cmp.Equal(ports, second) {
			t.Fatalf("%q is %+v, then %+v (%v)", text, ports, second, err)
		}
	})
}

// FuzzQuantity reads anything as a size, a duration and the like. What is
// accepted is in range, and its canonical form means the same.
func FuzzQuantity(f *testing.F) {
	for _, s := range []string{"1.5g", "512mb", "-1", "1e3", "10s", "1m30s", "500us", "0.1", "NaN", "1.0", "9223372036854775808", "0x10", " 7 ", "1h1h", "-5m", "0755", "0o17", "all", "on-failure:3"} {
		f.Add(s)
	}
	forms := map[string]form{
		"size": size, "duration": duration, "decimal": decimal, "natural": natural, "integer": integer, "microseconds": microseconds,
		"swapSize": swapSize, "swappiness": swappiness, "weight": weight, "deviceCount": deviceCount, "restart": restart, "boolean": boolean,
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, read := range forms {
			for _, in := range []any{text, json.Number(text)} {
				if out, ok := read(silent(), "at", in); ok {
					canonical(t, name, text, read, out)
				}
			}
		}
	})
}

// canonical checks what a form made of a text.
func canonical(t *testing.T, name, text string, read form, out any) {
	t.Helper()
	if again, ok := read(silent(), "at", out); !ok || again != out {
		t.Fatalf("%s: %q is %v, then %v (%v)", name, text, out, again, ok)
	}
	if n, isNumber := out.(int64); isNumber && n < 0 && name != "integer" {
		t.Fatalf("%s: %q is %d", name, text, n)
	}
	if d, isText := out.(string); isText && name == "duration" {
		if v, err := time.ParseDuration(d); err != nil || v < 0 {
			t.Fatalf("%q is %s", text, d)
		}
	}
}

// FuzzVolume reads anything as the short form of a volume. A mount that is
// accepted is at a clean path, and never reaches into the host.
func FuzzVolume(f *testing.F) {
	for _, s := range []string{"data:/d:ro", "/anon", "d:/d", "./x:/y", "~/x:/y", ":/", "a::b", "a:/b:c:d", "a:/", `C:\x:/d`, "a:/../b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		doc := map[string]any{"services": map[string]any{"a": map[string]any{"image": "i", "volumes": []any{text}}}}
		p, problems, err := Load(t.Context(), Options{Release: true}, doc)
		if err != nil || Refusal(problems) != nil {
			return
		}
		for _, m := range p.Services["a"].Spec.Mounts {
			if m.Type != "volume" || !path.IsAbs(m.Target) || m.Target == "/" || path.Clean(m.Target) != m.Target || strings.ContainsAny(m.Source, "/~:\\") {
				t.Fatalf("%q is mounted as %+v", text, m)
			}
			if _, ok := p.Volumes[m.Source]; m.Source != "" && !ok {
				t.Fatalf("%q needs a volume that is not there", text)
			}
		}
	})
}
