package compose

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"deckhand/state"
)

func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "compose.yaml")
}

func TestLoadFile(t *testing.T) {
	path := write(t, map[string]string{
		".env": "TAG=1.2\nLEVEL=debug\nBASE=x\nFULL=${BASE}-y\n",
		"compose.yaml": `
name: hello
x-common: &common
  restart: no
  mem_limit: 1.5g
services:
  web:
    <<: *common
    image: app:${TAG}
    command: ["sh", "-c", "echo $$HOME ${FULL}"]
    environment:
      LEVEL: ${LEVEL:-info}
      FROM_SHELL:
      OTHER: ${OTHER:-}
    ports: ["80", "8080:81"]
    networkMode: host
  debug:
    image: app
    profiles: [debug]
`})
	p, problems, err := LoadFile(t.Context(), path, Options{LookupEnv: func(name string) (string, bool) {
		v, ok := map[string]string{"LEVEL": "warn", "FROM_SHELL": "yes"}[name]
		return v, ok
	}})
	if err != nil {
		t.Fatal(err)
	}
	web := p.Services["web"]
	for name, check := range map[string]bool{
		"the name in the file":               p.Name == "hello",
		"the tag from .env":                  web.Image == "app:1.2",
		"the shell before .env":              web.Spec.Environment["LEVEL"] == "warn",
		"a variable without a value":         web.Spec.Environment["FROM_SHELL"] == "yes",
		"$$ is a $":                          web.Spec.Command[2] == "echo $HOME x-y",
		"restart: no":                        web.Spec.Restart == state.RestartPolicy{Name: "no"},
		"a merged mapping":                   web.Spec.Memory == 3<<29,
		"no tty":                             !web.Spec.Tty,
		"a host port of the engine's choice": web.Spec.Ports[0] == state.Port{Target: 80, Protocol: "tcp"},
		"the profile left out":               len(p.Services) == 1,
	} {
		if !check {
			t.Errorf("%s is not honoured: %+v", name, p)
		}
	}
	want := "services.debug: warned: left out: none of its profiles is asked for\n" +
		"services.web.networkMode: ignored: not an attribute of the compose specification"
	if got := lines(problems); got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestLoadFileProblems(t *testing.T) {
	for content, want := range map[string]string{
		"services:\n  web:\n    image: app:${TAG}x\n":                  "${TAG}: warned: the variable is not set; it is replaced by nothing",
		"services:\n  web:\n    image: a\n    env_file: .env\n":        "services.web.env_file: rejected: one self-contained document is expected; write it with: docker compose config",
		"services:\n  web:\n    extends: base\n":                       "services.web.extends: rejected: one self-contained document is expected; write it with: docker compose config",
		"include: [other.yaml]\nservices: {}\n":                        "include: rejected: one self-contained document is expected; write it with: docker compose config",
		"services:\n  web:\n    image: a\n    restart: false\n":        "",
		"services:\n  web:\n    image: a\n    environment: {1: 2}\n":   "",
		"services:\n  web:\n    image: a\n    volumes: ['./x:/x']\n":   "services.web.volumes[0]: ignored: the host's path ./x is not mounted; use a label io.balena.features.* for access to the host",
		"services:\n  web:\n    image: a\n    mem_limit: 2001-01-01\n": "services.web.mem_limit: rejected: want a size such as 512m or 1.5g, got a time.Time",
	} {
		_, problems, err := LoadFile(t.Context(), write(t, map[string]string{"compose.yaml": content}), Options{})
		if got := lines(problems); err != nil || got != want {
			t.Errorf("%s\n got %s (%v)\nwant %s", content, got, err, want)
		}
	}
}

func TestLoadFileErrors(t *testing.T) {
	for content, want := range map[string]string{
		"":                          "the file is empty",
		"[]":                        "want a mapping with services, got a list",
		"a: [":                      "yaml",
		"services: {}\n---\nb: 1\n": "want one YAML document",
		"services: {web: {image: '${A:?set A}'}}": "set A",
		"{? [a] : b}":                  "map key",
		strings.Repeat("#", maxFile+1): "larger than",
		bomb:                           "yaml",
	} {
		start := time.Now()
		_, _, err := LoadFile(t.Context(), write(t, map[string]string{"compose.yaml": content}), Options{})
		if err == nil || !strings.Contains(err.Error(), want) || state.ClassOf(err) != state.ClassInvalid {
			t.Errorf("%.40q: got %v, want %s", content, err, want)
		}
		if time.Since(start) > 10*time.Second {
			t.Errorf("%.40q: took %v", content, time.Since(start))
		}
	}
	if _, _, err := LoadFile(t.Context(), filepath.Join(t.TempDir(), "none.yaml"), Options{}); err == nil || !strings.Contains(err.Error(), "none.yaml") {
		t.Errorf("a missing file must be named, got %v", err)
	}
}

const bomb = `
a: &a [x,x,x,x,x,x,x,x,x]
b: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]
c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]
d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]
e: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]
f: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]
g: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]
h: [*g,*g,*g,*g,*g,*g,*g,*g,*g]
services: {}
`

// FuzzLoad reads anything as a compose file and, where it is JSON, as a release.
// Nothing may crash, and the same document gives the same result.
func FuzzLoad(f *testing.F) {
	everything, err := os.ReadFile("testdata/everything.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(everything)
	f.Add([]byte("services:\n  web:\n    image: a:${B:-c}\n    ports: ['80']\n"))
	f.Add([]byte(bomb))
	f.Add([]byte(full))
	f.Add([]byte(`{"services":{"a":{"image":"i","secrets":["s",{"source":"s","mode":"0400"}],"networks":["n"],"volumes_from":["b"],"network_mode":"service:b"},
		"b":{"image":"i","gpus":"all","deploy":{"resources":{"limits":{"cpus":"1"}}},"blkio_config":{"weight":10},"logging":{"options":{"max-size":"1m"}}}},
		"secrets":{"s":{"content":"c"}},"networks":{"n":{"external":{"name":"x"}}}}`))
	f.Add([]byte(`{"services":{"a":{"image":"i","ulimits":{"x":{"soft":"y"}},"healthcheck":{"test":[1]}}}}`))
	f.Fuzz(func(t *testing.T, content []byte) {
		_, _, _ = loadYAML(t.Context(), content, Options{})
		var doc map[string]any
		if json.Unmarshal(content, &doc) != nil {
			return
		}
		a, pa, err := Load(context.Background(), Options{Release: true}, doc)
		if err != nil {
			t.Fatal(err)
		}
		b, pb, _ := Load(context.Background(), Options{Release: true}, doc)
		if lines(pa) != lines(pb) {
			t.Fatalf("two answers:\n%s\n\n%s", lines(pa), lines(pb))
		}
		if Refusal(pa) == nil {
			complete(t, a, b)
		}
	})
}

// complete checks that a project that was accepted, read twice, lacks nothing.
func complete(t *testing.T, a, b Project) {
	for name, s := range a.Services {
		if s.Hash != b.Services[name].Hash {
			t.Fatalf("%s: two hashes", name)
		}
		if s.Image == "" || s.Hash == "" || s.Strategy == "" {
			t.Fatalf("%s is not complete: %+v", name, s)
		}
	}
}
