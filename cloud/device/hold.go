package device

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// actionsHeader is a header of devices that fetch what they are asked to do. Such a
// device sends it with each question for its state, and finds in the answer how many
// actions wait for it.
const actionsHeader = "Deckhand-Actions"

// answerGrace is how long the answer to a held request may take to be written.
const answerGrace = time.Minute

// held is a request that waits for news.
type held struct {
	*Device
	w     http.ResponseWriter
	key   stateKey
	tag   string // of what the device has
	acts  bool   // the device fetches actions
	timer *time.Timer
}

// hold waits, if the request asks for it, until the device's state no longer matches
// the tag or somebody wants something of it, or until the client leaves or the cloud
// stops.
func (d *Device) hold(w http.ResponseWriter, r *http.Request, actor auth.Actor, key stateKey, known *knownState) (*knownState, error) {
	h := held{
		Device: d, w: w, key: key, tag: r.Header.Get("If-None-Match"),
		acts: actor.Kind == auth.Device && r.Header.Get(actionsHeader) != "",
	}
	wait := d.wait(r)
	if wait <= 0 {
		_, err := h.calls(r.Context(), known, false)
		return known, err
	}
	control := http.NewResponseController(w)
	control.SetWriteDeadline(time.Now().Add(wait + answerGrace)) //nolint:errcheck // a recorder has no deadlines
	w.Header().Set("Preference-Applied", "wait")
	d.counts.held.Add(1)
	defer d.counts.held.Add(-1)
	h.timer = time.NewTimer(wait)
	defer h.timer.Stop()
	for more, err := true, error(nil); more; {
		if more, known, err = h.watch(r.Context(), known); err != nil {
			return nil, err
		}
	}
	return known, nil
}

// watch waits for as long as the same things decide about the device; more says
// that others do now.
func (h *held) watch(ctx context.Context, known *knownState) (more bool, _ *knownState, err error) {
	topics := known.topics
	call := model.Topic{Kind: model.DeviceCall, ID: known.device.ID}
	changes := h.db.Changes().Watch(append(slices.Clip(topics), call)...)
	defer changes.Stop()
	called := h.db.Changes().Version(call)
	for {
		if known, err = h.targets.state(ctx, h.key); err != nil || !matches(h.tag, known.etag) {
			return false, known, err
		}
		if !slices.Equal(known.topics, topics) {
			return true, known, nil
		}
		over, err := h.calls(ctx, known, called != h.db.Changes().Version(call))
		if over || err != nil {
			return false, known, err
		}
		select {
		case <-changes.C():
		case <-h.timer.C:
			return false, known, nil
		case <-ctx.Done():
			return false, known, nil
		}
	}
}

// calls says whether somebody wants something of the device; called: somebody does
// since it asked. A device that fetches actions is told how many there are.
func (h *held) calls(ctx context.Context, known *knownState, called bool) (bool, error) {
	if !h.acts {
		return called, nil
	}
	n, err := h.db.WaitingActions(ctx, known.device.ID)
	if n > 0 || called {
		h.w.Header().Set(actionsHeader, strconv.Itoa(n))
	}
	return n > 0 || called, err
}
