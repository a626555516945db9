package builder

import (
	"context"
	"fmt"
	"time"

	"deckhand/build"
	"deckhand/build/event"
	"deckhand/cloud/model"
)

// destination is a release: images go to the registry, and how they ended to their rows.
type destination struct{ *job }

// Place is what the image's row says.
func (d destination) Place(service string) (image int64, location string) {
	return d.images[service].ID, d.images[service].Location
}

// Labels are of the fleet and not of the release: an unchanged service keeps its digest.
func (d destination) Labels(service string) map[string]string {
	return map[string]string{fleetLabel: fmt.Sprint(d.fleet.ID), serviceLabel: service}
}

// Begin marks the image as being made.
func (d destination) Begin(ctx context.Context, _ build.Service, o *build.Outcome) error {
	return d.b.db.StartImage(ctx, o.ImageID)
}

const pushAttempts = 3

// Deliver pushes the image to where the release says it is.
func (d destination) Deliver(ctx context.Context, s build.Service, id string, o *build.Outcome) error {
	d.out.emit(event.Event{Type: event.ServiceState, Service: s.Name, State: event.Pushing})
	ref := o.Location + ":latest"
	if err := d.b.engine.Tag(ctx, id, ref); err != nil {
		return err
	}
	defer d.b.engine.Untag(context.WithoutCancel(ctx), ref)
	if s.Built() {
		// A name of its own keeps the image, and so the local cache, when the one for the
		// push goes.
		_ = d.b.engine.Tag(ctx, id, fmt.Sprintf("deckhand-build/%d:%s", d.fleet.ID, s.Name))
	}
	pause := 2 * time.Second
	for attempt := 1; ; attempt++ {
		digest, err := d.pushOnce(ctx, o.Location, ref, s.Name)
		if err == nil {
			o.ContentHash = digest
			return nil
		}
		if attempt == pushAttempts || ctx.Err() != nil || build.Denied(err) {
			return fmt.Errorf("push the image: %w", err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
			pause = pause * 7 / 5
		}
	}
}

func (d destination) pushOnce(ctx context.Context, location, ref, service string) (string, error) {
	token, err := d.b.registryToken(d.user.subject, []string{model.Repository(location)}, "pull", "push")
	if err != nil {
		return "", err
	}
	return d.b.engine.Push(ctx, ref, build.TokenAuth(token), d.build.Progress("push", service), func(status string) {
		d.out.emit(event.Event{Type: event.Log, Service: service, Text: status})
	})
}

// Store writes the image's row.
func (d destination) Store(ctx context.Context, s build.Service, o *build.Outcome) {
	r := model.ImageResult{
		Status: o.Status, ContentHash: o.ContentHash, ProjectType: o.Kind, ErrorMessage: o.Error,
		BuildLog: o.Log.String(), Dockerfile: o.Dockerfile, Size: o.Size,
	}
	if o.Status == event.StatusSuccess {
		r.PushedAt = o.EndedAt
	}
	if err := d.b.db.FinishImage(context.WithoutCancel(ctx), o.ImageID, r); err != nil {
		d.log.Error().Err(err).Str("service", s.Name).Msg("finish image")
		o.Status, o.Error = event.StatusError, err.Error()
		return
	}
	o.Stored = true
}
