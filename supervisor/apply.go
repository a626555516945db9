package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"

	"github.com/rs/zerolog"

	"deckhand/engine"
	"deckhand/locks"
	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
)

// Apply brings one project to its target without any cloud. It shares nothing
// with the supervisor proper: objects carry the project's label, and the memory
// is a folder of its own.
type Apply struct {
	Engine  string // host of the container engine
	DataDir string
	Project string
	Log     zerolog.Logger
	Event   func(run.Event) // told of each step; nil: nobody
}

var projectName = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,62}$`)

// patience is how often a step may fail before Run gives up: the second and
// third try catch an engine or a registry that is just restarting.
const patience = 3

// Run works until the project is as it should be, cannot get there, or ctx ends.
func (a Apply) Run(ctx context.Context, want state.Target) error {
	d, closing, err := a.open()
	if err != nil {
		return err
	}
	defer closing()
	w, err := d.Observe(ctx)
	if err != nil {
		return err
	}
	want = withoutReboots(want)
	d.use(want)
	if err := errors.Join(d.learn(want, nil), d.tidy(want, w)); err != nil {
		return fmt.Errorf("remember the target: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := run.New(run.Config{Device: d, Memory: memory{d.Store, a.Log}, Log: a.Log, Event: a.Event})
	r.SetTarget(want)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	result := settle(ctx, r)
	cancel()
	return errors.Join(result, <-done)
}

// Plan says what Run would do.
func (a Apply) Plan(ctx context.Context, want state.Target) (reconcile.Plan, error) {
	d, closing, err := a.open()
	if err != nil {
		return reconcile.Plan{}, err
	}
	defer closing()
	want = withoutReboots(want)
	d.use(want)
	return planOnce(ctx, d, want)
}

// withoutReboots is a target whose services start at once: this command never
// restarts the machine that it runs on.
func withoutReboots(t state.Target) state.Target {
	t.Apps = maps.Clone(t.Apps)
	for uuid, a := range t.Apps {
		a.Services = maps.Clone(a.Services)
		for name, s := range a.Services {
			s.RequiresReboot = false
			a.Services[name] = s
		}
		t.Apps[uuid] = a
	}
	return t
}

func (a Apply) open() (*device, func(), error) {
	if !projectName.MatchString(a.Project) {
		return nil, nil, fmt.Errorf("project %q: %w", a.Project,
			state.Classify(state.ClassInvalid, errors.New("use up to 63 of a-z, 0-9, _ and -, beginning with a letter or digit")))
	}
	dir := filepath.Join(a.DataDir, "projects", a.Project)
	lock, err := locks.Instance(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, nil, err
	}
	s, err := store.Open(filepath.Join(dir, "deckhand.db"), store.Options{Report: func(err error) { a.Log.Warn().Msg(err.Error()) }})
	if err != nil {
		_ = lock.Release()
		return nil, nil, err
	}
	e, err := engine.New(engine.Config{Host: a.Engine, Identity: func() state.Identity { return state.Identity{Name: a.Project} }, Project: a.Project, Log: a.Log})
	if err != nil {
		_ = s.Close()
		_ = lock.Release()
		return nil, nil, err
	}
	closing := func() {
		_ = e.Close()
		_ = s.Close()
		_ = lock.Release()
	}
	d, err := newDevice(deviceConfig{Engine: e, Store: s, Log: a.Log})
	if err != nil {
		closing()
		return nil, nil, err
	}
	return d, closing, nil
}

// settle waits until the loop has nothing left to do, or nothing left that
// another try would help.
func settle(ctx context.Context, r *run.Runner) error {
	for {
		changed := r.Changed()
		s := r.Status()
		if s.Settled {
			return refusal(s.Target)
		}
		if len(s.Running) == 0 && len(s.Plan.Ready()) == 0 {
			for _, w := range s.Plan.Waiting {
				if w.Tries >= patience || w.Class == state.ClassInvalid {
					return fmt.Errorf("%s: %w", w.Title, state.Classify(w.Class, fmt.Errorf("%s; %s", w.Text, w.Class.Advice())))
				}
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func refusal(t state.Target) error {
	for _, a := range t.Apps {
		if a.Rejected != "" {
			return fmt.Errorf("%s is rejected: %w", a.Name, state.Classify(state.ClassInvalid, errors.New(a.Rejected)))
		}
	}
	return nil
}

// planOnce looks and plans, and changes nothing.
func planOnce(ctx context.Context, d *device, want state.Target) (reconcile.Plan, error) {
	w, err := d.Observe(ctx)
	if err != nil {
		return reconcile.Plan{}, err
	}
	return reconcile.Make(w, want, reconcile.Facts{})
}
