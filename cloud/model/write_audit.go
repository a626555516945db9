package model

import (
	"context"
	"database/sql"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"deckhand/cloud/access"
)

// hidden stands in the audit log for a value that must not be there.
const hidden = "(hidden)"

// maxAudited is the length in bytes up to which the audit log has a text. Of a
// longer one it has the beginning.
const maxAudited = 500

// audit notes who did what to a row. It is part of the write: without the note
// there is no change. Reports of devices about themselves leave none: they say
// what is and decide nothing, and there are thousands a second.
func (t *txn) audit(ctx context.Context, table Resource, rule rules, w *write) error {
	before := w.was
	if len(w.set) > 0 && before != nil {
		before = Values{}
		for name := range w.set {
			before[name] = w.was[name]
		}
	}
	b, err := audited(rule, before)
	if err != nil {
		return err
	}
	a, err := audited(rule, w.set)
	if err != nil {
		return err
	}
	t.notes = append(t.notes, millis(t.now), ref(w.by.Actor), string(w.by.Role), w.by.Name, string(w.verb), table.Name, w.id, b, a)
	if len(t.notes) < notesTogether*noteColumns {
		return nil
	}
	return t.writeNotes(ctx)
}

const (
	noteColumns = 9
	// notesTogether is how many entries are written at once: a request may write
	// thousands of rows.
	notesTogether = 200
)

// writeNotes writes the entries that wait. A transaction does so at its end.
func (t *txn) writeNotes(ctx context.Context) error {
	notes := t.notes
	if len(notes) == 0 {
		return nil
	}
	t.notes = nil
	row := "(?, ?, ?, ?, ?, ?, ?, ?, ?)"
	_, err := t.ExecContext(ctx, `INSERT INTO audit_log (created_at, actor, role, name, verb, resource, row_id, before, after) VALUES `+
		row+strings.Repeat(", "+row, len(notes)/noteColumns-1), notes...)
	return err
}

// auditKey notes a new API key, which is not made by rules: nobody may say its hash
// or its role.
func (t *txn) auditKey(ctx context.Context, id int64, k NewKey) error {
	by := writer{Caller: k.By}
	if k.By == (access.Caller{}) {
		by = itself()
	}
	table, _ := ResourceNamed("api_key")
	return t.audit(ctx, table, rules{}, &write{by: by, verb: access.Create, id: id, set: Values{"is_of__actor": k.Actor, "role": string(k.Role),
		"name": text(k.Name), "description": text(k.Description), "expiry_date": k.Expiry}})
}

// audited is a row, or the part of it that changed, as a JSON object; nil when
// there is none. Values of variables are hidden as keys are: people keep
// passwords in them.
func audited(rule rules, v Values) (any, error) {
	if len(v) == 0 {
		return nil, nil
	}
	secret := strings.Fields(rule.secret)
	out := []byte{'{'}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		value, err := json.Marshal(auditedValue(v[name], slices.Contains(secret, name)))
		if err != nil {
			return nil, err
		}
		out = append(append(append(out, '"'), name...), `":`...)
		out = append(out, value...)
	}
	return string(append(out, '}')), nil
}

func auditedValue(v any, secret bool) any {
	v = plain(v)
	if secret && v != nil {
		return hidden
	}
	switch v := v.(type) {
	case time.Time:
		return v.UTC().Format(time.RFC3339Nano)
	case string:
		if len(v) > maxAudited {
			return cut(v, maxAudited) + "…"
		}
	}
	return v
}

// AuditEntry is one write, as the audit log has it.
type AuditEntry struct {
	ID       int64     `json:"id"`
	At       time.Time `json:"at"`
	Actor    int64     `json:"actor"` // 0: the cloud itself
	Role     string    `json:"role"`
	Name     string    `json:"name"`
	Verb     string    `json:"verb"`
	Resource string    `json:"resource"`
	Row      int64     `json:"row"`
	// Before and After are the fields that changed, as JSON objects; nil: there
	// was, or is, no row.
	Before json.RawMessage `json:"before"`
	After  json.RawMessage `json:"after"`
}

// maxEntries is how many entries are read at a time.
const maxEntries = 1000

// AuditFilter says which entries are meant; what is zero is any.
type AuditFilter struct {
	Resource, Name, Verb string
	Row                  int64
	Since                time.Time
	After                int64 // entries with a greater ID
}

// Audit reads the writes of a resource, "" for all, after an entry: the oldest
// first, and no more than a thousand.
func (db *DB) Audit(ctx context.Context, resource string, after int64) ([]AuditEntry, error) {
	return db.entries(ctx, AuditFilter{Resource: resource, After: after}, "ASC", maxEntries)
}

// LastAudited reads the last entries of the audit log, up to n, the oldest first.
func (db *DB) LastAudited(ctx context.Context, f AuditFilter, n int) ([]AuditEntry, error) {
	entries, err := db.entries(ctx, f, "DESC", n)
	slices.Reverse(entries)
	return entries, err
}

func (db *DB) entries(ctx context.Context, f AuditFilter, order string, n int) ([]AuditEntry, error) {
	where, args := "id > ?", []any{f.After}
	for _, part := range []struct {
		set       bool
		condition string
		value     any
	}{
		{f.Resource != "", "resource = ?", f.Resource}, {f.Name != "", "name = ?", f.Name}, {f.Verb != "", "verb = ?", f.Verb},
		{f.Row != 0, "row_id = ?", f.Row}, {!f.Since.IsZero(), "created_at >= ?", f.Since.UnixMilli()},
	} {
		if part.set {
			where, args = where+" AND "+part.condition, append(args, part.value)
		}
	}
	rows, err := db.read.QueryContext(ctx, `
		SELECT id, created_at, coalesce(actor, 0), role, name, verb, resource, coalesce(row_id, 0), before, after FROM audit_log
		WHERE `+where+` ORDER BY id `+order+` LIMIT ?`, append(args, n)...)
	if err != nil {
		return nil, err
	}
	return collect(rows, func(row interface{ Scan(...any) error }) (AuditEntry, error) {
		var e AuditEntry
		var at sql.NullInt64
		var before, is sql.NullString
		err := row.Scan(&e.ID, &at, &e.Actor, &e.Role, &e.Name, &e.Verb, &e.Resource, &e.Row, &before, &is)
		e.At = fromMillis(at)
		if before.Valid {
			e.Before = json.RawMessage(before.String)
		}
		if is.Valid {
			e.After = json.RawMessage(is.String)
		}
		return e, err
	})
}
