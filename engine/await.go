package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/events"
	"github.com/docker/docker/api/types/filters"

	"deckhand/reconcile"
	"deckhand/state"
)

// awaitPoll bounds the harm of an event that never came.
const awaitPoll = 5 * time.Second

// await waits until a container has reached a condition, or cannot any more. It
// subscribes first and looks then, so that nothing happens in between unseen.
func (d doing) await(ctx context.Context, s reconcile.Await) error {
	what := fmt.Sprintf("await %s %s", s.Service, s.Condition)
	id, err := d.container(ctx, meant{s.Container, s.App, s.Service, s.Hash, s.Image})
	if err != nil {
		return d.fail(what, err)
	}
	err = d.until(ctx, id, awaitPoll, func(ctx context.Context, _ bool) (bool, error) {
		return d.reached(ctx, id, s.Condition)
	})
	if err != nil {
		return d.fail(what, err)
	}
	return nil
}

// until looks at a container until look is done or fails: at once, after each
// event of the container, and after each interval all the same. look is told
// whether the container may have changed.
func (d doing) until(ctx context.Context, id string, every time.Duration, look func(ctx context.Context, event bool) (bool, error)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, broken := d.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("container", id),
		filters.Arg("event", "start"), filters.Arg("event", "die"), filters.Arg("event", "destroy"),
		filters.Arg("event", "health_status"), filters.Arg("event", "unpause"))})
	defer drain(cancel, messages, broken)
	poll := time.NewTicker(every)
	defer poll.Stop()
	for event := true; ; {
		done, err := look(ctx, event)
		if done || err != nil {
			return err
		}
		select {
		case <-messages:
			event = true
		case <-poll.C:
			event = false
		case err := <-broken:
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("event stream broke: %w", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drain waits until the subscription's goroutine has ended.
func drain(cancel context.CancelFunc, messages <-chan events.Message, broken <-chan error) {
	cancel()
	for {
		select {
		case <-messages:
		case _, open := <-broken:
			if !open {
				return
			}
		}
	}
}

// reached looks once.
func (d doing) reached(ctx context.Context, id string, want state.Condition) (bool, error) {
	c, err := d.present(ctx, id)
	if err != nil {
		return false, err
	}
	return judge(c.State, want)
}

// present looks at a container that is waited for.
func (d doing) present(ctx context.Context, id string) (container.InspectResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	c, err := d.inspect(ctx, id)
	if errdefs.IsNotFound(err) {
		err = state.Classify(state.ClassEngine, errors.New("its container was removed"))
	}
	return c, err
}

// judge compares a container's state with a condition. The error says that the
// condition will not be reached without help.
func judge(s *container.State, want state.Condition) (bool, error) {
	ran := started(s)
	over := ran && !s.Running && !s.Restarting
	switch want {
	case state.Started:
		return ran, nil
	case state.Completed:
		if over && s.ExitCode != 0 {
			return false, state.Classify(state.ClassTimeout, fmt.Errorf("it ended with exit code %d", s.ExitCode))
		}
		return over, nil
	case state.Healthy:
		switch {
		case over:
			return false, state.Classify(state.ClassTimeout, fmt.Errorf("it ended with exit code %d before it was healthy", s.ExitCode))
		case s.Running && (s.Health == nil || s.Health.Status == container.NoHealthcheck):
			return false, state.Classify(state.ClassInvalid, errors.New("it has no health check, so it never becomes healthy; add one or depend on service_started"))
		case !s.Running:
			return false, nil
		case s.Health.Status == container.Unhealthy:
			return false, state.Classify(state.ClassTimeout, fmt.Errorf("it is unhealthy%s", lastCheck(s.Health)))
		}
		return s.Health.Status == container.Healthy, nil
	}
	return false, state.Classify(state.ClassInvalid, fmt.Errorf("unknown condition %q", want))
}

// started reports whether the container ever ran; the engine says year 1 if not.
func started(s *container.State) bool {
	at, err := time.Parse(time.RFC3339Nano, s.StartedAt)
	return err == nil && at.Year() > 1
}

// lastCheck quotes the last health check, shortened.
func lastCheck(h *container.Health) string {
	if len(h.Log) == 0 || h.Log[len(h.Log)-1] == nil {
		return ""
	}
	last := h.Log[len(h.Log)-1]
	return fmt.Sprintf(": its check ended with %d: %.200q", last.ExitCode, last.Output)
}
