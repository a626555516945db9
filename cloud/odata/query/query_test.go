package query_test

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"deckhand/cloud/odata/query"
)

// What is printed is read as the same tree.
func TestPrintedTreesAreReadAgain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := request(t)
		text := want.String()
		path, raw, _ := strings.Cut(text, "?")
		got, err := query.Parse("POST", path, raw)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("%s\n%s", text, d)
		}
	})
}

var (
	names    = rapid.StringMatching(`[a-z][a-z0-9_]{0,5}x`) // none is an operator
	booleans = []query.Op{query.And, query.Or}
	compared = []query.Op{query.Eq, query.Ne, query.Gt, query.Ge, query.Lt, query.Le}
	sums     = []query.Op{query.Add, query.Sub, query.Mul, query.Div, query.Mod}
)

func request(t *rapid.T) query.Request {
	r := query.Request{Resource: names.Draw(t, "resource"), ReturnResource: rapid.Bool().Draw(t, "return")}
	switch rapid.IntRange(0, 4).Draw(t, "kind of path") {
	case 0:
		r.Key = []query.KeyPart{{Value: value(t)}}
	case 1:
		r.Key = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) query.KeyPart { return query.KeyPart{Name: names.Draw(t, "key"), Value: value(t)} }), 1, 3).Draw(t, "keys")
		if rapid.Bool().Draw(t, "action") {
			r.Action = names.Draw(t, "name of action")
		}
	case 2:
		r.Count = true
	}
	r.Options = options(t, 3)
	return r
}

func options(t *rapid.T, depth int) query.Options {
	var o query.Options
	if rapid.Bool().Draw(t, "select") {
		o.Select = rapid.SliceOfN(names, 1, 3).Draw(t, "fields")
	}
	if rapid.Bool().Draw(t, "filter") {
		o.Filter = expression(t, 4)
	}
	if rapid.Bool().Draw(t, "order") {
		o.OrderBy = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) query.Order {
			by := query.Expr(path(t))
			if rapid.Bool().Draw(t, "by count") {
				by = query.Count{Path: path(t)}
			}
			return query.Order{By: by, Descending: rapid.Bool().Draw(t, "descending")}
		}), 1, 3).Draw(t, "orders")
	}
	if rapid.Bool().Draw(t, "part") {
		o.Top = new(rapid.Int64Range(0, math.MaxInt64).Draw(t, "top"))
		o.Skip = new(rapid.Int64Range(0, 9).Draw(t, "skip"))
	}
	if depth > 0 {
		for _, nav := range rapid.SliceOfNDistinct(names, 0, 2, rapid.ID).Draw(t, "navigations") {
			o.Expand = append(o.Expand, query.Expand{Nav: nav, Count: rapid.Bool().Draw(t, "count"), Options: options(t, depth-1)})
		}
	}
	return o
}

func path(t *rapid.T) query.Path {
	return query.Path{Segments: rapid.SliceOfN(names, 1, 3).Draw(t, "path")}
}

func value(t *rapid.T) query.Literal {
	switch rapid.IntRange(0, 5).Draw(t, "kind of value") {
	case 0:
		return query.Literal{Value: rapid.Int64().Draw(t, "integer")}
	case 1:
		return query.Literal{Value: rapid.Float64Range(-1e12, 1e12).Draw(t, "number")}
	case 2:
		return query.Literal{Value: strings.ReplaceAll(rapid.String().Draw(t, "text"), "\x00", "")}
	case 3:
		return query.Literal{Value: rapid.Bool().Draw(t, "boolean")}
	case 4:
		return query.Literal{Value: time.UnixMilli(rapid.Int64Range(0, 4e12).Draw(t, "date")).UTC()}
	}
	return query.Literal{}
}

func expression(t *rapid.T, depth int) query.Expr {
	kind := 8
	if depth > 0 {
		kind = rapid.IntRange(0, 9).Draw(t, "kind of expression")
	}
	sub := func() query.Expr { return expression(t, depth-1) }
	switch kind {
	case 0:
		return query.Binary{Op: rapid.SampledFrom(booleans).Draw(t, "operator"), Left: sub(), Right: sub()}
	case 1:
		return query.Binary{Op: rapid.SampledFrom(compared).Draw(t, "operator"), Left: sub(), Right: sub()}
	case 2:
		return query.Binary{Op: rapid.SampledFrom(sums).Draw(t, "operator"), Left: sub(), Right: sub()}
	case 3:
		return query.Not{X: sub()}
	case 4:
		return query.In{X: sub(), Values: rapid.SliceOfN(rapid.Custom(value), 1, 3).Draw(t, "values")}
	case 5:
		c := query.Call{Name: names.Draw(t, "function")}
		for range rapid.IntRange(0, 2).Draw(t, "arguments") {
			c.Args = append(c.Args, sub())
		}
		return c
	case 6:
		l := query.Lambda{Path: path(t), All: rapid.Bool().Draw(t, "all")}
		if l.All || rapid.Bool().Draw(t, "body") {
			l.Var, l.Body = names.Draw(t, "variable"), sub()
		}
		return l
	case 7:
		c := query.Count{Path: path(t)}
		if rapid.Bool().Draw(t, "filtered") {
			c.Filter = sub()
		}
		return c
	case 8:
		return value(t)
	}
	return path(t)
}

func TestReading(t *testing.T) {
	for name, c := range map[string]struct {
		method, path, raw, want string
	}{
		"id":                      {"GET", "device(12)", "", "device(12)"},
		"path ends with a slash":  {"GET", "device/", "", "device"},
		"key with raw quotes":     {"GET", "device(uuid='ab%2Fc%2Bd')", "", "device(uuid='ab/c%2Bd')"},
		"key with encoded quotes": {"GET", "device(uuid=%27ab%27)", "", "device(uuid='ab')"},
		"composite key":           {"GET", "service(application=1,service_name='web')", "", "service(application=1,service_name='web')"},
		"alias in a key":          {"GET", "device(uuid=@u)", "@u='x'", "device(uuid='x')"},
		"alias of an id":          {"GET", "device(@id)", "@id=5", "device(5)"},
		"alias in a filter":       {"GET", "device", "$filter=uuid%20eq%20@u%20or%20id%20in%20(@n,2)&@u=%27x%27&@n=1", "device?$filter=uuid%20eq%20'x'%20or%20id%20in%20(1,2)"},
		"ampersand in a text":     {"GET", "device", "$filter=note%20eq%20'a%26b'", "device?$filter=note%20eq%20'a%26b'"},
		"equals in a text":        {"GET", "device", "$filter=note eq 'a=b'", "device?$filter=note%20eq%20'a=b'"},
		"plus in a text":          {"GET", "device", "$filter=note%20eq%20'a+b'", "device?$filter=note%20eq%20'a%2Bb'"},
		"plus for a space":        {"GET", "device", "$filter=id+eq+1", "device?$filter=id%20eq%201"},
		"encoded option name":     {"GET", "device", "%24top=1", "device?$top=1"},
		"ignored options":         {"GET", "device", "$count=true&$format=json&apikey=x&$select=*&$filter=", "device"},
		"nested options":          {"GET", "a", "$expand=b($select=id,c;$expand=d($top=1;$count=true),e/$count($filter=f%20eq%20';)');$orderby=x/y desc, z)", "a?$expand=b($select=id,c;$expand=d($top=1),e/$count($filter=f%20eq%20'%3B)');$orderby=x/y%20desc,z)"},
		"lambda":                  {"GET", "a", "$filter=b/c/any(x:x/d eq 1) and e/any() or f/all(y:true)", "a?$filter=b/c/any(x:x/d%20eq%201)%20and%20e/any()%20or%20f/all(y:true)"},
		"counts":                  {"GET", "a", "$filter=b/$count gt 0 and c/$count($filter=d eq -1) lt 2&$orderby=b/$count desc", "a?$filter=b/$count%20gt%200%20and%20c/$count($filter=d%20eq%20-1)%20lt%202&$orderby=b/$count%20desc"},
		"binding":                 {"GET", "a", "$filter=not b eq 1 add 2 mul 3 and (c or d) and e", "a?$filter=not%20b%20eq%201%20add%202%20mul%203%20and%20(c%20or%20d)%20and%20e"},
		"action":                  {"POST", "device(1)/canAccess", "", "device(1)/canAccess"},
		"short answer":            {"POST", "device", "returnResource=false", "device?returnResource=false"},
		"count":                   {"GET", "device/$count", "", "device/$count"},
		"count of a key":          {"GET", "device(1)/$count", "", "device(1)/$count"},
	} {
		got, err := query.Parse(c.method, c.path, c.raw)
		want := strings.ReplaceAll(c.want, "%3B", ";") // ";" in quotes needs no encoding
		if err != nil || got.String() != want {
			t.Errorf("%s: %s?%s\n got %s %v\nwant %s", name, c.path, c.raw, got, err, want)
		}
	}
}

func TestMistakesAreNamedWithTheirPosition(t *testing.T) {
	for text, want := range map[string]string{
		"":                                        "the path at position 0: got the end, want a resource",
		"device(1":                                "the path at position 8: got the end, want )",
		"device(nonsense)":                        "want a key: a number or field='value'",
		"device(uuid='x)":                         "position 12: a quote is not closed",
		"device(@x)":                              "the value of @x is not given",
		"device(1)/belongs_to__application":       "/belongs_to__application is not supported",
		"device/extra":                            "/extra is not supported",
		"device(1)x":                              "position 9: got x, want the end",
		"device?$filter=id eq":                    "$filter at position 5: got the end, want a value",
		"device?$filter=id eq 'x":                 "$filter at position 6: a quote is not closed",
		"device?$filter=(id eq 1":                 "got the end, want )",
		"device?$filter=id eq 1 id eq 2":          "position 8: got id, want the end",
		"device?$filter=id in ()":                 "position 7: got ), want a value",
		"device?$filter=id in (a)":                "got a, want a value",
		"device?$filter=and":                      "got and, want a value",
		"device?$filter=a eq 2026-01-02":          "position 9: got -01, want the end",
		"device?$filter=a eq 1.2.3":               `"1.2.3" is not a number`,
		"device?$filter=a eq datetime'soon'":      `"soon" is not a date`,
		"device?$filter=id eq 1; DROP TABLE x":    "position 7: got ;, want the end",
		"device?$filter=id eq 1 -- x":             `position 8: "-" is not a number`,
		"device?$filter=id eq \"x\"":              `position 6: unexpected '"'`,
		"device?$filter=a/all()":                  "got ), want a variable",
		"device?$filter=a/$count($top=1) gt 1":    "want $filter=",
		"device?$filter=a/any(x a eq 1)":          "got a, want :",
		"device?$select=a/b":                      "$expand=a($select=",
		"device?$select=a,":                       "got the end, want a field",
		"device?$orderby=a sideways":              "got sideways, want asc or desc",
		"device?$orderby=a/any(x:true)":           "order by a field",
		"device?$top=-1":                          "got -1, want a whole number",
		"device?$top=x":                           "got x, want a whole number",
		"device?$expand=a,a($select=id)":          "a is expanded twice",
		"device?$expand=a($select=id;$select=id)": "$select is given twice",
		"device?$expand=a($levels=2)":             "got $levels, want an option",
		"device?$expand=a/b":                      "with a($expand=",
		"device?$expand=a($select=id":             "got the end, want )",
		"device?$top=1&$top=2":                    "$top is given twice",
		"device?$search=x":                        "$search is not supported",
		"device?colour=red":                       "colour is not supported",
		"device?$filter=%zz":                      "invalid URL escape",
		"device?$filter=a eq '%ff'":               "not valid UTF-8",
		"device?$filter=a eq '%00'":               "zero byte",
		"device?@a=b":                             "@a at position 0: want one value",

		"device?$filter=" + strings.Repeat("(", 1000):                                                      "nested deeper than 50",
		"device?$filter=" + strings.Repeat("not ", 1000) + "a":                                             "nested deeper than 50",
		"device?$filter=" + strings.Repeat("f(", 1000):                                                     "nested deeper than 50",
		"device?$filter=" + strings.Repeat("a/any(x:", 1000):                                               "nested deeper than 50",
		"device?$filter=" + strings.Repeat("a/", 1000) + "a":                                               "longer than 50",
		"device?$filter=a in (" + strings.Repeat("1,", 20_000) + "1)":                                      "more than 10000 terms",
		"device?$filter=a" + strings.Repeat(" or a", 20_000):                                               "more than 10000 terms",
		"device?$expand=" + strings.Repeat("a($expand=", 1000):                                             "deeper than 10",
		"device?$expand=" + strings.Join(strings.Split(strings.Repeat("a", 30), ""), "b,") + "&$select=id": "expanded twice",
		"device?$filter=a eq '" + strings.Repeat("x", 300_000) + "'":                                       "longer than 262144 bytes",
	} {
		path, raw, _ := strings.Cut(text, "?")
		_, err := query.Parse("GET", path, raw)
		wrong, ok := errors.AsType[*query.Error](err)
		if !ok || !strings.Contains(wrong.Reason, want) {
			t.Errorf("%.80s: %v, want %s", text, err, want)
		}
	}
	if _, err := query.Parse("GET", "a", "$expand="+manyExpansions()); err == nil || !strings.Contains(err.Error(), "more than 100 expansions") {
		t.Error(err)
	}
}

func manyExpansions() string {
	var all []string
	for i := range 101 {
		all = append(all, "n"+strings.Repeat("x", i))
	}
	return strings.Join(all, ",")
}

// Whatever comes in, an error or a tree comes out, and the tree can be printed
// and read again.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"device(uuid='x')?$select=id&$expand=a($filter=b/any(x:x/c eq 1);$top=1)", "device/$count?$filter=not a in (1,'b') or c/$count gt 0",
		"a(@x)?@x=1", "a?$orderby=b/c desc,d/$count&$skip=1", "a?$filter=datetime'2026-01-02' lt b and contains(c,'d') eq true add 1.5",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, raw, _ := strings.Cut(s, "?")
		r, err := query.Parse("POST", path, raw)
		if err != nil {
			if _, ok := errors.AsType[*query.Error](err); !ok {
				t.Fatalf("%v is no *query.Error", err)
			}
			return
		}
		text := r.String()
		if len(text) > query.MaxLength {
			return // encoding made it longer
		}
		path, raw, _ = strings.Cut(text, "?")
		again, err := query.Parse("POST", path, raw)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if d := cmp.Diff(r, again); d != "" {
			t.Fatalf("%s\n%s", text, d)
		}
	})
}
