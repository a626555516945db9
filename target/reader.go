package target

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
)

// Limits for documents that mean harm. A device's own document is far below.
const (
	maxDocument = 16 << 20 // bytes
	maxDepth    = 40       // levels inside one composition
	maxSkipped  = 10_000   // levels inside a value that is not used
	maxValues   = 200_000  // variables, labels and values in compositions
	maxThings   = 5_000    // apps, releases, services, networks and volumes
	maxLines    = 50       // violations that are printed
	maxNotes    = 200      // problems of one kind in one app
)

// reader reads JSON values one after the other. A value of the wrong type is
// noted with its path and skipped, so that one pass finds every violation; only
// broken JSON stops it, with err set.
type reader struct {
	dec        *json.Decoder
	err        error
	violations []string
	more       int      // violations that are not kept
	own        bool     // within the entry of our own device
	unknown    []string // paths of keys in it that have no meaning
	values     int      // seen so far
	things     int      // seen so far
}

func newReader(doc []byte) *reader {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	return &reader{dec: d}
}

// violation notes a broken rule.
func (r *reader) violation(path, format string, args ...any) {
	if len(r.violations) >= maxLines {
		r.more++
		return
	}
	if path == "" {
		path = "the document"
	}
	r.violations = append(r.violations, path+": "+fmt.Sprintf(format, args...))
}

// result is the error that refuses the document, or nil.
func (r *reader) result() error {
	if r.err != nil {
		return r.err
	}
	if len(r.violations) == 0 {
		return nil
	}
	text := strings.Join(r.violations, "\n")
	if r.more > 0 {
		text += fmt.Sprintf("\nand %d more", r.more)
	}
	return errors.New(text)
}

// token reads one token. After broken JSON it returns nil for ever.
func (r *reader) token() json.Token {
	if r.err != nil {
		return nil
	}
	t, err := r.dec.Token()
	if err != nil {
		r.broken(err)
		return nil
	}
	return t
}

// broken stops at what is not JSON.
func (r *reader) broken(err error) {
	at := r.dec.InputOffset()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		r.err = fmt.Errorf("the document is cut off after byte %d", at)
	} else {
		r.err = fmt.Errorf("not JSON near byte %d: %w", at, err)
	}
}

// end reports what follows the document.
func (r *reader) end() {
	if r.err != nil {
		return
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		r.err = fmt.Errorf("something follows the document at byte %d", r.dec.InputOffset())
	}
}

// skip reads the rest of a value whose first token is t.
func (r *reader) skip(t json.Token) {
	depth := 0
	for {
		switch t {
		case json.Delim('{'), json.Delim('['):
			if depth++; depth > maxSkipped {
				r.err = fmt.Errorf("near byte %d: more than %d levels deep", r.dec.InputOffset(), maxSkipped)
			}
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth == 0 || r.err != nil {
			return
		}
		t = r.token()
	}
}

// wrong notes a value of another type than wanted and skips it.
func (r *reader) wrong(path, want string, t json.Token) {
	if r.err != nil {
		return
	}
	r.violation(path, "want %s, got %s", want, describe(t))
	r.skip(t)
}

func describe(t json.Token) string {
	switch x := t.(type) {
	case nil:
		return "null"
	case json.Delim:
		if x == '{' {
			return "an object"
		}
		return "an array"
	case string:
		return strconv.Quote(clip(x))
	case json.Number:
		return clip(x.String())
	case map[string]any:
		return "an object"
	case []any:
		return "an array"
	}
	return fmt.Sprint(t)
}

func clip(s string) string { return clipTo(s, 100) }

func clipTo(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}

func at(path, key string) string {
	if path == "" {
		return clip(key)
	}
	return path + "." + clip(key)
}

// object reads an object; field reads the value of each key. It reports whether
// there was one: null counts as none where nullable.
func (r *reader) object(path string, nullable bool, field func(path, key string)) bool {
	t := r.token()
	if t == nil && nullable {
		return false
	}
	if t != json.Delim('{') {
		r.wrong(path, "an object", t)
		return false
	}
	for r.err == nil && r.dec.More() {
		key, _ := r.token().(string)
		if r.err == nil {
			field(at(path, key), key)
		}
	}
	r.token()
	return true
}

// pass skips a value of any type.
func (r *reader) pass() { r.skip(r.token()) }

// ignore skips a value under a key that has no meaning.
func (r *reader) ignore(path string) {
	if r.own && len(r.unknown) < maxLines {
		r.unknown = append(r.unknown, path)
	}
	r.pass()
}

// text reads a text of at most 255 characters.
func (r *reader) text(path string) string {
	t := r.token()
	s, ok := t.(string)
	if !ok {
		r.wrong(path, "text", t)
		return ""
	}
	r.short(path, s)
	return s
}

// value reads a text of any length: variables and labels.
func (r *reader) value(path string) string {
	t := r.token()
	s, ok := t.(string)
	if !ok {
		r.wrong(path, "text", t)
	}
	return s
}

// short checks the length of a text, counted as the cloud does.
func (r *reader) short(path, s string) {
	const most = 255
	if len(s) > most && len(utf16.Encode([]rune(s))) > most {
		r.violation(path, "longer than %d characters", most)
	}
}

// boolean reads true or false; otherwise when it is null and may be.
func (r *reader) boolean(path string, nullable, otherwise bool) bool {
	t := r.token()
	if t == nil && nullable {
		return otherwise
	}
	b, ok := t.(bool)
	if !ok {
		r.wrong(path, "true or false", t)
	}
	return b
}

// number reads a whole number, not negative, written as a number or as digits.
func (r *reader) number(path string) int64 {
	t := r.token()
	switch x := t.(type) {
	case string:
		if n, ok := number(x); ok {
			return n
		}
	case json.Number:
		if n, err := x.Int64(); err == nil && n >= 0 {
			return n
		}
		if f, err := x.Float64(); err == nil && f >= 0 && f <= 1<<53 && f == math.Trunc(f) {
			return int64(f)
		}
	}
	r.wrong(path, "a whole number, not negative", t)
	return 0
}

// number reads digits.
func number(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && digit(s[0])
}

// count stops at a document that is larger than any device could run.
func (r *reader) count(path string, n *int, most int) {
	*n++
	if *n > most && r.err == nil {
		r.err = fmt.Errorf("%s: the document holds more than %d such entries", path, most)
	}
}

// free reads a value of any type as encoding/json does.
func (r *reader) free(path string) any { return r.tree(path, r.token(), 0) }

func (r *reader) tree(path string, t json.Token, depth int) any {
	r.count(path, &r.values, maxValues)
	if depth > maxDepth && r.err == nil {
		r.err = fmt.Errorf("%s: more than %d levels deep", path, maxDepth)
	}
	if r.err != nil {
		return nil
	}
	switch t {
	case json.Delim('{'):
		m := map[string]any{}
		for r.err == nil && r.dec.More() {
			key, _ := r.token().(string)
			m[key] = r.tree(path, r.token(), depth+1)
		}
		r.token()
		return m
	case json.Delim('['):
		l := []any{}
		for r.err == nil && r.dec.More() {
			l = append(l, r.tree(path, r.token(), depth+1))
		}
		r.token()
		return l
	}
	return t
}
