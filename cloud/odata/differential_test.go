package odata_test

import (
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"deckhand/cloud/access"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// Any query brings the same rows in the same order, with the same expansions and
// counts, as loops over the rows would, for everybody.
func TestQueriesBringWhatLoopsWould(t *testing.T) {
	p := populate(t)
	rows := everything(t, p)
	device := p.ids("device", "t.uuid = ?", strings.Repeat("a", 32))[0]
	who := []asker{
		{"admin", p.AdminSession, newOracle(p, rows, caller(p.Admin))},
		{"bob", p.BobSession, newOracle(p, rows, caller(p.Bob))},
		{"carol", must(p.Auth.NewSession(p.carol))(t), newOracle(p, rows, caller(p.carol))},
		{"device", p.keys["a"], newOracle(p, rows, access.Caller{Role: access.Device, ID: device})},
		{"guest", "", newOracle(p, rows, access.Caller{Role: access.Guest})},
	}
	pool := poolOf(rows)
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SampledFrom(who).Draw(t, "who")
		g := &generator{t: t, pool: pool, oracle: a.oracle}
		resource := rapid.SampledFrom(g.resources()).Draw(t, "resource")
		r := query.Request{Resource: resource.Name, ReturnResource: true, Options: g.options(resource, 2)}
		r.Count = rapid.IntRange(0, 9).Draw(t, "count") == 0
		if r.Count {
			r.Options = query.Options{Filter: r.Options.Filter}
		}
		path := "/v7/" + r.String()
		got := p.Do("GET", path, a.credential, "")
		if got.Status != 200 {
			t.Fatalf("%s: %s: %d %s", a.name, plainly(path), got.Status, got.Body)
		}
		var body struct{ D any }
		if err := json.Unmarshal([]byte(got.Body), &body); err != nil {
			t.Fatal(err)
		}
		want := a.oracle.answer(resource, r)
		if d := cmp.Diff(want, body.D); d != "" {
			t.Fatalf("%s: %s\n%s", a.name, plainly(path), d)
		}
		if all, ok := want.([]any); ok && len(all) > 0 {
			found++
		}
	})
	if found == 0 {
		t.Error("no query found anything")
	}
}

type asker struct {
	name, credential string
	oracle           *oracle
}

func plainly(path string) string {
	s, err := url.PathUnescape(path)
	if err != nil {
		return path
	}
	return s
}

// class is what values can be compared with each other.
type class int

const (
	numeric class = iota
	textual
	logical
	temporal
)

// pool are values that occur, so that conditions are sometimes true.
type pool map[class][]any

func poolOf(rows map[string][]record) pool {
	all := pool{logical: {true, false}, numeric: {int64(0), int64(-1), 2.5}, textual: {"", "a", "it's", "%", "_", "Ä", "admin/"}, temporal: {time.UnixMilli(1_600_000_000_001).UTC()}}
	for _, records := range rows {
		for _, r := range records {
			for _, v := range r {
				all.add(v)
			}
		}
	}
	for c := range all {
		slices.SortFunc(all[c], compared)
		all[c] = slices.Compact(all[c])
	}
	return all
}

func (p pool) add(v any) {
	switch v := v.(type) {
	case int64:
		p[numeric] = append(p[numeric], v)
	case string:
		if len(v) < 80 && !strings.Contains(v, "/v2/") {
			p[textual] = append(p[textual], v, v[:len(v)/2])
		}
	case time.Time:
		p[temporal] = append(p[temporal], v)
	}
}

// generator draws queries that can be answered.
type generator struct {
	t      *rapid.T
	pool   pool
	oracle *oracle
	vars   int
}

// resources are those of which the asker may see something.
func (g *generator) resources() []model.Resource {
	return slices.DeleteFunc(model.Resources(), func(r model.Resource) bool { return r.Elsewhere || g.oracle.visible[r.Name] == nil })
}

func (g *generator) chance(of int, what string) bool {
	return rapid.IntRange(1, of).Draw(g.t, what) == 1
}

func navs(r model.Resource) []model.Nav {
	return slices.DeleteFunc(slices.Clone(r.Navs), func(n model.Nav) bool {
		to, _ := model.ResourceNamed(n.To)
		return to.Elsewhere
	})
}

func (g *generator) options(r model.Resource, depth int) query.Options {
	var o query.Options
	if g.chance(2, "select") {
		all := []string{"id"}
		for _, f := range r.Fields {
			all = append(all, f.Name)
		}
		o.Select = rapid.SliceOfNDistinct(rapid.SampledFrom(all), 1, 4, rapid.ID).Draw(g.t, "fields")
	}
	if g.chance(2, "filter") {
		o.Filter = g.condition(within{it: r}, 3)
	}
	for range rapid.IntRange(0, 2).Draw(g.t, "terms of order") {
		o.OrderBy = append(o.OrderBy, query.Order{By: g.sortKey(r), Descending: g.chance(2, "descending")})
	}
	if g.chance(3, "top") {
		o.Top = new(rapid.Int64Range(0, 4).Draw(g.t, "top"))
	}
	if g.chance(4, "skip") {
		o.Skip = new(rapid.Int64Range(0, 3).Draw(g.t, "skip"))
	}
	if depth == 0 || len(navs(r)) == 0 {
		return o
	}
	for _, n := range rapid.SliceOfNDistinct(rapid.SampledFrom(navs(r)), 0, 2, func(n model.Nav) string { return n.Name }).Draw(g.t, "expand") {
		to, _ := model.ResourceNamed(n.To)
		e := query.Expand{Nav: n.Name, Count: g.chance(4, "counted"), Options: g.options(to, depth-1)}
		if e.Count {
			e.Options = query.Options{Filter: e.Options.Filter}
		}
		o.Expand = append(o.Expand, e)
	}
	return o
}

func (g *generator) sortKey(r model.Resource) query.Expr {
	if all := navs(r); len(all) > 0 && g.chance(3, "by count") {
		return query.Count{Path: query.Path{Segments: []string{rapid.SampledFrom(all).Draw(g.t, "counted").Name}}}
	}
	var segments []string
	for range rapid.IntRange(0, 2).Draw(g.t, "steps") {
		single := slices.DeleteFunc(navs(r), func(n model.Nav) bool { return n.Many })
		if len(single) == 0 {
			break
		}
		n := rapid.SampledFrom(single).Draw(g.t, "step")
		segments = append(segments, n.Name)
		r, _ = model.ResourceNamed(n.To)
	}
	c := rapid.SampledFrom([]class{numeric, textual, logical, temporal}).Draw(g.t, "class")
	return query.Path{Segments: append(segments, g.field(r, c))}
}

// within is where names are looked up: the resource, and variables of lambdas.
type within struct {
	it   model.Resource
	vars map[string]model.Resource
}

// field is a field of a class, or one that every resource has.
func (g *generator) field(r model.Resource, c class) string {
	all := []string{map[class]string{numeric: "id", temporal: "created_at"}[c]}
	for _, f := range r.Fields {
		if is, ok := classOf(f); ok && is == c {
			all = append(all, f.Name)
		}
	}
	if name := rapid.SampledFrom(all).Draw(g.t, "field"); name != "" {
		return name
	}
	if len(all) > 1 {
		return all[1]
	}
	return "id" // no such field: its users compare numbers then
}

func classOf(f model.Field) (class, bool) {
	switch f.Kind {
	case model.Integer, model.BigInteger, model.Reference:
		return numeric, true
	case model.Boolean:
		return logical, true
	case model.Date:
		return temporal, true
	case model.Text:
		return textual, true
	case model.JSON, model.Version, model.Location:
	}
	return 0, false
}

// start is where a path begins: nothing, or a variable.
func (g *generator) start(s within) ([]string, model.Resource) {
	all := []string{""}
	for name := range s.vars {
		all = append(all, name)
	}
	slices.Sort(all)
	name := rapid.SampledFrom(all).Draw(g.t, "variable")
	if name == "" {
		return nil, s.it
	}
	return []string{name}, s.vars[name]
}

// steps follows some navigations.
func (g *generator) steps(s within, least, most int) ([]string, model.Resource) {
	segments, r := g.start(s)
	for range rapid.IntRange(least, most).Draw(g.t, "steps") {
		all := navs(r)
		if len(all) == 0 {
			break
		}
		n := rapid.SampledFrom(all).Draw(g.t, "step")
		segments = append(segments, n.Name)
		r, _ = model.ResourceNamed(n.To)
	}
	return segments, r
}

// operand is a path to a field of a class, and the class of what it is.
func (g *generator) operand(s within, c class) (query.Expr, class) {
	segments, r := g.steps(s, 0, 2)
	name := g.field(r, c)
	f, _ := r.Field(name)
	is, _ := classOf(f)
	return query.Path{Segments: append(segments, name)}, is
}

func (g *generator) literal(c class) query.Literal {
	return query.Literal{Value: rapid.SampledFrom(g.pool[c]).Draw(g.t, "literal")}
}

// value is an expression of a class, or a path of another: which one it is.
func (g *generator) value(s within, c class, depth int) (query.Expr, class) {
	if depth > 0 && g.chance(3, "function") {
		switch c {
		case textual:
			return g.textual(s, depth)
		case numeric:
			return g.numeric(s, depth)
		case temporal:
			if x, is := g.operand(s, temporal); is == temporal {
				return query.Call{Name: "date", Args: []query.Expr{x}}, temporal
			}
		case logical:
			return g.condition(s, depth-1), logical
		}
	}
	return g.operand(s, c)
}

func (g *generator) textual(s within, depth int) (query.Expr, class) {
	x, is := g.value(s, textual, depth-1)
	if is != textual {
		return x, is
	}
	switch name := rapid.SampledFrom([]string{"tolower", "toupper", "trim", "concat", "substring"}).Draw(g.t, "function"); name {
	case "concat":
		return query.Call{Name: name, Args: []query.Expr{x, g.literal(textual)}}, textual
	case "substring":
		args := []query.Expr{x, query.Literal{Value: rapid.Int64Range(0, 3).Draw(g.t, "from")}}
		if g.chance(2, "to") {
			args = append(args, query.Literal{Value: rapid.Int64Range(0, 3).Draw(g.t, "length")})
		}
		return query.Call{Name: name, Args: args}, textual
	default:
		return query.Call{Name: name, Args: []query.Expr{x}}, textual
	}
}

func (g *generator) numeric(s within, depth int) (query.Expr, class) {
	switch rapid.IntRange(0, 4).Draw(g.t, "number") {
	case 0:
		if segments, _ := g.steps(s, 1, 2); len(segments) > 0 && s.vars[segments[len(segments)-1]].Name == "" {
			return query.Count{Path: query.Path{Segments: segments}}, numeric
		}
	case 1:
		if x, is := g.value(s, textual, depth-1); is == textual {
			return query.Call{Name: "length", Args: []query.Expr{x}}, numeric
		}
	case 2:
		if x, is := g.operand(s, temporal); is == temporal {
			return query.Call{Name: rapid.SampledFrom([]string{"year", "month", "day", "hour", "minute", "second"}).Draw(g.t, "part"), Args: []query.Expr{x}}, numeric
		}
	case 3:
		x, _ := g.operand(s, numeric)
		return query.Call{Name: rapid.SampledFrom([]string{"round", "floor", "ceiling"}).Draw(g.t, "rounding"),
			Args: []query.Expr{query.Binary{Op: query.Div, Left: query.Binary{Op: query.Sub, Left: x, Right: query.Literal{Value: int64(9)}}, Right: query.Literal{Value: int64(2)}}}}, numeric
	}
	x, _ := g.operand(s, numeric)
	op := rapid.SampledFrom([]query.Op{query.Add, query.Sub, query.Mul, query.Div, query.Mod}).Draw(g.t, "arithmetic")
	return query.Binary{Op: op, Left: x, Right: query.Literal{Value: rapid.Int64Range(-3, 9).Draw(g.t, "by")}}, numeric
}

func (g *generator) condition(s within, depth int) query.Expr {
	kind := rapid.IntRange(0, 9).Draw(g.t, "condition")
	if depth == 0 {
		kind += 5
	}
	switch kind {
	case 0:
		return query.Not{X: g.condition(s, depth-1)}
	case 1, 2:
		op := rapid.SampledFrom([]query.Op{query.And, query.Or}).Draw(g.t, "operator")
		return query.Binary{Op: op, Left: g.condition(s, depth-1), Right: g.condition(s, depth-1)}
	case 3, 4:
		return g.lambda(s, depth)
	case 5:
		return g.text(s, depth)
	case 6:
		return g.membership(s, depth)
	}
	return g.comparison(s, max(depth, 1))
}

func (g *generator) lambda(s within, depth int) query.Expr {
	segments, r := g.steps(s, 1, 2)
	if len(segments) == 0 || len(segments) == 1 && s.vars[segments[0]].Name != "" {
		return query.Literal{Value: true}
	}
	g.vars++
	l := query.Lambda{Path: query.Path{Segments: segments}, All: g.chance(3, "all"), Var: fmt.Sprint("x", g.vars)}
	vars := map[string]model.Resource{l.Var: r}
	for name, v := range s.vars {
		vars[name] = v
	}
	if l.All || !g.chance(5, "no body") {
		l.Body = g.condition(within{s.it, vars}, depth-1)
	} else {
		l.Var = ""
	}
	return l
}

func (g *generator) text(s within, depth int) query.Expr {
	x, is := g.value(s, textual, depth)
	if is != textual {
		return query.Binary{Op: query.Ne, Left: x, Right: query.Literal{}}
	}
	name := rapid.SampledFrom([]string{"startswith", "endswith", "contains", "substringof"}).Draw(g.t, "function")
	if g.chance(2, "indexof") {
		return query.Binary{Op: query.Ge, Left: query.Call{Name: "indexof", Args: []query.Expr{x, g.literal(textual)}}, Right: query.Literal{Value: int64(0)}}
	}
	return query.Call{Name: name, Args: []query.Expr{x, g.literal(textual)}}
}

func (g *generator) membership(s within, depth int) query.Expr {
	x, is := g.value(s, rapid.SampledFrom([]class{numeric, textual, logical, temporal}).Draw(g.t, "class"), depth)
	in := query.In{X: x}
	for range rapid.IntRange(1, 5).Draw(g.t, "values") {
		in.Values = append(in.Values, g.literal(is))
	}
	if g.chance(4, "null") {
		in.Values = append(in.Values, query.Literal{})
	}
	return in
}

func (g *generator) comparison(s within, depth int) query.Expr {
	left, is := g.value(s, rapid.SampledFrom([]class{numeric, textual, logical, temporal}).Draw(g.t, "class"), depth)
	ops := []query.Op{query.Eq, query.Ne, query.Gt, query.Ge, query.Lt, query.Le}
	if is == logical {
		ops = ops[:2]
	}
	b := query.Binary{Op: rapid.SampledFrom(ops).Draw(g.t, "operator"), Left: left}
	switch rapid.IntRange(0, 5).Draw(g.t, "right") {
	case 0, 2:
		right, other := g.value(s, is, rapid.IntRange(0, 1).Draw(g.t, "depth"))
		if other == is {
			b.Right = right
			return b
		}
	case 1:
		b.Right = query.Literal{}
		return b
	}
	b.Right = g.literal(is)
	if g.chance(4, "the other way round") {
		b.Left, b.Right = b.Right, b.Left
	}
	return b
}
