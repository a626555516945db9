package odata

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/model"
)

// compiler turns a parsed query into SQL. Names become SQL only through the
// resource's fields; values are always arguments.
type compiler struct {
	resource model.Resource
	args     []any
}

func (c *compiler) field(name string) (model.Field, error) {
	f, ok := c.resource.Field(name)
	if !ok {
		return f, refuse("%s has no field %q.", c.resource.Name, name)
	}
	return f, nil
}

func (c *compiler) condition(e expression) (string, error) {
	switch e := e.(type) {
	case logical:
		left, err := c.condition(e.left)
		if err != nil {
			return "", err
		}
		right, err := c.condition(e.right)
		return "(" + left + " " + strings.ToUpper(e.operator) + " " + right + ")", err
	case negation:
		of, err := c.condition(e.of)
		return "NOT coalesce(" + of + ", FALSE)", err
	case comparison:
		return c.comparison(e)
	case membership:
		return c.membership(e)
	case call:
		return c.call(e)
	}
	return "", refuse("Malformed $filter.")
}

func (c *compiler) comparison(e comparison) (string, error) {
	f, err := c.field(e.field)
	if err != nil {
		return "", err
	}
	v, err := argument(f, e.value)
	if err != nil {
		return "", err
	}
	if v == nil && e.operator == "eq" {
		return f.SQL() + " IS NULL", nil
	}
	c.args = append(c.args, v)
	// "ne" is true for rows without a value, too.
	operator := map[string]string{"eq": "=", "ne": "IS DISTINCT FROM", "gt": ">", "ge": ">=", "lt": "<", "le": "<="}[e.operator]
	return f.SQL() + " " + operator + " ?", nil
}

func (c *compiler) membership(e membership) (string, error) {
	f, err := c.field(e.field)
	if err != nil {
		return "", err
	}
	marks := make([]string, len(e.values))
	for i, value := range e.values {
		v, err := argument(f, value)
		if err != nil {
			return "", err
		}
		c.args = append(c.args, v)
		marks[i] = "?"
	}
	return f.SQL() + " IN (" + strings.Join(marks, ", ") + ")", nil
}

func (c *compiler) call(e call) (string, error) {
	f, err := c.field(e.field)
	if err != nil {
		return "", err
	}
	if f.Kind != model.Text {
		return "", refuse("%s is not a text: %s cannot look into it.", e.field, e.function)
	}
	pattern := strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(e.text)
	switch e.function {
	case "startswith":
		if e.text != "" {
			// A range is what an index can answer; LIKE ignores case on SQLite.
			c.args = append(c.args, e.text, len([]rune(e.text)), e.text)
			return "(" + f.SQL() + " >= ? AND substr(" + f.SQL() + ", 1, ?) = ?)", nil
		}
		pattern += "%"
	case "endswith":
		pattern = "%" + pattern
	default:
		pattern = "%" + pattern + "%"
	}
	c.args = append(c.args, pattern)
	return f.SQL() + ` LIKE ? ESCAPE '\'`, nil
}

// argument is a literal as the column stores it.
func argument(f model.Field, v any) (any, error) {
	if v == nil {
		return nil, nil
	}
	wrong := func(want string) error { return refuse("%s is compared with %v: want %s.", f.Name, v, want) }
	switch f.Kind {
	case model.Integer, model.BigInteger, model.Reference:
		switch n := v.(type) {
		case int64, float64:
			return n, nil
		case string:
			if i, err := strconv.ParseInt(n, 10, 64); err == nil {
				return i, nil
			}
		}
		return nil, wrong("a number")
	case model.Boolean:
		if b, ok := v.(bool); ok {
			return b, nil
		}
		return nil, wrong("true or false")
	case model.Date:
		if t, ok := date(v); ok {
			return t.UnixMilli(), nil
		}
		return nil, wrong("a date like datetime'2026-01-31T12:00:00Z'")
	case model.Location:
		if s, ok := v.(string); ok {
			return model.Repository(s), nil
		}
	case model.Text, model.JSON, model.Version:
		if s, ok := v.(string); ok {
			return s, nil
		}
	}
	return nil, wrong("a text in quotes")
}

func date(v any) (time.Time, bool) {
	switch v := v.(type) {
	case int64:
		return time.UnixMilli(v), true
	case string:
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
			if t, err := time.Parse(layout, v); err == nil {
				return t, true
			}
		}
	}
	return time.Time{}, false
}

// order is "a desc, b" as SQL; rows that are equal come by id.
func (c *compiler) order(s string) (string, error) {
	if s == "" {
		return "t.id", nil
	}
	var terms []string
	for term := range strings.SplitSeq(s, ",") {
		words := strings.Fields(strings.ReplaceAll(term, "+", " "))
		if len(words) == 0 || len(words) > 2 {
			return "", refuse("Malformed $orderby: %q.", s)
		}
		if strings.ContainsAny(words[0], "/(") {
			return "", refuse("$orderby over %s is not supported yet; order by own fields.", words[0])
		}
		f, err := c.field(words[0])
		if err != nil {
			return "", err
		}
		direction := "ASC"
		if len(words) == 2 {
			if direction = strings.ToUpper(words[1]); direction != "ASC" && direction != "DESC" {
				return "", refuse("Malformed $orderby: %q is neither asc nor desc.", words[1])
			}
		}
		terms = append(terms, f.SQL()+" "+direction)
	}
	return strings.Join(append(terms, "t.id"), ", "), nil
}

func (c *compiler) selection(s string) ([]model.Field, error) {
	if s == "" || s == "*" {
		return c.resource.Fields, nil
	}
	var fields []model.Field
	for name := range strings.SplitSeq(s, ",") {
		name = strings.TrimSpace(name)
		if strings.Contains(name, "/") {
			return nil, refuse("$select of %s is not supported yet; select own fields.", name)
		}
		f, err := c.field(name)
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
	return fields, nil
}

// limit is "LIMIT … OFFSET …" for $top and $skip.
func limit(top, skip string) (string, error) {
	if top == "" && skip == "" {
		return "", nil
	}
	n, m := int64(1)<<62, int64(0)
	for name, v := range map[string]struct {
		text string
		to   *int64
	}{"$top": {top, &n}, "$skip": {skip, &m}} {
		if v.text == "" {
			continue
		}
		i, err := strconv.ParseInt(v.text, 10, 64)
		if err != nil || i < 0 {
			return "", refuse("%s must be a whole number, not %q.", name, v.text)
		}
		*v.to = i
	}
	return fmt.Sprintf(" LIMIT %d OFFSET %d", n, m), nil
}
