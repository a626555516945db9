package main

import (
	"bytes"
	"testing"
	"time"

	"deckhand/supervisor"
)

func TestHealthSaysWhatIsWrongAndSinceWhen(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.Local)
	for name, c := range map[string]struct {
		ailments []supervisor.Ailment
		want     string
	}{
		"well": {nil, "healthy\n"},
		"two": {[]supervisor.Ailment{
			{Check: "loop", Text: "it has something to do and does not do it", Advice: "restart deckhand", Since: now.Add(-5 * time.Minute)},
			{Check: "store", Text: "the disk is full", Since: now.Add(-2 * time.Hour)},
		}, `unhealthy  loop, for 5 min (since 11:55:00): it has something to do and does not do it
           restart deckhand
unhealthy  store, for 2 h 00 min (since 10:00:00): the disk is full
`},
	} {
		var out bytes.Buffer
		printHealth(&out, supervisor.View{Unhealthy: c.ailments}, now)
		if out.String() != c.want {
			t.Errorf("%s:\n%s", name, out.String())
		}
	}
}
