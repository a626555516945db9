package query

import "slices"

// words are the operators: none of them is a field.
var words = []string{"and", "or", "not", "in", "eq", "ne", "gt", "ge", "lt", "le", "add", "sub", "mul", "div", "mod"}

// expression reads a condition, or a value. From weak to strong bind: or, and,
// not, comparisons, sums, products.
func (p *parser) expression() (Expr, error) {
	if p.depth++; p.depth > MaxDepth {
		return nil, p.refuse(p.peek(), "nested deeper than %d", MaxDepth)
	}
	defer func() { p.depth-- }()
	return p.chain(func() (Expr, error) { return p.chain(p.negation, And) }, Or)
}

// chain reads "part operator part operator part", from the left.
func (p *parser) chain(part func() (Expr, error), operators ...Op) (Expr, error) {
	left, err := part()
	for err == nil {
		t := p.peek()
		if t.kind != word || !slices.Contains(operators, Op(t.text)) {
			break
		}
		p.next()
		if err := p.count(t); err != nil {
			return nil, err
		}
		var right Expr
		right, err = part()
		left = Binary{Op(t.text), left, right}
	}
	return left, err
}

// count counts a part of an expression.
func (p *parser) count(t token) error {
	if p.terms++; p.terms > MaxTerms {
		return p.refuse(t, "more than %d terms", MaxTerms)
	}
	return nil
}

func (p *parser) negation() (Expr, error) {
	if !p.take(word, "not") {
		return p.comparison()
	}
	if p.depth++; p.depth > MaxDepth {
		return nil, p.refuse(p.peek(), "nested deeper than %d", MaxDepth)
	}
	defer func() { p.depth-- }()
	x, err := p.negation()
	return Not{x}, err
}

func (p *parser) comparison() (Expr, error) {
	left, err := p.sum()
	if err != nil {
		return nil, err
	}
	if p.take(word, "in") {
		return p.membership(left)
	}
	t := p.peek()
	switch Op(t.text) {
	case Eq, Ne, Gt, Ge, Lt, Le:
		if t.kind != word {
			return left, nil
		}
		p.next()
		if err := p.count(t); err != nil {
			return nil, err
		}
		right, err := p.sum()
		return Binary{Op(t.text), left, right}, err
	default:
		return left, nil
	}
}

func (p *parser) sum() (Expr, error) {
	return p.chain(func() (Expr, error) { return p.chain(p.primary, Mul, Div, Mod) }, Add, Sub)
}

func (p *parser) membership(x Expr) (Expr, error) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	in := In{X: x}
	for {
		if err := p.count(p.peek()); err != nil {
			return nil, err
		}
		v, err := p.value()
		if err != nil {
			return nil, err
		}
		in.Values = append(in.Values, v)
		if !p.take(symbol, ",") {
			return in, p.expect(")")
		}
	}
}

func (p *parser) primary() (Expr, error) {
	t := p.peek()
	if err := p.count(t); err != nil {
		return nil, err
	}
	switch {
	case p.take(symbol, "("):
		e, err := p.expression()
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	case t.kind == word && letter(t.text[0]) && !slices.Contains(words, t.text):
		if following := p.tokens[p.at+1]; following.kind == symbol && following.text == "(" {
			return p.call()
		}
		return p.path()
	}
	return p.value()
}

func (p *parser) call() (Expr, error) {
	c := Call{Name: p.next().text}
	if err := p.expect("("); err != nil {
		return nil, err
	}
	if p.take(symbol, ")") {
		return c, nil
	}
	for {
		arg, err := p.expression()
		if err != nil {
			return nil, err
		}
		c.Args = append(c.Args, arg)
		if !p.take(symbol, ",") {
			return c, p.expect(")")
		}
	}
}

// path reads "a/b/c", "a/b/$count", "a/any(x:…)".
func (p *parser) path() (Expr, error) {
	var path Path
	for {
		t := p.peek()
		if t.kind == word && t.text == "$count" && len(path.Segments) > 0 {
			p.next()
			return p.counted(path)
		}
		name, err := p.name("a field or a navigation")
		if err != nil {
			return nil, err
		}
		if (name == "any" || name == "all") && len(path.Segments) > 0 && p.take(symbol, "(") {
			return p.lambda(path, name == "all")
		}
		if path.Segments = append(path.Segments, name); len(path.Segments) > MaxDepth {
			return nil, p.refuse(t, "a path is longer than %d", MaxDepth)
		}
		if !p.take(symbol, "/") {
			return path, nil
		}
	}
}

// counted reads what may follow "/$count": "($filter=…)".
func (p *parser) counted(path Path) (Expr, error) {
	c := Count{Path: path}
	if !p.take(symbol, "(") {
		return c, nil
	}
	if t := p.next(); t.text != "$filter" || !p.take(symbol, "=") {
		return nil, p.wrong(t, "$filter=")
	}
	var err error
	if c.Filter, err = p.expression(); err != nil {
		return nil, err
	}
	return c, p.expect(")")
}

// lambda reads what follows "any(" and "all(".
func (p *parser) lambda(path Path, all bool) (Expr, error) {
	l := Lambda{Path: path, All: all}
	if t := p.peek(); p.take(symbol, ")") {
		if all {
			return nil, p.wrong(t, "a variable")
		}
		return l, nil
	}
	var err error
	if l.Var, err = p.name("a variable"); err != nil {
		return nil, err
	}
	if err := p.expect(":"); err != nil {
		return nil, err
	}
	if l.Body, err = p.expression(); err != nil {
		return nil, err
	}
	return l, p.expect(")")
}
