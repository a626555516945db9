package model

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"deckhand/cloud/access"
)

// Values are fields of a row to be: field name → nil, bool, int64, float64,
// string, time.Time, json.RawMessage, AssetFile or PasswordHash, each of the
// field's kind already.
type Values map[string]any

// Selection is which rows a write concerns: SQL over the alias t, with a ? for
// each argument. The permission of the caller is part of it.
type Selection struct {
	SQL  string
	Args []any
}

// one selects a row by its id.
func one(id int64) Selection { return Selection{SQL: "t.id = ?", Args: []any{id}} }

// Create adds a row for the caller, with all that follows from it, and returns
// its id. Errors: ErrForbidden, ErrInvalid, ErrConflict, ErrReferenced.
func (db *DB) Create(ctx context.Context, by access.Caller, resource string, v Values) (int64, error) {
	var id int64
	err := db.update(ctx, func(t *txn) error {
		var err error
		id, err = t.create(ctx, writer{Caller: by}, resource, v)
		return err
	})
	return id, err
}

// Update changes the rows selected, all or none, and says how many there were.
func (db *DB) Update(ctx context.Context, by access.Caller, resource string, where Selection, v Values) (int, error) {
	var n int
	err := db.update(ctx, func(t *txn) error {
		var err error
		n, err = t.change(ctx, writer{Caller: by}, resource, where, v)
		return err
	})
	return n, err
}

// Delete removes the rows selected, with what hangs on them, and says how many
// there were.
func (db *DB) Delete(ctx context.Context, by access.Caller, resource string, where Selection) (int, error) {
	var n int
	err := db.update(ctx, func(t *txn) error {
		var err error
		n, err = t.remove(ctx, writer{Caller: by}, resource, where)
		return err
	})
	return n, err
}

// writer is on whose behalf rows are written.
type writer struct {
	access.Caller
	// cloud says that the cloud itself writes, for the caller: it may set fields
	// that callers cannot, and it has asked for permission already.
	cloud bool
}

// forUser is the cloud writing what a user asked for; 0: nobody in particular.
func (t *txn) forUser(ctx context.Context, user int64) (writer, error) {
	if user == 0 {
		return itself(), nil
	}
	by := writer{Caller: access.Caller{Role: access.User, ID: user}, cloud: true}
	err := t.QueryRowContext(ctx, `SELECT actor, username FROM "user" WHERE id = ?`, user).Scan(&by.Actor, &by.Name)
	return by, notFound(err, "user %d", user)
}

// forDevice is the cloud writing what a device says about itself.
func (t *txn) forDevice(ctx context.Context, device int64) (writer, error) {
	by := writer{Caller: access.Caller{Role: access.Device, ID: device}, cloud: true}
	err := t.QueryRowContext(ctx, `SELECT actor, uuid FROM device WHERE id = ?`, device).Scan(&by.Actor, &by.Name)
	return by, notFound(err, "device %d", device)
}

// itself is the cloud writing of its own accord.
func itself() writer {
	return writer{Caller: access.Caller{Role: "cloud", Name: "cloud"}, cloud: true}
}

// write is one row on its way through its rules.
type write struct {
	by   writer
	verb access.Verb
	id   int64  // 0 until the row is inserted
	was  Values // nil when the row is new
	set  Values // what is set; empty when the row goes
	// asked are the fields that the caller named; rules may have added others.
	asked map[string]bool
	facts facts
}

func names(v Values) map[string]bool {
	all := map[string]bool{}
	for name := range v {
		all[name] = true
	}
	return all
}

// is the value that a field has after the write.
func (w *write) is(field string) any {
	if v, ok := w.set[field]; ok {
		return v
	}
	return w.was[field]
}

func (w *write) ref(field string) int64   { n, _ := w.is(field).(int64); return n }
func (w *write) text(field string) string { s, _ := w.is(field).(string); return s }
func (w *write) flag(field string) bool   { b, _ := w.is(field).(bool); return b }

// sets says whether the write speaks of the field at all.
func (w *write) sets(field string) bool { _, ok := w.set[field]; return ok }

// changes says whether one of the fields gets another value than it had. All
// that a new row, or one that goes, has is a change.
func (w *write) changes(fields ...string) bool {
	if w.verb != access.Update {
		return true
	}
	return slices.ContainsFunc(fields, func(f string) bool {
		v, ok := w.set[f]
		return ok && !same(v, w.was[f])
	})
}

// idle says that the row stays as it is.
func (w *write) idle() bool { return w.verb == access.Update && len(w.set) == 0 }

func same(a, b any) bool {
	if x, ok := a.(time.Time); ok {
		y, ok := b.(time.Time)
		return ok && x.UnixMilli() == y.UnixMilli()
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

// plain has documents as texts, as they are read.
func plain(v any) any {
	if raw, ok := v.(json.RawMessage); ok {
		return string(raw)
	}
	return v
}

// put sets a field unless the write does so already.
func (w *write) put(field string, v any) {
	if !w.sets(field) {
		w.set[field] = v
	}
}

func (t *txn) create(ctx context.Context, by writer, resource string, v Values) (int64, error) {
	table, rule, err := ruled(by, resource, access.Create)
	if err != nil {
		return 0, err
	}
	set, err := rule.admit(by, table, v)
	if err != nil {
		return 0, err
	}
	w := &write{by: by, verb: access.Create, set: set, asked: names(set)}
	if rule.create != nil {
		if err := rule.create(ctx, t, w); err != nil {
			return 0, err
		}
	}
	table.dropComputed(w.set)
	if err := rule.complete(w.set); err != nil {
		return 0, err
	}
	if err := t.refer(ctx, table, w); err != nil {
		return 0, err
	}
	if w.id, err = t.insertRow(ctx, table, w.set); err != nil {
		return 0, err
	}
	return w.id, t.follow(ctx, table, rule, []*write{w})
}

func (t *txn) insertRow(ctx context.Context, table Resource, set Values) (int64, error) {
	columns, marks := []string{"created_at"}, []string{"?"}
	args := []any{millis(t.now)}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if name == "created_at" {
			continue
		}
		columns, marks, args = append(columns, `"`+name+`"`), append(marks, "?"), append(args, stored(set[name]))
	}
	id, err := t.insert(ctx, `INSERT INTO "`+table.Name+`" (`+strings.Join(columns, ", ")+`) VALUES (`+strings.Join(marks, ", ")+`)`, args...)
	return id, err
}

// stored is a value as the database has it.
func stored(v any) any {
	switch v := v.(type) {
	case time.Time:
		return millis(v)
	case json.RawMessage:
		return string(v)
	case PasswordHash:
		return string(v)
	}
	return v
}

func (t *txn) change(ctx context.Context, by writer, resource string, where Selection, v Values) (int, error) {
	table, rule, err := ruled(by, resource, access.Update)
	if err != nil {
		return 0, err
	}
	set, err := rule.admit(by, table, v)
	if err != nil {
		return 0, err
	}
	rows, err := t.selected(ctx, table, rule, where, set)
	if err != nil {
		return 0, err
	}
	for some := range rule.portions(writes(by, access.Update, rows, set)) {
		if err := t.changeRows(ctx, table, rule, some); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

func (t *txn) changeRows(ctx context.Context, table Resource, rule rules, rows []*write) error {
	for _, w := range rows {
		if err := rule.keep(w); err != nil {
			return err
		}
		if rule.update == nil {
			continue
		}
		if err := rule.update(ctx, t, w); err != nil {
			return err
		}
	}
	if err := t.refer(ctx, table, rows...); err != nil {
		return err
	}
	var changed []*write
	for _, w := range rows {
		table.dropComputed(w.set)
		// A row that stays as it is costs no row version, no audit and no news.
		maps.DeleteFunc(w.set, func(field string, _ any) bool { return !w.changes(field) })
		if len(w.set) > 0 {
			changed = append(changed, w)
		}
	}
	if err := t.updateRows(ctx, table, changed); err != nil {
		return err
	}
	return t.follow(ctx, table, rule, rows)
}

// follow does what follows from rows that are written: what the rules say, whether
// the caller may have such rows, news and audit.
func (t *txn) follow(ctx context.Context, table Resource, rule rules, rows []*write) error {
	if rule.after != nil {
		if err := rule.after(ctx, t, rows); err != nil {
			return err
		}
	}
	written := slices.DeleteFunc(slices.Clone(rows), (*write).idle)
	if len(written) == 0 {
		return nil
	}
	if err := t.permitted(ctx, table, written); err != nil {
		return err
	}
	t.announce(OverviewTopic())
	for _, w := range written {
		t.announceIdentity(table, w)
		if err := t.audit(ctx, table, rule, w); err != nil {
			return err
		}
	}
	return nil
}

func (t *txn) remove(ctx context.Context, by writer, resource string, where Selection) (int, error) {
	table, rule, err := ruled(by, resource, access.Delete)
	if err != nil {
		return 0, err
	}
	rows, err := t.selected(ctx, table, rule, where, nil)
	if err != nil {
		return 0, err
	}
	for some := range rule.portions(writes(by, access.Delete, rows, nil)) {
		if err := t.removeRows(ctx, table, rule, some); err != nil {
			return 0, err
		}
	}
	return len(rows), nil
}

func (t *txn) removeRows(ctx context.Context, table Resource, rule rules, rows []*write) error {
	if rule.remove != nil {
		if err := each(rule.remove)(ctx, t, rows); err != nil {
			return err
		}
	}
	if err := t.deleteRows(ctx, table.Name, idsOf(rows, nil)); err != nil {
		return err
	}
	return t.follow(ctx, table, rule, rows)
}

// dropComputed leaves out what is no column; rules have looked at it.
func (r Resource) dropComputed(set Values) {
	for _, f := range r.Fields {
		if f.Expression != "" {
			delete(set, f.Name)
		}
	}
}

func (r Resource) setsReference(set Values) bool {
	return slices.ContainsFunc(r.Fields, func(f Field) bool {
		_, ok := set[f.Name]
		return ok && f.Kind == Reference
	})
}

// referred is the resource that a reference leads to.
func (r Resource) referred(field string) (Resource, bool) {
	for _, nav := range r.Navs {
		if nav.Local == field && nav.Remote == "id" && nav.Where == "" && nav.From == "" {
			return ResourceNamed(nav.To)
		}
	}
	return Resource{}, false
}

// selected reads the rows that a write concerns, and keeps others from changing
// them until it is done. Fields that are too long to read for nothing are read
// when they are about to be set.
func (t *txn) selected(ctx context.Context, table Resource, rule rules, where Selection, set Values) ([]Values, error) {
	long := strings.Fields(rule.long)
	var fields []Field
	var list []string
	for _, f := range table.Fields {
		_, wanted := set[f.Name]
		if f.Expression == "" && (wanted || !slices.Contains(long, f.Name)) {
			fields, list = append(fields, f), append(list, `t."`+f.Name+`"`)
		}
	}
	rows, err := t.QueryContext(ctx, `SELECT `+strings.Join(list, ", ")+` FROM "`+table.Name+`" t WHERE `+where.SQL+` ORDER BY t.id`+t.locking(), where.Args...)
	if err != nil {
		return nil, err
	}
	into := make([]any, len(fields))
	for i, f := range fields {
		into[i] = scanTarget(f)
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (Values, error) {
		v := make(Values, len(fields))
		if err := row.Scan(into...); err != nil {
			return nil, err
		}
		for i, f := range fields {
			v[f.Name] = scanned(f, into[i])
		}
		return v, nil
	})
}

// scanTarget is what a column of the field's kind is read into.
func scanTarget(f Field) any {
	switch f.Kind {
	case Boolean:
		return new(sql.NullBool)
	case Text, JSON, Location, File:
		return new(sql.NullString)
	case Integer, BigInteger, Date, Reference:
	}
	return new(sql.NullInt64)
}

// scanned is what was read as a value of Values, documents as texts.
func scanned(f Field, into any) any {
	switch v := into.(type) {
	case *sql.NullBool:
		if v.Valid {
			return v.Bool
		}
	case *sql.NullString:
		if v.Valid {
			return v.String
		}
	case *sql.NullInt64:
		if v.Valid && f.Kind == Date {
			return fromMillis(*v)
		}
		if v.Valid {
			return v.Int64
		}
	}
	return nil
}

// permitted asks whether the caller may have such rows, now that they are written:
// all is undone otherwise. Only references decide about it.
func (t *txn) permitted(ctx context.Context, table Resource, rows []*write) error {
	first := rows[0]
	if first.by.cloud || first.verb == access.Delete {
		return nil
	}
	doubtful := idsOf(rows, func(w *write) bool { return w.verb == access.Create || table.setsReference(w.set) })
	if len(doubtful) == 0 {
		return nil
	}
	ok, err := t.may(ctx, first.by.Caller, table, first.verb, doubtful...)
	if err == nil && !ok {
		err = ErrForbidden
	}
	return err
}

// may says whether the caller may do that with each of some rows.
func (t *txn) may(ctx context.Context, by access.Caller, table Resource, verb access.Verb, ids ...int64) (bool, error) {
	where, args, ok := access.Rows(by, table.Name, verb)
	if !ok {
		return false, nil
	}
	these := t.among("t.id", ids)
	var n int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM "`+table.Name+`" t WHERE `+these.SQL+` AND (`+where+`)`, append(these.Args, args...)...).Scan(&n)
	return n == len(ids), err
}

func (t *txn) exists(ctx context.Context, query string, args ...any) (bool, error) {
	var n int
	err := t.QueryRowContext(ctx, `SELECT count(*) FROM (`+query+` LIMIT 1) found`, args...).Scan(&n)
	return n > 0, err
}

// reference is what a field refers to.
type reference struct {
	field string
	id    int64
}

// refer checks what rows of a request refer to: it must exist, and be something that
// the caller can see.
func (t *txn) refer(ctx context.Context, table Resource, rows ...*write) error {
	checked := map[reference]bool{}
	for _, w := range rows {
		for _, name := range slices.Sorted(maps.Keys(w.set)) {
			f, ok := table.Field(name)
			id, set := w.set[name].(int64)
			if !ok || f.Kind != Reference || !set || checked[reference{name, id}] || !w.changes(name) {
				continue
			}
			checked[reference{name, id}] = true
			to, ok := table.referred(name)
			if !ok {
				continue // the database knows
			}
			if err := t.referTo(ctx, w, name, to, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *txn) referTo(ctx context.Context, w *write, field string, to Resource, id int64) error {
	found, err := t.exists(ctx, `SELECT 1 FROM "`+to.Name+`" WHERE id = ?`, id)
	if err != nil {
		return err
	}
	if !found {
		return &ReferenceError{By: field, Missing: true}
	}
	if w.by.cloud || !w.asked[field] {
		return nil
	}
	if found, err = t.may(ctx, w.by.Caller, to, access.Read, id); err == nil && !found {
		return fmt.Errorf("%s: %w", field, ErrForbidden)
	}
	return err
}

// ErrForbidden says that the caller may not write such a row: answer 401.
var ErrForbidden = errors.New("forbidden")

// ErrReferenced says that a row is in use, or that one referred to does not
// exist. The error returned is a *ReferenceError.
var ErrReferenced = errors.New("data is referenced")

// ReferenceError names what refers: the field written, or the resource whose
// rows are in the way of a deletion.
type ReferenceError struct {
	By string
	// Missing says that By is a field which refers to nothing.
	Missing bool
}

func (e *ReferenceError) Error() string { return "Data is referenced by " + e.By + "." }

// Is makes errors.Is(err, ErrReferenced) true, and ErrNotFound for what refers to
// nothing.
func (e *ReferenceError) Is(target error) bool {
	return target == ErrReferenced || e.Missing && target == ErrNotFound
}

// MissingError says what the caller looked for and cannot see: answer 404.
type MissingError struct{ Reason string }

func (e *MissingError) Error() string { return e.Reason }

// RefusedError says why something may never be done: answer 403.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

// locking keeps the rows t of a SELECT from other writers until the end of the
// transaction, where several write at a time.
func (t *txn) locking() string {
	if t.dialect.rowLocks {
		return " FOR NO KEY UPDATE OF t"
	}
	return ""
}
