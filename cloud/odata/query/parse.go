package query

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"
)

// Error is a request that cannot be read or answered. Its reason goes to the
// client, with status 400.
type Error struct{ Reason string }

func (e *Error) Error() string { return e.Reason }

// Parse reads a request: the path below /v7/ and the query string, both still
// percent-encoded. Parameter aliases are replaced by their values. The error is
// an *Error that names the position and the reason.
func Parse(method, path, rawQuery string) (Request, error) {
	if len(path)+len(rawQuery) > MaxLength {
		return Request{}, &Error{fmt.Sprintf("Malformed url: it is longer than %d bytes; ask in several requests.", MaxLength)}
	}
	pairs, err := split(rawQuery)
	if err != nil {
		return Request{}, err
	}
	p := &parsing{aliases: map[string]Literal{}}
	for _, pair := range pairs {
		if strings.HasPrefix(pair.name, "@") {
			if err := p.alias(pair); err != nil {
				return Request{}, err
			}
		}
	}
	path, err = decode(path)
	if err != nil {
		return Request{}, err
	}
	r, err := p.path(method, path)
	if err != nil {
		return r, err
	}
	return r, p.options(&r, pairs)
}

// decode takes the percent-encoding away. A plus sign stays one.
func decode(s string) (string, error) {
	out, err := url.PathUnescape(s)
	switch {
	case err != nil:
		return "", &Error{"Malformed url: " + err.Error() + "."}
	case !utf8.ValidString(out):
		return "", &Error{fmt.Sprintf("Malformed url: %q is not valid UTF-8.", out)}
	case strings.ContainsRune(out, 0):
		return "", &Error{"Malformed url: it contains a zero byte."}
	}
	return out, nil
}

type pair struct{ name, value string }

// split takes a query string apart before it is decoded: a text in it may
// contain an encoded "&".
func split(raw string) ([]pair, error) {
	var pairs []pair
	for part := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(part, "=")
		name, err := decode(name)
		if err != nil {
			return nil, err
		}
		if value, err = decode(value); err != nil {
			return nil, err
		}
		if slices.ContainsFunc(pairs, func(p pair) bool {
			return p.name == name && (strings.HasPrefix(name, "$") || strings.HasPrefix(name, "@"))
		}) {
			return nil, &Error{fmt.Sprintf("Malformed url: %s is given twice.", name)}
		}
		pairs = append(pairs, pair{name, value})
	}
	return pairs, nil
}

// parsing is what the parts of one request share.
type parsing struct {
	aliases map[string]Literal
	terms   int
	expands int
}

func (p *parsing) alias(pair pair) error {
	tokens, err := lex(pair.name, pair.value)
	if err != nil {
		return err
	}
	if len(tokens) != 2 || tokens[0].kind != literal {
		return malformed(pair.name, 0, "want one value")
	}
	p.aliases[pair.name] = Literal{tokens[0].value}
	return nil
}

// path reads "resource", "resource(key)", "resource/$count", "resource(key)/action".
func (p *parsing) path(method, path string) (Request, error) {
	r := Request{ReturnResource: true}
	tokens, err := lex("the path", path)
	if err != nil {
		return r, err
	}
	x := &parser{parsing: p, what: "the path", tokens: tokens}
	name := x.next()
	if name.kind != word || !letter(name.text[0]) {
		return r, x.wrong(name, "a resource")
	}
	r.Resource = name.text
	if x.take(symbol, "(") {
		if r.Key, err = x.key(); err != nil {
			return r, err
		}
	}
	if x.take(symbol, "/") && x.peek().kind != end {
		what := x.next()
		switch {
		case what.kind != word:
			return r, x.wrong(what, "an action")
		case what.text == "$count":
			r.Count = true
		case len(r.Key) == 0 || method != "POST":
			return r, malformed("the path", what.at, fmt.Sprintf("/%s is not supported; ask for what is behind a navigation with $expand or $filter", what.text))
		default:
			r.Action = what.text
		}
	}
	if t := x.peek(); t.kind != end {
		return r, x.wrong(t, "the end")
	}
	return r, nil
}

// key reads "12)" or "name='value',other=3)".
func (p *parser) key() ([]KeyPart, error) {
	if t := p.peek(); t.kind == literal || strings.HasPrefix(t.text, "@") {
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		return []KeyPart{{Value: v}}, p.expect(")")
	}
	var key []KeyPart
	for {
		name := p.next()
		if name.kind != word || !letter(name.text[0]) || !p.take(symbol, "=") {
			return nil, p.wrong(name, "a key: a number or field='value'")
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		key = append(key, KeyPart{name.text, v})
		if !p.take(symbol, ",") {
			return key, p.expect(")")
		}
	}
}

// options reads the query string's options.
func (p *parsing) options(r *Request, pairs []pair) error {
	for _, pair := range pairs {
		if strings.HasPrefix(pair.name, "@") || pair.value == "" && strings.HasPrefix(pair.name, "$") {
			continue
		}
		switch pair.name {
		case "$select", "$filter", "$expand", "$orderby", "$top", "$skip":
			tokens, err := lex(pair.name, pair.value)
			if err != nil {
				return err
			}
			x := &parser{parsing: p, what: pair.name, tokens: tokens}
			if err := x.option(&r.Options, pair.name); err != nil {
				return err
			}
			if t := x.peek(); t.kind != end {
				return x.wrong(t, "the end")
			}
		case "returnResource":
			r.ReturnResource = pair.value != "false"
		case "", "$count", "$format", "apikey":
			// Changes nothing, as clients expect.
		default:
			return &Error{fmt.Sprintf("Query option %s is not supported.", pair.name)}
		}
	}
	return nil
}

// parser reads one option, or the path.
type parser struct {
	*parsing
	what   string
	tokens []token
	at     int
	depth  int
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
		return p.wrong(p.peek(), text)
	}
	return nil
}

// wrong says what stands where something else is wanted.
func (p *parser) wrong(t token, want string) error {
	return malformed(p.what, t.at, fmt.Sprintf("got %s, want %s", t.text, want))
}

func (p *parser) refuse(t token, format string, args ...any) error {
	return malformed(p.what, t.at, fmt.Sprintf(format, args...))
}

// name reads the name of a field or navigation.
func (p *parser) name(want string) (string, error) {
	t := p.next()
	if t.kind != word || !letter(t.text[0]) {
		return "", p.wrong(t, want)
	}
	return t.text, nil
}

// value reads a literal, or the alias of one.
func (p *parser) value() (Literal, error) {
	t := p.next()
	if strings.HasPrefix(t.text, "@") && t.kind == word {
		v, ok := p.aliases[t.text]
		if !ok {
			return v, p.refuse(t, "the value of %s is not given", t.text)
		}
		return v, nil
	}
	if t.kind != literal {
		return Literal{}, p.wrong(t, "a value")
	}
	return Literal{t.value}, nil
}

// option reads the value of a system option.
func (p *parser) option(o *Options, name string) (err error) {
	switch name {
	case "$select":
		o.Select, err = p.selection()
	case "$filter":
		o.Filter, err = p.expression()
	case "$orderby":
		o.OrderBy, err = p.orders()
	case "$expand":
		o.Expand, err = p.expansions()
	case "$top":
		o.Top, err = p.whole()
	case "$skip":
		o.Skip, err = p.whole()
	}
	return err
}

func (p *parser) selection() ([]string, error) {
	if p.take(symbol, "*") {
		return nil, nil
	}
	var names []string
	for {
		name, err := p.name("a field")
		if err != nil {
			return nil, err
		}
		if t := p.peek(); t.text == "/" && t.kind == symbol {
			return nil, p.refuse(t, "select a field of %s with $expand=%s($select=…)", name, name)
		}
		names = append(names, name)
		if !p.take(symbol, ",") {
			return names, nil
		}
	}
}

func (p *parser) whole() (*int64, error) {
	t := p.next()
	n, ok := t.value.(int64)
	if !ok || n < 0 {
		return nil, p.wrong(t, "a whole number")
	}
	return &n, nil
}

func (p *parser) orders() ([]Order, error) {
	var all []Order
	for {
		t := p.peek()
		e, err := p.path()
		if err != nil {
			return nil, err
		}
		if _, lambda := e.(Lambda); lambda {
			return nil, p.refuse(t, "order by a field, nav/field or nav/$count")
		}
		o := Order{By: e, Descending: p.take(word, "desc")}
		if !o.Descending {
			p.take(word, "asc")
		}
		all = append(all, o)
		if t := p.peek(); t.kind == word {
			return nil, p.wrong(t, "asc or desc")
		}
		if !p.take(symbol, ",") {
			return all, nil
		}
	}
}

func (p *parser) expansions() ([]Expand, error) {
	if p.depth++; p.depth > MaxExpandDepth {
		return nil, p.refuse(p.peek(), "expansions are nested deeper than %d", MaxExpandDepth)
	}
	defer func() { p.depth-- }()
	var all []Expand
	for {
		t := p.peek()
		e, err := p.expansion()
		if err != nil {
			return nil, err
		}
		if slices.ContainsFunc(all, func(x Expand) bool { return x.Nav == e.Nav }) {
			return nil, p.refuse(t, "%s is expanded twice", e.Nav)
		}
		all = append(all, e)
		if !p.take(symbol, ",") {
			return all, nil
		}
	}
}

func (p *parser) expansion() (Expand, error) {
	var e Expand
	if p.expands++; p.expands > MaxExpands {
		return e, p.refuse(p.peek(), "more than %d expansions", MaxExpands)
	}
	var err error
	if e.Nav, err = p.name("a navigation"); err != nil {
		return e, err
	}
	if p.take(symbol, "/") {
		if !p.take(word, "$count") {
			return e, p.refuse(p.peek(), "expand what is behind %s with %s($expand=…)", e.Nav, e.Nav)
		}
		e.Count = true
	}
	if !p.take(symbol, "(") {
		return e, nil
	}
	given := map[string]bool{}
	for {
		name := p.next()
		switch name.text {
		case "$select", "$filter", "$expand", "$orderby", "$top", "$skip", "$count", "$format":
		default:
			return e, p.wrong(name, "an option like $select")
		}
		if given[name.text] {
			return e, p.refuse(name, "%s is given twice", name.text)
		}
		given[name.text] = true
		if err := p.expect("="); err != nil {
			return e, err
		}
		if name.text == "$count" || name.text == "$format" {
			p.next() // changes nothing
		} else if err := p.option(&e.Options, name.text); err != nil {
			return e, err
		}
		if !p.take(symbol, ";") {
			return e, p.expect(")")
		}
	}
}
