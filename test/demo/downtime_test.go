package main

import (
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
)

func TestDowntimeIsWhenNoContainerOfAServiceRuns(t *testing.T) {
	at := int64(0)
	event := func(service, container string, action events.Action) events.Message {
		at += int64(time.Second)
		return events.Message{Action: action, TimeNano: at, Actor: events.Actor{ID: container, Attributes: map[string]string{"io.balena.service-name": service}}}
	}
	seen := absences([]events.Message{
		event("front", "f1", events.ActionRename),
		event("web", "w2", events.ActionStart),
		event("counter", "c1", events.ActionDie),
		event("web", "w1", events.ActionDie),
		event("counter", "c2", events.ActionStart),
		event("counter", "c2", events.ActionDie),
		event("counter", "c3", events.ActionStart),
	})
	for name, want := range map[string]absence{
		"front": {}, "web": {touched: true}, "counter": {touched: true, down: 3 * time.Second},
	} {
		if got := seen[name]; got == nil || got.touched != want.touched || got.down != want.down {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
