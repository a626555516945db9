package query

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// String is the request as path and query string, percent-encoded: Parse reads
// the same request from it.
func (r Request) String() string {
	path := r.Resource
	if len(r.Key) > 0 {
		parts := make([]string, len(r.Key))
		for i, k := range r.Key {
			parts[i] = printed(k.Value)
			if k.Name != "" {
				parts[i] = k.Name + "=" + parts[i]
			}
		}
		path += "(" + strings.Join(parts, ",") + ")"
	}
	if r.Count {
		path += "/$count"
	}
	if r.Action != "" {
		path += "/" + r.Action
	}
	options := r.Options.list()
	if !r.ReturnResource {
		options = append(options, "returnResource=false")
	}
	for i, o := range options {
		options[i] = encode(o)
	}
	if len(options) == 0 {
		return encode(path)
	}
	return encode(path) + "?" + strings.Join(options, "&")
}

// encode percent-encodes what may not stand in a URL, or would be read as the
// end of an option.
func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if letter(c) || c >= '0' && c <= '9' || strings.IndexByte("-.~$(),;=:/'@*", c) >= 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// list is the options as "$name=value", not encoded.
func (o Options) list() []string {
	var all []string
	if len(o.Select) > 0 {
		all = append(all, "$select="+strings.Join(o.Select, ","))
	}
	if len(o.Expand) > 0 {
		parts := make([]string, len(o.Expand))
		for i, e := range o.Expand {
			parts[i] = e.String()
		}
		all = append(all, "$expand="+strings.Join(parts, ","))
	}
	if o.Filter != nil {
		all = append(all, "$filter="+printed(o.Filter))
	}
	if len(o.OrderBy) > 0 {
		parts := make([]string, len(o.OrderBy))
		for i, t := range o.OrderBy {
			parts[i] = printed(t.By)
			if t.Descending {
				parts[i] += " desc"
			}
		}
		all = append(all, "$orderby="+strings.Join(parts, ","))
	}
	if o.Top != nil {
		all = append(all, fmt.Sprintf("$top=%d", *o.Top))
	}
	if o.Skip != nil {
		all = append(all, fmt.Sprintf("$skip=%d", *o.Skip))
	}
	return all
}

// String is the expansion as it stands in $expand.
func (e Expand) String() string {
	s := e.Nav
	if e.Count {
		s += "/$count"
	}
	if options := e.Options.list(); len(options) > 0 {
		s += "(" + strings.Join(options, ";") + ")"
	}
	return s
}

// Print is an expression as it stands in a $filter.
func Print(e Expr) string { return printed(e) }

// strength is how strongly an expression holds together: what is weaker than
// its place needs parentheses.
func strength(e Expr) int {
	switch e := e.(type) {
	case Binary:
		return strengthOf(e.Op)
	case Not:
		return 3
	case In:
		return 4
	case Call, Lambda, Path, Count, Literal:
	}
	return 7
}

func strengthOf(op Op) int {
	switch op {
	case Or:
		return 1
	case And:
		return 2
	case Add, Sub:
		return 5
	case Mul, Div, Mod:
		return 6
	case Eq, Ne, Gt, Ge, Lt, Le:
	}
	return 4
}

// within prints an expression where one of that strength is wanted.
func within(e Expr, least int) string {
	if strength(e) < least {
		return "(" + printed(e) + ")"
	}
	return printed(e)
}

func printed(e Expr) string {
	switch e := e.(type) {
	case Binary:
		own := strength(e)
		left := own // chains go to the left; a comparison is none
		if own == 4 {
			left = 5
		}
		return within(e.Left, left) + " " + string(e.Op) + " " + within(e.Right, own+1)
	case Not:
		return "not " + within(e.X, 3)
	case In:
		values := make([]string, len(e.Values))
		for i, v := range e.Values {
			values[i] = printed(v)
		}
		return within(e.X, 5) + " in (" + strings.Join(values, ",") + ")"
	case Call:
		args := make([]string, len(e.Args))
		for i, a := range e.Args {
			args[i] = printed(a)
		}
		return e.Name + "(" + strings.Join(args, ",") + ")"
	case Lambda:
		return printedLambda(e)
	case Path:
		return strings.Join(e.Segments, "/")
	case Count:
		s := printed(e.Path) + "/$count"
		if e.Filter != nil {
			s += "($filter=" + printed(e.Filter) + ")"
		}
		return s
	case Literal:
		return printedLiteral(e.Value)
	}
	return ""
}

func printedLambda(l Lambda) string {
	s := printed(l.Path)
	switch {
	case l.All:
		return s + "/all(" + l.Var + ":" + printed(l.Body) + ")"
	case l.Body == nil:
		return s + "/any()"
	}
	return s + "/any(" + l.Var + ":" + printed(l.Body) + ")"
}

func printedLiteral(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		s := strconv.FormatFloat(v, 'f', -1, 64)
		if !strings.Contains(s, ".") {
			s += ".0"
		}
		return s
	case string:
		return "'" + strings.ReplaceAll(v, "'", "''") + "'"
	case time.Time:
		return "datetime'" + v.UTC().Format(time.RFC3339Nano) + "'"
	}
	return "null"
}
