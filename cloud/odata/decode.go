package odata

import (
	"bytes"
	"encoding/json"
	"math"
	"strconv"
	"time"

	"deckhand/cloud/model"
	"deckhand/cloud/versions"
)

// decode reads the fields of a body that the resource has, each as its kind.
func decode(resource model.Resource, fields versions.Fields) (model.Values, error) {
	v := model.Values{}
	for name, raw := range fields {
		f, ok := resource.Field(name)
		if !ok {
			continue
		}
		value, ok := fieldValue(f, raw)
		if !ok {
			shown := string(raw)
			if len(shown) > 40 {
				shown = shown[:40] + "…"
			}
			return nil, refuse("%s: %s has the wrong type, want %s.", name, shown, wanted(f.Kind))
		}
		v[name] = value
	}
	return v, nil
}

func wanted(kind model.FieldKind) string {
	switch kind {
	case model.Boolean:
		return "true or false"
	case model.Date:
		return "a date like 2026-01-31T12:00:00.000Z, or milliseconds since 1970"
	case model.Integer, model.BigInteger:
		return "a whole number"
	case model.Reference:
		return "the id of a row"
	case model.JSON, model.File:
		return "a JSON object"
	case model.Text, model.Location, model.Version:
	}
	return "a text"
}

// fieldValue is a JSON value as a value of the field; false: it is of another kind.
func fieldValue(f model.Field, raw json.RawMessage) (any, bool) {
	raw = bytes.TrimSpace(raw)
	if string(raw) == "null" {
		return nil, true
	}
	switch f.Kind {
	case model.Integer, model.BigInteger:
		return decodeInteger(raw)
	case model.Reference:
		id, ok := decodeInteger(raw)
		return id, ok && id != int64(0)
	case model.Boolean:
		return decodeBoolean(raw)
	case model.Date:
		return decodeDate(raw)
	case model.JSON, model.File:
		return decodeDocument(raw)
	case model.Text, model.Location, model.Version:
	}
	var s string
	err := json.Unmarshal(raw, &s)
	return s, err == nil
}

// decodeInteger reads 12 or "12": big numbers are texts in answers.
func decodeInteger(raw json.RawMessage) (any, bool) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil
	}
	if n, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
		return n, true
	}
	var x float64 // 12.0 and 1e3 are whole, too
	err := json.Unmarshal(raw, &x)
	return int64(x), err == nil && x == math.Trunc(x) && math.Abs(x) < 1<<53
}

func decodeBoolean(raw json.RawMessage) (any, bool) {
	switch string(raw) {
	case "true", "1":
		return true, true
	case "false", "0":
		return false, true
	}
	return nil, false
}

func decodeDate(raw json.RawMessage) (any, bool) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
			if t, err := time.Parse(layout, s); err == nil {
				return t.UTC(), true
			}
		}
		return nil, false
	}
	ms, ok := decodeInteger(raw)
	if n, is := ms.(int64); ok && is {
		return time.UnixMilli(n).UTC(), true
	}
	return nil, false
}

// decodeDocument reads an object, or a text that holds one.
func decodeDocument(raw json.RawMessage) (any, bool) {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		raw = bytes.TrimSpace([]byte(s))
	}
	return json.RawMessage(bytes.Clone(raw)), json.Valid(raw) && len(raw) > 0 && raw[0] == '{'
}
