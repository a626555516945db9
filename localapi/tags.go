package localapi

import (
	"context"
	"encoding/json"
	"mime"
	"net/http"
	"strings"
	"unicode"
)

// Tags are the device's tags in its cloud.
type Tags interface {
	// Tags asks the cloud for them.
	Tags(ctx context.Context) ([]Tag, error)
	// SetTags queues tags for the cloud; they are on the disk when it returns.
	SetTags(tags map[string]string) error
}

// Tag is one tag.
type Tag struct {
	ID    int64  `json:"id"`
	Name  string `json:"name"`
	Value string `json:"value"`
}

const (
	tagsLimit     = 1 << 20 // bytes of a body
	longestTag    = 255     // bytes of a name; clouds take 100
	longestValue  = 64 << 10
	tagsAreWrong  = `Invalid tags body, must be an object like {"name": "value"} whose values are texts`
	tagsHaveSpace = "Tag keys cannot contain whitespace"
)

// tagRoutes are about the device's tags. Every key opens them.
func (a *api) tagRoutes() []route {
	return []route{
		{"GET", "/v2/device/tags", true, 0, a.getTags},
		{"PATCH", "/v2/device/tags", true, tagsLimit, a.setTags},
	}
}

func (a *api) getTags(w http.ResponseWriter, r *http.Request, _ []byte) {
	tags, err := a.c.Tags.Tags(r.Context())
	if err != nil {
		failed(w, http.StatusInternalServerError, err.Error())
		return
	}
	if tags == nil {
		tags = []Tag{}
	}
	answer(w, http.StatusOK, struct {
		Status string `json:"status"`
		Tags   []Tag  `json:"tags"`
	}{"success", tags})
}

func (a *api) setTags(w http.ResponseWriter, r *http.Request, body []byte) {
	tags, ok := readTags(r.Header.Get("Content-Type"), body)
	if !ok {
		failed(w, http.StatusBadRequest, tagsAreWrong)
		return
	}
	for name, value := range tags {
		if reason := refuseTag(name, value); reason != "" {
			failed(w, http.StatusBadRequest, reason)
			return
		}
	}
	if err := a.c.Tags.SetTags(tags); err != nil {
		failed(w, http.StatusInternalServerError, err.Error())
		return
	}
	answer(w, http.StatusAccepted, struct {
		Status string `json:"status"`
	}{"success"})
}

func readTags(contentType string, body []byte) (map[string]string, bool) {
	var fields form
	if kind, _, err := mime.ParseMediaType(contentType); err == nil && kind == "application/x-www-form-urlencoded" {
		if fields, err = parseQuery(string(body)); err != nil {
			return nil, false
		}
	} else if err := json.Unmarshal(body, &fields); err != nil || fields == nil {
		return nil, false
	}
	tags := make(map[string]string, len(fields))
	for name := range fields {
		value, quoted, ok := fields.scalar(name)
		if !ok || !quoted {
			return nil, false
		}
		tags[name] = value
	}
	return tags, true
}

// refuseTag says why no cloud will take a tag; "": it may.
func refuseTag(name, value string) string {
	switch {
	case name == "":
		return "Tag keys cannot be empty"
	case strings.ContainsFunc(name, unicode.IsSpace):
		return tagsHaveSpace
	case strings.HasPrefix(name, "io.resin.") || strings.HasPrefix(name, "io.balena."):
		return "Tag keys cannot begin with io.resin. or io.balena.; these are the cloud's own"
	case len(name) > longestTag || len(value) > longestValue:
		return "Tag keys have at most 255 bytes, values at most 64 KiB"
	}
	return ""
}
