package engine

import (
	"context"
	"fmt"
	"time"

	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/client"
)

// Watch gives a hint whenever the engine's objects changed, and after each
// (re)connection, since events may have been missed. Hints that are not read
// become one. The channel closes when ctx ends.
func (e *Engine) Watch(ctx context.Context) <-chan struct{} {
	hints := make(chan struct{}, 1)
	go func() {
		defer close(hints)
		e.watch(ctx, func() {
			select {
			case hints <- struct{}{}:
			default:
			}
		})
	}()
	return hints
}

func (e *Engine) watch(ctx context.Context, hint func()) {
	for wait := backoffFirst; ctx.Err() == nil; wait = min(2*wait, backoffMost) {
		c, err := e.connected(ctx)
		if err == nil {
			wait = backoffFirst
			err = e.follow(ctx, c, hint)
			if ctx.Err() != nil {
				return
			}
			e.lost()
			hint() // whoever reads Available should know
		}
		if e.once(fmt.Sprintf("watch %v", err)) {
			e.cfg.Log.Warn().Err(err).Msg("engine is away")
		}
		sleep(ctx, wait)
	}
}

// follow reads the event stream until it ends; the error is never nil.
func (e *Engine) follow(ctx context.Context, c *client.Client, hint func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// The engine answers before it has subscribed us; what happens in between is
	// told afterwards.
	since := time.Now()
	messages, broken := c.Events(ctx, events.ListOptions{
		Filters: interesting(), Since: fmt.Sprintf("%d.%09d", since.Unix(), since.Nanosecond()),
	})
	defer drain(cancel, messages, broken)
	e.memo.follow(true)
	defer e.memo.follow(false)
	hint()
	e.started(events.Message{})
	for {
		select {
		case m := <-messages:
			e.memo.touch(changedBy(m))
			hint()
			e.started(m)
		case err := <-broken:
			return fmt.Errorf("event stream ended: %w", err)
		}
	}
}

// interesting leaves out what changes nothing an observation shows, above all
// the three events of every run of a health check.
func interesting() filters.Args {
	f := filters.NewArgs()
	for _, t := range []string{"container", "network", "volume", "image"} {
		f.Add("type", t)
	}
	for _, a := range []string{
		"create", "start", "die", "destroy", "remove", "rename", "pause", "unpause", "health_status", "connect", "disconnect",
		"pull", "tag", "untag", "delete", "load", "import",
	} {
		f.Add("event", a)
	}
	return f
}
