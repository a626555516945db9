package compose

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"deckhand/state"
)

func TestSecretsAndConfigs(t *testing.T) {
	p, problems := release(t, `{
		"services":{"web":{"image":"i","environment":{"TOKEN":"t0ken"},
			"secrets":["pin",{"source":"token","target":"deep/er","uid":"7","gid":8,"mode":"0400"},{"source":"pin","target":"/abs"}],
			"configs":["app",{"source":"app","target":"etc/app","mode":292}]}},
		"secrets":{"pin":{"content":1234},"token":{"environment":"TOKEN"},"unused":{"content":""}},
		"configs":{"app":{"content":"a=b\n"}}}`)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := []state.File{
		{Target: "/abs", Content: []byte("1234")},
		{Target: "/app", Content: []byte("a=b\n")},
		{Target: "/etc/app", Content: []byte("a=b\n")},
		{Target: "/run/secrets/deep/er", UID: 7, GID: 8, Mode: 0o400, Content: []byte("t0ken")},
		{Target: "/run/secrets/pin", Content: []byte("1234")},
	}
	if diff := cmp.Diff(want, p.Services["web"].Spec.Files); diff != "" {
		t.Error(diff)
	}
}

// Each change of a content replaces the services that use it, and only those.
func TestContentDecides(t *testing.T) {
	hashes := func(content string) [2]string {
		p, _ := release(t, `{"services":{"a":{"image":"i","secrets":["s"]},"b":{"image":"i"}},"secrets":{"s":{"content":"`+content+`"}}}`)
		return [2]string{p.Services["a"].Hash, p.Services["b"].Hash}
	}
	one, two := hashes("1"), hashes("2")
	if one[0] == two[0] || one[1] != two[1] {
		t.Errorf("%v, then %v", one, two)
	}
}

func TestVariablesOfSecrets(t *testing.T) {
	const doc = `{"services":{"a":{"image":"i","environment":{"X":"ofTheService"},"secrets":["s"]}},"secrets":{"s":{"environment":"X"}}}`
	var v map[string]any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatal(err)
	}
	content := func(o Options) string {
		o.LookupEnv = func(name string) (string, bool) { return "ofThePerson", name == "X" }
		p, problems, err := Load(t.Context(), o, v)
		if err != nil || Refusal(problems) != nil {
			t.Fatal(err, problems)
		}
		return string(p.Services["a"].Spec.Files[0].Content)
	}
	if got := content(Options{Release: true}); got != "ofTheService" {
		t.Errorf("on a device: %s", got)
	}
	if got := content(Options{}); got != "ofThePerson" {
		t.Errorf("in a compose file: %s", got)
	}

	const unset = `{"services":{"a":{"image":"i","secrets":["s"]}},"secrets":{"s":{"environment":"X"}}}`
	if err := json.Unmarshal([]byte(unset), &v); err != nil {
		t.Fatal(err)
	}
	delete(v["services"].(map[string]any)["a"].(map[string]any), "environment")
	_, problems, _ := Load(t.Context(), Options{Release: true}, v)
	if got, want := lines(problems), "secrets.s.environment: rejected: the variable X is not set for the service a"; got != want {
		t.Error(got)
	}
	if _, problems, _ := Load(t.Context(), Options{Release: true, AnyVariable: true}, v); len(problems) > 0 {
		t.Errorf("before a device gives the variable its value: %v", problems)
	}
}

func TestFilesBesideAComposeFile(t *testing.T) {
	path := write(t, map[string]string{
		"key.pem": "PRIVATE",
		"compose.yaml": `
services:
  web: {image: i, secrets: [key, gone]}
secrets:
  key: {file: ./key.pem}
  gone: {file: none.pem}
`})
	p, problems, err := LoadFile(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lines(problems), "secrets.gone.file: rejected: there is no file "+filepath.Join(filepath.Dir(path), "none.pem"); got != want {
		t.Error(got)
	}
	if got := p.Services["web"].Spec.Files; len(got) != 1 || string(got[0].Content) != "PRIVATE" || got[0].Target != "/run/secrets/key" {
		t.Errorf("%+v", got)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, problems, err = loadYAML(t.Context(), content, Options{})
	if err != nil || !strings.Contains(lines(problems), "secrets.key.file: rejected: the folder of the compose file is not known") {
		t.Error(err, problems)
	}
}

// Whatever is wrong with a document, no message repeats a content or a value of
// a variable.
func TestMessagesHoldNoSecret(t *testing.T) {
	const secret = "hunter2hunter2"
	for _, doc := range []string{
		`{"services":{"a":{"image":"i","secrets":["s"]}},"secrets":{"s":{"content":{"x":"%s"}}}}`,
		`{"services":{"a":{"image":"i","secrets":["s"]}},"secrets":{"s":{"content":["%s"]}}}`,
		`{"services":{"a":{"image":"i","secrets":["s"]}},"secrets":{"s":{"content":"%s\u0000"}}}`,
		`{"services":{"a":{"image":"i","secrets":["s",7]}},"secrets":{"s":{"content":"%s","file":"x"}}}`,
		`{"services":{"a":{"image":"i","secrets":["s","s"]}},"secrets":{"s":{"content":"%s"}}}`,
		`{"services":{"a":{"image":"i","environment":"A=%s"}}}`,
		`{"services":{"a":{"image":"i","environment":{"A":["%s"]}}}}`,
		`{"services":{"a":{"image":"i","environment":{"A":{"b":"%s"}}}}}`,
		`{"services":{"a":{"image":"i","environment":["A=%s\u0000"]}}}`,
	} {
		doc = fmt.Sprintf(doc, secret)
		_, problems := release(t, doc)
		if Refusal(problems) == nil {
			t.Errorf("%s: is not refused", doc)
		}
		if strings.Contains(lines(problems), secret) {
			t.Errorf("%s: %s", doc, lines(problems))
		}
	}
	_, _, err := LoadFile(t.Context(), write(t, map[string]string{
		"compose.yaml": "services:\n  a: {image: i, environment: {A: '${" + secret + "!'}}\n"}), Options{})
	if err == nil || strings.Contains(err.Error(), secret) || !strings.Contains(err.Error(), "services.a.environment.A") {
		t.Errorf("want the path and no value, got %v", err)
	}
	a, b := state.Spec{Files: []state.File{{Target: "/a", Content: []byte(secret)}}}, state.Spec{Files: []state.File{{Target: "/a", Content: []byte("x")}}}
	if got := fmt.Sprint(state.Diff(a, b), state.Diff(state.Spec{}, a)); got != "[files changed] [files added]" {
		t.Errorf("what changed is told as %s", got)
	}
}

func TestTooLargeContent(t *testing.T) {
	_, problems := release(t, `{"services":{"a":{"image":"i","secrets":["s"]}},"secrets":{"s":{"content":"`+strings.Repeat("x", maxContent+1)+`"}}}`)
	if got, want := lines(problems), "secrets.s: rejected: is larger than 1048576 bytes"; got != want {
		t.Error(got)
	}
}
