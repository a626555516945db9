package query

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

type token struct {
	kind  tokenKind
	at    int // byte in the decoded text
	text  string
	value any // of a literal
}

type tokenKind int

const (
	end tokenKind = iota
	word
	literal
	symbol
)

// lex splits the text of an option or of a key. Names are words, what is quoted
// or numeric is a literal.
func lex(what, s string) ([]token, error) {
	var tokens []token
	for i := 0; i < len(s); {
		c := s[i]
		if c == ' ' || c == '\t' || c == '+' { // some clients write a space as a plus sign
			i++
			continue
		}
		t, n, err := next(s[i:])
		if err != nil {
			return nil, malformed(what, i, err.Error())
		}
		t.at = i
		tokens = append(tokens, t)
		i += n
	}
	return append(tokens, token{kind: end, at: len(s), text: "the end"}), nil
}

func malformed(what string, at int, reason string) error {
	return &Error{fmt.Sprintf("Malformed url: %s at position %d: %s.", what, at, reason)}
}

// next reads the token that s begins with, and says how long it is.
func next(s string) (token, int, error) {
	c := s[0]
	switch {
	case strings.IndexByte("(),/:;=*", c) >= 0:
		return token{kind: symbol, text: s[:1]}, 1, nil
	case c == '\'':
		text, n, err := quoted(s)
		return token{kind: literal, text: s[:n], value: text}, n, err
	case c == '-' || c >= '0' && c <= '9':
		return number(s)
	case letter(c) || c == '$' || c == '@':
		n := 1
		for n < len(s) && (letter(s[n]) || s[n] >= '0' && s[n] <= '9') {
			n++
		}
		if rest := s[n:]; (s[:n] == "datetime" || s[:n] == "date") && strings.HasPrefix(rest, "'") {
			return date(s, n)
		}
		return named(s[:n]), n, nil
	}
	r, _ := utf8.DecodeRuneInString(s)
	return token{}, 0, fmt.Errorf("unexpected %q", r)
}

func letter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func named(name string) token {
	switch name {
	case "true":
		return token{kind: literal, text: name, value: true}
	case "false":
		return token{kind: literal, text: name, value: false}
	case "null":
		return token{kind: literal, text: name}
	}
	return token{kind: word, text: name}
}

// quoted reads 'text' with doubled quotes inside, and says how long it is.
func quoted(s string) (string, int, error) {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		if s[i] != '\'' {
			b.WriteByte(s[i])
			continue
		}
		if i+1 < len(s) && s[i+1] == '\'' {
			b.WriteByte('\'')
			i++
			continue
		}
		return b.String(), i + 1, nil
	}
	return "", 0, fmt.Errorf("a quote is not closed")
}

func number(s string) (token, int, error) {
	n := 1
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	text := s[:n]
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return token{kind: literal, text: text, value: v}, n, nil
	}
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		return token{kind: literal, text: text, value: v}, n, nil
	}
	return token{}, 0, fmt.Errorf("%q is not a number", text)
}

// date reads datetime'…', of which the first n bytes are the name.
func date(s string, n int) (token, int, error) {
	text, m, err := quoted(s[n:])
	if err != nil {
		return token{}, 0, err
	}
	t, ok := ParseTime(text)
	if !ok {
		return token{}, 0, fmt.Errorf("%q is not a date like 2026-01-31T12:00:00Z", text)
	}
	return token{kind: literal, text: s[:n+m], value: t}, n + m, nil
}

// ParseTime reads a date as clients write it: ISO 8601, of a day or with a
// time, in UTC when no zone is given.
func ParseTime(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), true
		}
	}
	return time.Time{}, false
}
