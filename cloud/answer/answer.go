// Package answer writes the cloud's HTTP answers and reads its request
// bodies: one place for the conventions the API's clients rely on (an error
// is a JSON string, an answer without content has no body).
package answer

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
)

// MaxBody is the size in bytes up to which a JSON body is read: compositions
// and build logs may have more than a megabyte each.
const MaxBody = 8 << 20

// Empty answers with a status and no body.
func Empty(w http.ResponseWriter, status int) {
	w.WriteHeader(status)
}

// Allow lets through who may do something. False: the others are answered, and so is
// a failure to find out.
func Allow(w http.ResponseWriter, r *http.Request, may bool, err error) bool {
	switch {
	case err != nil:
		Failure(w, r, err)
	case !may:
		Empty(w, http.StatusUnauthorized)
	}
	return may && err == nil
}

// Text answers with plain text.
func Text(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	io.WriteString(w, text) //nolint:errcheck // the client is gone
}

// JSON answers with a JSON document. Given a string, it answers with a JSON
// string: the form of error messages.
func JSON(w http.ResponseWriter, status int, v any) {
	b, err := Marshal(v)
	if err != nil {
		http.Error(w, "", http.StatusInternalServerError)
		return
	}
	Bytes(w, status, b)
}

// Bytes answers with a JSON document that is encoded already, in one or more pieces.
func Bytes(w http.ResponseWriter, status int, pieces ...[]byte) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	if len(pieces) > 1 { // of one the server sees it
		size := 0
		for _, b := range pieces {
			size += len(b)
		}
		w.Header().Set("Content-Length", strconv.Itoa(size))
	}
	w.WriteHeader(status)
	for _, b := range pieces {
		w.Write(b) //nolint:errcheck // the client is gone
	}
}

// Marshal encodes without escaping <, > and &: image names, compositions and
// messages reach devices and people as they were written.
func Marshal(v any) ([]byte, error) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return []byte(strings.TrimSuffix(b.String(), "\n")), nil
}

// KeyRequired is the 401 of routes which accept API keys only.
func KeyRequired(w http.ResponseWriter) {
	JSON(w, http.StatusUnauthorized, map[string]string{"error": "API key required"})
}

// Unavailable reads from an error whether something that the cloud needs is away for
// a while, and when to ask again.
func Unavailable(err error) (after time.Duration, ok bool) {
	away, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err)
	if !ok {
		return 0, false
	}
	return away.RetryAfter(), true
}

// ErrStopping is the cause for which requests end when the cloud stops.
var ErrStopping = errors.New("the cloud is stopping")

// Failure answers 500 and logs why; the client learns only that it is the
// cloud's fault. What will be better soon is a 503 with Retry-After.
func Failure(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(context.Cause(r.Context()), ErrStopping) {
		w.Header().Set("Retry-After", "5")
		JSON(w, http.StatusServiceUnavailable, "The cloud is stopping; try again later.")
		return
	}
	if r.Context().Err() != nil {
		return // the client left, nobody reads the answer
	}
	zerolog.Ctx(r.Context()).Error().Err(err).Str("path", r.URL.Path).Msg("request failed")
	if after, ok := Unavailable(err); ok {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(after.Seconds()))))
		JSON(w, http.StatusServiceUnavailable, "The cloud's database cannot be reached at the moment; try again later.")
		return
	}
	JSON(w, http.StatusInternalServerError, "The cloud could not do this; its log says why.")
}

// BodyError is a request body that cannot be used.
type BodyError struct {
	Status int // 400, 413 or 415
	Reason string
}

func (e *BodyError) Error() string { return e.Reason }

// Decode reads a JSON body into v; gzip is accepted. The error is a *BodyError
// that names the field and the reason.
func Decode(r *http.Request, v any) error {
	b, err := ReadBody(r)
	if err != nil {
		return err
	}
	return Unmarshal(b, v)
}

// ReadBody reads a whole body of at most MaxBody bytes.
func ReadBody(r *http.Request) ([]byte, error) {
	var body io.Reader = r.Body
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		z, err := gzip.NewReader(r.Body)
		if err != nil {
			return nil, &BodyError{http.StatusBadRequest, "The body is not valid gzip."}
		}
		body = z
	default:
		return nil, &BodyError{http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Encoding %q is not supported; use gzip or none.", encoding)}
	}
	b, err := io.ReadAll(io.LimitReader(body, MaxBody+1))
	if err != nil {
		return nil, &BodyError{http.StatusBadRequest, "The body could not be read whole."}
	}
	if len(b) > MaxBody {
		return nil, &BodyError{http.StatusRequestEntityTooLarge, fmt.Sprintf("The body is longer than %d bytes.", MaxBody)}
	}
	return b, nil
}

// Unmarshal decodes JSON into v. The error is a *BodyError that names the
// field and the reason.
func Unmarshal(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		field := e.Field
		if field == "" {
			field = "the document"
		}
		return &BodyError{http.StatusBadRequest, fmt.Sprintf("%s: got a JSON %s, want %s.", field, e.Value, kindName(e.Type.Kind().String()))}
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return &BodyError{http.StatusBadRequest, fmt.Sprintf("The body is not valid JSON (at byte %d): %s.", e.Offset, e)}
	}
	return &BodyError{http.StatusBadRequest, err.Error()}
}

func kindName(kind string) string {
	switch {
	case kind == "map" || kind == "struct":
		return "an object"
	case kind == "slice":
		return "an array"
	case strings.HasPrefix(kind, "int") || strings.HasPrefix(kind, "float") || strings.HasPrefix(kind, "uint"):
		return "a number"
	case kind == "bool":
		return "true or false"
	default:
		return "a string"
	}
}

// BadBody answers what Decode found.
func BadBody(w http.ResponseWriter, err error) {
	if e, ok := errors.AsType[*BodyError](err); ok {
		JSON(w, e.Status, e.Reason)
		return
	}
	JSON(w, http.StatusBadRequest, err.Error())
}
