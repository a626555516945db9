package story

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"deckhand/reconcile"
	"deckhand/reconcile/sim"
	"deckhand/state"
)

// Outcome is what came out of a scenario.
type Outcome struct {
	Plan, Story string
	First       reconcile.Plan // the one that Plan prints
	Want        state.Target
	End         state.World
}

// Play runs a scenario. An error means that an invariant does not hold; the
// outcome then shows how far it came.
func (s *Scenario) Play(ctx context.Context) (Outcome, error) {
	var out Outcome
	d, err := s.Prepare(ctx)
	if err != nil {
		return out, err
	}
	if out.Want, err = s.Want(ctx); err != nil {
		return out, err
	}
	t := newTale(d, out.Want)
	t.surprises = s.options.surprises
	if out.First, err = t.make(); err != nil {
		return out, err
	}
	if out.Plan = out.First.String(); out.Plan == "" {
		out.Plan = "nothing to do\n"
	}
	err = t.run(most)
	if err == nil {
		err = t.end(out.First)
	}
	out.Story, out.End = strings.Join(t.lines, ""), t.world
	return out, err
}

// Want is what the cloud asks for.
func (s *Scenario) Want(ctx context.Context) (state.Target, error) {
	release := s.options.release
	if release == 0 {
		release = 2 + min(1, len(s.half))
	}
	return s.target(ctx, "new", s.new, release)
}

// Prepare builds the device: old.yml reached, half.yml half-way, mishaps last.
func (s *Scenario) Prepare(ctx context.Context) (*Device, error) {
	d := &Device{World: state.World{Apps: map[string]state.AppNow{}, Images: map[string]state.Image{}}}
	for _, stage := range []struct {
		side    string
		docs    map[string][]byte
		release int
		rounds  int
	}{
		{"old", s.old, 1, most},
		{"half", s.half, 2, s.options.rounds},
	} {
		if len(stage.docs) == 0 {
			continue
		}
		want, err := s.target(ctx, stage.side, stage.docs, stage.release)
		if err != nil {
			return nil, err
		}
		for _, a := range want.Apps {
			if a.Rejected != "" {
				return nil, fmt.Errorf("%s document of %s: %s", stage.side, a.Name, a.Rejected)
			}
		}
		t := newTale(d, want)
		if err := t.run(stage.rounds); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", stage.side, err, strings.Join(t.lines, ""))
		}
		d.World = t.world
	}
	for _, line := range s.device {
		if err := d.apply(line); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// most is more rounds than any scenario needs.
const most = 100

// tries is how often a step fails before a story ends.
const tries = 2

// tale is a device on its way to a target.
type tale struct {
	start state.World
	world state.World
	want  state.Target
	fails []string
	facts reconcile.Facts

	surprises bool // the first plan cannot know all that will be done

	rounds int
	lines  []string
	did    [][]reconcile.Key // by round
	stuck  bool
}

func newTale(d *Device, want state.Target) *tale {
	return &tale{
		start: d.World, world: d.World, want: want, fails: d.Fails,
		facts: reconcile.Facts{Now: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Failures: map[reconcile.Key]state.Failure{}},
	}
}

func (t *tale) make() (reconcile.Plan, error) { return reconcile.Make(t.world, t.want, t.facts) }

func (t *tale) say(format string, arg ...any) {
	t.lines = append(t.lines, fmt.Sprintf(format, arg...)+"\n")
}

// run goes on until nothing is left to do, nothing can go on, or the rounds are
// over.
func (t *tale) run(rounds int) error {
	for t.rounds < rounds {
		p, err := t.make()
		if err != nil {
			return err
		}
		ready := p.Ready()
		switch {
		case p.Steps() == 0:
			t.say("settled")
			return nil
		case len(ready) > 0:
			if err := t.round(p, ready); err != nil {
				return err
			}
		case len(p.Waiting) == 0:
			return fmt.Errorf("nothing is ready and nothing is waited for:\n%s", p)
		case p.Waiting[0].Tries < tries:
			t.facts.Now = p.Waiting[0].Until
		default:
			t.giveUp(p)
			return nil
		}
	}
	if rounds == most {
		return errors.New("it never settles")
	}
	return nil
}

// round does everything that is ready, at once.
func (t *tale) round(p reconcile.Plan, ready []reconcile.Node) error {
	t.rounds++
	var titles []string
	var works []reconcile.Node
	var did []reconcile.Key
	for _, n := range ready {
		if t.failing(n) {
			titles = append(titles, n.Title()+" FAILS")
			f := t.facts.Failures[n.Key]
			t.facts.Failures[n.Key] = state.Failure{Class: state.ClassNetwork, Text: "no answer", Attempt: f.Attempt + 1, Next: t.facts.Now.Add(time.Minute)}
			continue
		}
		titles = append(titles, n.Title())
		works = append(works, n)
		did = append(did, n.Key)
	}
	t.did = append(t.did, did)
	t.say("%d  %s", t.rounds, strings.Join(titles, " + "))
	if err := checkRound(t.world, t.want, p, ready); err != nil {
		return fmt.Errorf("round %d: %w", t.rounds, err)
	}
	backward := slices.Clone(works)
	slices.Reverse(backward)
	if _, err := applyAll(t.world, backward); err != nil {
		return fmt.Errorf("round %d, in reverse order: %w", t.rounds, err)
	}
	after, err := applyAll(t.world, works)
	if err != nil {
		return fmt.Errorf("round %d: %w", t.rounds, err)
	}
	if err := checkVolumes(t.world, after); err != nil {
		return fmt.Errorf("round %d: %w", t.rounds, err)
	}
	t.world = after
	return t.shown(works)
}

// shown checks that what was done is not planned again.
func (t *tale) shown(done []reconcile.Node) error {
	p, err := t.make()
	if err != nil {
		return err
	}
	for _, n := range p.Nodes {
		if slices.ContainsFunc(done, func(d reconcile.Node) bool { return d.Key == n.Key }) {
			return fmt.Errorf("round %d: %q was done and is planned again", t.rounds, n.Key)
		}
	}
	return nil
}

func applyAll(w state.World, nodes []reconcile.Node) (state.World, error) {
	for _, n := range nodes {
		next, err := sim.Apply(w, n.Step)
		if err != nil {
			return w, fmt.Errorf("%s: %w", n.Title(), err)
		}
		w = next
	}
	return w, nil
}

func (t *tale) failing(n reconcile.Node) bool {
	return slices.ContainsFunc(t.fails, func(begin string) bool {
		return n.Title() == begin || strings.HasPrefix(n.Title(), begin+" ")
	})
}

// giveUp says what cannot go on and what therefore stays undone.
func (t *tale) giveUp(p reconcile.Plan) {
	t.stuck = true
	waits := map[reconcile.Key]bool{}
	var titles, left []string
	for _, w := range p.Waiting {
		waits[w.Key] = true
		titles = append(titles, w.Title)
	}
	for _, n := range p.Nodes {
		if n.Step != nil && !waits[n.Key] {
			left = append(left, n.Title())
		}
	}
	t.say("stuck: %s", strings.Join(titles, " + "))
	if len(left) > 0 {
		t.say("left: %s", strings.Join(left, ", "))
	}
}
