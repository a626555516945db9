package model

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"deckhand/cloud/access"
)

// Rows that one request writes go through their rules together: each statement is
// for all of them, and what holds for all is asked once. A request may be for ten
// thousand devices, and they are locked until it is done.

// each takes one row after the other.
func each(do hook) hooks {
	return func(ctx context.Context, t *txn, rows []*write) error {
		for _, w := range rows {
			if err := do(ctx, t, w); err != nil {
				return err
			}
		}
		return nil
	}
}

// portions are the rows that go through their rules together: all, or one after
// the other.
func (r rules) portions(rows []*write) func(yield func([]*write) bool) {
	size := 1
	if r.together {
		size = max(len(rows), 1)
	}
	return slices.Chunk(rows, size)
}

// writes begins a write of each row that was selected.
func writes(by writer, verb access.Verb, rows []Values, set Values) []*write {
	all := make([]*write, len(rows))
	asked, known := names(set), facts{}
	for i, was := range rows {
		id, _ := was["id"].(int64)
		all[i] = &write{by: by, verb: verb, id: id, was: was, set: maps.Clone(set), asked: asked, facts: known}
	}
	return all
}

// facts are answers of the database that hold for all rows of a request. Only what
// the rows themselves do not change may be one.
type facts map[any]any

// fact asks for something that may be known from another row. The key is of a type
// of its own, which says what was asked about what.
func fact[T any](w *write, key any, ask func() (T, error)) (T, error) {
	if v, ok := w.facts[key].(T); ok {
		return v, nil
	}
	v, err := ask()
	if err == nil && w.facts != nil {
		w.facts[key] = v
	}
	return v, err
}

// idsOf are the ids of the rows for which a condition holds; nil: of all.
func idsOf(rows []*write, condition func(*write) bool) []int64 {
	var ids []int64
	for _, w := range rows {
		if condition == nil || condition(w) {
			ids = append(ids, w.id)
		}
	}
	return ids
}

// refsOf are the values of a reference, each one once.
func refsOf(rows []*write, field string) []int64 {
	ids := make([]int64, len(rows))
	for i, w := range rows {
		ids[i] = w.ref(field)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// among is the condition that a column has one of the ids, however many they are.
func (t *txn) among(column string, ids []int64) Selection {
	if len(ids) == 1 {
		return Selection{SQL: column + " = ?", Args: []any{ids[0]}}
	}
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = strconv.FormatInt(id, 10)
	}
	return Selection{SQL: column + t.dialect.inList, Args: []any{t.dialect.list[:1] + strings.Join(list, ",") + t.dialect.list[1:]}}
}

// updateRows sets the fields: with one statement for all rows that get the same.
func (t *txn) updateRows(ctx context.Context, table Resource, rows []*write) error {
	alike := map[string][]*write{}
	var order []string
	for _, w := range rows {
		key := ""
		if len(rows) > 1 {
			key = w.fingerprint()
		}
		if alike[key] == nil {
			order = append(order, key)
		}
		alike[key] = append(alike[key], w)
	}
	for _, key := range order {
		some := alike[key]
		columns, args := []string{"modified_at = ?"}, []any{millis(t.now)}
		for _, name := range slices.Sorted(maps.Keys(some[0].set)) {
			columns, args = append(columns, `"`+name+`" = ?`), append(args, stored(some[0].set[name]))
		}
		where := t.among("id", idsOf(some, nil))
		if _, err := t.ExecContext(ctx, `UPDATE "`+table.Name+`" SET `+strings.Join(columns, ", ")+` WHERE `+where.SQL, append(args, where.Args...)...); err != nil {
			return err
		}
	}
	return nil
}

// fingerprint is the same for rows that get the same.
func (w *write) fingerprint() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(w.set)) {
		fmt.Fprintf(&b, "%s %#v\n", name, stored(w.set[name]))
	}
	return b.String()
}

// deleteRows removes the rows, and the database what hangs on them.
func (t *txn) deleteRows(ctx context.Context, table string, ids []int64) error {
	where := t.among("id", ids)
	_, err := t.ExecContext(ctx, `DELETE FROM "`+table+`" WHERE `+where.SQL, where.Args...)
	return err
}
