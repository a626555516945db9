package compose

import (
	"math"
	"strings"
	"time"

	"github.com/compose-spec/compose-go/v2/types"
)

// swapSize is a size, or -1 for no limit.
func swapSize(s *screen, path string, v any) (any, bool) {
	if n, ok := whole(v); ok && n == -1 {
		return "-1", true
	}
	return size(s, path, v)
}

// swappiness is a percentage; -1 is the kernel's default, as nothing is.
func swappiness(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	n, ok := whole(v)
	switch {
	case !ok || n < -1 || n > 100:
		return s.want(path, "0 to 100", v)
	case n == -1:
		return nil, false
	}
	return n, true
}

// weight is a share of a block device's time.
func weight(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	n, ok := whole(v)
	if !ok || n < 10 || n > 1000 {
		return s.want(path, "a weight of 10 to 1000", v)
	}
	return n, true
}

// microseconds is a number of them, or a duration with a unit.
func microseconds(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	const what = "microseconds or a duration such as 400ms"
	n, ok := whole(v)
	if t, isText := v.(string); !ok && isText {
		var d types.Duration
		ok = d.DecodeMapstructure(strings.TrimSpace(t)) == nil
		n = time.Duration(d).Microseconds()
	}
	if !ok || n < 0 || n > math.MaxInt32 {
		return s.want(path, what, v)
	}
	return n, true
}

// gpus is a list of requests, or all.
func gpus(s *screen, path string, v any) (any, bool) {
	if v == "all" {
		return []any{map[string]any{"count": "all"}}, true
	}
	return list(s, path, v)
}

// deviceCount is a number of devices, or all.
func deviceCount(s *screen, path string, v any) (any, bool) {
	if v == nil {
		return nil, false
	}
	n, ok := whole(v)
	if t, isText := v.(string); isText && strings.EqualFold(strings.TrimSpace(t), "all") || ok && n == -1 {
		return "all", true
	}
	if !ok || n < 1 || n > math.MaxInt32 {
		return s.want(path, "all or a number of devices", v)
	}
	return int(n), true
}
