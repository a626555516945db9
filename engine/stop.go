package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/client"

	"deckhand/reconcile"
	"deckhand/state"
)

const (
	graceDefault = 10 * time.Second // the engine's, when a container names none
	stopPoll     = 100 * time.Millisecond
)

// errStubborn is the end of our patience with a stop.
var errStubborn = errors.New("the engine does not get it to end")

// stop stops a container in the time its stop_grace_period gives it. That is one
// call, because the service is down meanwhile. The engine ends a restart loop by
// it as well: its stop cancels the next restart. Only a stop that fails or does
// not end is followed by more.
func (d doing) stop(ctx context.Context, s reconcile.Stop) error {
	what := "stop " + s.Service
	if err := unmark(markers(d.e.cfg.RunDir, s.App.ID, s.Service)); err != nil {
		d.e.cfg.Log.Warn().Err(err).Str("service", s.Service).Msg("cannot delete the message of a hand-over")
	}
	err := d.stopInTime(ctx, s.Container)
	if stumbled := err != nil && !errors.Is(err, errStubborn) && !errdefs.IsNotFound(err); stumbled && ctx.Err() == nil {
		err = d.stopInTime(ctx, s.Container) // once more before the service loses its grace
	}
	switch {
	case err == nil, errdefs.IsNotFound(err):
		return nil
	case ctx.Err() != nil, client.IsErrConnectionFailed(err):
		return d.fail(what, err)
	}
	d.e.cfg.Log.Warn().Err(err).Str("service", s.Service).Str("container", s.Container).Msg("the container does not stop; killing it")
	if forced := d.force(ctx, s.Container); forced != nil {
		return d.fail(what, errors.Join(err, forced))
	}
	return nil
}

// stopInTime is the engine's stop. An engine may wait for ever for a process
// that the kernel does not let go.
func (d doing) stopInTime(ctx context.Context, id string) error {
	limited, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.ContainerStop(limited, id, container.StopOptions{}) }()
	patience := time.NewTimer(d.e.limits.stop)
	defer patience.Stop()
	select {
	case err := <-ended:
		return err
	case <-patience.C:
	}
	grace := graceDefault
	if c, err := d.present(ctx, id); err == nil && c.Config.StopTimeout != nil {
		grace = time.Duration(*c.Config.StopTimeout) * time.Second
	}
	if grace < 0 { // as long as it takes
		return <-ended
	}
	patience.Reset(grace)
	select {
	case err := <-ended:
		return err
	case <-patience.C:
		cancel()
		if err := <-ended; err == nil {
			return nil // at the last moment
		}
		return errStubborn
	}
}

// force ends a container that does not stop: without a restart policy it stays
// down, a kill needs nobody's consent, and what survives that is removed.
// Whatever is left of the container keeps the policy that it had.
func (d doing) force(ctx context.Context, id string) (err error) {
	c, err := d.present(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if c.HostConfig.RestartPolicy.Name != container.RestartPolicyDisabled {
		err := d.setPolicy(ctx, id, container.RestartPolicy{Name: container.RestartPolicyDisabled})
		if err != nil {
			return err
		}
		defer func() {
			back, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
			defer cancel()
			err = errors.Join(err, d.setPolicy(back, id, c.HostConfig.RestartPolicy))
		}()
	}
	killed := d.kill(ctx, id)
	if killed == nil {
		return nil
	}
	d.e.cfg.Log.Warn().Err(killed).Str("container", id).Msg("the container survives being killed; removing it")
	limited, cancel := context.WithTimeout(ctx, d.e.limits.force)
	defer cancel()
	// Its anonymous volumes stay: it was only to stop.
	if err := d.ContainerRemove(limited, id, container.RemoveOptions{Force: true}); err != nil && !errdefs.IsNotFound(err) {
		return state.Classify(state.ClassEngine, errors.Join(killed, fmt.Errorf("remove it by force: %w; restart the engine or the device", err)))
	}
	return nil
}

// setPolicy changes a container's restart policy; one that is gone needs none.
func (d doing) setPolicy(ctx context.Context, id string, p container.RestartPolicy) error {
	_, err := d.ContainerUpdate(ctx, id, container.UpdateConfig{RestartPolicy: p})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("set restart policy %q: %w", p.Name, err)
	}
	return nil
}

// kill kills a container and waits until it has ended.
func (d doing) kill(ctx context.Context, id string) error {
	limited, cancel := context.WithTimeoutCause(ctx, d.e.limits.force, errors.New("it has been killed and does not end"))
	defer cancel()
	err := d.ContainerKill(limited, id, "KILL")
	if err != nil && !errdefs.IsNotFound(err) && !errdefs.IsConflict(err) { // a conflict: it does not run
		if limited.Err() != nil {
			return context.Cause(limited)
		}
		return err
	}
	for {
		c, err := d.inspect(limited, id)
		switch {
		case errdefs.IsNotFound(err):
			return nil
		case limited.Err() != nil:
			return context.Cause(limited)
		case err != nil:
			return err
		case !c.State.Running && !c.State.Restarting:
			return nil
		}
		if !sleep(limited, stopPoll) {
			return context.Cause(limited)
		}
	}
}
