package localapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"mime"
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

// form is the top-level fields of a body, each as JSON; in an HTML form all values
// are texts. The methods convert a field as balena's API does.
type form map[string]json.RawMessage

// readForm reads a JSON or form body. Bodies of other types have no fields.
func readForm(r *http.Request, body []byte) (form, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return form{}, nil
	}
	switch kind {
	case "application/x-www-form-urlencoded":
		return parseQuery(string(body))
	case "application/json":
		return parseJSON(body)
	}
	return form{}, nil
}

func parseJSON(body []byte) (form, error) {
	body = bytes.TrimSpace(body)
	if !json.Valid(body) || (body[0] != '{' && body[0] != '[') {
		return nil, errors.New("the request body is not a JSON object")
	}
	out := form{}
	if json.Unmarshal(body, &out) != nil {
		return form{}, nil // a list has no fields
	}
	return out, nil
}

// scalar is a field as text; quoted: it was a text. Lists, objects and null are
// none.
func (f form) scalar(name string) (value string, quoted, ok bool) {
	raw := f[name]
	if len(raw) == 0 || raw[0] == '{' || raw[0] == '[' || string(raw) == "null" {
		return "", false, false
	}
	if raw[0] != '"' {
		return string(raw), false, true
	}
	if json.Unmarshal(raw, &value) != nil {
		return "", false, false
	}
	return value, true, true
}

// truthy is what balena's API takes for yes.
func (f form) truthy(name string) bool {
	value, quoted, ok := f.scalar(name)
	if !ok {
		return false
	}
	switch strings.ToLower(value) {
	case "1", "true", "on":
		return true
	}
	n, err := strconv.ParseFloat(value, 64)
	return !quoted && err == nil && n == 1
}

// text is a field that is a text and says something.
func (f form) text(name string) (string, bool) {
	value, quoted, ok := f.scalar(name)
	return value, ok && quoted && meaningful(value)
}

// meaningful: programs that join variables into a request send these words for
// nothing.
func meaningful(s string) bool { return s != "" && s != "null" && s != "undefined" }

// integer is a field that is a whole number or a text that spells one.
func (f form) integer(name string) (int64, bool) {
	value, quoted, ok := f.scalar(name)
	if !ok {
		return 0, false
	}
	if n, ok := parseInteger(value); ok || quoted {
		return n, ok
	}
	n, err := strconv.ParseFloat(value, 64)
	return int64(n), err == nil && n == math.Trunc(n) && math.Abs(n) < 1<<53
}

var integer = regexp.MustCompile(`^-?([0-9]+)\.?0*$`)

// parseInteger reads a whole number; zeros may follow a point.
func parseInteger(s string) (int64, bool) {
	if !integer.MatchString(s) {
		return 0, false
	}
	whole, _, _ := strings.Cut(s, ".")
	n, err := strconv.ParseInt(whole, 10, 64)
	return n, err == nil
}
