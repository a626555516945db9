package model

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
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
