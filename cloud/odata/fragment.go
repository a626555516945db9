package odata

import (
	"fmt"
	"regexp"
)

// fragment is SQL with a ? for each of its arguments. Names in it come from the
// descriptors of resources, values are always arguments.
type fragment struct {
	sql  string
	args []any
}

// sqlf is SQL with fragments for its %s.
func sqlf(format string, parts ...fragment) fragment {
	texts := make([]any, len(parts))
	var args []any
	for i, p := range parts {
		texts[i] = p.sql
		args = append(args, p.args...)
	}
	return fragment{fmt.Sprintf(format, texts...), args}
}

// plain is SQL of ours without arguments.
func plain(sql string) fragment { return fragment{sql: sql} }

// bound is SQL of ours with arguments.
func bound(sql string, args ...any) fragment { return fragment{sql, args} }

var (
	always = plain("TRUE")
	never  = plain("FALSE")
)

var (
	aliasT = regexp.MustCompile(`\bt\.`)
	aliasU = regexp.MustCompile(`\bu\.`)
)

// over is SQL over the alias t as SQL over another alias.
func over(sql, alias string) string { return aliasT.ReplaceAllString(sql, alias+".") }

// behind is SQL over the alias u as SQL over another alias.
func behind(sql, alias string) string { return aliasU.ReplaceAllString(sql, alias+".") }

// joined is fragments with "AND" or "OR" between them. Long chains become a
// balanced tree: databases limit how deep an expression is.
func joined(operator string, parts []fragment) fragment {
	switch len(parts) {
	case 1:
		return parts[0]
	case 2:
		return sqlf("(%s "+operator+" %s)", parts[0], parts[1])
	}
	half := len(parts) / 2
	return sqlf("(%s "+operator+" %s)", joined(operator, parts[:half]), joined(operator, parts[half:]))
}

// list is fragments with commas between them.
func list(parts []fragment) fragment {
	var all fragment
	for i, p := range parts {
		if i > 0 {
			all.sql += ", "
		}
		all.sql += p.sql
		all.args = append(all.args, p.args...)
	}
	return all
}
