package odata

import (
	"strconv"
	"time"

	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// class is what values can be compared with each other.
type class int

const (
	number class = iota
	text
	boolean
	date
	location // an image location, stored without its host
	opaque   // can only be null or not
	null
)

func (c class) String() string {
	return [...]string{"a number", "a text in quotes", "true or false", "a date like datetime'2026-01-31T12:00:00Z'", "a text in quotes", "null", "null"}[c]
}

// value is a compiled value. A literal gets its SQL when it is known what it is
// compared with.
type value struct {
	fragment
	class   class
	literal *query.Literal
	// fraction says of a number that it may have one.
	fraction bool
	name     string // for messages
}

func classOf(kind model.FieldKind) class {
	switch kind {
	case model.Integer, model.BigInteger, model.Reference:
		return number
	case model.Boolean:
		return boolean
	case model.Date:
		return date
	case model.Location:
		return location
	case model.JSON, model.Version, model.File:
		return opaque
	case model.Text:
	}
	return text
}

// value compiles what has a value. Navigations in paths are added to the joins.
func (c *compiler) value(s scope, e query.Expr, joins *[]join) (value, error) {
	switch e := e.(type) {
	case query.Literal:
		return value{literal: &e, class: literalClass(e.Value), name: query.Print(e)}, nil
	case query.Path:
		return c.path(s, e, joins)
	case query.Count:
		return c.count(s, e)
	case query.Call:
		return c.call(s, e, joins)
	case query.Binary:
		switch e.Op {
		case query.Add, query.Sub, query.Mul, query.Div, query.Mod:
			return c.arithmetic(s, e, joins)
		case query.And, query.Or, query.Eq, query.Ne, query.Gt, query.Ge, query.Lt, query.Le:
		}
	case query.Not, query.In, query.Lambda:
	}
	condition, err := c.condition(s, e)
	return value{fragment: sqlf("coalesce(%s, FALSE)", condition), class: boolean, name: query.Print(e)}, err
}

func literalClass(v any) class {
	switch v.(type) {
	case int64, float64:
		return number
	case string:
		return text
	case bool:
		return boolean
	case time.Time:
		return date
	}
	return null
}

// path compiles a path to a field, or to a row: that is its id.
func (c *compiler) path(s scope, p query.Path, joins *[]join) (value, error) {
	way, at, last, err := c.through(s, p.Segments)
	if err != nil {
		return value{}, err
	}
	*joins = append(*joins, way...)
	if last == "" {
		last = "id"
	}
	if f, ok := at.resource.Field(last); ok {
		return value{fragment: field(at, f), class: classOf(f.Kind), name: query.Print(p)}, nil
	}
	n, ok := at.resource.Nav(last)
	if !ok {
		return value{}, refuse("%s has no field %q.", at.resource.Name, last)
	}
	if !n.Many { // another name of a reference
		f, _ := at.resource.Field(n.Local)
		return value{fragment: field(at, f), class: number, name: query.Print(p)}, nil
	}
	j, err := c.follow(at, n)
	*joins = append(*joins, j)
	return value{fragment: plain(j.to.alias + ".id"), class: number, name: query.Print(p)}, err
}

// count compiles the number of rows behind a path.
func (c *compiler) count(s scope, n query.Count) (value, error) {
	joins, r, err := c.rows(s, n.Path)
	if err != nil {
		return value{}, err
	}
	condition := always
	if n.Filter != nil {
		if condition, err = c.condition(scope{it: r, vars: s.vars}, n.Filter); err != nil {
			return value{}, err
		}
	}
	from, where := sources(joins, condition)
	return value{fragment: sqlf("(SELECT count(*) FROM %s WHERE %s)", from, where), class: number, name: query.Print(n)}, nil
}

// as is the value's SQL as one of a class.
func (c *compiler) as(v value, want class) (fragment, error) {
	if v.literal != nil {
		return bind(v, want)
	}
	if v.class != want {
		return never, refuse("%s is not %s.", v.name, want)
	}
	return v.fragment, nil
}

// bind is a literal as the argument that fits a class. It is cast, because a
// database cannot always tell the type of an argument.
func bind(v value, want class) (fragment, error) {
	switch x := v.literal.Value.(type) {
	case nil:
		return plain("NULL"), nil
	case int64:
		if want == number || want == date {
			return bound("CAST(? AS BIGINT)", x), nil
		}
	case float64:
		if want == number {
			return bound("CAST(? AS DOUBLE PRECISION)", x), nil
		}
	case bool:
		if want == boolean {
			return bound("CAST(? AS BOOLEAN)", x), nil
		}
	case time.Time:
		if want == date {
			return bound("CAST(? AS BIGINT)", x.UnixMilli()), nil
		}
	case string:
		return bindText(v, x, want)
	}
	return never, refuse("got %s, want %s.", v.name, want)
}

func bindText(v value, s string, want class) (fragment, error) {
	switch want {
	case text:
		return bound("CAST(? AS TEXT)", s), nil
	case location:
		return bound("CAST(? AS TEXT)", model.Repository(s)), nil
	case number:
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return bound("CAST(? AS BIGINT)", n), nil
		}
	case date:
		if t, ok := query.ParseTime(s); ok {
			return bound("CAST(? AS BIGINT)", t.UnixMilli()), nil
		}
	case boolean, opaque, null:
	}
	return never, refuse("got %s, want %s.", v.name, want)
}

// operators are those of SQL for values that are not null.
var operators = map[query.Op]string{query.Eq: "=", query.Ne: "<>", query.Gt: ">", query.Ge: ">=", query.Lt: "<", query.Le: "<="}

// comparison compiles "a eq b". What is null equals null only, and is neither
// greater nor less than anything.
func (c *compiler) comparison(s scope, e query.Binary, joins *[]join) (fragment, error) {
	left, err := c.value(s, e.Left, joins)
	if err != nil {
		return never, err
	}
	right, err := c.value(s, e.Right, joins)
	if err != nil {
		return never, err
	}
	a, b, common, err := c.alike(left, right)
	if err != nil {
		return never, refuse("%s is compared with %s: %s", left.name, right.name, err)
	}
	equality := e.Op == query.Eq || e.Op == query.Ne
	if !equality && (common == boolean || common == opaque || common == location) {
		return never, refuse("%s: %s cannot be ordered.", query.Print(e), left.name)
	}
	if common == text && !equality && left.class != null && right.class != null {
		a, b = c.binary(a), c.binary(b)
	}
	return compared(e.Op, left, right, a, b), nil
}

func compared(op query.Op, left, right value, a, b fragment) fragment {
	if left.class == null { // null on the right, the other way round
		left, right, a, b = right, left, b, a
	}
	if right.class == null {
		switch {
		case op == query.Eq && left.class == null:
			return always
		case op == query.Eq:
			return sqlf("(%s IS NULL)", a)
		case op == query.Ne && left.class != null:
			return sqlf("(%s IS NOT NULL)", a)
		}
		return never
	}
	switch {
	case op == query.Eq && left.literal == nil && right.literal == nil:
		return sqlf("(%s IS NOT DISTINCT FROM %s)", a, b)
	case op == query.Ne:
		return sqlf("(%s IS DISTINCT FROM %s)", a, b)
	}
	return sqlf("(%s "+operators[op]+" %s)", a, b)
}

// alike makes two values comparable.
func (c *compiler) alike(left, right value) (a, b fragment, common class, err error) {
	common = left.class
	if left.literal != nil && right.literal == nil || left.class == null {
		common = right.class
	}
	if a, err = c.as(left, common); err != nil {
		return a, b, common, err
	}
	b, err = c.as(right, common)
	return a, b, common, err
}

// membership compiles "a in (b, c)".
func (c *compiler) membership(s scope, e query.In, joins *[]join) (fragment, error) {
	x, err := c.value(s, e.X, joins)
	if err != nil {
		return never, err
	}
	want := x.class
	if x.literal != nil && len(e.Values) > 0 && want == null {
		want = literalClass(e.Values[0].Value)
	}
	a, err := c.as(x, want)
	if err != nil {
		return never, err
	}
	var values, some []fragment
	for _, v := range e.Values {
		if v.Value == nil {
			some = append(some, compared(query.Eq, x, value{class: null}, a, plain("NULL")))
			continue
		}
		b, err := bind(value{literal: &v, name: query.Print(v)}, want)
		if err != nil {
			return never, refuse("%s in (…): %s", x.name, err)
		}
		values = append(values, b)
	}
	if len(values) > 0 {
		some = append(some, sqlf("(%s IN (%s))", a, list(values)))
	}
	return joined("OR", some), nil
}
