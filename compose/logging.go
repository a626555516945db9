package compose

import (
	"maps"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/types"

	"deckhand/state"
)

// logDrivers are the places for logs that every supported engine has, with the
// options each knows.
var logDrivers = map[string][]string{
	"json-file": {"max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"},
	"local":     {"max-size", "max-file", "compress", "mode", "max-buffer-size"},
	"journald":  {"labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"},
	"none":      {},
}

// logging builds the place for a service's logs. Options without a driver are
// those of json-file, for which nearly all of them were written. Nil leaves it
// to the engine.
func (b *builder) logging(at string, c *types.LoggingConfig) *state.Logging {
	if c == nil || c.Driver == "" && len(c.Options) == 0 {
		return nil
	}
	l := state.Logging{Driver: orElse(c.Driver, "json-file"), Options: plain(c.Options)}
	known, ok := logDrivers[l.Driver]
	if !ok {
		b.reject(at+".driver", clip(l.Driver)+": engines of devices have only "+strings.Join(slices.Sorted(maps.Keys(logDrivers)), ", "))
		return nil
	}
	for _, option := range slices.Sorted(maps.Keys(l.Options)) {
		if !slices.Contains(known, option) {
			b.reject(join(at+".options", option), "not an option of "+l.Driver)
		}
	}
	if l.Driver == "none" {
		b.warn(at+".driver", "what the service writes is lost: nobody can read its logs, the cloud neither")
	}
	return &l
}
