package odata_test

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// oracle answers queries slowly, with loops over rows in memory. It shares
// nothing with the compiler but the descriptors, and the table of permissions.
type oracle struct {
	rows    map[string][]record // of each resource, by id
	visible map[string]map[int64]bool
	user    int64
	now     time.Time
}

// record is a row: values are nil, bool, int64, string, time.Time or a version.
type record map[string]any

func (r record) id() int64 {
	id, _ := r["id"].(int64)
	return id
}

// everything reads all rows of all resources.
func everything(t testing.TB, p *populated) map[string][]record {
	t.Helper()
	all := map[string][]record{}
	for _, r := range model.Resources() {
		if r.Elsewhere {
			continue
		}
		rows := must(p.DB.Rows(t.Context(), r, r.Fields, "ORDER BY t.id"))(t)
		for _, values := range rows {
			rec := record{}
			for i, f := range r.Fields {
				rec[f.Name] = values[i]
			}
			all[r.Name] = append(all[r.Name], rec)
		}
	}
	return all
}

func newOracle(p *populated, rows map[string][]record, c access.Caller) *oracle {
	o := &oracle{rows: rows, visible: map[string]map[int64]bool{}, now: p.DB.Now()}
	if c.Role == access.User {
		o.user = c.ID
	}
	for name := range rows {
		where, args, ok := access.Rows(c, name, access.Read)
		if !ok {
			continue
		}
		o.visible[name] = map[int64]bool{}
		for _, id := range p.ids(name, where, args...) {
			o.visible[name][id] = true
		}
	}
	return o
}

// at is a record and its resource.
type place struct {
	resource model.Resource
	record   record
}

// names are what paths begin at.
type names struct {
	it   place
	vars map[string]place
}

// follow is the visible rows behind a navigation.
func (o *oracle) follow(at place, n model.Nav) []place {
	to, _ := model.ResourceNamed(n.To)
	var all []place
	for _, rec := range o.rows[n.To] {
		if o.visible[n.To][rec.id()] && o.linked(at, n, rec) {
			all = append(all, place{to, rec})
		}
	}
	return all
}

func (o *oracle) linked(at place, n model.Nav, rec record) bool {
	switch n.Name {
	case "is_directly_accessible_by__user":
		org := at.record["organization"]
		return o.member(rec.id(), org) && o.member(o.user, org)
	case "device_service_environment_variable":
		if at.resource.Name != "device" {
			break
		}
		return slices.ContainsFunc(o.rows["service_install"], func(i record) bool {
			return i["id"] == rec["service_install"] && i["device"] == at.record["id"]
		})
	}
	local := at.record[n.Local]
	return local != nil && local == rec[n.Remote]
}

func (o *oracle) member(user int64, org any) bool {
	return slices.ContainsFunc(o.rows["organization_membership"], func(m record) bool {
		return m["user"] == user && m["is_member_of__organization"] == org
	})
}

// reach is where a path of navigations leads.
func (o *oracle) reach(s names, segments []string) []place {
	at := []place{s.it}
	if v, ok := s.vars[segments[0]]; ok {
		at, segments = []place{v}, segments[1:]
	}
	for _, name := range segments {
		var next []place
		for _, p := range at {
			n, _ := p.resource.Nav(name)
			next = append(next, o.follow(p, n)...)
		}
		at = next
	}
	return at
}

// values are what an expression can be: one value for each combination of rows
// that its paths lead to.
func (o *oracle) values(s names, e query.Expr) []any {
	switch e := e.(type) {
	case query.Literal:
		return []any{e.Value}
	case query.Path:
		return o.fields(s, e)
	case query.Count:
		n := int64(0)
		for _, p := range o.reach(s, e.Path.Segments) {
			if e.Filter == nil || o.holds(names{p, s.vars}, e.Filter) {
				n++
			}
		}
		return []any{n}
	case query.Call:
		return o.calls(s, e)
	case query.Binary:
		if slices.Contains([]query.Op{query.Add, query.Sub, query.Mul, query.Div, query.Mod}, e.Op) {
			return pairs(o.values(s, e.Left), o.values(s, e.Right), func(a, b any) any { return calculated(e.Op, a, b) })
		}
	case query.Not, query.In, query.Lambda:
	}
	return []any{o.holds(s, e)}
}

func pairs(left, right []any, do func(a, b any) any) []any {
	var all []any
	for _, a := range left {
		for _, b := range right {
			all = append(all, do(a, b))
		}
	}
	return all
}

func (o *oracle) fields(s names, p query.Path) []any {
	last := len(p.Segments) - 1
	at := []place{s.it}
	name := p.Segments[last]
	if v, ok := s.vars[name]; ok && last == 0 {
		at, name = []place{v}, "id"
	} else if last > 0 {
		at = o.reach(s, p.Segments[:last])
	}
	var all []any
	for _, r := range at {
		v, ok := r.record[name]
		n, _ := r.resource.Nav(name)
		switch {
		case ok:
			all = append(all, v)
		case !n.Many:
			all = append(all, r.record[n.Local])
		default:
			for _, b := range o.follow(r, n) {
				all = append(all, b.record.id())
			}
		}
	}
	return all
}

// calculated is the result of arithmetic.
func calculated(op query.Op, a, b any) any {
	if a == nil || b == nil {
		return nil
	}
	x, xWhole := a.(int64)
	y, yWhole := b.(int64)
	f, g := float(a), float(b)
	switch op {
	case query.Add:
		return f + g
	case query.Sub:
		return f - g
	case query.Mul:
		return f * g
	case query.Mod:
		if y == 0 {
			return nil
		}
		return x % y
	}
	switch {
	case g == 0:
		return nil
	case xWhole && yWhole:
		return x / y
	}
	return f / g
}

func float(v any) float64 {
	switch v := v.(type) {
	case int64:
		return float64(v)
	case float64:
		return v
	}
	return 0
}

func (o *oracle) calls(s names, c query.Call) []any {
	arguments := [][]any{{}}
	for _, arg := range c.Args {
		var next [][]any
		for _, v := range o.values(s, arg) {
			for _, before := range arguments {
				next = append(next, append(slices.Clone(before), v))
			}
		}
		arguments = next
	}
	var all []any
	for _, args := range arguments {
		if slices.Contains(args, nil) {
			all = append(all, nil)
			continue
		}
		all = append(all, o.called(c.Name, args))
	}
	return all
}

func ascii(s string, from, to byte) string {
	b := []byte(s)
	for i, c := range b {
		if c >= from && c <= to {
			b[i] = c ^ 0x20
		}
	}
	return string(b)
}

func (o *oracle) called(name string, args []any) any {
	if len(args) == 0 {
		return o.now
	}
	if t, ok := args[0].(time.Time); ok {
		return dated(name, t)
	}
	if _, ok := args[0].(string); !ok {
		x := float(args[0])
		return map[string]float64{"round": math.Round(x), "floor": math.Floor(x), "ceiling": math.Ceil(x)}[name]
	}
	a, b := args[0].(string), ""
	if len(args) > 1 {
		b, _ = args[1].(string)
	}
	switch name {
	case "startswith":
		return strings.HasPrefix(a, b)
	case "endswith":
		return strings.HasSuffix(a, b)
	case "contains":
		return strings.Contains(a, b)
	case "substringof":
		return strings.Contains(b, a)
	case "concat":
		return a + b
	case "indexof":
		i := strings.Index(a, b)
		return int64(len([]rune(a[:max(i, 0)]))) + int64(min(i, 0))
	case "tolower":
		return ascii(a, 'A', 'Z')
	case "toupper":
		return ascii(a, 'a', 'z')
	case "trim":
		return strings.Trim(a, " ")
	case "length":
		return int64(len([]rune(a)))
	}
	runes := []rune(a) // substring
	from := min(int(float(args[1])), len(runes))
	to := len(runes)
	if len(args) > 2 {
		to = min(to, from+int(float(args[2])))
	}
	return string(runes[from:to])
}

func dated(name string, t time.Time) any {
	t = t.UTC()
	if name == "date" {
		return t.Truncate(24 * time.Hour)
	}
	return map[string]int64{"year": int64(t.Year()), "month": int64(t.Month()), "day": int64(t.Day()),
		"hour": int64(t.Hour()), "minute": int64(t.Minute()), "second": int64(t.Second())}[name]
}

// holds says whether a condition is true.
func (o *oracle) holds(s names, e query.Expr) bool {
	switch e := e.(type) {
	case query.Binary:
		switch e.Op {
		case query.And:
			return o.holds(s, e.Left) && o.holds(s, e.Right)
		case query.Or:
			return o.holds(s, e.Left) || o.holds(s, e.Right)
		default:
			return slices.Contains(pairs(o.values(s, e.Left), o.values(s, e.Right), func(a, b any) any { return satisfied(e.Op, a, b) }), any(true))
		}
	case query.Not:
		return !o.holds(s, e.X)
	case query.In:
		return slices.ContainsFunc(o.values(s, e.X), func(v any) bool {
			return slices.ContainsFunc(e.Values, func(l query.Literal) bool { return satisfied(query.Eq, v, l.Value) })
		})
	case query.Lambda:
		is := func(p place) bool {
			if e.Body == nil {
				return true
			}
			vars := map[string]place{e.Var: p}
			for name, v := range s.vars {
				if name != e.Var {
					vars[name] = v
				}
			}
			return o.holds(names{s.it, vars}, e.Body)
		}
		all := o.reach(s, e.Path.Segments)
		if e.All {
			return !slices.ContainsFunc(all, func(p place) bool { return !is(p) })
		}
		return slices.ContainsFunc(all, is)
	case query.Literal, query.Path, query.Call, query.Count:
	}
	return slices.Contains(o.values(s, e), any(true))
}

// satisfied compares two values. Only null equals null.
func satisfied(op query.Op, a, b any) bool {
	if a == nil || b == nil {
		return op == query.Eq && a == b || op == query.Ne && a != b
	}
	c := compared(a, b)
	switch op {
	case query.Eq:
		return c == 0
	case query.Ne:
		return c != 0
	case query.Gt:
		return c > 0
	case query.Ge:
		return c >= 0
	case query.Lt:
		return c < 0
	}
	return c <= 0
}

func compared(a, b any) int {
	switch x := a.(type) {
	case string:
		y, _ := b.(string)
		if strings.Contains(x+y, "/v2/") { // locations are the same wherever the host is
			x, y = model.Repository(x), model.Repository(y)
		}
		return strings.Compare(x, y)
	case bool:
		if a == b {
			return 0
		}
		return map[bool]int{false: -1, true: 1}[x]
	case time.Time:
		y, _ := b.(time.Time)
		return x.Compare(y)
	}
	switch x, y := float(a), float(b); {
	case x < y:
		return -1
	case x > y:
		return 1
	}
	return 0
}

// answer is what a request to a resource must bring, as JSON would read it.
func (o *oracle) answer(r model.Resource, request query.Request) any {
	var all []place
	for _, rec := range o.rows[r.Name] {
		if o.visible[r.Name][rec.id()] {
			all = append(all, place{r, rec})
		}
	}
	if request.Count {
		return float64(len(o.chosen(all, query.Options{Filter: request.Options.Filter})))
	}
	return o.shown(o.chosen(all, request.Options), request.Options)
}

// chosen are the rows that options leave, in their order.
func (o *oracle) chosen(all []place, q query.Options) []place {
	all = slices.DeleteFunc(slices.Clone(all), func(p place) bool { return q.Filter != nil && !o.holds(names{it: p}, q.Filter) })
	slices.SortStableFunc(all, func(a, b place) int {
		for _, order := range q.OrderBy {
			if c := o.ordered(order, a, b); c != 0 {
				return c
			}
		}
		return compared(a.record.id(), b.record.id())
	})
	if q.Skip != nil {
		all = all[min(int(*q.Skip), len(all)):]
	}
	if q.Top != nil {
		all = all[:min(int(*q.Top), len(all))]
	}
	return all
}

// ordered compares two rows by one term: what is null is greatest.
func (o *oracle) ordered(by query.Order, a, b place) int {
	first := func(p place) any {
		if v := o.values(names{it: p}, by.By); len(v) > 0 {
			return v[0]
		}
		return nil
	}
	x, y := first(a), first(b)
	c := 0
	switch {
	case x == nil && y == nil:
	case x == nil:
		c = 1
	case y == nil:
		c = -1
	default:
		c = compared(x, y)
	}
	if by.Descending {
		c = -c
	}
	return c
}

func (o *oracle) shown(rows []place, q query.Options) any {
	out := []any{}
	for _, p := range rows {
		m := map[string]any{}
		for _, f := range p.resource.Fields {
			if len(q.Select) == 0 || slices.Contains(q.Select, f.Name) {
				m[f.Name] = written(f, p.record[f.Name])
			}
		}
		for _, e := range q.Expand {
			n, _ := p.resource.Nav(e.Nav)
			behind := o.chosen(o.follow(p, n), e.Options)
			if e.Count {
				m[e.Nav] = float64(len(behind))
			} else {
				m[e.Nav] = o.shown(behind, e.Options)
			}
		}
		out = append(out, m)
	}
	return out
}

// written is a value as it is read back from JSON.
func written(f model.Field, v any) any {
	var text []byte
	switch x := v.(type) {
	case time.Time:
		return x.Format("2006-01-02T15:04:05.000Z")
	case int64:
		switch f.Kind {
		case model.Reference:
			return map[string]any{"__id": float64(x)}
		case model.BigInteger:
			return fmt.Sprint(x)
		default:
			return float64(x)
		}
	case string:
		if f.Kind != model.JSON {
			return x
		}
		text = []byte(x)
	case map[string]any:
		text, _ = json.Marshal(x)
	default:
		return v
	}
	var out any
	if json.Unmarshal(text, &out) != nil {
		return nil
	}
	return out
}
