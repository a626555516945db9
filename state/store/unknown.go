package store

import (
	"bytes"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
)

// renewed is a value that may take the place of one about something else. Then
// nothing of the earlier one is kept.
type renewed[T any] interface{ sameAs(earlier T) bool }

// over is how a value is written in place of what is stored: with the fields that
// a newer version of this program knows and we do not. Same is true when that
// changes nothing.
func over[T any](stored []byte, v T, encoded []byte) (raw []byte, same bool) {
	if stored == nil || bytes.Equal(stored, encoded) {
		return encoded, stored != nil
	}
	earlier, err := decode[T](stored)
	if err != nil {
		return encoded, false
	}
	known, err := encode(earlier)
	if err != nil || bytes.Equal(known, encoded) {
		return encoded, err == nil
	}
	if r, ok := any(v).(renewed[T]); ok && !r.sameAs(earlier) {
		return encoded, false
	}
	trees := [3]any{}
	for i, b := range [3][]byte{stored, known, encoded} {
		if trees[i], err = tree(b); err != nil {
			return encoded, false
		}
	}
	if !graft(trees[0], trees[1], trees[2]) {
		return encoded, false
	}
	if raw, err = encode(trees[2]); err != nil {
		return encoded, false
	}
	return raw, bytes.Equal(raw, stored)
}

// tree is a stored value as JSON has it; numbers keep their digits.
func tree(raw []byte) (t any, err error) {
	_, body, _ := bytes.Cut(raw, []byte(" "))
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	err = d.Decode(&t)
	return t, err
}

// graft copies into now what the earlier value has and known, its part that we
// know, has not. A member of a list that changed keeps nothing: it may be another
// one. It reports whether anything was copied.
func graft(earlier, known, now any) (changed bool) {
	switch now := now.(type) {
	case map[string]any:
		e, ok1 := earlier.(map[string]any)
		k, ok2 := known.(map[string]any)
		return ok1 && ok2 && graftObject(e, k, now)
	case []any:
		e, ok1 := earlier.([]any)
		k, ok2 := known.([]any)
		return ok1 && ok2 && len(e) == len(k) && graftList(e, k, now)
	}
	return false
}

func graftObject(earlier, known, now map[string]any) (changed bool) {
	for _, name := range slices.Sorted(maps.Keys(earlier)) {
		k, isKnown := known[name]
		n, isThere := now[name]
		switch {
		case !isKnown && !isThere:
			now[name], changed = earlier[name], true
		case isKnown && isThere && graft(earlier[name], k, n):
			changed = true
		}
	}
	return changed
}

func graftList(earlier, known, now []any) (changed bool) {
	used := make([]bool, len(known))
	for i := range now {
		for j := range known {
			if used[j] || !reflect.DeepEqual(known[j], now[i]) {
				continue
			}
			used[j] = true
			if !reflect.DeepEqual(earlier[j], now[i]) {
				now[i], changed = earlier[j], true
			}
			break
		}
	}
	return changed
}
