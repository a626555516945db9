package history

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
)

// blockers lists what keeps the service from being as it was asked for, the most
// telling first.
func (q *inquiry) blockers(c *state.Container) []Blocker {
	var out []Blocker
	if q.status.Err != nil {
		out = append(out, Blocker{Kind: BlockedEngine, Text: "the engine does not answer: " + PlainText(q.status.Err), Class: state.ClassOf(q.status.Err), Advice: state.ClassOf(q.status.Err).Advice()})
	}
	if !q.status.HasGoal {
		out = append(out, Blocker{Kind: BlockedNoTarget, Text: "there is no target yet, so everything stays as it is", Advice: "see \"deckhand status\" for the cloud"})
		return out
	}
	if q.want.Rejected != "" {
		out = append(out, Blocker{Kind: BlockedRejected, Text: "release " + shortCommit(q.want.Commit) + " is rejected: " + q.want.Rejected, Class: state.ClassInvalid, Advice: state.ClassInvalid.Advice()})
	}
	out = append(out, q.stopped()...)
	out = append(out, q.handover(c)...)
	out = append(out, q.waits()...)
	out = append(out, q.reboot(c)...)
	return append(out, q.declined(out)...)
}

// stopped is a stop that somebody asked for.
func (q *inquiry) stopped() []Blocker {
	for _, i := range q.status.World.Intents {
		if i.Kind == state.Stop && i.App == q.uuid && i.Commit == q.want.Commit && slices.Contains(i.Services, q.service) {
			return []Blocker{{
				Kind: BlockedStopped, Text: "it is stopped because " + i.By + " asked for that", Since: i.At,
				Advice: "deckhand start " + q.label() + ", or bring a new release",
			}}
		}
	}
	if q.isWanted && !q.wanted.Running {
		return []Blocker{{Kind: BlockedStopped, Text: "the target keeps it stopped", Advice: "set running: true in the release or for the service"}}
	}
	return nil
}

// handover is a new container that did not take over.
func (q *inquiry) handover(c *state.Container) []Blocker {
	h, ok := q.app.Handovers[q.service]
	if !ok || !h.Failed || h.Hash != q.wanted.Hash || !state.SameImage(h.Image, q.wanted.Image) {
		return nil
	}
	b := Blocker{
		Kind: BlockedHandover, Class: state.ClassTimeout,
		Text:   "the new container of release " + shortCommit(q.want.Commit) + " did not take over in time, so the old one serves on",
		Advice: "see the log of the new container; \"deckhand retry\" tries again, or bring a new release",
	}
	if c != nil && c.Hash == h.Hash {
		b.Text = "the new container of release " + shortCommit(q.want.Commit) + " did not take over in time"
	}
	for i := len(q.past) - 1; i >= 0; i-- {
		if e := q.past[i]; e.App == q.uuid && e.Service == q.service && e.Kind == kindHandover && e.Outcome == OutcomeFailed {
			b.Since, b.Text = EndedAt(e).UTC(), b.Text+": "+e.Text
			break
		}
	}
	return []Blocker{b}
}

// waits lists what the steps about the service wait for: first what rests or is
// locked, then steps of others that are on their way.
func (q *inquiry) waits() []Blocker {
	nodes := map[reconcile.Key]reconcile.Node{}
	mine, ahead := map[reconcile.Key]bool{}, map[reconcile.Key]bool{}
	for _, n := range q.status.Plan.Nodes { // each behind all it waits for
		nodes[n.Key] = n
	}
	for i := len(q.status.Plan.Nodes) - 1; i >= 0; i-- {
		n := q.status.Plan.Nodes[i]
		if n.Step != nil && Concerns(n.Step, q.status.Target, q.uuid, q.service) {
			mine[n.Key] = true
		}
		if mine[n.Key] || ahead[n.Key] {
			for _, k := range n.After {
				ahead[k] = true
			}
		}
	}
	var out []Blocker
	for _, w := range q.status.Plan.Waiting {
		if mine[w.Key] || ahead[w.Key] {
			out = append(out, q.waiting(w))
		}
	}
	if len(out) > 0 {
		return out
	}
	for _, r := range q.status.Running {
		if ahead[r.Node.Key] && !mine[r.Node.Key] && q.waitsAtFirst(mine, r.Node.Key, nodes) {
			out = append(out, other(r, q.now))
		}
	}
	return out
}

// waitsAtFirst reports whether no step about the service can start yet: a step
// of another service is then what it waits for.
func (q *inquiry) waitsAtFirst(mine map[reconcile.Key]bool, _ reconcile.Key, nodes map[reconcile.Key]reconcile.Node) bool {
	for _, r := range q.status.Running {
		if mine[r.Node.Key] {
			return false
		}
	}
	for k := range mine {
		if len(nodes[k].After) == 0 {
			return false
		}
	}
	return true
}

func other(r run.Running, now time.Time) Blocker {
	b := Blocker{Kind: BlockedStep, Since: r.Since.UTC(), Text: "it comes after \"" + r.Node.Title() + "\", which is on its way since " + age(now.Sub(r.Since))}
	if r.Total > 0 {
		b.Text += fmt.Sprintf(" (%d%%)", 100*r.Done/r.Total)
	}
	return b
}

// waiting is one wait of the plan.
func (q *inquiry) waiting(w reconcile.Waiting) Blocker {
	b := Blocker{Kind: BlockedFailure, Class: w.Class, Holder: w.Holder, Since: w.Since, Tries: w.Tries, Until: w.Until, Advice: w.Class.Advice()}
	if w.Tries == 0 {
		b.Kind = BlockedLock
		b.Text = strings.TrimSpace(w.Text + " by " + cmp.Or(w.Holder, "somebody"))
		b.Advice = "wait until it is given up, or break it: deckhand override " + cmp.Or(q.want.Name, q.uuid)
		return b
	}
	b.Text = w.Title + " failed: " + w.Text
	return b
}

func (q *inquiry) reboot(c *state.Container) []Blocker {
	if !q.status.World.RebootPending || c == nil || c.Phase != state.Created || !q.wanted.RequiresReboot {
		return nil
	}
	return []Blocker{{Kind: BlockedReboot, Text: "it first runs after the device has restarted, which is asked for", Advice: "wait, or restart the device"}}
}

// declined is what the plan leaves out on purpose about the service, as far as
// no other blocker says the same.
func (q *inquiry) declined(told []Blocker) []Blocker {
	var out []Blocker
	for _, d := range q.status.Plan.Declined {
		mine := strings.HasSuffix(d.Subject, q.label()) || strings.Contains(d.Subject, q.label()+" ")
		ofApp := strings.HasSuffix(d.Subject, "release of "+cmp.Or(q.want.Name, q.uuid))
		if strings.Contains(d.Subject, "volume ") || !mine && (!ofApp || len(told) > 0) || slices.ContainsFunc(told, saysTheSame(d)) {
			continue
		}
		out = append(out, Blocker{Kind: BlockedDeclined, Text: d.Subject + " is left out: " + d.Why})
	}
	return out
}

func saysTheSame(d reconcile.Declined) func(Blocker) bool {
	return func(b Blocker) bool {
		switch b.Kind {
		case BlockedStopped:
			return strings.HasPrefix(d.Subject, "start of ")
		case BlockedHandover:
			return strings.HasPrefix(d.Subject, "new release of ")
		case BlockedReboot:
			return strings.Contains(d.Why, "reboot")
		}
		return false
	}
}

// label is the service as plans call it.
func (q *inquiry) label() string { return Service{UUID: q.uuid, Name: q.service, Want: q.want}.Label() }

// age is a length of time as people read it.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", max(0, int(d.Seconds())))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days", int(d.Hours())/24)
}
