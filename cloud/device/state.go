package device

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"deckhand/cloud/answer"
	"deckhand/cloud/auth"
	"deckhand/cloud/model"
)

// knownState is the encoded target of a device, right as long as the version
// of the feed is the same.
type knownState struct {
	device  model.Device
	version uint64
	etag    string
	body    []byte
	poll    time.Duration
}

// state is the device's target, encoded; from memory when nothing changed.
func (d *Device) state(ctx context.Context, uuid string) (*knownState, error) {
	d.mu.Lock()
	known := d.states[uuid]
	d.mu.Unlock()
	if known != nil && known.version == d.version(known.device) {
		return known, nil
	}
	device, err := d.find(ctx, uuid)
	if err != nil {
		return nil, err
	}
	if device == nil {
		return nil, model.ErrNotFound
	}
	// Read before the target: a change in between makes the entry old, not wrong.
	version := d.version(*device)
	target, err := d.db.Target(ctx, uuid)
	if err != nil {
		return nil, err
	}
	body, poll, err := document(target, d.poll)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	known = &knownState{device: target.Device, version: version, body: body, poll: poll,
		etag: `W/"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.states[uuid] = known
	return known, nil
}

func (d *Device) version(device model.Device) uint64 {
	return d.db.Changes().Version(model.TargetTopics(device.ID, device.Fleet)...)
}

func (d *Device) getState(w http.ResponseWriter, r *http.Request) {
	uuid := r.PathValue("uuid")
	known, err := d.state(r.Context(), uuid)
	if errors.Is(err, model.ErrNotFound) {
		// A deleted device keeps running what it has.
		answer.Empty(w, http.StatusNotModified)
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	actor, ok := d.reader(w, r, known.device)
	if !ok {
		return
	}
	if actor.Kind == auth.Device {
		d.presence.enter(r.Context(), known.device.ID, known.poll)
		defer d.presence.leave(known.device.ID)
	}
	wait := d.wait(r)
	if wait > 0 {
		w.Header().Set("Preference-Applied", "wait")
		known, err = d.hold(r.Context(), uuid, known, r.Header.Get("If-None-Match"), wait)
	}
	if errors.Is(err, model.ErrNotFound) {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	if err != nil {
		answer.Failure(w, r, err)
		return
	}
	w.Header().Set("ETag", known.etag)
	w.Header().Set("Cache-Control", "no-cache")
	if matches(r.Header.Get("If-None-Match"), known.etag) {
		answer.Empty(w, http.StatusNotModified)
		return
	}
	answer.Bytes(w, http.StatusOK, known.body)
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

// hold waits until the device's state no longer matches the tag, at most for
// the given time or until the client leaves or the cloud stops.
func (d *Device) hold(ctx context.Context, uuid string, known *knownState, tag string, wait time.Duration) (*knownState, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		fleet := known.device.Fleet
		changes := d.db.Changes().Watch(model.TargetTopics(known.device.ID, fleet)...)
		for known.device.Fleet == fleet { // another fleet: other topics
			var err error
			if known, err = d.state(ctx, uuid); err != nil || !matches(tag, known.etag) {
				changes.Stop()
				return known, err
			}
			select {
			case <-changes.C():
			case <-timer.C:
				changes.Stop()
				return known, nil
			case <-ctx.Done():
				changes.Stop()
				return known, nil
			}
		}
		changes.Stop()
	}
}

// matches says whether an If-None-Match header names the tag. Tags compare
// weakly.
func matches(header, etag string) bool {
	for tag := range strings.SplitSeq(header, ",") {
		tag = strings.TrimSpace(tag)
		if tag == "*" || (tag != "" && strings.TrimPrefix(tag, "W/") == strings.TrimPrefix(etag, "W/")) {
			return true
		}
	}
	return false
}
