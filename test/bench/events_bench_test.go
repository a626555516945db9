//go:build bench

package bench

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"deckhand/test/dockerd"
)

// recording is what the engine itself says happened, with its own clock.
type recording struct {
	cancel context.CancelFunc
	seen   <-chan events.Message
	failed <-chan error
	got    []events.Message
}

// watch records the containers of the services s0, s1 and on.
func watch(t *testing.T, e *dockerd.Engine) *recording {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	seen, failed := e.Client.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"))})
	return &recording{cancel: cancel, seen: seen, failed: failed}
}

func (r *recording) stop() { r.cancel() }

func serviceOf(m events.Message) string {
	s := m.Actor.Attributes["io.balena.service-name"]
	if !strings.HasPrefix(s, "s") {
		return ""
	}
	return s
}

// last waits for n events of an action and gives the time of the n-th.
func (r *recording) last(t *testing.T, action string, n int) time.Time {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		count := 0
		for _, m := range r.got {
			if string(m.Action) == action && serviceOf(m) != "" {
				if count++; count == n {
					return time.Unix(0, m.TimeNano)
				}
			}
		}
		select {
		case m := <-r.seen:
			r.got = append(r.got, m)
		case err := <-r.failed:
			t.Fatal(err)
		case <-deadline:
			t.Fatalf("%d of %d %s events", count, n, action)
		}
	}
}

// downtimes is for each service, all of which ran at first, how long none of its
// containers ran.
func (r *recording) downtimes() []time.Duration {
	type life struct {
		running int
		since   int64
		down    time.Duration
	}
	all := map[string]*life{}
	for _, m := range r.got {
		s := serviceOf(m)
		if s == "" {
			continue
		}
		if all[s] == nil {
			all[s] = &life{running: 1}
		}
		x := all[s]
		switch string(m.Action) {
		case "die":
			if x.running--; x.running == 0 {
				x.since = m.TimeNano
			}
		case "start":
			if x.running == 0 {
				x.down += time.Duration(m.TimeNano - x.since)
			}
			x.running++
		}
	}
	var out []time.Duration
	for _, s := range sortedKeys(all) {
		out = append(out, all[s].down)
	}
	return out
}

// replacement is an update of n services as the engine tells it.
type replacement struct {
	running time.Duration // until the last start
	whole   time.Duration // until the last old container was gone as well
	down    []time.Duration
}

// replaced waits for the end of an update that began at a time.
func (r *recording) replaced(t *testing.T, began time.Time, n int) replacement {
	t.Helper()
	start := r.last(t, "start", n).Sub(began)
	gone := r.last(t, "destroy", n).Sub(began)
	return replacement{running: start, whole: max(start, gone), down: r.downtimes()}
}

func median[T time.Duration | float64](all []T) T {
	if len(all) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(all))
	if len(s)%2 == 0 {
		return (s[len(s)/2-1] + s[len(s)/2]) / 2
	}
	return s[len(s)/2]
}
