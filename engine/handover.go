package engine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/docker/docker/api/types/container"

	"deckhand/reconcile"
	"deckhand/state"
)

const (
	handoverPoll    = 100 * time.Millisecond // of the marker files; balena's interval
	handoverDefault = time.Minute            // when a step names no timeout
)

// The marker files by which a new container says that it has taken over.
//
// They are deleted where that cannot lose a message and cannot let an old one
// count: before the first start of a container, since nobody can have meant that
// one yet, and before a stop, since whoever waited for the message has stored it
// by then. A crash at any point between leaves the file where it is, and the
// next wait finds it.
func markers(runDir string, appID int64, service string) []string {
	if runDir == "" {
		return nil
	}
	dir := lockDir(runDir, appID, service)
	return []string{filepath.Join(dir, "handover-complete"), filepath.Join(dir, "resin-kill-me")}
}

// marked reports whether a marker is there. Containers write in that folder, so
// links are not followed: a link is a marker too.
func marked(files []string) bool {
	for _, f := range files {
		if _, err := os.Lstat(f); err == nil {
			return true
		}
	}
	return false
}

// unmark deletes the markers. A user may have made a folder of that name.
func unmark(files []string) error {
	var failed error
	for _, f := range files {
		if err := os.RemoveAll(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			failed = errors.Join(failed, err)
		}
	}
	return failed
}

// unmarkNew deletes markers before the first start of a container. It costs a
// question to the engine only where there are some.
func (d doing) unmarkNew(ctx context.Context, id string, app reconcile.App, service string) error {
	files := markers(d.e.cfg.RunDir, app.ID, service)
	if !marked(files) {
		return nil
	}
	c, err := d.inspect(ctx, id)
	if err != nil {
		return err
	}
	if started(c.State) {
		return nil // they may be its own
	}
	if err := unmark(files); err != nil {
		return fmt.Errorf("delete the message of an earlier hand-over: %w", err)
	}
	return nil
}

// handover waits until the new container has taken over.
func (d doing) handover(ctx context.Context, s reconcile.Handover) error {
	what := "hand over to new " + s.Service
	id, err := d.container(ctx, meant{s.Container, s.App, s.Service, s.Hash, s.Image})
	if err != nil {
		return d.fail(what, err)
	}
	w := wait{
		d: d, id: id, step: s, files: markers(d.e.cfg.RunDir, s.App.ID, s.Service),
		begin: time.Now(), timeout: cmp.Or(s.Timeout, handoverDefault),
	}
	if err := d.until(ctx, id, handoverPoll, w.look); err != nil {
		return d.fail(what, err)
	}
	return nil
}

// wait is one hand-over on its way.
type wait struct {
	d       doing
	id      string
	step    reconcile.Handover
	files   []string
	begin   time.Time
	timeout time.Duration
	asked   time.Time // when the engine was asked last
	why     string    // what is missing, for people
}

// look is cheap, except when something happened to the container.
func (w *wait) look(ctx context.Context, event bool) (bool, error) {
	if marked(w.files) {
		return true, nil
	}
	if event || time.Since(w.asked) >= awaitPoll {
		w.asked = time.Now()
		c, err := w.d.present(ctx, w.id)
		if err != nil {
			return false, err
		}
		done, why, err := took(c.State, w.step.KeepOld)
		if done || err != nil {
			return done, err
		}
		w.why = why
	}
	if time.Since(w.begin) < w.timeout {
		return false, nil
	}
	if !w.step.KeepOld {
		w.d.e.cfg.Log.Warn().Str("service", w.step.Service).Str("container", w.id).
			Msgf("the new container did not take over within %v (%s); the old one stops all the same", w.timeout, w.why)
		return true, nil
	}
	return false, state.Classify(state.ClassTimeout, fmt.Errorf("it did not take over within %v: %s", w.timeout, w.why))
}

// took judges by the container's state alone. Without keepOld the old container
// stops in any case, so a new one that ended may as well come back meanwhile.
func took(s *container.State, keepOld bool) (done bool, why string, err error) {
	over := started(s) && !s.Running && !s.Restarting
	checked := s.Health != nil && s.Health.Status != container.NoHealthcheck
	switch {
	case over && keepOld:
		return false, "", state.Classify(state.ClassTimeout, fmt.Errorf("the new container ended with exit code %d; the old one runs on", s.ExitCode))
	case over:
		return false, fmt.Sprintf("it ended with exit code %d", s.ExitCode), nil
	case s.Restarting:
		return false, fmt.Sprintf("it ends again and again, the last time with exit code %d", s.ExitCode), nil
	case !s.Running:
		return false, "it does not run", nil
	case !checked:
		return false, "it wrote no /tmp/balena/handover-complete and has no health check", nil
	case s.Health.Status == container.Healthy:
		return true, "", nil
	}
	return false, fmt.Sprintf("it is %s%s", s.Health.Status, lastCheck(s.Health)), nil
}
