package engine

import (
	"context"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/client"
	"golang.org/x/sync/errgroup"

	"deckhand/state"
)

const (
	refusalQuestions = 4               // asked at a time
	refusalTimeout   = 5 * time.Second // of one; a look does not wait for a broken container
)

// refusals remembers which of the ended containers ended because the engine
// could not start them, as after a boot when an address is not there yet. Only
// an inspection tells, so each container is inspected once for each end: an
// entry goes when the container is started, when a look finds it in another
// state, and when the connection breaks, since an engine that starts again
// starts its containers.
type refusals struct {
	mu    sync.Mutex
	known map[string]refusal // by container ID
}

type refusal struct {
	exit int
	text string // the engine's words; empty: it ended by itself
}

func (r *refusals) forget() {
	r.mu.Lock()
	r.known = nil
	r.mu.Unlock()
}

func (r *refusals) drop(id string) {
	r.mu.Lock()
	delete(r.known, id)
	r.mu.Unlock()
}

// recall fills in what is known and returns the containers to ask about. What
// is no longer there or does not apply any more is forgotten.
func (r *refusals) recall(list []*state.Container) (ask []*state.Container) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := map[string]refusal{}
	for _, c := range list {
		if was, ok := r.known[c.ID]; ok && was.exit == c.ExitCode {
			known[c.ID] = was
			was.show(c)
		} else {
			ask = append(ask, c)
		}
	}
	r.known = known
	return ask
}

func (r *refusals) learn(id string, was refusal) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.known == nil {
		r.known = map[string]refusal{}
	}
	r.known[id] = was
}

// show writes down why the engine did not start a container. One that it can
// never start again counts as dead: only another one helps.
func (r refusal) show(c *state.Container) {
	c.Refused = r.text
	if hopeless(r.text) {
		c.Phase = state.Dead
	}
}

// networkGone is a network's ID in a refusal. Containers hold on to the ID: a new
// network of the same name does not help them.
var networkGone = regexp.MustCompile(`network [0-9a-f]{64} not found`)

// hopeless tells refusals that come again each time, also from an engine that
// was restarted. Either the network is gone for good, or the engine was killed
// while it started this container and stumbles over what is left of that.
func hopeless(text string) bool {
	return strings.Contains(text, "task ") && strings.Contains(text, ": already exists") ||
		strings.Contains(text, "failed to start shim") && strings.Contains(text, "file exists") ||
		networkGone.MatchString(text)
}

// refused fills in Container.Refused. A container that cannot be inspected is
// left as it is: one broken container must not hide the others.
func (e *Engine) refused(ctx context.Context, c *client.Client, w state.World) {
	var list []*state.Container
	for _, app := range w.Apps {
		for i := range app.Containers {
			// The engine turns the exit code of a refused start into 128
			// where it would be 0.
			if x := &app.Containers[i]; x.Phase == state.Exited && x.ExitCode != 0 {
				list = append(list, x)
			}
		}
	}
	var g errgroup.Group
	g.SetLimit(refusalQuestions)
	for _, x := range e.refusals.recall(list) {
		g.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, refusalTimeout)
			defer cancel()
			in, err := doing{Client: c, e: e}.inspect(ctx, x.ID)
			if err != nil {
				if ctx.Err() == nil && e.once("refused "+x.ID) {
					e.cfg.Log.Warn().Err(err).Str("container", x.Name).Msg("cannot ask why a container ended")
				}
				return nil
			}
			now := refusal{exit: x.ExitCode}
			if in.State.Status == "exited" {
				now.text = in.State.Error
			}
			e.refusals.learn(x.ID, now)
			now.show(x)
			return nil
		})
	}
	_ = g.Wait() // no question returns an error
}
