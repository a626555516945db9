package engine

import (
	"context"
	"fmt"

	"github.com/docker/docker/client"

	"deckhand/reconcile"
	"deckhand/state"
)

// Progress is told how many bytes of a download are done, of how many known so
// far. Neither number ever falls.
type Progress = func(done, total int64)

// Do carries out one step. A step that is already done is no error, and one that
// was interrupted at any point may be done again. progress may be nil.
func (e *Engine) Do(ctx context.Context, step reconcile.Step, progress func(done, total int64)) (err error) {
	c, err := e.connected(ctx)
	if err != nil {
		return err
	}
	d := doing{e: e, Client: c}
	e.memo.touch(touchedBy(step))
	defer func() { // its events may come later than its end
		if err != nil {
			e.memo.touch(failedBy(step))
		} else {
			e.memo.touch(touchedBy(step))
		}
	}()
	switch s := step.(type) {
	case reconcile.Fetch:
		return d.fetch(ctx, s, progress)
	case reconcile.RemoveImage:
		return d.removeImage(ctx, s)
	case reconcile.CreateNetwork:
		return d.createNetwork(ctx, s)
	case reconcile.RemoveNetwork:
		return d.removeNetwork(ctx, s)
	case reconcile.CreateVolume:
		return d.createVolume(ctx, s)
	case reconcile.Create:
		return d.create(ctx, s)
	case reconcile.Start:
		return d.start(ctx, s)
	case reconcile.Await:
		return d.await(ctx, s)
	case reconcile.Stop:
		return d.stop(ctx, s)
	case reconcile.Remove:
		return d.remove(ctx, s)
	case reconcile.Rename:
		return d.rename(ctx, s)
	case reconcile.RemoveVolume:
		return d.removeVolume(ctx, s)
	case reconcile.CreateAPINetwork:
		return d.createAPINetwork(ctx)
	case reconcile.Handover:
		return d.handover(ctx, s)
	case reconcile.Commit, reconcile.Fulfil, reconcile.TakeLocks, reconcile.ReleaseLocks,
		reconcile.WriteFiles, reconcile.RemoveFiles, reconcile.RequireReboot, reconcile.Reboot:
		return state.Classify(state.ClassInvalid, fmt.Errorf("%s: not the engine's business", step.Title()))
	}
	return state.Classify(state.ClassInvalid, fmt.Errorf("engine knows no step %T", step))
}

// doing is one step on its way, with the client it began with.
type doing struct {
	*client.Client
	e *Engine
}

// changed notes that a container is not what it was.
func (d doing) changed(id string) { d.e.memo.touch(question{ids: []string{id}}) }

// fail says what was tried and sorts the error.
func (d doing) fail(what string, err error) error { return d.e.fail(what, err) }
