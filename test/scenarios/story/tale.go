package story

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	t.surprises, t.later = s.options.surprises, s.options.later
	if out.First, err = t.make(); err != nil {
		return out, err
	}
	if out.Plan = out.First.String(); out.Plan == "" {
		out.Plan = "nothing to do\n"
	}
	t.first = out.First
	err = t.run(most)
	if err == nil {
		err = t.end()
	}
	out.Story, out.End = strings.Join(t.lines, ""), t.device.World
	if known := s.options.mistake; known != "" {
		if err == nil {
			return out, fmt.Errorf("the known mistake is mended; remove the option: %s", known)
		}
		if strings.Contains(err.Error(), known) {
			out.Story += "MISTAKE: " + known + "\n"
			return out, nil
		}
	}
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

func (s *Scenario) halfway() int { return cmp.Or(s.options.half, 2) }

// Sides are the targets of all documents: of old.yml, half.yml and new.yml, as
// far as there are some.
func (s *Scenario) Sides(ctx context.Context) ([]state.Target, error) {
	var out []state.Target
	for _, side := range []struct {
		name    string
		docs    map[string][]byte
		release int
	}{{"old", s.old, 1}, {"half", s.half, s.halfway()}} {
		if len(side.docs) == 0 {
			continue
		}
		t, err := s.target(ctx, side.name, side.docs, side.release)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	want, err := s.Want(ctx)
	return append(out, want), err
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
		{"half", s.half, s.halfway(), s.options.rounds},
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
		d.World = t.device.World
	}
	for _, line := range s.device {
		if err := d.Apply(line); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// Later lists what happens to the device in the middle of the story, in order.
func (s *Scenario) Later() []Later { return slices.Clone(s.options.later) }

// most is more rounds than any scenario needs.
const most = 100

// tries is how often a step fails before a story ends.
const tries = 2

// dawn is when every story begins.
var dawn = time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)

// tale is a device on its way to a target.
type tale struct {
	start  state.World
	device Device
	want   state.Target
	facts  reconcile.Facts
	first  reconcile.Plan
	later  []Later

	surprises bool // the first plan cannot know all that will be done

	rounds int
	lines  []string
	did    [][]reconcile.Key // by round
	failed map[string]bool   // the lines of Device.Fails that were of use
	stuck  bool              // the story ends before the target is reached
}

func newTale(d *Device, want state.Target) *tale {
	t := &tale{
		start: d.World, device: d.copied(), want: want, failed: map[string]bool{},
		facts: reconcile.Facts{Now: dawn, Failures: map[reconcile.Key]state.Failure{}},
	}
	t.device.Slow, t.device.want = maps.Clone(d.Slow), map[string]string{}
	for id, a := range want.Apps {
		t.device.want[id] = a.Commit
	}
	return t
}

func (t *tale) make() (reconcile.Plan, error) {
	return reconcile.Make(t.device.World, t.want, t.facts)
}

func (t *tale) say(format string, arg ...any) {
	t.lines = append(t.lines, fmt.Sprintf(format, arg...)+"\n")
}

// run goes on until nothing is left to do, nothing can go on, or the rounds are
// over.
func (t *tale) run(rounds int) error {
	for t.rounds < rounds {
		for len(t.later) > 0 && t.later[0].After <= t.rounds {
			if err := t.happens(); err != nil {
				return err
			}
		}
		p, err := t.make()
		if err != nil {
			return err
		}
		if ready := p.Ready(); len(ready) > 0 {
			if err := t.round(p, ready); err != nil {
				return err
			}
			continue
		}
		if ended, err := t.rests(p); ended || err != nil {
			return err
		}
	}
	if rounds == most {
		return errors.New("it never settles")
	}
	return nil
}

// rests is called when nothing can be done: what failed is tried again later, and
// what the scenario has happen later happens now. It reports whether the story
// is over.
func (t *tale) rests(p reconcile.Plan) (ended bool, err error) {
	if p.Steps() > 0 && len(p.Waiting) == 0 {
		return false, fmt.Errorf("nothing is ready and nothing is waited for:\n%s", p)
	}
	for _, w := range p.Waiting {
		if w.Holder == "" && w.Tries < tries {
			t.facts.Now = w.Until
			return false, nil
		}
	}
	t.say("%s", standstill(p))
	if len(t.later) > 0 {
		return false, t.happens()
	}
	for _, d := range p.Declined {
		if !slices.Contains(t.first.Declined, d) {
			t.say("not done: %s: %s", d.Subject, d.Why)
		}
	}
	if p.Steps() == 0 {
		return true, nil
	}
	t.stuck = true
	if left := leftovers(p); len(left) > 0 {
		t.say("left: %s", strings.Join(left, ", "))
	}
	return true, patient(t.device.World, p)
}

// standstill says what cannot go on.
func standstill(p reconcile.Plan) string {
	var failing, locked []string
	for _, w := range p.Waiting {
		switch {
		case w.Holder == "":
			failing = append(failing, w.Title)
		case len(locked) > 0 && strings.HasPrefix(locked[len(locked)-1], w.Title+":"):
			locked[len(locked)-1] += ", " + w.Holder
		default:
			locked = append(locked, w.Title+": "+w.Text+" by "+w.Holder)
		}
	}
	var out []string
	if len(failing) > 0 {
		out = append(out, "stuck: "+strings.Join(failing, " + "))
	}
	if len(locked) > 0 {
		out = append(out, "waiting: "+strings.Join(locked, " + "))
	}
	if len(out) == 0 {
		return "settled"
	}
	return strings.Join(out, "\n")
}

// leftovers are the steps that were not done because others could not go on.
func leftovers(p reconcile.Plan) []string {
	waits := map[reconcile.Key]bool{}
	for _, w := range p.Waiting {
		waits[w.Key] = true
	}
	var left []string
	for _, n := range p.Nodes {
		if n.Step != nil && !waits[n.Key] {
			left = append(left, n.Title())
		}
	}
	return left
}

// happens does the next thing that is to happen in the middle.
func (t *tale) happens() error {
	line := t.later[0].Line
	t.later = t.later[1:]
	v, _, err := find(line)
	if err != nil {
		return err
	}
	t.device = t.device.copied()
	if err := t.device.Apply(line); err != nil {
		return err
	}
	t.surprises = t.surprises || !v.calm
	t.facts.Failures = map[reconcile.Key]state.Failure{} // whoever changes something wants another try
	t.say("then: %s", line)
	return nil
}

// round does everything that is ready, at once.
func (t *tale) round(p reconcile.Plan, ready []reconcile.Node) error {
	t.rounds++
	var titles []string
	var works []reconcile.Node
	var did []reconcile.Key
	for _, n := range ready {
		switch {
		case t.failing(n):
			titles = append(titles, n.Title()+" FAILS")
			f := t.facts.Failures[n.Key]
			t.facts.Failures[n.Key] = state.Failure{Class: state.ClassNetwork, Text: "no answer", Attempt: f.Attempt + 1, Next: t.facts.Now.Add(time.Minute)}
		case t.goesOn(n):
			titles = append(titles, n.Title()+" …")
		default:
			titles = append(titles, n.Title())
			works = append(works, n)
			did = append(did, n.Key)
		}
	}
	t.did = append(t.did, did)
	t.say("%d  %s", t.rounds, strings.Join(titles, " + "))
	if err := t.checkRound(p, ready); err != nil {
		return fmt.Errorf("round %d: %w", t.rounds, err)
	}
	backward := slices.Clone(works)
	slices.Reverse(backward)
	if _, err := applyAll(t.device.World, backward); err != nil {
		return fmt.Errorf("round %d, in reverse order: %w", t.rounds, err)
	}
	after, err := applyAll(t.device.World, works)
	if err != nil {
		return fmt.Errorf("round %d: %w", t.rounds, err)
	}
	if err := checkAfter(t.device.World, after, works); err != nil {
		return fmt.Errorf("round %d: %w", t.rounds, err)
	}
	t.device.World = after
	return t.shown(works)
}

// shown checks that what was done is not planned again.
func (t *tale) shown(done []reconcile.Node) error {
	p, err := t.make()
	if err != nil {
		return err
	}
	for _, n := range p.Nodes {
		if _, ok := n.Step.(reconcile.ReleaseLocks); ok && len(n.After) > 0 {
			continue // given up for others, and again after their turn
		}
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
	for _, begin := range t.device.Fails {
		if begins(n, begin) {
			t.failed[begin] = true
			return true
		}
	}
	return false
}

// goesOn reports whether a step that takes several rounds is not done yet.
func (t *tale) goesOn(n reconcile.Node) bool {
	for _, begin := range slices.Sorted(maps.Keys(t.device.Slow)) {
		if begins(n, begin) && t.device.Slow[begin] > 1 {
			t.device.Slow[begin]--
			return true
		}
	}
	return false
}

func begins(n reconcile.Node, begin string) bool {
	return n.Title() == begin || strings.HasPrefix(n.Title(), begin+" ")
}
