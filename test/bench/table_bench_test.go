//go:build bench

package bench

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// table prints itself row by row: a measurement takes a while, and people look.
type table struct{ columns []string }

func (b *bench) table(title string, columns ...string) table {
	fmt.Printf("\n**%s**\n\n| %s |\n|%s\n", title, strings.Join(columns, " | "), strings.Repeat("---|", len(columns)))
	return table{columns}
}

// row prints one value for each column: times are seconds, several are their
// median; other numbers have as many digits as they need.
func (t table) row(cells ...any) {
	var line []string
	for i, c := range cells {
		text := cell(c)
		if i < len(t.columns) {
			text = strings.Repeat(" ", max(0, utf8.RuneCountInString(t.columns[i])-utf8.RuneCountInString(text))) + text
		}
		line = append(line, text)
	}
	fmt.Printf("| %s |\n", strings.Join(line, " | "))
}

func cell(c any) string {
	switch c := c.(type) {
	case time.Duration:
		return fmt.Sprintf("%.2f", c.Seconds())
	case []time.Duration:
		if len(c) == 0 {
			return ""
		}
		return cell(median(c))
	case float64:
		return fmt.Sprintf("%.2f", c)
	}
	return fmt.Sprint(c)
}

// update prints what updates of n services took, by the medians of all.
func (t table) update(n int, who string, all []replacement, beside string) {
	var running, whole, down []time.Duration
	var most time.Duration
	for _, r := range all {
		running, whole, down = append(running, r.running), append(whole, r.whole), append(down, r.down...)
		for _, d := range r.down {
			most = max(most, d)
		}
	}
	t.row(n, who, running, whole, down, most, beside)
}
