// Package history remembers what happens on the device, and answers from it: what was done,
// why a service was last restarted, and why it is not as it was asked to be.
//
// A Journal notes what the loop, people and containers do; Explain answers for one service,
// PageOf lists the past in pages.
package history

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"deckhand/reconcile"
	"deckhand/reconcile/run"
	"deckhand/state"
	"deckhand/state/store"
)

// Outcomes of entries.
const (
	OutcomeDone      = "done"
	OutcomeFailed    = "failed"
	OutcomeCancelled = "cancelled"
	OutcomeStarted   = "started" // and not ended when that was written
)

// Kinds of entries that are no steps.
const (
	KindBegin  = "supervisor" // the supervisor has started
	kindTarget = "target"
	kindWish   = "request"
	KindAllow  = "override"
	KindWait   = "wait"
	kindSelf   = "container" // something that a container did by itself
	KindEngine = "engine"
	KindReboot = "boot"
)

const (
	// flushAfter is how long an entry may be in memory only. A power cut loses
	// the last seconds of the past; to write each entry at once would cost an
	// update of fifty services some hundred writes to flash.
	flushAfter = 5 * time.Second
	// longStep is after which time a step is written down before it has ended.
	longStep = 2 * time.Second
	// sameAgain is how often the same doing of a container is written down: one
	// that ends every few seconds must not push everything else out.
	sameAgain = 10 * time.Minute
	// mostPending is how many entries wait for a disk that cannot be written to.
	mostPending = 2000
)

// Store is the part of the store that a journal needs.
type Store interface {
	Append(entries []store.Entry) error
	All() ([]store.Entry, error)
}

// Journal notes what happens and writes it down a little later, in few writes.
type Journal struct {
	store  Store
	target func() state.Target // the one in force
	now    func() time.Time
	log    zerolog.Logger

	disk sync.Mutex // taken first: entries are on their way to the store

	mu      sync.Mutex
	pending []store.Entry
	running map[reconcile.Key]*openStep
	waits   map[string]bool           // what is waited for, as it was last seen
	seen    map[string]containerState // container ID → as it was last seen
	ours    map[string]bool           // containers that we started or stopped
	removed map[string]bool           // containers that we remove
	said    map[string]time.Time      // what a container did → when it was last written down
	blind   bool                      // the engine did not answer the last time
	boot    int64
	wake    chan struct{} // something is pending
	failing bool
}

// openStep is a step on its way.
type openStep struct {
	entries []store.Entry
	written bool
}

type containerState struct {
	app, service string
	phase        state.Phase
	health       string
}

// Config says what a journal works with.
type Config struct {
	Store  Store
	Target func() state.Target // the one in force
	Now    func() time.Time
	Log    zerolog.Logger
}

// New makes a journal that begins with what its store holds.
func New(c Config) *Journal {
	return &Journal{
		store: c.Store, target: c.Target, now: c.Now, log: c.Log, running: map[reconcile.Key]*openStep{}, ours: map[string]bool{}, removed: map[string]bool{},
		said: map[string]time.Time{}, wake: make(chan struct{}, 1),
	}
}

// add notes entries; the lock is held.
func (j *Journal) add(entries ...store.Entry) {
	j.pending = append(j.pending, entries...)
	if n := len(j.pending) - mostPending; n > 0 {
		j.pending = slices.Delete(j.pending, 0, n)
	}
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Event takes a step that started or ended. It writes nothing: it runs on the
// way of an update.
func (j *Journal) Event(e run.Event) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if s, ok := e.Node.Step.(reconcile.Stop); ok {
		j.ours[s.Container] = true
	}
	if s, ok := e.Node.Step.(reconcile.Start); ok {
		j.ours[s.Container] = true
	}
	if s, ok := e.Node.Step.(reconcile.Remove); ok {
		j.removed[s.Container] = true
	}
	if !e.Ended {
		j.running[e.Node.Key] = &openStep{entries: j.describe(e)}
		j.add()
		return
	}
	entries := j.describe(e)
	if open, ok := j.running[e.Node.Key]; ok {
		entries = open.entries
	}
	delete(j.running, e.Node.Key)
	for _, x := range entries {
		x.Outcome, x.Took = OutcomeDone, state.Duration(e.Took.Round(time.Millisecond))
		if e.Err != nil {
			x.Outcome, x.Class, x.Text = OutcomeFailed, state.ClassOf(e.Err), PlainText(e.Err)
			if x.Class == state.ClassCancelled {
				x.Outcome = OutcomeCancelled
			}
		}
		j.add(x)
	}
}

// describe makes the entries of a step: one, or one for each service that an
// image is for.
func (j *Journal) describe(e run.Event) []store.Entry {
	s := SubjectOf(e.Node.Step)
	x := store.Entry{
		At: e.At.Add(-e.Took).UTC(), App: s.App, Service: s.Service, Kind: s.Kind, Title: e.Node.Title(),
		Why: e.Node.Why.Cause, Changes: e.Node.Why.Changes, Commit: s.Commit, Outcome: OutcomeStarted,
	}
	t := j.target()
	if s.App != "" && x.Commit == "" {
		x.Commit = t.Apps[s.App].Commit
	}
	f, ok := e.Node.Step.(reconcile.Fetch)
	if !ok {
		return []store.Entry{x}
	}
	var out []store.Entry
	for _, uuid := range slices.Sorted(maps.Keys(t.Apps)) {
		for _, name := range slices.Sorted(maps.Keys(t.Apps[uuid].Services)) {
			if state.SameImage(t.Apps[uuid].Services[name].Image, f.Image) {
				x.App, x.Service, x.Commit = uuid, name, t.Apps[uuid].Commit
				out = append(out, x)
			}
		}
	}
	if len(out) == 0 {
		out = append(out, x)
	}
	return out
}

// PlainText is an error as people read it: its class is noted apart.
func PlainText(err error) string {
	if e, ok := errors.AsType[*state.Error](err); ok {
		return strings.Replace(err.Error(), e.Error(), e.Err.Error(), 1)
	}
	return err.Error()
}

// Begin notes that the supervisor has started.
func (j *Journal) Begin(version string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.add(store.Entry{At: j.now().UTC(), Kind: KindBegin, Title: "deckhand " + version + " started"})
}

// Accepted notes in what a new target differs from the one before, app by app.
func (j *Journal) Accepted(was, now state.Target, source string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.now().UTC()
	apps := maps.Clone(was.Apps)
	if apps == nil {
		apps = map[string]state.App{}
	}
	maps.Copy(apps, now.Apps)
	for _, uuid := range slices.Sorted(maps.Keys(apps)) {
		old, had := was.Apps[uuid]
		next, has := now.Apps[uuid]
		text := targetChange(old, next, had, has)
		if text == "" {
			continue
		}
		x := store.Entry{At: at, App: uuid, Kind: kindTarget, Title: "new target for " + cmp.Or(apps[uuid].Name, uuid), Why: source, Text: text, Commit: next.Commit, Outcome: OutcomeDone}
		if next.Rejected != "" {
			x.Outcome, x.Class = OutcomeFailed, state.ClassInvalid
		}
		j.add(x)
	}
}

// targetChange says what is new about an app; "": nothing that matters.
func targetChange(old, next state.App, had, has bool) string {
	switch {
	case !has:
		return "the app is not wanted any more"
	case next.Rejected != "" && (old.Rejected != next.Rejected || old.Commit != next.Commit):
		return "release " + shortCommit(next.Commit) + " is rejected: " + next.Rejected
	case !had:
		return "release " + shortCommit(next.Commit)
	case old.Commit != next.Commit:
		return "release " + shortCommit(old.Commit) + " → " + shortCommit(next.Commit)
	}
	var services []string
	for _, name := range ServicesOf(next, state.AppNow{}) {
		a, b := old.Services[name], next.Services[name]
		if a.Hash != b.Hash || a.Image != b.Image || a.Running != b.Running {
			services = append(services, name)
		}
	}
	for name := range old.Services {
		if _, still := next.Services[name]; !still {
			services = append(services, name)
		}
	}
	if len(services) == 0 {
		return ""
	}
	slices.Sort(services)
	return "the same release with other settings of " + strings.Join(services, ", ")
}

func shortCommit(c string) string {
	if c == "" {
		return "none"
	}
	return c[:min(7, len(c))]
}

// Wish notes what somebody asked for, like "restart"; no services are all of the app.
func (j *Journal) Wish(what, app string, services []string, by, text string) {
	j.wish(kindWish, what, app, services, by, text)
}

// Allow notes that somebody allowed to break update locks, or does so no longer; app may
// be "", for all of them.
func (j *Journal) Allow(what, app, by, text string) { j.wish(KindAllow, what, app, nil, by, text) }

func (j *Journal) wish(kind, what, app string, services []string, by, text string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	x := store.Entry{At: j.now().UTC(), App: app, Kind: kind, Title: what + " for " + by, Text: text}
	if len(services) == 0 {
		services = []string{""}
	}
	for _, s := range services {
		x.Service = s
		j.add(x)
	}
}

// Status takes a new look of the loop: what is waited for, and what containers
// do by themselves.
func (j *Journal) Status(s run.Status) {
	j.mu.Lock()
	defer j.mu.Unlock()
	at := j.now().UTC()
	if blind := s.Err != nil; blind != j.blind {
		j.blind = blind
		x := store.Entry{At: at, Kind: KindEngine, Title: "the engine answers again"}
		if blind {
			x = store.Entry{At: at, Kind: KindEngine, Title: "cannot look at the device", Outcome: OutcomeFailed, Class: state.ClassOf(s.Err), Text: PlainText(s.Err)}
		}
		j.add(x)
	}
	if s.Err != nil || s.Looked.IsZero() {
		return
	}
	j.waiting(s, at)
	j.containers(s.World, at)
	if b := s.World.Boot; b != 0 && b != math.MaxInt64 { // which is later than any container: not known
		if j.boot != 0 && b-j.boot > 60 { // it moves a little with the clock
			j.add(store.Entry{At: at, Kind: KindReboot, Title: "the device was restarted"})
		}
		j.boot = b
	}
}

// waiting notes new reasons to wait, and the end of those for locks. What failed
// is noted when it fails.
func (j *Journal) waiting(s run.Status, at time.Time) {
	now := map[string]bool{}
	steps := map[reconcile.Key]reconcile.Step{}
	for _, n := range s.Plan.Nodes {
		steps[n.Key] = n.Step
	}
	for _, w := range s.Plan.Waiting {
		if w.Tries > 0 {
			continue
		}
		x := Subject{}
		if step := steps[w.Key]; step != nil {
			x = SubjectOf(step)
		}
		id := x.App + "\x00" + x.Service + "\x00" + w.Title + "\x00" + w.Holder
		now[id] = true
		if !j.waits[id] {
			j.add(store.Entry{At: at, App: x.App, Service: x.Service, Kind: KindWait, Title: w.Title + " waits", Class: w.Class,
				Text: strings.TrimSpace(w.Text + " by " + cmp.Or(w.Holder, "somebody"))})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(j.waits)) {
		if !now[id] {
			part := strings.Split(id, "\x00")
			j.add(store.Entry{At: at, App: part[0], Service: part[1], Kind: KindWait, Title: part[2] + " waits no longer", Outcome: OutcomeDone, Text: part[3]})
		}
	}
	j.waits = now
}

// containers notes what containers did without a step of ours.
func (j *Journal) containers(w state.World, at time.Time) {
	now := map[string]containerState{}
	for uuid, a := range w.Apps {
		for _, c := range a.Containers {
			x := containerState{uuid, c.Service, c.Phase, c.Health}
			now[c.ID] = x
			was, known := j.seen[c.ID]
			if !known || j.ours[c.ID] && c.Halted {
				continue
			}
			if text := doing(was, x, c); text != "" {
				j.self(c.ID, x, text, at)
			}
		}
	}
	for id, was := range j.seen {
		if _, still := now[id]; !still && !j.removed[id] {
			j.self(id, was, "its container was removed by somebody else", at)
		}
	}
	j.seen = now
	gone := func(id string, _ bool) bool { _, here := now[id]; return !here && !j.busyWith(id) }
	maps.DeleteFunc(j.ours, gone)
	maps.DeleteFunc(j.removed, gone)
	maps.DeleteFunc(j.said, func(_ string, last time.Time) bool { return at.Sub(last) > sameAgain })
}

// busyWith reports whether a step that is about a container is on its way.
func (j *Journal) busyWith(id string) bool {
	for k := range j.running {
		if strings.Contains(string(k), id) {
			return true
		}
	}
	return false
}

// doing says what changed about a container; "": nothing that people look for.
func doing(was, now containerState, c state.Container) string {
	up := was.phase == state.Running || was.phase == state.Paused
	switch {
	case c.Phase == state.Exited && c.Refused != "":
		return "the engine could not start it again: " + c.Refused
	case c.Phase == state.Exited && (up || was.phase == state.Restarting):
		return fmt.Sprintf("it ended with exit code %d; deckhand did not stop it", c.ExitCode)
	case c.Phase == state.Restarting && up:
		return "it ended, and the engine restarts it as its restart policy says"
	case c.Phase == state.Running && was.phase == state.Exited:
		return "it was started"
	case now.health == "unhealthy" && was.health != "unhealthy":
		return "its health check fails"
	case now.health == "healthy" && was.health == "unhealthy":
		return "its health check succeeds again"
	}
	return ""
}

// self writes down what a container did, unless it did the same a moment ago.
func (j *Journal) self(id string, c containerState, text string, at time.Time) {
	if text == "it was started" && j.ours[id] {
		return
	}
	if last, ok := j.said[id+text]; ok && at.Sub(last) < sameAgain {
		return
	}
	j.said[id+text] = at
	j.add(store.Entry{At: at, App: c.app, Service: c.service, Kind: kindSelf, Title: "container of " + c.service, Text: text})
}

// Run writes down what was noted, a few seconds later, until ctx ends.
func (j *Journal) Run(ctx context.Context) {
	defer j.Flush()
	for {
		select {
		case <-ctx.Done():
			return
		case <-j.wake:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(flushAfter):
		}
		j.Flush()
	}
}

// Flush writes down what was noted, and the steps that take long.
func (j *Journal) Flush() {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.mu.Lock()
	now := j.now()
	for _, k := range slices.Sorted(maps.Keys(j.running)) {
		open := j.running[k]
		if !open.written && now.Sub(open.entries[0].At) >= longStep {
			open.written = true
			j.add(open.entries...)
		}
	}
	entries := j.pending
	j.pending = nil
	j.mu.Unlock()
	if len(entries) == 0 {
		return
	}
	slices.SortStableFunc(entries, func(a, b store.Entry) int { return EndedAt(a).Compare(EndedAt(b)) })
	err := j.store.Append(entries)
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil {
		j.pending = append(entries, j.pending...)
		if !j.failing {
			j.log.Warn().Err(err).Msg("cannot write down what happened; explanations end here until it can")
		}
		j.add()
	}
	j.failing = err != nil
}

// Past lists all entries, oldest first, written or not.
func (j *Journal) Past() ([]store.Entry, error) {
	j.disk.Lock()
	defer j.disk.Unlock()
	j.mu.Lock()
	waiting := slices.Clone(j.pending)
	j.mu.Unlock()
	all, err := j.store.All()
	return append(all, waiting...), err
}

// EndedAt is when an entry's doing was over.
func EndedAt(e store.Entry) time.Time { return e.At.Add(time.Duration(e.Took)) }
