package odata

import (
	"strings"
	"unicode/utf8"

	"deckhand/cloud/odata/query"
)

// largest is the largest whole number that arithmetic takes: every number up to
// it is exact as one with a fraction, too.
const largest = 1 << 53

// arithmetic compiles "a add b". Only div and mod of whole numbers stay whole;
// what is divided by nothing is null.
func (c *compiler) arithmetic(s scope, e query.Binary, joins *[]join) (value, error) {
	out := value{class: number, name: query.Print(e), fraction: true}
	left, err := c.operand(s, e.Left, joins)
	if err != nil {
		return out, err
	}
	right, err := c.operand(s, e.Right, joins)
	if err != nil {
		return out, err
	}
	whole := !left.fraction && !right.fraction
	a, b := sqlf("CAST(%s AS DOUBLE PRECISION)", left.fragment), sqlf("CAST(%s AS DOUBLE PRECISION)", right.fragment)
	switch {
	case e.Op == query.Mod && !whole:
		return out, refuse("%s: mod takes whole numbers.", out.name)
	case e.Op == query.Mod:
		out.fragment, out.fraction = sqlf("(%s %% nullif(%s, 0))", left.fragment, right.fragment), false
	case e.Op == query.Div && whole:
		out.fragment, out.fraction = sqlf("(%s / nullif(%s, 0))", left.fragment, right.fragment), false
	case e.Op == query.Div:
		out.fragment = sqlf("(%s / nullif(%s, 0))", a, b)
	default:
		out.fragment = sqlf("(%s "+map[query.Op]string{query.Add: "+", query.Sub: "-", query.Mul: "*"}[e.Op]+" %s)", a, b)
	}
	return out, nil
}

// operand compiles a number of arithmetic.
func (c *compiler) operand(s scope, e query.Expr, joins *[]join) (value, error) {
	v, err := c.value(s, e, joins)
	if err != nil {
		return v, err
	}
	if v.literal != nil {
		switch n := v.literal.Value.(type) {
		case int64:
			if n > largest || n < -largest {
				return v, refuse("%s is too large to calculate with.", v.name)
			}
		case float64:
			v.fraction = true
			if n > largest || n < -largest {
				return v, refuse("%s is too large to calculate with.", v.name)
			}
		default:
			return v, refuse("%s is not a number.", v.name)
		}
	}
	v.fragment, err = c.as(v, number)
	return v, err
}

// function is one of the language's functions.
type function struct {
	takes   []class
	gives   class
	compile func(c *compiler, args []value, sql []fragment) (fragment, error)
}

// functions are all functions by name. Texts are compared by code point, and
// case is that of ASCII letters, on every database.
func functions() map[string]function {
	one, two := []class{text}, []class{text, text}
	return map[string]function{
		"startswith": {two, boolean, startsWith},
		"endswith":   {two, boolean, func(_ *compiler, _ []value, a []fragment) (fragment, error) { return endsWith(a[0], a[1]), nil }},
		"contains":   {two, boolean, func(c *compiler, _ []value, a []fragment) (fragment, error) { return c.within(a[0], a[1]), nil }},
		// The older form has its arguments the other way round.
		"substringof": {two, boolean, func(c *compiler, _ []value, a []fragment) (fragment, error) { return c.within(a[1], a[0]), nil }},
		"tolower": {one, text, func(c *compiler, _ []value, a []fragment) (fragment, error) {
			return sqlf("lower(%s)", c.binary(a[0])), nil
		}},
		"toupper": {one, text, func(c *compiler, _ []value, a []fragment) (fragment, error) {
			return sqlf("upper(%s)", c.binary(a[0])), nil
		}},
		"trim":   simple(text, text, "trim(%s)"),
		"length": simple(text, number, "length(%s)"),
		"concat": {two, text, func(_ *compiler, _ []value, a []fragment) (fragment, error) {
			return sqlf("(%s || %s)", a[0], a[1]), nil
		}},
		"indexof": {two, number, func(c *compiler, _ []value, a []fragment) (fragment, error) {
			return sqlf("(%s - 1)", c.position(a[0], a[1])), nil
		}},
		"substring": {[]class{text, number, number}, text, substring},
		"round":     {[]class{number}, number, round},
		"floor":     simple(number, number, "floor(CAST(%s AS DOUBLE PRECISION))"),
		"ceiling":   simple(number, number, "ceil(CAST(%s AS DOUBLE PRECISION))"),
		"now": {nil, date, func(c *compiler, _ []value, _ []fragment) (fragment, error) {
			return bound("CAST(? AS BIGINT)", c.now.UnixMilli()), nil
		}},
		"date":   part(date, "(%s - ((%s %% 86400000) + 86400000) %% 86400000)"),
		"hour":   part(number, "((((%s %% 86400000) + 86400000) %% 86400000) / 3600000)"),
		"minute": part(number, "((((%s %% 3600000) + 3600000) %% 3600000) / 60000)"),
		"second": part(number, "((((%s %% 60000) + 60000) %% 60000) / 1000)"),
		"year": {[]class{date}, number, func(c *compiler, _ []value, a []fragment) (fragment, error) {
			return c.calendar(a[0], "%Y", "YYYY"), nil
		}},
		"month": {[]class{date}, number, func(c *compiler, _ []value, a []fragment) (fragment, error) { return c.calendar(a[0], "%m", "MM"), nil }},
		"day":   {[]class{date}, number, func(c *compiler, _ []value, a []fragment) (fragment, error) { return c.calendar(a[0], "%d", "DD"), nil }},
	}
}

func simple(takes, gives class, sql string) function {
	return function{[]class{takes}, gives, func(_ *compiler, _ []value, a []fragment) (fragment, error) { return sqlf(sql, a[0]), nil }}
}

// part is a function of a date that is calculated from its milliseconds.
func part(gives class, sql string) function {
	return function{[]class{date}, gives, func(_ *compiler, _ []value, a []fragment) (fragment, error) {
		all := make([]fragment, strings.Count(sql, "%s"))
		for i := range all {
			all[i] = a[0]
		}
		return sqlf(sql, all...), nil
	}}
}

// call compiles a function and its arguments.
func (c *compiler) call(s scope, e query.Call, joins *[]join) (value, error) {
	f, ok := functions()[e.Name]
	if !ok {
		return value{}, refuse("There is no function %s.", e.Name)
	}
	least := len(f.takes)
	if e.Name == "substring" {
		least = 2 // the length may be missing
	}
	if len(e.Args) < least || len(e.Args) > len(f.takes) {
		return value{}, refuse("%s: %d arguments, want %d.", e.Name, len(e.Args), len(f.takes))
	}
	var args []value
	var sql []fragment
	for i, arg := range e.Args {
		v, err := c.value(s, arg, joins)
		if err != nil {
			return value{}, err
		}
		a, err := c.as(v, f.takes[i])
		if err != nil {
			return value{}, refuse("%s: %s", e.Name, err)
		}
		if v.class == null { // a NULL alone has no type
			a = plain(map[class]string{text: "CAST(NULL AS TEXT)", number: "CAST(NULL AS BIGINT)", date: "CAST(NULL AS BIGINT)"}[f.takes[i]])
		}
		args, sql = append(args, v), append(sql, a)
	}
	out := value{class: f.gives, name: query.Print(e), fraction: e.Name == "round" || e.Name == "floor" || e.Name == "ceiling"}
	var err error
	out.fragment, err = f.compile(c, args, sql)
	return out, err
}

// rarePrefix is how many letters of a uuid or commit leave few rows.
const rarePrefix = 4

// startsWith compiles startswith. For a literal it is a range, which an index
// can answer.
func startsWith(c *compiler, args []value, sql []fragment) (fragment, error) {
	exact := sqlf("substr(%s, 1, length(%s)) = %s", sql[0], sql[1], sql[1])
	if args[1].literal == nil {
		return sqlf("(%s)", exact), nil
	}
	prefix, _ := args[1].literal.Value.(string)
	end := after(prefix)
	if prefix == "" || end == "" {
		return sqlf("(%s)", exact), nil
	}
	a := c.binary(sql[0])
	least, below := sqlf("%s >= %s", a, sql[1]), sqlf("%s < %s", a, bound("CAST(? AS TEXT)", end))
	if len(prefix) >= rarePrefix && !c.postgres {
		// SQLite does not know how few rows a prefix leaves, and would rather
		// read all that the caller may see.
		least, below = sqlf("likelihood(%s, 0.0001)", least), sqlf("likelihood(%s, 0.0001)", below)
	}
	return sqlf("(%s AND %s AND %s)", least, below, exact), nil
}

// after is the first text behind all that begin with a prefix; "": there is
// none that is easy to tell.
func after(prefix string) string {
	last, n := utf8.DecodeLastRuneInString(prefix)
	if last+1 >= 0xD800 { // what follows may be no character
		return ""
	}
	return prefix[:len(prefix)-n] + string(last+1)
}

func endsWith(a, b fragment) fragment {
	return sqlf("(length(%s) >= length(%s) AND substr(%s, length(%s) - length(%s) + 1) = %s)", a, b, a, a, b, b)
}

// position is where a text is in another, from 1; 0: it is not.
func (c *compiler) position(a, b fragment) fragment {
	if c.postgres {
		return sqlf("strpos(%s, %s)", a, b)
	}
	return sqlf("instr(%s, %s)", a, b)
}

func (c *compiler) within(a, b fragment) fragment { return sqlf("(%s > 0)", c.position(a, b)) }

// substring takes its numbers as literals only: the databases differ in what a
// negative one means.
func substring(_ *compiler, args []value, sql []fragment) (fragment, error) {
	for _, a := range args[1:] {
		if a.literal == nil {
			return never, refuse("substring takes numbers, not %s.", a.name)
		}
		if n, ok := a.literal.Value.(int64); !ok || n < 0 || n > 1<<30 {
			return never, refuse("substring takes numbers from 0, not %s.", a.name)
		}
	}
	from := sqlf("CAST(%s + 1 AS INTEGER)", sql[1])
	if len(sql) == 2 {
		return sqlf("substr(%s, %s)", sql[0], from), nil
	}
	return sqlf("substr(%s, %s, CAST(%s AS INTEGER))", sql[0], from, sql[2]), nil
}

// round rounds halves away from zero, as both databases do for exact numbers.
func round(_ *compiler, _ []value, sql []fragment) (fragment, error) {
	x := sqlf("CAST(%s AS DOUBLE PRECISION)", sql[0])
	return sqlf("(CASE WHEN %s < 0 THEN ceil(%s - 0.5) ELSE floor(%s + 0.5) END)", x, x, x), nil
}

// calendar is a part of a date that needs a calendar.
func (c *compiler) calendar(a fragment, sqlite, postgres string) fragment {
	if c.postgres {
		return sqlf("CAST(to_char(to_timestamp(%s / 1000.0) AT TIME ZONE 'UTC', %s) AS BIGINT)", a, plain("'"+postgres+"'"))
	}
	return sqlf("CAST(strftime(%s, %s / 1000.0, 'unixepoch') AS BIGINT)", plain("'"+sqlite+"'"), a)
}
