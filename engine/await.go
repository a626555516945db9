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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	messages, broken := d.Events(ctx, events.ListOptions{Filters: filters.NewArgs(
		filters.Arg("type", "container"), filters.Arg("container", id))})
	defer drain(cancel, messages, broken)
	poll := time.NewTicker(awaitPoll)
	defer poll.Stop()
	for {
		reached, err := d.reached(ctx, id, s.Condition)
		if err != nil {
			return d.fail(what, err)
		}
		if reached {
			return nil
		}
		select {
		case <-messages:
		case <-poll.C:
		case err := <-broken:
			return d.fail(what, fmt.Errorf("event stream broke: %w", err))
		case <-ctx.Done():
			return d.fail(what, ctx.Err())
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
	c, err := d.inspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return false, state.Classify(state.ClassEngine, errors.New("its container was removed"))
	}
	if err != nil {
		return false, err
	}
	return judge(c.State, want)
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
