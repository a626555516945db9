package odata

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// refuse is a query that cannot be answered: its text goes to the client.
func refuse(format string, args ...any) error {
	return &query.Error{Reason: fmt.Sprintf(format, args...)}
}

// maxSteps is how many navigations one request may follow.
const maxSteps = 200

// compiler turns trees into SQL for one caller. Wherever a navigation leads,
// only the rows that the caller may read are there.
type compiler struct {
	caller    access.Caller
	resources map[string]model.Resource // those of a version of the API
	postgres  bool
	now       time.Time
	steps     int // navigations followed, and so the aliases given
}

// row is a row of a resource under an alias.
type row struct {
	resource model.Resource
	alias    string
}

// scope is what names stand for: fields of it, or the variables of lambdas.
type scope struct {
	it   row
	vars map[string]row
}

func (s scope) with(name string, r row) scope {
	vars := map[string]row{name: r}
	for k, v := range s.vars {
		if k != name {
			vars[k] = v
		}
	}
	return scope{s.it, vars}
}

// visible limits a row to what the caller may do something with; false:
// nothing of this resource.
func (c *compiler) visible(r row, verb access.Verb) (fragment, bool) {
	where, args, ok := access.Rows(c.caller, r.resource.Name, verb)
	if !ok {
		return never, false
	}
	limit := fragment{"(" + over(where, r.alias) + ")", args}
	if r.resource.Only != "" {
		limit = joined("AND", []fragment{limit, c.owned(over(r.resource.Only, r.alias))})
	}
	return limit, true
}

// owned is a condition in which each ? is the id of the user who asks.
func (c *compiler) owned(sql string) fragment {
	f := fragment{sql: "(" + sql + ")"}
	for range strings.Count(sql, "?") {
		f.args = append(f.args, c.user())
	}
	return f
}

// field is the SQL of a field of a row.
func field(r row, f model.Field) fragment { return plain(over(f.SQL(), r.alias)) }

// join is a navigation followed: what to read from, and the condition.
type join struct {
	to    row
	from  string
	where fragment
}

// follow leads from a row over a navigation.
func (c *compiler) follow(r row, n model.Nav) (join, error) {
	if c.steps++; c.steps > maxSteps {
		return join{}, refuse("The query follows more than %d navigations.", maxSteps)
	}
	to, ok := c.resources[n.To]
	if !ok {
		return join{}, fmt.Errorf("%s/%s leads to %s, which there is not", r.resource.Name, n.Name, n.To)
	}
	j := join{to: row{to, "t" + strconv.Itoa(c.steps)}}
	local, ok := r.resource.Field(n.Local)
	if !ok {
		return join{}, fmt.Errorf("%s/%s begins at %s, which there is not", r.resource.Name, n.Name, n.Local)
	}
	j.from = source(to, n) + " " + j.to.alias
	j.where = joined("AND", []fragment{plain(j.to.alias + `."` + n.Remote + `" = ` + over(local.SQL(), r.alias)), c.reachable(j.to, n)})
	if to.Elsewhere {
		j.from, j.where = `(SELECT 0 AS id) `+j.to.alias, never
	}
	return j, nil
}

// source is what the rows behind a navigation are read from.
func source(to model.Resource, n model.Nav) string {
	if n.From != "" {
		return n.From
	}
	return `"` + to.Name + `"`
}

// reachable is what holds for a row behind a navigation, besides the link.
func (c *compiler) reachable(to row, n model.Nav) fragment {
	where, _ := c.visible(to, access.Read)
	if n.Where == "" {
		return where
	}
	return joined("AND", []fragment{where, c.owned(behind(n.Where, to.alias))})
}

// user is the id of the user who asks; 0: it is not a user.
func (c *compiler) user() int64 {
	if c.caller.Role == access.User || c.caller.Role == access.UserKey {
		return c.caller.ID
	}
	return 0
}

// through is where a path leads: the joins on the way, the row before the last
// name, and the last name, which is empty when the path is a variable alone.
func (c *compiler) through(s scope, segments []string) (joins []join, at row, last string, err error) {
	at = s.it
	if r, ok := s.vars[segments[0]]; ok {
		at, segments = r, segments[1:]
	}
	for len(segments) > 1 {
		n, ok := at.resource.Nav(segments[0])
		if !ok {
			return nil, at, "", refuse("%s has no navigation %q.", at.resource.Name, segments[0])
		}
		j, err := c.follow(at, n)
		if err != nil {
			return nil, at, "", err
		}
		joins, at, segments = append(joins, j), j.to, segments[1:]
	}
	if len(segments) == 1 {
		last = segments[0]
	}
	return joins, at, last, nil
}

// rows is where a path of navigations leads.
func (c *compiler) rows(s scope, p query.Path) ([]join, row, error) {
	joins, at, last, err := c.through(s, p.Segments)
	if err != nil {
		return nil, at, err
	}
	n, ok := at.resource.Nav(last)
	if !ok {
		return nil, at, refuse("%s has no navigation %q.", at.resource.Name, last)
	}
	j, err := c.follow(at, n)
	return append(joins, j), j.to, err
}

// exists is true when there are rows over the joins for which a condition holds.
func exists(joins []join, condition fragment) fragment {
	if len(joins) == 0 {
		return condition
	}
	from, where := sources(joins, condition)
	return sqlf("EXISTS (SELECT 1 FROM %s WHERE %s)", from, where)
}

// sources are FROM and WHERE of joins.
func sources(joins []join, condition fragment) (from, where fragment) {
	froms, wheres := make([]fragment, len(joins)), make([]fragment, len(joins))
	for i, j := range joins {
		froms[i], wheres[i] = plain(j.from), j.where
	}
	return list(froms), joined("AND", append(wheres, condition))
}

// condition compiles a tree that is true or false. A result of NULL is false.
func (c *compiler) condition(s scope, e query.Expr) (fragment, error) {
	switch e := e.(type) {
	case query.Binary:
		switch e.Op {
		case query.And, query.Or:
			return c.chain(s, e)
		case query.Eq, query.Ne, query.Gt, query.Ge, query.Lt, query.Le:
			return c.leaf(func(joins *[]join) (fragment, error) { return c.comparison(s, e, joins) })
		case query.Add, query.Sub, query.Mul, query.Div, query.Mod:
		}
	case query.Not:
		of, err := c.condition(s, e.X)
		return sqlf("(NOT coalesce(%s, FALSE))", of), err
	case query.In:
		return c.leaf(func(joins *[]join) (fragment, error) { return c.membership(s, e, joins) })
	case query.Lambda:
		return c.lambda(s, e)
	case query.Literal:
		if b, ok := e.Value.(bool); ok && b {
			return always, nil
		} else if ok {
			return never, nil
		}
	case query.Call, query.Path:
		return c.leaf(func(joins *[]join) (fragment, error) { return c.truth(s, e, joins) })
	case query.Count:
	}
	return never, refuse("%s is neither true nor false.", query.Print(e))
}

// leaf compiles a comparison in whose paths there may be navigations: it is true
// when it is for some of the rows that they lead to.
func (c *compiler) leaf(compile func(joins *[]join) (fragment, error)) (fragment, error) {
	var joins []join
	condition, err := compile(&joins)
	if err != nil {
		return never, err
	}
	return exists(joins, condition), nil
}

// chain compiles "a and b and c".
func (c *compiler) chain(s scope, e query.Binary) (fragment, error) {
	var parts []fragment
	var last query.Expr = e
	for {
		b, ok := last.(query.Binary)
		if !ok || b.Op != e.Op {
			break
		}
		right, err := c.condition(s, b.Right)
		if err != nil {
			return never, err
		}
		parts, last = append(parts, right), b.Left
	}
	first, err := c.condition(s, last)
	if err != nil {
		return never, err
	}
	parts = append(parts, first)
	for i, j := 0, len(parts)-1; i < j; i, j = i+1, j-1 {
		parts[i], parts[j] = parts[j], parts[i]
	}
	return joined(strings.ToUpper(string(e.Op)), parts), nil
}

// truth compiles a field or function that is true or false by itself.
func (c *compiler) truth(s scope, e query.Expr, joins *[]join) (fragment, error) {
	v, err := c.value(s, e, joins)
	if err != nil {
		return never, err
	}
	if v.class != boolean {
		return never, refuse("%s is neither true nor false.", query.Print(e))
	}
	return v.fragment, nil
}

func (c *compiler) lambda(s scope, e query.Lambda) (fragment, error) {
	joins, r, err := c.rows(s, e.Path)
	if err != nil {
		return never, err
	}
	body := always
	if e.Body != nil {
		if body, err = c.condition(s.with(e.Var, r), e.Body); err != nil {
			return never, err
		}
	}
	if e.All {
		return sqlf("(NOT %s)", exists(joins, sqlf("NOT coalesce(%s, FALSE)", body))), nil
	}
	return exists(joins, body), nil
}

// keyed compiles the key of a request.
func (c *compiler) keyed(r row, key []query.KeyPart) (fragment, error) {
	if !isKey(r.resource, key) {
		return never, refuse("%s has no such key; its keys are %s. Use $filter.", r.resource.Name, keys(r.resource))
	}
	var parts []fragment
	for _, k := range key {
		name := k.Name
		if name == "" {
			name = "id"
		}
		equal, err := c.condition(scope{it: r}, query.Binary{Op: query.Eq, Left: query.Path{Segments: []string{name}}, Right: k.Value})
		if err != nil {
			return never, err
		}
		parts = append(parts, equal)
	}
	return joined("AND", parts), nil
}

func isKey(r model.Resource, key []query.KeyPart) bool {
	given := map[string]bool{}
	for _, k := range key {
		given[k.Name] = true
	}
	if len(given) != len(key) {
		return false
	}
	if len(key) == 1 && (given[""] || given["id"]) {
		return true
	}
	for _, fields := range r.Keys {
		fits := len(fields) == len(key)
		for _, f := range fields {
			fits = fits && given[f]
		}
		if fits {
			return true
		}
	}
	return false
}

func keys(r model.Resource) string {
	all := []string{"id"}
	for _, fields := range r.Keys {
		all = append(all, strings.Join(fields, "+"))
	}
	return strings.Join(all, ", ")
}

// matching is the condition of a request's key and filter.
func (c *compiler) matching(r row, key []query.KeyPart, filter query.Expr) (fragment, error) {
	parts := []fragment{always}
	if len(key) > 0 {
		k, err := c.keyed(r, key)
		if err != nil {
			return never, err
		}
		parts = append(parts, k)
	}
	if filter != nil {
		f, err := c.condition(scope{it: r}, filter)
		if err != nil {
			return never, err
		}
		parts = append(parts, f)
	}
	return joined("AND", parts), nil
}

// ordering compiles $orderby; rows that are equal come by id.
func (c *compiler) ordering(r row, orders []query.Order) (fragment, error) {
	var terms []fragment
	for _, o := range orders {
		by, nullable, err := c.sortKey(r, o.By)
		if err != nil {
			return never, err
		}
		direction := " ASC"
		if o.Descending {
			direction = " DESC"
		}
		if nullable { // the databases differ
			direction += map[bool]string{false: " NULLS LAST", true: " NULLS FIRST"}[o.Descending]
		}
		by.sql += direction
		terms = append(terms, by)
	}
	return list(append(terms, plain(r.alias+".id"))), nil
}

func (c *compiler) sortKey(r row, e query.Expr) (by fragment, nullable bool, err error) {
	if n, ok := e.(query.Count); ok {
		v, err := c.count(scope{it: r}, n)
		return v.fragment, false, err
	}
	p, ok := e.(query.Path)
	if !ok {
		return never, false, refuse("$orderby takes a field, nav/field or nav/$count.")
	}
	at := r.resource
	for _, segment := range p.Segments[:len(p.Segments)-1] {
		n, ok := at.Nav(segment)
		if !ok || n.Many {
			return never, false, refuse("$orderby: %s/%s does not lead to one row.", at.Name, segment)
		}
		at = c.resources[n.To]
	}
	var joins []join
	v, err := c.path(scope{it: r}, p, &joins)
	switch {
	case err != nil:
		return never, false, err
	case v.class == opaque:
		return never, false, refuse("$orderby: %s has no order.", query.Print(p))
	case len(joins) == 0:
		last := p.Segments[0]
		return c.sortable(v), last != "id" && last != "created_at", nil
	}
	from, where := sources(joins, always)
	return sqlf("(SELECT %s FROM %s WHERE %s)", c.sortable(v), from, where), true, nil
}

// sortable is a value whose order is the same everywhere.
func (c *compiler) sortable(v value) fragment {
	if v.class == text {
		return c.binary(v.fragment)
	}
	return v.fragment
}

// binary is a text that compares by code points, with letters being those of
// ASCII. Columns do so already, what is calculated may not.
func (c *compiler) binary(f fragment) fragment {
	if c.postgres {
		return sqlf(`(%s) COLLATE "C"`, f)
	}
	return f
}
