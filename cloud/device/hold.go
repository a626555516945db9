package device

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"deckhand/cloud/auth"
	"deckhand/cloud/model"
	"deckhand/cloud/park"
)

// actionsHeader is a header of devices that fetch what they are asked to do. Such a
// device sends it with each question for its state, and finds in the answer how many
// actions wait for it.
const actionsHeader = "Deckhand-Actions"

// answerGrace is how long the answer to a held request may take to be written.
const answerGrace = time.Minute

// held is a request for a target that may wait for news. It waits parked, or in
// its goroutine where that is not possible; look decides for both.
type held struct {
	*Device
	key    stateKey
	tag    string // of what the device has
	acts   bool   // the device fetches actions
	id     int64  // of the device
	topics []model.Topic
	calls  uint64 // version of the calls of the device when it asked
}

// finding is what a look found.
type finding struct {
	known   *knownState
	answer  bool // there is something to say
	others  bool // other topics than before decide about the device: watch those
	actions int  // how many wait for the device; -1: not asked
}

// look says whether a question that waits has an answer: the target is not what the
// device has, or somebody wants something of it.
func (q *held) look(ctx context.Context) (f finding, err error) {
	f.actions = -1
	if f.known, err = q.targets.state(ctx, q.key); err != nil || !matches(q.tag, f.known.etag) {
		f.answer = true
		return f, err
	}
	f.answer = q.calls != q.db.Changes().Version(q.call())
	f.others = !slices.Equal(f.known.topics, q.topics)
	q.topics = f.known.topics
	if q.acts {
		f.actions, err = q.db.WaitingActions(ctx, q.id)
		f.answer = f.answer || f.actions > 0 || err != nil
	}
	return f, err
}

func (q *held) call() model.Topic { return model.Topic{Kind: model.DeviceCall, ID: q.id} }

// watched are all topics that can make an answer.
func (q *held) watched() []model.Topic { return append(slices.Clip(q.topics), q.call()) }

// say tells a device that fetches actions how many there are. When there is nothing to
// fetch and nobody called, it is not told: it would fetch.
func (f finding) say(w http.ResponseWriter) {
	if f.actions > 0 || f.actions == 0 && f.answer {
		w.Header().Set(actionsHeader, strconv.Itoa(f.actions))
	}
}

// hold waits, if the request asks for it, until the device's state no longer matches
// the tag or somebody wants something of it, or until the client leaves or the cloud
// stops. parked: it waits elsewhere and comes back as a request; leave is called when
// it does.
func (d *Device) hold(w http.ResponseWriter, r *http.Request, actor auth.Actor, key stateKey, known *knownState, leave func()) (_ *knownState, parked bool, err error) {
	q := &held{
		Device: d, key: stateKey{known.device.UUID, key.form}, tag: r.Header.Get("If-None-Match"), id: known.device.ID, topics: known.topics,
		acts: actor.Kind == auth.Device && r.Header.Get(actionsHeader) != "",
	}
	wait := d.wait(r)
	if wait <= 0 {
		f := finding{known: known}
		if q.acts {
			f.actions, err = d.db.WaitingActions(r.Context(), q.id)
		}
		f.say(w)
		return known, false, err
	}
	w.Header().Set("Preference-Applied", "wait")
	f, parked, err := q.hold(w, r, time.Now().Add(wait), leave)
	f.say(w)
	return f.known, parked, err
}

func (q *held) hold(w http.ResponseWriter, r *http.Request, until time.Time, leave func()) (f finding, parked bool, err error) {
	// Before the first look: a call that comes in between is seen.
	q.calls = q.db.Changes().Version(q.call())
	if back := park.BackOf(r); back != nil {
		until = back.Until
		if before, ok := back.Waiter.(*waiter); ok {
			q.calls = before.calls
		}
		if !back.Early {
			f, err = q.look(r.Context())
			return f, false, err
		}
	}
	if q.lot.Takes(r) {
		if f, parked, err = q.park(w, r, until, leave); parked || f.answer || err != nil {
			return f, parked, err
		}
	}
	control := http.NewResponseController(w)
	control.SetWriteDeadline(until.Add(answerGrace)) //nolint:errcheck // a recorder has no deadlines
	f, err = q.wait(r.Context(), time.Until(until))
	return f, false, err
}

// wait waits in this goroutine.
func (q *held) wait(ctx context.Context, long time.Duration) (f finding, err error) {
	q.counts.held.Add(1)
	defer q.counts.held.Add(-1)
	timer := time.NewTimer(long)
	defer timer.Stop()
	for more := true; more && err == nil; {
		f, more, err = q.watch(ctx, timer.C)
	}
	return f, err
}

// watch waits for as long as the same things decide about the device; more says
// that others do now.
func (q *held) watch(ctx context.Context, over <-chan time.Time) (f finding, more bool, err error) {
	changes := q.db.Changes().Watch(q.watched()...)
	defer changes.Stop()
	for {
		f, err = q.look(ctx)
		if err != nil || f.answer || f.others {
			return f, f.others && !f.answer, err
		}
		select {
		case <-changes.C():
		case <-over:
			return f, false, nil
		case <-ctx.Done():
			return f, false, nil
		}
	}
}
