package store

import "encoding/json"

const reportsBucket = "reports"

// Reports remembers the last report that the cloud acknowledged, so that a
// restart sends only what changed.
type Reports struct{ b bucket[json.RawMessage] }

// Last is the last acknowledged report; nil when there is none.
func (r Reports) Last() ([]byte, error) {
	raw, _, err := r.b.get("last")
	return raw, err
}

// Put replaces the last acknowledged report, a JSON document.
func (r Reports) Put(report []byte) error { return r.b.put("last", report) }

// Clear forgets it; the next report is a full one.
func (r Reports) Clear() error { return r.b.remove("last") }
