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
	_, err = t.ExecContext(ctx, `INSERT INTO audit_log (created_at, actor, role, name, verb, resource, row_id, before, after) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		millis(t.now), ref(w.by.Actor), string(w.by.Role), w.by.Name, string(w.verb), table.Name, w.id, b, a)
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
	out := map[string]any{}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		switch value := plain(v[name]).(type) {
		case nil:
			out[name] = nil
		case time.Time:
			out[name] = value.UTC().Format(time.RFC3339Nano)
		case string:
			out[name] = value
			if len(value) > maxAudited {
				out[name] = cut(value, maxAudited) + "…"
			}
		default:
			out[name] = value
		}
		if slices.Contains(secret, name) && v[name] != nil {
			out[name] = hidden
		}
	}
	b, err := json.Marshal(out)
	return string(b), err
}

// AuditEntry is one write, as the audit log has it.
type AuditEntry struct {
	ID       int64
	At       time.Time
	Actor    int64 // 0: the cloud itself
	Role     string
	Name     string
	Verb     string
	Resource string
	Row      int64
	// Before and After are the fields that changed, as JSON objects; nil: there
	// was, or is, no row.
	Before, After json.RawMessage
}

// maxEntries is how many entries are read at a time.
const maxEntries = 1000

// Audit reads the writes of a resource, "" for all, after an entry: the oldest
// first, and no more than a thousand.
func (db *DB) Audit(ctx context.Context, resource string, after int64) ([]AuditEntry, error) {
	rows, err := db.read.QueryContext(ctx, `
		SELECT id, created_at, coalesce(actor, 0), role, name, verb, resource, coalesce(row_id, 0), before, after FROM audit_log
		WHERE id > ? AND (CAST(? AS TEXT) = '' OR resource = ?) ORDER BY id LIMIT ?`, after, resource, resource, maxEntries)
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
