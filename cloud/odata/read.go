package odata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/model"
	"deckhand/cloud/odata/query"
)

// batch is how many parents one query of an expansion asks for.
const batch = 2048

// errNothing says that the caller may see nothing of a resource: answer 401.
var errNothing = errors.New("nothing of this may be seen")

// read answers a GET for a caller: the JSON of the whole answer. Errors:
// *query.Error (400), *model.TooMuchError (413), errNothing (401).
func (o *OData) read(ctx context.Context, caller access.Caller, resources map[string]model.Resource, r query.Request) ([]byte, error) {
	c := o.compiler(caller, resources)
	resource, err := c.find(r)
	if err != nil {
		return nil, err
	}
	if resource.Elsewhere {
		return elsewhere(caller, r)
	}
	rd := &reader{compiler: c, from: o.db, budget: model.NewBudget()}
	t := row{resource, "t"}
	visible, ok := rd.visible(t, access.Read)
	if !ok {
		return nil, errNothing
	}
	matching, err := rd.matching(t, r.Key, r.Options.Filter)
	if err != nil {
		return nil, err
	}
	where := joined("AND", []fragment{visible, matching})
	if r.Count {
		n, err := o.db.Count(ctx, resource, "WHERE "+where.sql, where.args...)
		return fmt.Appendf(nil, `{"d":%d}`, n), err
	}
	var rows [][]byte
	if len(r.Options.Expand) == 0 {
		rows, err = rd.roots(ctx, t, where, r.Options)
	} else {
		err = o.db.Moment(ctx, func(from model.Reader) (err error) {
			rd.from = from
			rows, err = rd.roots(ctx, t, where, r.Options)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	return slices.Concat([]byte(`{"d":[`), bytes.Join(rows, []byte(",")), []byte(`]}`)), nil
}

// find finds the resource of a request.
func (c *compiler) find(r query.Request) (model.Resource, error) {
	resource, ok := c.resources[r.Resource]
	if !ok {
		return resource, refuse("There is no resource %q here.", r.Resource)
	}
	return resource, nil
}

// elsewhere answers for what only a hosted product has.
func elsewhere(caller access.Caller, r query.Request) ([]byte, error) {
	switch {
	case caller.Role == access.Guest:
		return nil, errNothing
	case r.Count:
		return []byte(`{"d":0}`), nil
	}
	return []byte(`{"d":[]}`), nil
}

func (o *OData) compiler(caller access.Caller, resources map[string]model.Resource) *compiler {
	return &compiler{caller: caller, resources: resources, postgres: o.db.Postgres(), now: o.db.Now()}
}

// reader reads the rows of one request.
type reader struct {
	*compiler
	from   model.Reader
	budget *model.Budget
}

// shape is what is read of the rows of one level.
type shape struct {
	row
	fields []model.Field // shown
	expand []expansion
}

// expansion is one $expand of a level.
type expansion struct {
	query.Expand
	nav   model.Nav
	to    model.Resource
	local model.Field // read with each row, to find what belongs to it
}

// shape resolves $select and $expand.
func (rd *reader) shape(r row, o query.Options) (shape, error) {
	s := shape{row: r}
	for _, e := range o.Expand {
		n, ok := r.resource.Nav(e.Nav)
		if !ok {
			return s, refuse("%s has no navigation %q to expand.", r.resource.Name, e.Nav)
		}
		to, ok := rd.resources[n.To]
		local, has := r.resource.Field(n.Local)
		if !ok || !has {
			return s, fmt.Errorf("%s/%s leads nowhere", r.resource.Name, n.Name)
		}
		s.expand = append(s.expand, expansion{e, n, to, local})
	}
	if len(o.Select) == 0 {
		s.fields = r.resource.Fields
		return s, nil
	}
	for _, name := range o.Select {
		f, err := selected(r.resource, name)
		switch {
		case slices.ContainsFunc(o.Expand, func(e query.Expand) bool { return e.Nav == name }):
			// The rows are shown in its place.
		case err != nil:
			return s, err
		case !slices.ContainsFunc(s.fields, func(had model.Field) bool { return had.Name == name }):
			s.fields = append(s.fields, f)
		}
	}
	return s, nil
}

// selected is a field by name, or by another name of a reference.
func selected(r model.Resource, name string) (model.Field, error) {
	if f, ok := r.Field(name); ok {
		return f, nil
	}
	n, ok := r.Nav(name)
	switch {
	case !ok:
		return model.Field{}, refuse("%s has no field %q.", r.Name, name)
	case n.Many:
		return model.Field{}, refuse("%s of %s is no field; ask for it with $expand.", name, r.Name)
	}
	f, _ := r.Field(n.Local)
	return model.Field{Name: name, Kind: model.Reference, Expression: f.SQL()}, nil
}

// columns are the SQL and the kinds of what a level reads: its fields, then
// what its expansions begin at.
func (s shape) columns() (sql []fragment, kinds []model.FieldKind) {
	for _, f := range s.fields {
		sql, kinds = append(sql, field(s.row, f)), append(kinds, f.Kind)
	}
	for _, e := range s.expand {
		sql, kinds = append(sql, field(s.row, e.local)), append(kinds, model.Integer)
	}
	return sql, kinds
}

// roots reads the rows of the request itself.
func (rd *reader) roots(ctx context.Context, t row, where fragment, o query.Options) ([][]byte, error) {
	s, err := rd.shape(t, o)
	if err != nil {
		return nil, err
	}
	q, kinds, err := rd.root(s, where, o)
	if err != nil {
		return nil, err
	}
	rows, err := rd.from.Read(ctx, model.Query{SQL: q.sql, Args: q.args, Kinds: kinds}, rd.budget)
	if err != nil {
		return nil, err
	}
	return rd.encode(ctx, s, rows)
}

// root compiles the query of the request itself.
func (rd *reader) root(s shape, where fragment, o query.Options) (fragment, []model.FieldKind, error) {
	order, err := rd.ordering(s.row, o.OrderBy)
	if err != nil {
		return never, nil, err
	}
	columns, kinds := s.columns()
	if len(columns) == 0 {
		columns, kinds = []fragment{plain("t.id")}, []model.FieldKind{model.Integer}
	}
	q := sqlf("SELECT %s FROM %s WHERE %s ORDER BY %s", list(columns), plain(`"`+s.resource.Name+`" t`), where, order)
	if o.Top != nil || o.Skip != nil {
		q = sqlf("%s %s", q, bound("LIMIT ? OFFSET ?", min(or(o.Top, model.MaxRows+1), model.MaxRows+1), or(o.Skip, 0)))
	}
	return q, kinds, nil
}

func or(n *int64, other int64) int64 {
	if n == nil {
		return other
	}
	return *n
}

// encode writes rows as JSON, with what belongs to them.
func (rd *reader) encode(ctx context.Context, s shape, rows [][]any) ([][]byte, error) {
	behind := make([]map[int64][]byte, len(s.expand))
	for i, e := range s.expand {
		var err error
		if behind[i], err = rd.rowsBehind(ctx, e, rows, len(s.fields)+i); err != nil {
			return nil, err
		}
	}
	out := make([][]byte, len(rows))
	for i, values := range rows {
		var b bytes.Buffer
		b.WriteByte('{')
		if err := s.write(&b, values, behind); err != nil {
			return nil, err
		}
		b.WriteByte('}')
		out[i] = b.Bytes()
		if err := rd.budget.Take(len(out[i])); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// write writes the members of one row: its fields in the order asked for, then
// the expansions; one of the same name stands for the field.
func (s shape) write(b *bytes.Buffer, values []any, behind []map[int64][]byte) error {
	expanded := func(i int) []byte {
		key, _ := values[len(s.fields)+i].(int64)
		if v, ok := behind[i][key]; ok {
			return v
		}
		if s.expand[i].Count {
			return []byte("0")
		}
		return []byte("[]")
	}
	member := func(name string, v []byte) {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(name) + ":")
		b.Write(v)
	}
	for i, f := range s.fields {
		if slices.ContainsFunc(s.expand, func(e expansion) bool { return e.nav.Name == f.Name }) {
			continue
		}
		v, err := answer.Marshal(shown(f, values[i]))
		if err != nil {
			return err
		}
		member(f.Name, v)
	}
	for i, e := range s.expand {
		member(e.nav.Name, expanded(i))
	}
	return nil
}

// rowsBehind reads what is behind a navigation of all rows, by where it begins.
func (rd *reader) rowsBehind(ctx context.Context, e expansion, rows [][]any, column int) (map[int64][]byte, error) {
	seen := map[int64]bool{}
	var ids []int64
	for _, values := range rows {
		if id, ok := values[column].(int64); ok && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	out := map[int64][]byte{}
	if e.to.Elsewhere {
		return out, nil
	}
	if len(ids) == 0 {
		return out, rd.check(e)
	}
	for part := range slices.Chunk(ids, batch) {
		if err := rd.children(ctx, e, part, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// check finds the mistakes of an expansion that no row needs: an answer must not
// depend on there being rows.
func (rd *reader) check(e expansion) error {
	defer func(before int) { rd.steps = before }(rd.steps)
	r := row{e.to, "t"}
	if _, err := rd.matching(r, nil, e.Options.Filter); err != nil {
		return err
	}
	if _, err := rd.ordering(r, e.Options.OrderBy); err != nil {
		return err
	}
	s, err := rd.shape(r, e.Options)
	for _, sub := range s.expand {
		if !sub.to.Elsewhere && err == nil {
			err = rd.check(sub)
		}
	}
	return err
}

// children reads what is behind a navigation of some rows, in one query.
func (rd *reader) children(ctx context.Context, e expansion, ids []int64, out map[int64][]byte) error {
	// Aliases are those of one query: the next begins again.
	defer func(before int) { rd.steps = before }(rd.steps)
	rd.steps++
	r := row{e.to, "t" + strconv.Itoa(rd.steps)}
	matching, err := rd.matching(r, nil, e.Options.Filter)
	if err != nil {
		return err
	}
	key := r.alias + `."` + e.nav.Remote + `"`
	where := joined("AND", []fragment{sqlf(key+" IN (%s)", marks(ids)), rd.reachable(r, e.nav), matching})
	from := plain(source(e.to, e.nav) + " " + r.alias)
	if e.Count {
		q := sqlf("SELECT "+key+", count(*) FROM %s WHERE %s GROUP BY "+key, from, where)
		return rd.counts(ctx, q, out)
	}
	s, err := rd.shape(r, e.Options)
	if err != nil {
		return err
	}
	order, err := rd.ordering(r, e.Options.OrderBy)
	if err != nil {
		return err
	}
	columns, kinds := s.columns()
	columns, kinds = append(columns, plain(key)), append(kinds, model.Integer)
	q := sqlf("SELECT %s FROM %s WHERE %s ORDER BY %s", list(columns), from, where, order)
	if e.Options.Top != nil || e.Options.Skip != nil {
		q = ranked(columns, key, from, where, order, e.Options)
	}
	rows, err := rd.from.Read(ctx, model.Query{SQL: q.sql, Args: q.args, Kinds: kinds}, rd.budget)
	if err != nil {
		return err
	}
	encoded, err := rd.encode(ctx, s, rows)
	if err != nil {
		return err
	}
	group(rows, encoded, out)
	return nil
}

// ranked reads $top and $skip rows of each parent.
func ranked(columns []fragment, key string, from, where, order fragment, o query.Options) fragment {
	var names string
	for i := range columns {
		columns[i].sql += " AS c" + strconv.Itoa(i)
		if i > 0 {
			names += ", "
		}
		names += "q.c" + strconv.Itoa(i)
	}
	skip := min(or(o.Skip, 0), 1<<40)
	return sqlf("SELECT "+names+" FROM (SELECT %s, row_number() OVER (PARTITION BY "+key+" ORDER BY %s) AS n FROM %s WHERE %s) q WHERE %s ORDER BY q.n",
		list(columns), order, from, where, bound("q.n > ? AND q.n <= ?", skip, skip+min(or(o.Top, 1<<40), 1<<40)))
}

// marks are ids as arguments. Their number is rounded up, so that a database
// which remembers its queries need not remember one for each number.
func marks(ids []int64) fragment {
	n := 1
	for n < len(ids) {
		n *= 2
	}
	all := make([]fragment, n)
	for i := range all {
		all[i] = bound("?", ids[min(i, len(ids)-1)])
	}
	return list(all)
}

func (rd *reader) counts(ctx context.Context, q fragment, out map[int64][]byte) error {
	rows, err := rd.from.Read(ctx, model.Query{SQL: q.sql, Args: q.args, Kinds: []model.FieldKind{model.Integer, model.Integer}}, rd.budget)
	for _, values := range rows {
		key, _ := values[0].(int64)
		n, _ := values[1].(int64)
		out[key] = strconv.AppendInt(nil, n, 10)
	}
	return err
}

// group collects encoded rows as an array for each parent, which is the last
// column.
func group(rows [][]any, encoded [][]byte, out map[int64][]byte) {
	of := map[int64][][]byte{}
	for i, values := range rows {
		key, _ := values[len(values)-1].(int64)
		of[key] = append(of[key], encoded[i])
	}
	for key, all := range of {
		out[key] = slices.Concat([]byte("["), bytes.Join(all, []byte(",")), []byte("]"))
	}
}

// selection is the rows that a request names and with which the caller may do
// something; false: there can be none of that resource.
func (c *compiler) selection(r query.Request, verb access.Verb) (model.Selection, bool, error) {
	resource, err := c.find(r)
	if err != nil {
		return model.Selection{}, false, err
	}
	t := row{resource, "t"}
	visible, ok := c.visible(t, verb)
	if !ok {
		return model.Selection{}, false, nil
	}
	matching, err := c.matching(t, r.Key, r.Options.Filter)
	where := joined("AND", []fragment{visible, matching})
	return model.Selection{SQL: where.sql, Args: where.args}, true, err
}

// whole is a row that was just written, with all its own fields.
func (o *OData) whole(ctx context.Context, resource model.Resource, id int64) ([]byte, error) {
	rows, err := o.db.Rows(ctx, resource, resource.Fields, "WHERE t.id = ?", id)
	if err != nil || len(rows) == 0 {
		return nil, errors.Join(err, fmt.Errorf("read %s %d after writing it", resource.Name, id))
	}
	return encode(resource.Fields, rows[0])
}

// canAccess answers whether the caller may do something with the row of a key:
// its id, or nothing.
func (o *OData) canAccess(ctx context.Context, c *compiler, r query.Request, action string) ([]byte, error) {
	verb, ok := verbs(action)
	if !ok {
		return nil, errNothing
	}
	where, ok, err := c.selection(r, verb)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, errNothing
	}
	rows, err := o.db.Rows(ctx, c.resources[r.Resource], []model.Field{{Name: "id", Kind: model.Integer}}, "WHERE "+where.SQL, where.Args...)
	if err != nil {
		return nil, err
	}
	if len(rows) == 0 {
		return nil, errNothing
	}
	return fmt.Appendf(nil, `{"d":[{"id":%d}]}`, rows[0][0]), nil
}

// verbs is what is done by an action that clients ask for.
func verbs(action string) (access.Verb, bool) {
	switch {
	case action == "read" || action == "update" || action == "delete":
		return access.Verb(action), true
	case strings.HasPrefix(action, "tunnel"):
		return access.Tunnel, true
	case action == "supervisor-proxy-write":
		return access.Operate, true
	case action == "write-log":
		return access.Log, true
	}
	return "", false
}
