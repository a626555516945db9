package main

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
)

// downtimes measures with the engine's own clock how long each service is away.
type downtimes struct {
	cancel context.CancelFunc
	done   chan struct{}
	seen   []events.Message
}

func (s *stage) watchDowntime() (*downtimes, error) {
	ctx, cancel := context.WithCancel(context.Background())
	messages, failed := s.engine.Events(ctx, events.ListOptions{Filters: filters.NewArgs(filters.Arg("type", "container"), filters.Arg("label", "io.balena.supervised"))})
	select {
	case err := <-failed:
		cancel()
		return nil, errors.Join(errors.New("watch the engine"), err)
	default:
	}
	d := &downtimes{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(d.done)
		for {
			select {
			case m := <-messages:
				d.seen = append(d.seen, m)
			case err := <-failed: // the end of ctx, or of the engine: both end the recording
				if err != nil {
					return
				}
			}
		}
	}()
	return d, nil
}

// absence is what the engine saw of one service, which ran when the watch began.
type absence struct {
	running map[string]bool // containers; "" stands for the one that ran already
	touched bool
	gone    int64 // since when nothing runs, in nanoseconds
	down    time.Duration
}

// absences follows each service through the events.
func absences(seen []events.Message) map[string]*absence {
	all := map[string]*absence{}
	for _, m := range seen {
		name := m.Actor.Attributes["io.balena.service-name"]
		a, known := all[name]
		if !known {
			a = &absence{running: map[string]bool{"": true}}
			all[name] = a
		}
		switch m.Action {
		case events.ActionDie:
			a.touched = true
			if a.running[m.Actor.ID] {
				delete(a.running, m.Actor.ID)
			} else {
				delete(a.running, "")
			}
			if len(a.running) == 0 {
				a.gone = m.TimeNano
			}
		case events.ActionStart:
			a.touched = true
			if len(a.running) == 0 {
				a.down += time.Duration(m.TimeNano - a.gone)
			}
			a.running[m.Actor.ID] = true
		default:
		}
	}
	return all
}

// print takes the strategy of each service.
func (d *downtimes) print(strategies map[string]string) {
	d.cancel()
	<-d.done
	all := absences(d.seen)
	names := slices.SortedFunc(maps.Keys(all), func(x, y string) int {
		return cmp.Or(cmp.Compare(all[x].down, all[y].down), cmp.Compare(x, y))
	})
	say("downtime of each service, by the engine's clock:")
	for _, name := range names {
		a := all[name]
		how := strategies[name]
		switch {
		case !a.touched:
			how = "not touched"
		case a.down == 0:
			how = "handed over"
		}
		say("  %-8s %5d ms   %s", name, a.down.Milliseconds(), how)
	}
}
