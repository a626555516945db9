package odata

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// expression is a parsed $filter.
type expression interface{ expression() }

type (
	// logical joins two conditions with "and" or "or".
	logical struct {
		operator    string
		left, right expression
	}
	// negation is "not …".
	negation struct{ of expression }
	// comparison is "field operator value".
	comparison struct {
		field, operator string
		value           any
	}
	// membership is "field in (a, b)".
	membership struct {
		field  string
		values []any
	}
	// call is "function(field, 'text')".
	call struct{ function, field, text string }
)

func (logical) expression()    {}
func (negation) expression()   {}
func (comparison) expression() {}
func (membership) expression() {}
func (call) expression()       {}

// badQuery is a query that cannot be answered: its text goes to the client.
type badQuery struct{ reason string }

func (e *badQuery) Error() string { return e.reason }

func refuse(format string, args ...any) error { return &badQuery{fmt.Sprintf(format, args...)} }

type token struct {
	kind  tokenKind
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

// lex splits a filter. Names are words, everything quoted or numeric is a literal.
func lex(s string) ([]token, error) {
	var tokens []token
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == ' ' || c == '\t' || c == '+': // some clients write a space as a plus sign
			i++
		case strings.IndexByte("(),/:", c) >= 0:
			tokens = append(tokens, token{kind: symbol, text: string(c)})
			i++
		case c == '\'':
			text, n, err := quoted(s[i:])
			if err != nil {
				return nil, err
			}
			tokens = append(tokens, token{kind: literal, text: s[i : i+n], value: text})
			i += n
		case c == '-' || c >= '0' && c <= '9':
			t, n, err := number(s[i:])
			if err != nil {
				return nil, err
			}
			tokens = append(tokens, t)
			i += n
		case letter(c) || c == '$' || c == '@':
			n := 1
			for i+n < len(s) && (letter(s[i+n]) || s[i+n] >= '0' && s[i+n] <= '9') {
				n++
			}
			tokens = append(tokens, named(s[i:i+n]))
			i += n
		default:
			r, _ := utf8.DecodeRuneInString(s[i:])
			return nil, refuse("Malformed $filter: unexpected %q at position %d.", r, i)
		}
	}
	return append(tokens, token{kind: end, text: "the end"}), nil
}

func letter(c byte) bool { return c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }

func named(name string) token {
	switch name {
	case "true":
		return token{literal, name, true}
	case "false":
		return token{literal, name, false}
	case "null":
		return token{literal, name, nil}
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
		if !utf8.ValidString(b.String()) {
			return "", 0, refuse("Malformed text: %q is not valid UTF-8.", b.String())
		}
		return b.String(), i + 1, nil
	}
	return "", 0, refuse("Malformed text: a quote is not closed.")
}

func number(s string) (token, int, error) {
	n := 1
	for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
		n++
	}
	text := s[:n]
	if v, err := strconv.ParseInt(text, 10, 64); err == nil {
		return token{literal, text, v}, n, nil
	}
	if v, err := strconv.ParseFloat(text, 64); err == nil {
		return token{literal, text, v}, n, nil
	}
	return token{}, 0, refuse("Malformed $filter: %q is not a number.", text)
}

// deepest is how deep conditions may be nested.
const deepest = 50

type parser struct {
	tokens []token
	at     int
	depth  int
}

// parseFilter reads a whole $filter.
func parseFilter(s string) (expression, error) {
	tokens, err := lex(s)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	e, err := p.disjunction()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != end {
		return nil, refuse("Malformed $filter: unexpected %s.", t.text)
	}
	return e, nil
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != end {
		p.at++
	}
	return t
}

// take consumes a word or symbol if it comes next.
func (p *parser) take(kind tokenKind, text string) bool {
	t := p.peek()
	if t.kind == kind && t.text == text {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(text string) error {
	if !p.take(symbol, text) {
		return refuse("Malformed $filter: got %s, want %s.", p.peek().text, text)
	}
	return nil
}

func (p *parser) disjunction() (expression, error) {
	return p.chain("or", func() (expression, error) { return p.chain("and", p.condition) })
}

func (p *parser) chain(operator string, part func() (expression, error)) (expression, error) {
	left, err := part()
	for err == nil && p.take(word, operator) {
		var right expression
		right, err = part()
		left = logical{operator, left, right}
	}
	return left, err
}

func (p *parser) condition() (expression, error) {
	if p.depth++; p.depth > deepest {
		return nil, refuse("Malformed $filter: nested deeper than %d.", deepest)
	}
	defer func() { p.depth-- }()
	if p.take(symbol, "(") {
		e, err := p.disjunction()
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	}
	t := p.next()
	if t.kind != word {
		return nil, refuse("Malformed $filter: got %s, want a field.", t.text)
	}
	if t.text == "not" {
		e, err := p.condition()
		return negation{e}, err
	}
	switch following := p.peek(); {
	case following.kind == symbol && following.text == "/":
		return nil, refuse("$filter over %s/… (paths, any, all, $count) is not supported yet; filter by own fields and ids.", t.text)
	case following.kind == symbol && following.text == "(":
		return p.function(t.text)
	case p.take(word, "in"):
		return p.membership(t.text)
	}
	return p.comparison(t.text)
}

func (p *parser) comparison(field string) (expression, error) {
	operator := p.next()
	switch operator.text {
	case "eq", "ne", "gt", "ge", "lt", "le":
	default:
		return nil, refuse("$filter operator %s is not supported.", operator.text)
	}
	value, err := p.literal()
	return comparison{field, operator.text, value}, err
}

func (p *parser) literal() (any, error) {
	t := p.next()
	if t.kind == word && (t.text == "datetime" || t.text == "date") {
		t = p.next()
	}
	if t.kind == word && p.peek().text == "(" {
		return nil, refuse("$filter function %s is not supported as a value.", t.text)
	}
	if t.kind != literal {
		return nil, refuse("Malformed $filter: got %s, want a value.", t.text)
	}
	return t.value, nil
}

func (p *parser) membership(field string) (expression, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	m := membership{field: field}
	for {
		v, err := p.literal()
		if err != nil {
			return nil, err
		}
		m.values = append(m.values, v)
		if !p.take(symbol, ",") {
			return m, p.expect(")")
		}
	}
}

func (p *parser) function(name string) (expression, error) {
	switch name {
	case "startswith", "endswith", "contains":
	default:
		return nil, refuse("$filter function %s is not supported yet; use startswith, endswith or contains.", name)
	}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	field := p.next()
	if field.kind != word {
		return nil, refuse("Malformed $filter: got %s, want a field.", field.text)
	}
	if p.peek().text == "/" {
		return nil, refuse("$filter over %s/… is not supported yet; filter by own fields and ids.", field.text)
	}
	if err := p.expect(","); err != nil {
		return nil, err
	}
	v, err := p.literal()
	if err != nil {
		return nil, err
	}
	text, ok := v.(string)
	if !ok {
		return nil, refuse("$filter: %s wants a text in quotes.", name)
	}
	return call{name, field.text, text}, p.expect(")")
}
