package engine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/network"

	"deckhand/reconcile"
	"deckhand/state"
)

const (
	cleanupTimeout = 30 * time.Second
	createAttempts = 4 // one, and one more for each way the name can be taken
)

// create makes a container and connects it to its networks. A container that an
// interrupted attempt left behind is finished or replaced.
func (d doing) create(ctx context.Context, s reconcile.Create) error {
	what := "create " + s.Service.Name
	if err := makeLockDir(d.e.cfg.RunDir, s.App.ID, s.Service.Name); err != nil {
		return state.Classify(state.ClassEngine, fmt.Errorf("%s: %w", what, err))
	}
	im, err := d.image(ctx, s.Service.Image)
	if errdefs.IsNotFound(err) {
		return state.Classify(state.ClassNotFound, fmt.Errorf("%s: image %s is not on the device", what, s.Service.Image))
	}
	if err != nil {
		return d.fail(what, err)
	}
	in := surroundings{
		image: im.ID, identity: d.e.cfg.Identity(), project: d.e.cfg.Project, runDir: d.e.cfg.RunDir, api: d.ClientVersion(),
		features: d.e.cfg.Features(s.App, s.Service.Name), gateway: d.e.cfg.API.Gateway, exists: d.e.onHost,
	}
	for _, r := range references(im.RepoTags, im.RepoDigests) {
		if r == s.Service.Image {
			in.image = r // people see it in the engine's lists
		}
	}
	if im.Config != nil {
		in.program = program{entrypoint: im.Config.Entrypoint, command: im.Config.Cmd}
	}
	nets, err := d.networkIDs(ctx, s)
	if err != nil {
		return d.fail(what, err)
	}
	if in.networkOwner, err = d.networkOwner(ctx, s); err != nil {
		return d.fail(what, err)
	}
	if err := d.externalVolumes(ctx, s); err != nil {
		return d.fail(what, err)
	}
	for i := range createAttempts {
		var done bool
		if done, err = d.tryCreate(ctx, s, in, nets, im.ID, i == 0); done || err != nil {
			break
		}
	}
	if err != nil {
		return d.fail(what, err)
	}
	return nil
}

// tryCreate is one attempt. When it was the name that failed, the name is freed
// and the caller tries again: done is false and the error nil.
func (d doing) tryCreate(ctx context.Context, s reconcile.Create, in surroundings, nets map[string]string, imageID string, first bool) (done bool, err error) {
	o := createOptions(s, in)
	if first && d.e.memo.nameTaken(o.name) { // as after a change of a variable
		return d.nameTaken(ctx, s, o, imageID, nil)
	}
	made, err := d.ContainerCreate(ctx, o.config, o.host, o.nets, nil, o.name)
	if errdefs.IsConflict(err) {
		return d.nameTaken(ctx, s, o, imageID, err)
	}
	if err != nil {
		return false, err
	}
	defer d.changed(made.ID)
	for _, what := range o.missing {
		d.e.cfg.Log.Warn().Str("service", s.Service.Name).Msg("left out: feature " + what)
	}
	for _, warning := range made.Warnings {
		d.e.cfg.Log.Warn().Str("service", s.Service.Name).Msg("engine: " + warning)
	}
	for _, n := range o.others {
		if err := d.connect(ctx, made.ID, n, nets[engineName(s, n)], endpoint(s.Service.Spec.Networks[n])); err != nil {
			return false, err
		}
	}
	for _, n := range o.extra {
		if err := d.connect(ctx, made.ID, n, nets[n], nil); err != nil {
			return false, err
		}
	}
	return true, nil
}

// connect joins a container that was just made to one more network; if that
// fails, nothing of the container is left.
func (d doing) connect(ctx context.Context, id, name, networkID string, end *network.EndpointSettings) error {
	if err := d.NetworkConnect(ctx, networkID, id, end); err != nil {
		return errors.Join(fmt.Errorf("connect to network %s: %w", name, err), d.discard(ctx, id))
	}
	return nil
}

// discard removes a container that was never started, also when ctx has ended.
func (d doing) discard(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := d.ContainerRemove(ctx, id, container.RemoveOptions{RemoveVolumes: true, Force: true})
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// nameTaken looks at who has the name: our own unfinished or finished attempt,
// an older container of the service, or a stranger. conflict is what the engine
// said to another one of that name; nil: it was not asked.
func (d doing) nameTaken(ctx context.Context, s reconcile.Create, o options, imageID string, conflict error) (done bool, err error) {
	holder, err := d.inspect(ctx, o.name)
	if errdefs.IsNotFound(err) {
		return false, nil // gone meanwhile
	}
	if err != nil {
		return false, err
	}
	if strings.TrimPrefix(holder.Name, "/") != o.name {
		return false, conflict
	}
	mine := holder.Config.Labels[state.LabelSpec] == s.Service.Hash && holder.State.Status == "created" && holder.Image == imageID
	if d.sameService(holder, s.App, s.Service.Name) && mine {
		if attached(holder, s, o) {
			d.changed(holder.ID)
			return true, nil
		}
		return false, d.discard(ctx, holder.ID)
	}
	return false, d.freeName(ctx, holder, s.App, s.Service.Name)
}

// attached reports whether a container has every network it should have.
func attached(c container.InspectResponse, s reconcile.Create, o options) bool {
	names := slices.Clone(o.extra)
	for n := range s.Service.Spec.Networks {
		names = append(names, engineName(s, n))
	}
	for _, n := range names {
		if c.NetworkSettings == nil || c.NetworkSettings.Networks[n] == nil {
			return false
		}
	}
	return o.host.NetworkMode.IsContainer() == c.HostConfig.NetworkMode.IsContainer() &&
		(!o.host.NetworkMode.IsContainer() || o.host.NetworkMode == c.HostConfig.NetworkMode)
}

func (d doing) sameService(c container.InspectResponse, app reconcile.App, service string) bool {
	if !d.e.ours(c.Config.Labels) || label(c.Config.Labels, state.LabelServiceName) != service {
		return false
	}
	uuid := label(c.Config.Labels, state.LabelAppUUID)
	return uuid == app.UUID || (uuid == "" && number(label(c.Config.Labels, state.LabelAppID)) == app.ID)
}

// freeName renames a container of the same service out of the way. It keeps
// running; the planner removes it in its turn.
func (d doing) freeName(ctx context.Context, holder container.InspectResponse, app reconcile.App, service string) error {
	defer d.changed(holder.ID)
	name := strings.TrimPrefix(holder.Name, "/")
	if !d.sameService(holder, app, service) {
		return state.Classify(state.ClassEngine, fmt.Errorf("the name %s is taken by container %.12s, which is not a %s of this app; rename or remove that container",
			name, holder.ID, service))
	}
	err := d.ContainerRename(ctx, holder.ID, "old_"+name)
	if errdefs.IsConflict(err) { // an even older one has that name
		err = d.ContainerRename(ctx, holder.ID, fmt.Sprintf("old_%.12s_%s", holder.ID, name))
	}
	if errdefs.IsNotFound(err) {
		return nil
	}
	return err
}

// makeLockDir makes the folder a service puts its update lock into. Anyone may
// write there, as in /tmp.
func makeLockDir(runDir string, appID int64, service string) error {
	if runDir == "" {
		return nil
	}
	dir := lockDir(runDir, appID, service)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make lock folder: %w", err)
	}
	if err := os.Chmod(dir, 0o777|fs.ModeSticky); err != nil {
		return fmt.Errorf("make lock folder: %w", err)
	}
	return nil
}
