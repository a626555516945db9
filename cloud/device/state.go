package device

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/access"
	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// getState is the route of one form of the target state. What is refused is
// refused in a fixed order: a device that was deleted keeps running what it has,
// whether or not it still has a key.
func (d *Device) getState(form form) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		key := stateKey{r.PathValue("uuid"), form}
		known, err := d.targets.state(r.Context(), key)
		if err != nil {
			answerStateError(w, r, err)
			return
		}
		actor, ok := d.stateReader(w, r, known)
		if !ok {
			return
		}
		leave := d.enter(r, actor, known)
		known, parked, err := d.hold(w, r, actor, key, known, leave)
		if parked {
			return // the request comes back when there is something to say
		}
		defer leave()
		if err != nil {
			answerStateError(w, r, err)
			return
		}
		d.answerState(w, r, key, known)
	}
}

// enter notes that a device asks; the function returned notes that its request ended.
func (d *Device) enter(r *http.Request, actor auth.Actor, known *knownState) (leave func()) {
	if actor.Kind != auth.Device {
		return func() {}
	}
	id := known.device.ID
	d.presence.enter(id, known.poll, r.Header.Get(actionsHeader) != "")
	return func() { d.presence.leave(id) }
}

func (d *Device) answerState(w http.ResponseWriter, r *http.Request, key stateKey, known *knownState) {
	tag := r.Header.Get("If-None-Match")
	var body document
	if !matches(tag, known.etag) {
		var err error
		if known, body, err = d.targets.document(r.Context(), key, known); err != nil {
			answerStateError(w, r, err)
			return
		}
	}
	w.Header().Set("ETag", known.etag)
	w.Header().Set("Cache-Control", "no-cache")
	if matches(tag, known.etag) {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	answer.Bytes(w, http.StatusOK, body.head, body.app.text, body.tail)
}

func answerStateError(w http.ResponseWriter, r *http.Request, err error) {
	if errors.Is(err, model.ErrNotFound) {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	answer.Failure(w, r, err)
}

// stateReader finds who asks for a state; ok is false when the request is
// answered. Whoever was refused is refused for a while without another look.
func (d *Device) stateReader(w http.ResponseWriter, r *http.Request, known *knownState) (auth.Actor, bool) {
	actor, err := d.auth.Authenticate(r)
	if err != nil && !errors.Is(err, auth.ErrUnauthenticated) {
		answer.Failure(w, r, err)
		return actor, false
	}
	may := false
	if err == nil {
		may, err = d.mayReadState(r.Context(), actor, known)
		if err != nil {
			answer.Failure(w, r, err)
			return actor, false
		}
	}
	if !may {
		answer.Empty(w, http.StatusUnauthorized)
	}
	return actor, may
}

func (d *Device) mayReadState(ctx context.Context, actor auth.Actor, known *knownState) (bool, error) {
	if actor.Is(auth.Device, known.device.ID) {
		return true, nil // frozen ones have no state
	}
	r := refusal{actor.Caller(), known.device.ID, known.device.Fleet}
	if d.refusals.has(r, d.db.Now()) {
		return false, nil
	}
	may, err := d.db.May(ctx, actor.Caller(), "device", access.Read, known.device.ID)
	if err == nil && !may {
		d.refusals.add(r, d.db.Now())
	}
	return may, err
}

// wait is how long the request asks to be held ("Prefer: wait=<seconds>"),
// 0 when it does not or when it has nothing to compare with.
func (d *Device) wait(r *http.Request) time.Duration {
	if r.Header.Get("If-None-Match") == "" {
		return 0
	}
	for _, header := range r.Header.Values("Prefer") {
		for preference := range strings.SplitSeq(header, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(preference), "=")
			if !strings.EqualFold(strings.TrimSpace(name), "wait") {
				continue
			}
			seconds, err := strconv.Atoi(strings.Trim(strings.TrimSpace(value), `"`))
			if err != nil || seconds <= 0 {
				return 0
			}
			return min(time.Duration(min(seconds, 3600))*time.Second, d.maxWait)
		}
	}
	return 0
}

// matches says whether an If-None-Match header names the tag. Tags compare
// weakly: something in between may have packed the body.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || (tag != "" && strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/")) {
			return true
		}
	}
	return false
}

// fleetState is the state of a device that has nothing of its own, for one that
// joins the fleet for a while.
func (d *Device) fleetState(w http.ResponseWriter, r *http.Request) {
	actor, err := d.auth.Authenticate(r)
	if err != nil && !errors.Is(err, auth.ErrUnauthenticated) {
		answer.Failure(w, r, err)
		return
	}
	body, err := d.fleetDocument(r, actor)
	if errors.Is(err, model.ErrNotFound) {
		answer.Empty(w, http.StatusUnauthorized)
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	tag := tagOf(body)
	w.Header().Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	answer.Bytes(w, http.StatusOK, body)
}

func (d *Device) fleetDocument(r *http.Request, actor auth.Actor) ([]byte, error) {
	fleet, release, err := d.db.FleetByUUID(r.Context(), r.PathValue("uuid"), r.URL.Query().Get("releaseUuid"))
	if err != nil {
		return nil, err
	}
	may, err := d.db.May(r.Context(), actor.Caller(), "application", access.Read, fleet)
	if err == nil && !may {
		err = model.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return d.targets.ofFleet(r.Context(), fleet, release)
}
