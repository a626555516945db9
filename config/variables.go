package config

import (
	"strconv"
	"strings"
	"time"
)

// Variables gives the value that is in force of every setting that has one, by
// its name without prefix. ReadSettings makes the same settings of it.
func (s Settings) Variables() map[string]string {
	out := map[string]string{}
	for _, row := range settings() {
		if !strings.HasPrefix(row.name, "SUPERVISOR_") && !strings.HasPrefix(row.name, "HOST_") {
			continue // an old name of another row
		}
		switch p := row.field(&s).(type) {
		case *bool:
			out[row.name] = strconv.FormatBool(*p)
		case *Firewall:
			out[row.name] = string(*p)
		case *time.Duration:
			if *p > 0 {
				out[row.name] = strconv.FormatInt(p.Milliseconds(), 10)
			}
		}
	}
	return out
}
