package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"

	"deckhand/reconcile"
	"deckhand/state"
)

const (
	removalPoll    = 100 * time.Millisecond
	removalTimeout = time.Minute // of a removal that somebody else began
)

// start runs a container.
func (d doing) start(ctx context.Context, s reconcile.Start) error {
	what := "start " + s.Service
	id, err := d.container(ctx, meant{s.Container, s.App, s.Service, s.Hash, s.Image})
	if err != nil {
		return d.fail(what, err)
	}
	if err := d.unmarkNew(ctx, id, s.App, s.Service); err != nil && !errdefs.IsNotFound(err) {
		return d.fail(what, err)
	}
	err = d.ContainerStart(ctx, id, container.StartOptions{})
	d.e.refusals.drop(id)
	if err == nil {
		return nil
	}
	if half := strings.Contains(err.Error(), "id already in use"); half || hopeless(err.Error()) {
		err = errors.Join(err, d.makeAnew(ctx, id, half))
	}
	return fmt.Errorf("%s: %w", what, classifyStart(err))
}

// makeAnew removes a container that never ran, so that the next plan makes
// another one. One that did run has files: the next look shows it as dead, and
// the planner replaces it in its own order. After half a start, cut off by the
// engine's end, the engine may show it as running, and its files are gone.
func (d doing) makeAnew(ctx context.Context, id string, half bool) error {
	c, err := d.inspect(ctx, id)
	if err != nil {
		return err
	}
	ended, parse := time.Parse(time.RFC3339Nano, c.State.FinishedAt)
	if firstRun := parse == nil && ended.Year() <= 1; c.State.Status == "created" || half && firstRun {
		return d.discard(ctx, id)
	}
	return nil
}

// meant says which container a step means: one with an ID, or one made from a
// spec and an image.
type meant struct {
	id      string
	app     reconcile.App
	service string
	hash    string
	image   string
}

// container is the ID of the container that is meant; of several the newest.
func (d doing) container(ctx context.Context, m meant) (string, error) {
	if m.id != "" {
		return m.id, nil
	}
	im, err := d.imageID(ctx, m.image)
	if err != nil {
		return "", fmt.Errorf("look for its container: %w", err)
	}
	list, err := d.ContainerList(ctx, container.ListOptions{All: true, Filters: filters.NewArgs(
		filters.Arg("label", state.LabelAppUUID+"="+m.app.UUID),
		filters.Arg("label", state.LabelServiceName+"="+m.service),
		filters.Arg("label", state.LabelSpec+"="+m.hash))})
	if err != nil {
		return "", err
	}
	var found *container.Summary
	for i, c := range list {
		usable := d.e.ours(c.Labels) && c.ImageID == im && c.State != "dead" && c.State != "removing"
		if usable && (found == nil || c.Created > found.Created) {
			found = &list[i]
		}
	}
	if found == nil {
		return "", fmt.Errorf("no container of %s with spec %s and image %s exists", m.service, m.hash, m.image)
	}
	return found.ID, nil
}

// inspect looks at one container. A partial answer is an error, so that callers
// may use every part.
func (d doing) inspect(ctx context.Context, id string) (container.InspectResponse, error) {
	c, err := d.ContainerInspect(ctx, id)
	if err != nil {
		return c, err
	}
	if c.ContainerJSONBase == nil || c.State == nil || c.HostConfig == nil || c.Config == nil {
		return c, fmt.Errorf("the engine's description of container %.12s is incomplete", id)
	}
	return c, nil
}

// remove deletes a stopped container with its anonymous volumes.
func (d doing) remove(ctx context.Context, s reconcile.Remove) error {
	err := d.ContainerRemove(ctx, s.Container, container.RemoveOptions{RemoveVolumes: true})
	if errdefs.IsConflict(err) && strings.Contains(err.Error(), "already in progress") {
		err = d.removed(ctx, s.Container)
	} else if err != nil && !errdefs.IsNotFound(err) {
		err = d.removeDead(ctx, s.Container, err)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return d.fail("remove "+s.Service, err)
	}
	return nil
}

// removed waits for a removal that is under way.
func (d doing) removed(ctx context.Context, id string) error {
	limited, cancel := context.WithTimeoutCause(ctx, removalTimeout, errors.New("the engine's own removal does not end"))
	defer cancel()
	for {
		c, err := d.inspect(limited, id)
		switch {
		case errdefs.IsNotFound(err):
			return nil
		case err != nil:
			return err
		case c.State.Dead:
			return d.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true})
		}
		if !sleep(limited, removalPoll) {
			return context.Cause(limited)
		}
	}
}

// removeDead tries once more, with force, if an earlier removal failed half way.
func (d doing) removeDead(ctx context.Context, id string, was error) error {
	c, err := d.inspect(ctx, id)
	if errdefs.IsNotFound(err) {
		return nil
	}
	if err != nil || !c.State.Dead {
		return was
	}
	return d.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true})
}

// rename writes a new release into a container's name. A container that is gone
// needs none; the next look shows it missing.
func (d doing) rename(ctx context.Context, s reconcile.Rename) error {
	what := "rename " + s.Service
	err := d.ContainerRename(ctx, s.Container, s.Name)
	if err == nil || errdefs.IsNotFound(err) {
		return nil
	}
	holder, inspectErr := d.inspect(ctx, s.Name)
	switch {
	case inspectErr != nil:
		return d.fail(what, err)
	case holder.ID == s.Container:
		return nil // done before
	}
	if err := d.freeName(ctx, holder, s.App, s.Service); err != nil {
		return d.fail(what, err)
	}
	if err := d.ContainerRename(ctx, s.Container, s.Name); err != nil && !errdefs.IsNotFound(err) {
		return d.fail(what, err)
	}
	return nil
}
