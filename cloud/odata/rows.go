package odata

import (
	"bytes"
	"encoding/json"
	"strconv"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/model"
)

// timeFormat is ISO 8601 in UTC with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z"

// encode writes one row with its fields in the order asked for.
func encode(fields []model.Field, values []any) ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, f := range fields {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(f.Name) + ":")
		v, err := answer.Marshal(shown(f, values[i]))
		if err != nil {
			return nil, err
		}
		b.Write(v)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// shown is a value in the form clients expect.
func shown(f model.Field, v any) any {
	switch v := v.(type) {
	case time.Time:
		return v.Format(timeFormat)
	case int64:
		// An actor is a reference in the newest version of the API only by
		// name: clients read {"__id"} everywhere.
		if f.Kind == model.Reference {
			return map[string]int64{"__id": v}
		}
		if f.Kind == model.BigInteger {
			return strconv.FormatInt(v, 10)
		}
	case string:
		if f.Kind == model.JSON || f.Kind == model.File {
			return json.RawMessage(v)
		}
	}
	return v
}
