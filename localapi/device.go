package localapi

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

// Config connects the device API with the supervisor.
type Config struct {
	// Managed reports whether the device belongs to a cloud; if not, no key is
	// needed.
	Managed func() bool
	// Key is the key that opens the whole API.
	Key func() string
	// ServiceKeys are the keys of services; each shows its own app only. May be
	// nil: there are none.
	ServiceKeys func() []ServiceKey
	// Health reports whether the supervisor works, and if not, why.
	Health func() (ok bool, reasons []string)
	// InstantUpdates reports whether others may make the device poll.
	InstantUpdates func() bool
	// Update makes the device poll now; it does not wait.
	Update func(force, cancel bool)
	// Status describes what is on the device.
	Status func() Status
	// Unhealthy is told the reasons for a bad health, for the log. May be nil.
	Unhealthy func(reasons []string)
	// Log is told every request. May be nil.
	Log func(Request)
}

// ServiceKey is a key that was given to a service.
type ServiceKey struct {
	Key   string
	AppID int64
}

// New makes the device API.
func New(c Config) http.Handler {
	a := &api{c}
	return &router{
		routes:  a.routes(),
		allowed: a.allowed,
		tooBad:  func(w http.ResponseWriter, err error) { failed(w, http.StatusServiceUnavailable, err.Error()) },
		log:     c.Log,
	}
}

type api struct{ c Config }

func (a *api) ping(w http.ResponseWriter, _ *http.Request, _ []byte) {
	text(w, http.StatusOK, "OK")
}

func (a *api) healthy(w http.ResponseWriter, _ *http.Request, _ []byte) {
	ok, reasons := a.c.Health()
	if ok {
		text(w, http.StatusOK, "OK")
		return
	}
	if a.c.Unhealthy != nil {
		a.c.Unhealthy(reasons)
	}
	text(w, http.StatusInternalServerError, "Unhealthy")
}

// update asks for a poll. Who may not ask is told that it was heard.
func (a *api) update(w http.ResponseWriter, r *http.Request, body []byte) {
	form, err := parseForm(r.Header.Get("Content-Type"), body)
	if err != nil {
		failed(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	force := truthy(form["force"])
	if !force && !a.c.InstantUpdates() {
		text(w, http.StatusAccepted, "Accepted")
		return
	}
	a.c.Update(force, truthy(form["cancel"]))
	w.WriteHeader(http.StatusNoContent)
}

func (a *api) stateStatus(w http.ResponseWriter, r *http.Request, _ []byte) {
	s := a.c.Status()
	if app, all := a.scope(r); !all {
		s = s.of(app)
	}
	answer(w, http.StatusOK, s.reduced())
}

func text(w http.ResponseWriter, status int, s string) {
	// Clients of balena's supervisor get its framework's type for texts.
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(s))
}

// allowed reports whether the request shows a key, in the query or in the header.
func (a *api) allowed(r *http.Request) bool {
	app, all := a.scope(r)
	return all || app != 0
}

// scope says which app a request may see: all, one, or with neither none.
func (a *api) scope(r *http.Request) (app int64, all bool) {
	if !a.c.Managed() {
		return 0, true
	}
	got := requestKey(r)
	if equal(a.c.Key(), got) {
		return 0, true
	}
	if a.c.ServiceKeys == nil {
		return 0, false
	}
	for _, k := range a.c.ServiceKeys() {
		if equal(k.Key, got) {
			app = k.AppID // no early end: time tells nothing
		}
	}
	return app, false
}

// equal compares keys in a time that does not tell how far they agree.
func equal(want, got string) bool {
	if want == "" || got == "" {
		return false
	}
	x, y := sha256.Sum256([]byte(want)), sha256.Sum256([]byte(got)) // lengths do not show either
	return subtle.ConstantTimeCompare(x[:], y[:]) == 1
}

var authorization = regexp.MustCompile(`(?i)^(?:apikey|bearer) ([0-9a-z_]+)$`)

func requestKey(r *http.Request) string {
	if keys := r.URL.Query()["apikey"]; len(keys) == 1 && keys[0] != "" {
		return keys[0]
	}
	if m := authorization.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
		return m[1]
	}
	return ""
}

// parseForm reads the top-level fields of a JSON or form body as text. Bodies of
// other types have no fields.
func parseForm(contentType string, body []byte) (map[string]string, error) {
	kind, _, err := mime.ParseMediaType(contentType)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return nil, nil
	}
	switch kind {
	case "application/x-www-form-urlencoded":
		return parseQuery(string(body)), nil
	case "application/json":
		return parseJSON(body)
	}
	return nil, nil
}

func parseQuery(body string) map[string]string {
	out := map[string]string{}
	values, _ := url.ParseQuery(body) // what can be read of it counts
	for k, v := range values {
		if len(v) == 1 {
			out[k] = v[0]
		}
	}
	return out
}

func parseJSON(body []byte) (map[string]string, error) {
	body = bytes.TrimSpace(body)
	if !json.Valid(body) || (body[0] != '{' && body[0] != '[') {
		return nil, errors.New("the request body is not a JSON object")
	}
	var fields map[string]json.RawMessage
	if json.Unmarshal(body, &fields) != nil {
		return nil, nil // a list has no fields
	}
	out := map[string]string{}
	for k, raw := range fields {
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw)
		}
		out[k] = s
	}
	return out, nil
}

// truthy is what balena's API takes for yes.
func truthy(s string) bool {
	switch strings.ToLower(s) {
	case "1", "true", "on":
		return true
	}
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && f == 1
}
