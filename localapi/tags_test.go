package localapi

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// board holds the tags of a device, or is broken.
type board struct {
	tags   []Tag
	set    map[string]string
	broken error
}

func (b *board) Tags(context.Context) ([]Tag, error) { return b.tags, b.broken }

func (b *board) SetTags(tags map[string]string) error {
	b.set = tags
	return b.broken
}

// ask calls a route of the topic.
func (b *board) ask(t *testing.T, method, body, contentType string) (status int, answer string) {
	t.Helper()
	a := &api{c: Config{Tags: b}}
	for _, r := range a.tagRoutes() {
		if r.method != method {
			continue
		}
		req := httptest.NewRequestWithContext(t.Context(), method, r.path, nil)
		req.Header.Set("Content-Type", contentType)
		w := httptest.NewRecorder()
		r.serve(w, req, []byte(body))
		if err := readContract(t).Check(method, r.path, w.Code, w.Header().Get("Content-Type"), w.Body.String()); err != nil {
			t.Errorf("%s %s: the answer is not as in openapi.yaml: %v", method, body, err)
		}
		return w.Code, strings.TrimSpace(w.Body.String())
	}
	t.Fatalf("there is no %s", method)
	return 0, ""
}

func TestTagsOfTheDevice(t *testing.T) {
	b := &board{tags: []Tag{{1, "color", "blue"}}}
	if status, body := b.ask(t, "GET", "", ""); status != http.StatusOK || body != `{"status":"success","tags":[{"id":1,"name":"color","value":"blue"}]}` {
		t.Errorf("%d %s", status, body)
	}
	b.tags = nil
	if status, body := b.ask(t, "GET", "", ""); status != http.StatusOK || body != `{"status":"success","tags":[]}` {
		t.Errorf("none: %d %s", status, body)
	}
	b.broken = errors.New("no network")
	if status, body := b.ask(t, "GET", "", ""); status != http.StatusInternalServerError || body != `{"status":"failed","message":"no network"}` {
		t.Errorf("broken: %d %s", status, body)
	}
}

func TestSettingTags(t *testing.T) {
	const object = "application/json"
	for name, c := range map[string]struct {
		body, kind string
		set        map[string]string
		message    string // "": it is taken
	}{
		"an object":             {`{"color":"blue","empty":""}`, object, map[string]string{"color": "blue", "empty": ""}, ""},
		"nothing":               {`{}`, object, map[string]string{}, ""},
		"no type is said":       {`{"a":"b"}`, "", map[string]string{"a": "b"}, ""},
		"a form":                {`a=b+c`, "application/x-www-form-urlencoded", map[string]string{"a": "b c"}, ""},
		"a form with an object": {`a[b]=c`, "application/x-www-form-urlencoded", nil, "Invalid tags body, must be an object like"},
		"a form of much":        {strings.Repeat("a=b&", 1000), "application/x-www-form-urlencoded", nil, "Invalid tags body, must be an object like"},
		"a number":              {`{"a":1}`, object, nil, "Invalid tags body, must be an object like"},
		"null":                  {`{"a":null}`, object, nil, "Invalid tags body, must be an object like"},
		"a list":                {`["a"]`, object, nil, "Invalid tags body, must be an object like"},
		"no body":               {``, object, nil, "Invalid tags body, must be an object like"},
		"half an object":        {`{"a":`, object, nil, "Invalid tags body, must be an object like"},
		"null alone":            {`null`, object, nil, "Invalid tags body, must be an object like"},
		"whitespace":            {`{"a b":"c"}`, object, nil, "Tag keys cannot contain whitespace"},
		"a line break":          {`{"a\nb":"c"}`, object, nil, "Tag keys cannot contain whitespace"},
		"no name":               {`{"":"c"}`, object, nil, "cannot be empty"},
		"balena's own":          {`{"io.balena.x":"c"}`, object, nil, "io.balena."},
		"balena's old own":      {`{"io.resin.x":"c"}`, object, nil, "io.resin."},
		"one of several is bad": {`{"fine":"1","a b":"c"}`, object, nil, "whitespace"},
		"a long name":           {`{"` + strings.Repeat("a", 300) + `":"c"}`, object, nil, "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			b := &board{}
			status, body := b.ask(t, "PATCH", c.body, c.kind)
			if d := cmp.Diff(c.set, b.set); d != "" {
				t.Errorf("queued (-want +got):\n%s", d)
			}
			switch {
			case c.message == "" && (status != http.StatusAccepted || body != `{"status":"success"}`):
				t.Errorf("%d %s", status, body)
			case c.message != "" && (status != http.StatusBadRequest || !strings.Contains(body, c.message)):
				t.Errorf("%d %s, want %q", status, body, c.message)
			}
		})
	}
	b := &board{broken: errors.New("disk full")}
	if status, body := b.ask(t, "PATCH", `{"a":"b"}`, object); status != http.StatusInternalServerError || !strings.Contains(body, "disk full") {
		t.Errorf("%d %s", status, body)
	}
}
