package engine

import (
	"testing"

	"github.com/docker/docker/api/types/container"

	"deckhand/state"
)

func TestJudge(t *testing.T) {
	const at, never = "2026-01-02T03:04:05.6Z", "0001-01-01T00:00:00Z"
	health := func(s string) *container.Health { return &container.Health{Status: s} }
	for _, c := range []struct {
		what    string
		now     container.State
		want    state.Condition
		reached bool
		class   state.Class // empty: no error
	}{
		{"never ran", container.State{StartedAt: never}, state.Started, false, ""},
		{"runs", container.State{StartedAt: at, Running: true}, state.Started, true, ""},
		{"ran", container.State{StartedAt: at, ExitCode: 1}, state.Started, true, ""},
		{"exit code 0 before the first start means nothing", container.State{StartedAt: never}, state.Completed, false, ""},
		{"still runs", container.State{StartedAt: at, Running: true}, state.Completed, false, ""},
		{"ended well", container.State{StartedAt: at}, state.Completed, true, ""},
		{"ended badly", container.State{StartedAt: at, ExitCode: 2}, state.Completed, false, state.ClassTimeout},
		{"will be tried again", container.State{StartedAt: at, ExitCode: 2, Restarting: true, Running: true}, state.Completed, false, ""},
		{"starting", container.State{StartedAt: at, Running: true, Health: health("starting")}, state.Healthy, false, ""},
		{"healthy", container.State{StartedAt: at, Running: true, Health: health("healthy")}, state.Healthy, true, ""},
		{"unhealthy", container.State{StartedAt: at, Running: true, Health: health("unhealthy")}, state.Healthy, false, state.ClassTimeout},
		{"no check", container.State{StartedAt: at, Running: true}, state.Healthy, false, state.ClassInvalid},
		{"check switched off", container.State{StartedAt: at, Running: true, Health: health("none")}, state.Healthy, false, state.ClassInvalid},
		{"ended before", container.State{StartedAt: at, Health: health("starting")}, state.Healthy, false, state.ClassTimeout},
		{"not started yet", container.State{StartedAt: never}, state.Healthy, false, ""},
		{"nonsense", container.State{StartedAt: "?"}, "service_happy", false, state.ClassInvalid},
	} {
		reached, err := judge(&c.now, c.want)
		if reached != c.reached || (err != nil) != (c.class != "") || (err != nil && state.ClassOf(err) != c.class) {
			t.Errorf("%s: %t %v", c.what, reached, err)
		}
	}
}
