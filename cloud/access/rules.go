package access

import (
	"fmt"
	"strings"
	"sync"
)

// Rows is the rows of a resource with which the caller may do something: an
// SQL condition over the table's alias t with its arguments. ok is false when
// there can be none: answer 401.
//
// For Create and Update the row must fulfil the condition after the write, and
// every row that it newly refers to must be in Rows of Read.
func Rows(c Caller, resource string, verb Verb) (where string, args []any, ok bool) {
	where, ok = rules().where[key{c.Role, resource, verb}]
	if !ok {
		return "", nil, false
	}
	for range strings.Count(where, "?") {
		args = append(args, c.ID)
	}
	return where, args, true
}

// Resources are the resources of the table, sorted.
func Resources() []string { return rules().resources }

// Closed are the fields of a resource that the caller must not write, although
// it may update the row: a device does not move itself and ends no freeze.
func Closed(c Caller, resource string) []string {
	if c.Role == Device && resource == "device" {
		return []string{"belongs_to__application", "is_frozen"}
	}
	return nil
}

type key struct {
	role     Role
	resource string
	verb     Verb
}

type compiled struct {
	where     map[key]string
	words     map[key]string
	resources []string
}

// rules is the table, read once. Its text is constant, so a mistake in it ends
// the first test.
var rules = sync.OnceValue(func() compiled {
	c := compiled{where: map[key]string{}, words: map[key]string{}}
	waysOf := map[string]map[string]string{}
	for _, cells := range lines(ways) {
		waysOf[cells[0]] = readWays(cells[1])
	}
	for _, cells := range lines(table) {
		resource := cells[0]
		c.resources = append(c.resources, resource)
		for role, columns := range columnsOf() {
			var grants []string
			for _, column := range columns {
				if cells[column] != "" {
					grants = append(grants, cells[column])
				}
			}
			c.grant(role, resource, waysOf[resource], strings.Join(grants, ","))
		}
	}
	return c
})

// columnsOf are the columns of the table that each role has the rights of.
func columnsOf() map[Role][]int {
	const guests, users, sessions, devices, provisioning, vpn = 1, 2, 3, 4, 5, 6
	return map[Role][]int{Guest: {guests}, User: {guests, users, sessions}, UserKey: {guests, users}, Device: {guests, devices},
		Provisioning: {guests, provisioning}, VPN: {guests, vpn}}
}

// lines are the cells of a table without its head.
func lines(text string) [][]string {
	var all [][]string
	for line := range strings.Lines(strings.TrimPrefix(text, "\n")) {
		cells := strings.Split(line, "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		all = append(all, append(cells, make([]string, 7)...))
	}
	return all[1:]
}

// grant adds the grants of one cell: "r visible, cud ours".
func (c *compiled) grant(role Role, resource string, ways map[string]string, cell string) {
	wider := strings.Contains(cell, "visible") || strings.Contains(cell, "reachable")
	for grant := range strings.SplitSeq(cell, ",") {
		verbs, rows, _ := strings.Cut(strings.TrimSpace(grant), " ")
		if verbs == "" || rows == "public" && wider {
			continue // contained in the other
		}
		where, words := condition(role, resource, ways, rows)
		for _, letter := range verbs {
			k := key{role, resource, verbOf(letter)}
			if had := c.where[k]; had != "" {
				c.where[k], c.words[k] = "("+had+" OR "+where+")", c.words[k]+", or "+words
				continue
			}
			c.where[k], c.words[k] = where, words
		}
	}
}

// condition is "itself+its-services" as SQL and in words.
func condition(role Role, resource string, ways map[string]string, rows string) (where, words string) {
	for name := range strings.SplitSeq(rows, "+") {
		s, ok := sets(role)[name]
		one := s.sql
		if s.kind != "" {
			one = follow(ways[s.kind], s.sql)
		}
		if !ok || one == "" {
			panic(fmt.Sprintf("access table: %s has no rows %q for %s", resource, name, role))
		}
		if where != "" {
			where, words = where+" AND ", words+" and "
		}
		where, words = where+one, words+s.words
	}
	if strings.Contains(rows, "+") {
		where = "(" + where + ")"
	}
	return where, words
}

// readWays reads "fleet=device belongs_to__application device=device".
func readWays(cell string) map[string]string {
	ways, kind := map[string]string{}, ""
	for word := range strings.FieldsSeq(cell) {
		if k, column, ok := strings.Cut(word, "="); ok {
			kind = k
			ways[kind] = column
			continue
		}
		ways[kind] += " " + word
	}
	return ways
}

// follow is the condition that the columns of a way, one after the other, lead
// from t into a set of ids.
func follow(way, ids string) string {
	columns := strings.Fields(way)
	if len(columns) == 0 {
		return ""
	}
	where := ids
	for i := len(columns) - 1; i > 0; i-- {
		where = fmt.Sprintf(`SELECT w%d.id FROM %s w%d WHERE w%d."%s" IN (%s)`, i, tableBehind(columns[i-1]), i, i, columns[i], where)
	}
	return fmt.Sprintf(`t."%s" IN (%s)`, columns[0], where)
}

// tableBehind is the table that a column refers to.
func tableBehind(column string) string {
	switch column {
	case "release_image":
		return "image__is_part_of__release"
	case "is_part_of__release":
		return "release"
	case "is_a_build_of__service":
		return "service"
	default:
		return `"` + column + `"`
	}
}

func verbOf(letter rune) Verb {
	verbs := map[rune]Verb{'c': Create, 'r': Read, 'u': Update, 'd': Delete, 'o': Operate, 't': Tunnel, 'l': Log, 'n': Connect}
	verb, ok := verbs[letter]
	if !ok {
		panic(fmt.Sprintf("access table: no verb %q", letter))
	}
	return verb
}
